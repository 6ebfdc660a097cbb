package wire

// A Train is frames that go the same way as the packet that they hang on, and behind it:
// what many packets would carry, without the cost of a packet for each. It is the packet's
// owner (tcpip.PacketOwner). The packet may have no octets of its own, and is then nothing
// but what pulls the train.
//
// Each frame begins with its virtio-net header. The frames are borrowed for the call that
// delivers or writes the packet; whoever keeps the packet must take the train off.
type Train struct{ Frames [][]byte }

// TrainOf returns the train of a packet with that owner, or nil.
func TrainOf(owner any) *Train {
	t, _ := owner.(*Train)
	return t
}

// KUID and KGID say nothing.
func (*Train) KUID() uint32 { return 0 }

// KGID is told at KUID.
func (*Train) KGID() uint32 { return 0 }

package hook

import (
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/link/nested"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// under is the nested.Endpoint of a hook. A frame on its way up finds what is above without
// the lock of nested.Endpoint, which all queues of a link would share.
type under struct {
	nested.Endpoint
	above atomic.Pointer[stack.NetworkDispatcher]
}

// Attach implements stack.LinkEndpoint.
func (u *under) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		u.above.Store(nil)
	} else {
		u.above.Store(&d)
	}
	u.Endpoint.Attach(d)
}

// DeliverNetworkPacket implements stack.NetworkDispatcher.
func (u *under) DeliverNetworkPacket(proto tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	if d := u.above.Load(); d != nil {
		(*d).DeliverNetworkPacket(proto, pkt)
	}
}

//go:build linux

package ethtap

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// Verdicts of a classifier. actNext is TCX_NEXT and TC_ACT_UNSPEC alike, so that
// the programs and filters of others still run; TC_ACT_OK would end the chain.
const (
	actNext = -1
	actShot = 2
)

const (
	skbMark      = 8 // offset of mark in struct __sk_buff
	redirIngress = 1 // BPF_F_INGRESS
)

// programs are the four, loaded for one map.
type programs struct {
	kernelIn, wireIn, ethIn, ethOut *ebpf.Program
	// Of the two-NIC form only.
	insideIn, insideOut, insideDirect, outsideDirect *ebpf.Program
}

// A source is a program before it is loaded.
type source struct {
	to   **ebpf.Program
	name string
	code asm.Instructions
}

// sources are the programs of either form.
func (p *programs) sources(c *cut, twoNIC bool) []source {
	if twoNIC {
		return []source{
			{&p.kernelIn, "bitw_htap_in", tapProgram(c, offKernelWrite, offKernelDeny, offInsideIndex, 0)},
			{&p.wireIn, "bitw_ltap_in", tapProgram(c, offWireWrite, offWireDeny, offEthIndex, 0)},
			{&p.insideIn, "bitw_in_in", insideProgram(c)},
			{&p.insideOut, "bitw_in_out", guardProgram(c, offInsideOwn)},
			{&p.insideDirect, "bitw_in_direct", directProgram(c, offEthIndex)},
			{&p.ethIn, "bitw_eth_in", outsideProgram(c)},
			{&p.ethOut, "bitw_eth_out", guardProgram(c, offOutsideOwn)},
			{&p.outsideDirect, "bitw_eth_dir", directProgram(c, offInsideIndex)},
		}
	}
	return []source{
		{&p.kernelIn, "bitw_htap_in", tapProgram(c, offKernelWrite, offKernelDeny, offEthIndex, redirIngress)},
		{&p.wireIn, "bitw_ltap_in", tapProgram(c, offWireWrite, offWireDeny, offEthIndex, 0)},
		{&p.ethIn, "bitw_eth_in", ethProgram(c, offWireState, offKernelState, offWireIndex, offWireCut, offWireTaken, offWireDone, offWireOpen)},
		{&p.ethOut, "bitw_eth_out", ethProgram(c, offKernelState, offWireState, offKernelIndex, offKernelCut, offKernelTaken, offKernelDone, offKernelOpen)},
	}
}

func loadPrograms(c *cut, twoNIC bool) (*programs, error) {
	p := new(programs)
	for _, s := range p.sources(c, twoNIC) {
		prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Name: s.name, Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: s.code,
		})
		if err != nil {
			p.close()
			var ve *ebpf.VerifierError
			if errors.As(err, &ve) {
				return nil, fmt.Errorf("the kernel's verifier refuses %s: %+v", s.name, ve)
			}
			if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.ENOSYS) {
				return nil, because(ErrNoHook, "kernel %s cannot load classifier programs (CONFIG_BPF_SYSCALL, Linux 5.8)", kernelRelease())
			}
			return nil, fmt.Errorf("load %s: %w", s.name, err)
		}
		*s.to = prog
	}
	return p, nil
}

func (p *programs) close() {
	for _, prog := range []*ebpf.Program{p.kernelIn, p.wireIn, p.ethIn, p.ethOut, p.insideIn, p.insideOut, p.insideDirect, p.outsideDirect} {
		if prog != nil {
			prog.Close()
		}
	}
}

// ethProgram stands on the interface, at egress for the kernel's frames and at
// ingress for the wire's.
func ethProgram(c *cut, mine, other, dev, dropped, taken, done, open int16) asm.Instructions {
	p := append(prologue(c), ownFrames()...)
	p = append(p, stateProgram(mine, other, dev, dropped, taken, done, open)...)
	return append(p,
		asm.Mov.Imm(asm.R1, 0).WithSymbol("own"),
		asm.StoreMem(asm.R6, skbMark, asm.R1, asm.Word),
		asm.Mov.Imm(asm.R0, actNext).WithSymbol("next"),
		asm.Return())
}

// prologue keeps the frame in R6 and the cut in R7.
func prologue(c *cut) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMapValue(asm.R7, c.m.FD(), 0),
	}
}

// ownFrames goes to "own" with a frame that this appliance wrote. What follows there
// takes the mark off, so that no rule of the host ever sees it.
func ownFrames() asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R1, asm.R6, skbMark, asm.Word),
		asm.LoadMem(asm.R2, asm.R7, offMark, asm.Word),
		asm.JEq.Reg(asm.R1, asm.R2, "own"),
	}
}

// stateProgram does with a frame what the states say, and goes to "next" with one that
// passes by itself. mine is the state of the tap on the side from which
// the frame comes, other that of the opposite one, dev the tap's ifindex.
func stateProgram(mine, other, dev, dropped, taken, done, open int16) asm.Instructions {
	return asm.Instructions{
		// The dead man's switch: past the deadline nobody is there to pump.
		asm.LoadMem(asm.R8, asm.R7, offDeadline, asm.DWord),
		asm.JEq.Imm(asm.R8, 0, "alive"),
		asm.FnKtimeGetNs.Call(),
		asm.JLE.Reg(asm.R0, asm.R8, "alive"),
		asm.Mov.Imm(asm.R1, 1),
		asm.AddAtomic.Mem(asm.R7, asm.R1, asm.DWord, open),
		asm.Ja.Label("next"),

		// One load for both states: between two, SetStates could make a frame see the
		// one as it was and the other as it is.
		asm.LoadMem(asm.R8, asm.R7, offKernelState, asm.DWord).WithSymbol("alive"),
		asm.Mov.Reg(asm.R9, asm.R8),
		asm.RSh.Imm(asm.R9, halfShift(mine)),
		asm.And.Imm(asm.R9, 0xffff),
		asm.JEq.Imm(asm.R9, int32(Active), "active"),
		asm.JEq.Imm(asm.R9, int32(draining), "draining"),
		asm.JNE.Imm(asm.R9, int32(Passive), "other"),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.LoadMem(asm.R2, asm.R7, dev, asm.Word),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnCloneRedirect.Call(),

		// The opposite tap is Active: only what is written to it may pass.
		asm.RSh.Imm(asm.R8, halfShift(other)).WithSymbol("other"),
		asm.And.Imm(asm.R8, 0xffff),
		asm.JNE.Imm(asm.R8, int32(Active), "next"),
		asm.Mov.Imm(asm.R1, 1),
		asm.AddAtomic.Mem(asm.R7, asm.R1, asm.DWord, dropped),
		asm.Mov.Imm(asm.R0, actShot),
		asm.Return(),

		asm.LoadMem(asm.R1, asm.R7, taken, asm.DWord).WithSymbol("draining"),
		asm.Add.Imm(asm.R1, 1),
		asm.LoadMem(asm.R2, asm.R7, done, asm.DWord),
		asm.JEq.Reg(asm.R1, asm.R2, "next"),

		asm.Mov.Imm(asm.R1, 1).WithSymbol("active"),
		asm.AddAtomic.Mem(asm.R7, asm.R1, asm.DWord, taken),
		asm.LoadMem(asm.R1, asm.R7, dev, asm.Word),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirect.Call(),
		asm.Return(),
	}
}

// halfShift is by how many bits the uint16 at an offset of the first word of the
// cut is shifted in it, on this machine.
func halfShift(off int16) int32 {
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return 8 * int32(off)
	}
	return 8 * (6 - int32(off))
}

// tapProgram stands at the ingress of a tap, where written frames appear, and
// sends them to the interface at to: into the kernel with redirIngress, out by the NIC
// with 0.
func tapProgram(c *cut, write, denied, to int16, flags int32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMapValue(asm.R7, c.m.FD(), 0),
		asm.LoadMem(asm.R1, asm.R7, write, asm.Half),
		asm.JEq.Imm(asm.R1, 0, "denied"),
		asm.LoadMem(asm.R1, asm.R7, offMark, asm.Word),
		asm.StoreMem(asm.R6, skbMark, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, asm.R7, to, asm.Word),
		asm.Mov.Imm(asm.R2, flags),
		asm.FnRedirect.Call(),
		asm.Return(),

		asm.Mov.Imm(asm.R1, 1).WithSymbol("denied"),
		asm.AddAtomic.Mem(asm.R7, asm.R1, asm.DWord, denied),
		asm.Mov.Imm(asm.R0, actShot),
		asm.Return(),
	}
}

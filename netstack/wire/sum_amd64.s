#include "textflag.h"

// Each vector of 32 octets is eight words of 32 bits. Those in even places, masked, and
// those in odd places, shifted down, are added to lanes of 64 bits, which cannot
// overflow.

#define ADD(v, t, even, odd) \
	VPSRLQ $32, v, t; \
	VPAND  v, Y15, v; \
	VPADDQ t, odd, odd; \
	VPADDQ v, even, even

#define ZERO \
	VPXOR    Y8, Y8, Y8; \
	VPXOR    Y9, Y9, Y9; \
	VPXOR    Y10, Y10, Y10; \
	VPXOR    Y11, Y11, Y11; \
	VPCMPEQD Y15, Y15, Y15; \
	VPSRLQ   $32, Y15, Y15

#define FOLD \
	VPADDQ       Y9, Y8, Y8; \
	VPADDQ       Y11, Y10, Y10; \
	VPADDQ       Y10, Y8, Y8; \
	VEXTRACTI128 $1, Y8, X9; \
	VPADDQ       X9, X8, X8; \
	VPSRLDQ      $8, X8, X9; \
	VPADDQ       X9, X8, X8; \
	VMOVQ        X8, AX; \
	VZEROUPPER

// func sumVectors(b *byte, n int) uint64
TEXT ·sumVectors(SB), NOSPLIT, $0-24
	MOVQ b+0(FP), SI
	MOVQ n+8(FP), CX
	ZERO
	CMPQ CX, $128
	JB   one

four:
	VMOVDQU 0(SI), Y0
	VMOVDQU 32(SI), Y1
	VMOVDQU 64(SI), Y2
	VMOVDQU 96(SI), Y3
	ADD(Y0, Y4, Y8, Y9)
	ADD(Y1, Y5, Y10, Y11)
	ADD(Y2, Y6, Y8, Y9)
	ADD(Y3, Y7, Y10, Y11)
	ADDQ $128, SI
	SUBQ $128, CX
	CMPQ CX, $128
	JAE  four

one:
	CMPQ CX, $32
	JB   done
	VMOVDQU 0(SI), Y0
	ADD(Y0, Y4, Y8, Y9)
	ADDQ  $32, SI
	SUBQ  $32, CX
	JMP   one

done:
	FOLD
	MOVQ AX, ret+16(FP)
	RET

// func copySumVectors(dst, src *byte, n int) uint64
TEXT ·copySumVectors(SB), NOSPLIT, $0-32
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX
	ZERO
	CMPQ CX, $128
	JB   one

four:
	VMOVDQU 0(SI), Y0
	VMOVDQU 32(SI), Y1
	VMOVDQU 64(SI), Y2
	VMOVDQU 96(SI), Y3
	VMOVDQU Y0, 0(DI)
	VMOVDQU Y1, 32(DI)
	VMOVDQU Y2, 64(DI)
	VMOVDQU Y3, 96(DI)
	ADD(Y0, Y4, Y8, Y9)
	ADD(Y1, Y5, Y10, Y11)
	ADD(Y2, Y6, Y8, Y9)
	ADD(Y3, Y7, Y10, Y11)
	ADDQ $128, SI
	ADDQ $128, DI
	SUBQ $128, CX
	CMPQ CX, $128
	JAE  four

one:
	CMPQ CX, $32
	JB   done
	VMOVDQU 0(SI), Y0
	VMOVDQU Y0, 0(DI)
	ADD(Y0, Y4, Y8, Y9)
	ADDQ  $32, SI
	ADDQ  $32, DI
	SUBQ  $32, CX
	JMP   one

done:
	FOLD
	MOVQ AX, ret+24(FP)
	RET

// func prefetchLines(b *byte, n int)
TEXT ·prefetchLines(SB), NOSPLIT, $0-16
	MOVQ b+0(FP), SI
	MOVQ n+8(FP), CX

line:
	PREFETCHT0 0(SI)
	ADDQ $64, SI
	SUBQ $64, CX
	JG   line
	RET

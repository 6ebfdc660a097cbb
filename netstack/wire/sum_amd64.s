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

// TAIL adds the last CX octets, fewer than 32, of those that end at SI+CX, of which 32 are in
// v: what a vector before has added is masked out.
#define TAIL(v, t) \
	LEAQ    tailMask<>(SB), DX; \
	VPAND   (DX)(CX*1), v, v; \
	ADD(v, t, Y8, Y9)

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

DATA tailMask<>+0(SB)/8, $0
DATA tailMask<>+8(SB)/8, $0
DATA tailMask<>+16(SB)/8, $0
DATA tailMask<>+24(SB)/8, $0
DATA tailMask<>+32(SB)/8, $-1
DATA tailMask<>+40(SB)/8, $-1
DATA tailMask<>+48(SB)/8, $-1
DATA tailMask<>+56(SB)/8, $-1
GLOBL tailMask<>(SB), RODATA|NOPTR, $64

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
	JB   tail
	VMOVDQU 0(SI), Y0
	ADD(Y0, Y4, Y8, Y9)
	ADDQ  $32, SI
	SUBQ  $32, CX
	JMP   one

tail:
	TESTQ CX, CX
	JE    done
	VMOVDQU -32(SI)(CX*1), Y0
	TAIL(Y0, Y4)

done:
	FOLD
	MOVQ AX, ret+16(FP)
	RET

// func copySumVectors(dst, src *byte, n, ahead int) uint64
TEXT ·copySumVectors(SB), NOSPLIT, $0-40
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX
	MOVQ ahead+24(FP), R8
	ZERO
	CMPQ CX, $128
	JB   one

four:
	PREFETCHT0 0(SI)(R8*1)
	PREFETCHT0 64(SI)(R8*1)
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
	JB   tail
	PREFETCHT0 0(SI)(R8*1)
	VMOVDQU 0(SI), Y0
	VMOVDQU Y0, 0(DI)
	ADD(Y0, Y4, Y8, Y9)
	ADDQ  $32, SI
	ADDQ  $32, DI
	SUBQ  $32, CX
	JMP   one

tail:
	TESTQ CX, CX
	JE    done
	VMOVDQU -32(SI)(CX*1), Y0
	VMOVDQU Y0, -32(DI)(CX*1)
	TAIL(Y0, Y4)

done:
	FOLD
	MOVQ AX, ret+32(FP)
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

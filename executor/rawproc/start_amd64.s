#include "textflag.h"

// func startProcess(flags uintptr, first *call) uintptr
TEXT ·startProcess(SB), NOSPLIT, $0-24
	MOVQ	flags+0(FP), DI
	MOVQ	first+8(FP), R12
	XORL	SI, SI	// the stack pointer stays as it is
	XORL	DX, DX
	XORL	R10, R10
	XORL	R8, R8
	MOVL	$56, AX	// clone
	SYSCALL
	TESTQ	AX, AX
	JEQ	next
	MOVQ	AX, ret+16(FP)
	RET

	// The new process: from here on there is no stack. The kernel keeps R12.
next:
	MOVQ	0(R12), AX
	MOVQ	8(R12), DI
	MOVQ	16(R12), SI
	MOVQ	24(R12), DX
	MOVQ	32(R12), R10
	MOVQ	40(R12), R8
	MOVQ	48(R12), R9
	SYSCALL
	MOVQ	AX, 56(R12)
	TESTQ	AX, AX
	JGE	done
	CMPQ	64(R12), $0
	JNE	failed
done:
	ADDQ	$72, R12
	JMP	next
failed:
	MOVL	$231, AX	// exit_group
	MOVL	$127, DI
	SYSCALL
	JMP	failed

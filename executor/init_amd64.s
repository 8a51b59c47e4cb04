#include "textflag.h"

// initProgram is the code of process 1 of a step; see init.go. It is not called: it is copied into a program of its own.
// At its start the stack pointer points to argc and, behind it, argv.
TEXT ·initProgram(SB), NOSPLIT|NOFRAME, $0-0
	MOVL	$15, DI	// PR_SET_NAME
	MOVQ	8(SP), SI	// argv[0]
	MOVL	$157, AX	// prctl
	SYSCALL
	MOVL	$4, DI	// PR_SET_DUMPABLE
	XORL	SI, SI
	MOVL	$157, AX	// prctl
	SYSCALL
	XORL	DI, DI
	MOVQ	8(SP), SI
	MOVL	$1, DX
	MOVL	$1, AX	// write
	SYSCALL
	// The other end is closed when the step, or the program that runs it, has ended.
again:
	XORL	DI, DI
	MOVQ	SP, SI
	MOVL	$1, DX
	XORL	AX, AX	// read
	SYSCALL
	CMPL	AX, $-4	// EINTR
	JEQ	again
	XORL	DI, DI
	MOVL	$231, AX	// exit_group
	SYSCALL
	UNDEF

// func initCode() *byte
TEXT ·initCode(SB), NOSPLIT, $0-8
	LEAQ	·initProgram(SB), AX
	MOVQ	AX, ret+0(FP)
	RET

#include "textflag.h"

// initProgram is the code of process 1 of a step; see init.go. It is not called: it is copied into a program of its own.
// At its start the stack pointer points to argc and, behind it, argv.
TEXT ·initProgram(SB), NOSPLIT|NOFRAME, $0-0
	MOVD	$15, R0	// PR_SET_NAME
	MOVD	8(RSP), R1	// argv[0]
	MOVD	$167, R8	// prctl
	SVC
	MOVD	$4, R0	// PR_SET_DUMPABLE
	MOVD	$0, R1
	MOVD	$167, R8	// prctl
	SVC
	MOVD	$0, R0
	MOVD	8(RSP), R1
	MOVD	$1, R2
	MOVD	$64, R8	// write
	SVC
	// The other end is closed when the step, or the program that runs it, has ended.
again:
	MOVD	$0, R0
	MOVD	RSP, R1
	MOVD	$1, R2
	MOVD	$63, R8	// read
	SVC
	CMN	$4, R0	// EINTR
	BEQ	again
	MOVD	$0, R0
	MOVD	$94, R8	// exit_group
	SVC
	UNDEF

// func initCode() *byte
TEXT ·initCode(SB), NOSPLIT, $0-8
	MOVD	$·initProgram(SB), R0
	MOVD	R0, ret+0(FP)
	RET

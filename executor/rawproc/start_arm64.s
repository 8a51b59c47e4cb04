#include "textflag.h"

// func startProcess(flags uintptr, first *call) uintptr
TEXT ·startProcess(SB), NOSPLIT, $0-24
	MOVD	flags+0(FP), R0
	MOVD	first+8(FP), R9
	MOVD	$0, R1	// the stack pointer stays as it is
	MOVD	$0, R2
	MOVD	$0, R3
	MOVD	$0, R4
	MOVD	$220, R8	// clone
	SVC
	CBZ	R0, next
	MOVD	R0, ret+16(FP)
	RET

	// The new process: from here on there is no stack. The kernel keeps R9.
next:
	MOVD	0(R9), R8
	MOVD	8(R9), R0
	MOVD	16(R9), R1
	MOVD	24(R9), R2
	MOVD	32(R9), R3
	MOVD	40(R9), R4
	MOVD	48(R9), R5
	SVC
	MOVD	R0, 56(R9)
	TBZ	$63, R0, done
	MOVD	64(R9), R1
	CBNZ	R1, failed
done:
	ADD	$72, R9
	B	next
failed:
	MOVD	$94, R8	// exit_group
	MOVD	$127, R0
	SVC
	B	failed

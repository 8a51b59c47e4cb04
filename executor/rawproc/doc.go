// Package rawproc starts processes that make a list of system calls and run no Go code. Such a
// process costs a tenth of the CPU of starting this program again.
//
// A [Process] shares this program's memory and has a copy of its descriptors until it closes them.
// While it has the copy of a descriptor that is open for writing, the kernel does not execute that
// file: execve(2) fails with ETXTBSY, also after this program has closed the file
// (https://go.dev/issue/22315). [Settle] waits until no earlier process has a copy. A program that
// writes files for others to execute calls it in between.
//
// It imports no other package of the module. It makes system calls, and starts processes that make
// the caller's system calls.
//
// To test it, run go test ./executor/rawproc. It needs no rights.
package rawproc

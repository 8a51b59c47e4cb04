// Package subprocess starts programs of this machine that end when this program ends: git, docker,
// credential helpers.
//
// It imports no other package of the module. It makes system calls to end processes. It starts
// programs with the caller's arguments.
//
// To test it, run go test ./internal/subprocess as any user.
package subprocess

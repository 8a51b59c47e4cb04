// Package subprocess starts programs of this machine that end when this program ends: git, docker,
// credential helpers.
//
// It imports no other package of the module. It makes system calls to end processes. It starts
// programs, and passes on what the caller gives them.
//
// To test it, run go test ./internal/subprocess as any user.
package subprocess

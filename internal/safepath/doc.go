// Package safepath opens names inside a directory so that no link or ".." leads out of it.
//
// It is based on openat2(2) (Linux 5.6). Paths come from images, archives and contexts, so they may
// be hostile: the kernel resolves them in one call, and the package never checks a path first and
// opens it later.
//
// It imports no other package of the module. It makes system calls, and makes files only if a
// caller requests it.
//
// To test it, run go test ./internal/safepath as any user. FuzzMkdirAll makes hostile paths.
package safepath

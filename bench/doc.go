// Command bench measures layerbuild beside buildah and dockerd: the same Dockerfiles, in turn, with
// the time, CPU and memory of each tool and of everything that it starts. It writes
// docs/BENCHMARKS.md.
//
// It imports diff and counting. It starts builders, daemons and a registry on loopback, makes
// control groups, and mounts a file system for their stores. It removes all of these when it ends.
// make bench runs it, as root.
//
// To test it, run go test ./bench: it runs the whole program with tiny sizes, on layerbuild alone,
// as root or as a user who may make user namespaces. That needs a static busybox.
package main

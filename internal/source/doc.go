// Package source reads the files that a build copies: from build contexts, trees of other stages,
// downloads and git repositories.
//
// It finds the files that a COPY or ADD names, the order in which they are copied, and the digest
// of their content. It does not copy: the executor does, from the directory descriptors and lists
// that this package returns.
//
// It imports atomicfile, dirfd, fileentry, giturl, hostfile, pattern, safepath, subprocess, unpack
// and volume. It makes system calls, runs git and uses the network, and writes to temporary
// directories and to the index of a context only.
//
// To test it, run go test ./internal/source as any user; some tests need root. The tests use
// temporary directories, a local HTTP server and local git repositories. FuzzDownload, FuzzIgnore
// and FuzzMatch read hostile input.
package source

// Package copyfs copies files into the root directory of an image: COPY, ADD and WORKDIR.
//
// [Run] performs a [Copy]. It resolves the destination inside the root, whatever links the image
// has, and follows no link at the source. It compares each file with the values that were digested
// for the step's key, and returns a [ChangedError] if they differ. [Mkdir] makes a directory. The
// [Result] counts the attributes that cannot be kept, such as owners in a user namespace with a
// single id. If a Copy only copies a directory into an empty one, [Copy.Directory] describes the
// change, so that a layer can be written from the source's files.
//
// It imports dirfd, filedata, fileentry and safepath. It makes system calls, reads the open
// directories that a Copy has, and writes below the root. It starts no process and makes no mount:
// package executor calls it in a mount namespace in which the image is the root.
//
// To test it, run go test ./executor/copyfs as any user. As root it also sets owners.
package copyfs

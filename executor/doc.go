// Package executor runs one step in namespaces of its own.
//
// [Run] locks a goroutine to a thread and moves the thread into a new mount namespace. The thread
// mounts the step's root file system there, where no other process sees it, makes it its root with
// pivot_root(2) and detaches the old root. Then it starts a command ([Process]), copies files into
// the root ([copyfs.Copy]) or makes a directory ([Mkdir]). Names are therefore resolved inside the
// image, whatever links the image has. If the build is killed, neither a process nor a mount
// remains. If a thread is not enough (a terminal, an archive to unpack, an old kernel), the program
// starts itself again as the step's child process, in which [Main] takes over.
//
// It imports executor/copyfs, executor/rawproc, dirfd, fileentry, mount, platform, safepath and
// sorting. It makes system calls and mounts, starts processes, and reads and writes only the
// directories that a [Spec] names. It brings up the loopback interface of a step that has no
// network, and opens no connections. It does not know Dockerfiles, snapshots or layers.
//
// To test it, run go test ./executor as root, or as a user who may make user namespaces. The tests
// need a static busybox and make their images from it. TestInChild and TestRootless run the other
// tests again in a child process and in user namespaces. FuzzUser reads passwd files, FuzzWire the
// messages between the processes.
package executor

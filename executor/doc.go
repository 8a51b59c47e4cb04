// Package executor runs one step in namespaces of its own.
//
// Run takes a thread out of this program's mount namespace. The thread performs the mounts of the step's root file
// system where nobody else can see them, makes that root its own with pivot_root and lets go of the old one, and then
// starts a command ([Process]), copies files in ([Copy]) or makes a directory ([Mkdir]). Names are therefore resolved
// inside the image by construction, whatever links the image has, and a build that is killed leaves neither a process
// nor a mount behind. Where a thread will not do (a terminal, a file system that a program serves, an old kernel) this
// very program is started again for the step ([Main] takes over there).
//
// The package knows nothing of Dockerfiles, snapshots or layers.
package executor

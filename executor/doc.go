// Package executor runs one step in a namespaced child.
//
// Run starts this very program again ([Main] takes over there) inside new namespaces. The child performs the mounts
// of the step's root file system where nobody else can see them, makes that root its own with pivot_root and lets
// go of the old one, and then runs a command ([Process]), copies files in ([Copy]) or makes a directory ([Mkdir]).
// Names are therefore resolved inside the image by construction, whatever links the image has, and a build that is
// killed leaves neither a process nor a mount behind.
//
// The package knows nothing of Dockerfiles, snapshots or layers.
package executor

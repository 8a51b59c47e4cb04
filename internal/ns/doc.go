// Package ns moves the program into its namespaces, once, when it starts.
//
// Root with CAP_SYS_ADMIN needs no namespace: the program reads files through detached mounts, and
// makes a step's mounts in the step's own namespace. Any other user needs a user namespace, in
// which that user is root, and a mount namespace that belongs to it. A process can only enter a
// user namespace while it has one thread, and a Go program always has several. So the program
// starts itself again in the namespace, and the first process only waits. That costs one start of
// the program and of newuidmap and newgidmap for each build, which is less than the cost of a user
// namespace for each step.
//
// It imports smallfile and sorting. It makes system calls, reads /etc/subuid and /etc/subgid, and
// starts newuidmap, newgidmap and the program itself.
//
// To test it, run go test ./internal/ns as root, which makes users and runs the test program as
// them; other users skip that. FuzzSubIDs reads files of subordinate ids.
package ns

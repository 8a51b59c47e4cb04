// Command layerbuild builds OCI images from Dockerfiles, without a daemon.
//
// Each verb has a file of its own, cmd_VERB.go, with its options, flags and run function. The flags
// of build are parsed in buildoptions.go and, by subject, in contexts.go, isolation.go, outputs.go
// and secrets.go. The whole command line of a verb is checked before the verb does any work.
//
// It imports the packages that internal/arch lists. It makes no system calls itself. The packages
// that it calls make them, after package ns has moved the process into its namespaces.
//
// To test it, run go test ./cmd/layerbuild, as root or as a user who may make user namespaces. Each
// file of testdata/script is a behaviour of the command line, run with the program that LAYERBUILD
// names, or with a new one. FuzzFlags and FuzzCommandLine read random arguments.
package main

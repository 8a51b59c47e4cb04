// Package copyfstest makes and lists the files of tests of copying, and has the cases that copyfs
// must pass in every environment.
//
// It imports executor/copyfs and fileentry. It makes system calls, and files below temporary
// directories. It is for tests only.
//
// It is run by go test ./executor/copyfs as any user, and by go test ./executor, which runs the
// cases in namespaces.
package copyfstest

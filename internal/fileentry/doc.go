// Package fileentry describes a file of a COPY: its path, and the values that it had when it was
// digested for the step's key.
//
// Package source lists the entries of a COPY. Package copyfs copies the files, and package diff
// writes a layer from them. Both use [Entry.Same] to detect files that have changed since.
//
// It imports no other package of the module. It does no I/O.
//
// To test it, run go test ./internal/fileentry as any user.
package fileentry

// Package filedata copies the contents of open files.
//
// It imports dirfd. It makes system calls to copy, and to find holes. It does not open files, and
// does not copy their attributes.
//
// To test it, run go test ./internal/filedata; the test of shared blocks needs root.
package filedata

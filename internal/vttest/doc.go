// Package vttest is a terminal for tests. It accepts only the sequences that a view may send, has
// the screen that a user would see, and fails the test on any other sequence.
//
// It imports no other package of the module. It does no I/O. It is for tests only.
//
// It is tested by its users: go test ./internal/ui ./analyze/browse, as any user.
package vttest

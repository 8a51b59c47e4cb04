// Package vttest is a terminal for tests. It knows exactly the sequences that a view may send,
// shows what a user would see, and fails the test on anything else.
//
// It imports no other package of the module. It does no I/O. It is for tests only.
//
// It is tested by its users: go test ./internal/ui ./analyze/browse, as any user.
package vttest

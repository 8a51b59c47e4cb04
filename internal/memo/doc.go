// Package memo computes a value once for each key and returns it to all callers.
//
// It imports no other package of the module. It has no side effects of its own and starts no
// goroutines: the first caller computes the value.
//
// To test it, run go test ./internal/memo as any user.
package memo

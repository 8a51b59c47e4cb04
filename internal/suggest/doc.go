// Package suggest finds the option, flag or name that a user may have meant by a misspelled word,
// for error messages.
//
// It imports no other package of the module. It does no I/O.
//
// To test it, run go test ./internal/suggest as any user.
package suggest

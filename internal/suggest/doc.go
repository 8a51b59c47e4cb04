// Package suggest finds the word that a misspelled word may stand for: the option, flag or name
// that a message then proposes.
//
// It imports no other package of the module. It does no I/O.
//
// To test it, run go test ./internal/suggest as any user.
package suggest

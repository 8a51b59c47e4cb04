// Package counting is a proxy that counts the bytes and the requests that pass through it, for
// tests and measurements.
//
// It imports no other package of the module. It listens on loopback. It is for tests and bench
// only.
//
// To test it, run go test ./internal/counting as any user.
package counting

// Package remotecachetest has the tests that every remotecache.Store must pass, and a store in
// memory.
//
// It imports image, registry, remotecache and state. It uses a temporary directory as the state of
// each machine. It is for tests only.
//
// To test it, run go test ./internal/remotecache/remotecachetest as any user: the store in memory
// passes the tests.
package remotecachetest

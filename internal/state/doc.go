// Package state opens, syncs and collects the state directory, which contains the data that are
// kept between builds: images, snapshots and the cache.
//
// It imports executor, cache, lock, ns, ocijson, smallfile, sorting, state/ledger, store, volume
// and snapshot. It makes system calls to sync file systems and to measure them, and writes only
// below the state directory. It starts no processes.
//
// To test it, run go test ./internal/state as any user; the tests use the best snapshot driver that
// works on the machine. test/state damages, fills and shares whole state directories.
package state

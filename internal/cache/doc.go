// Package cache keeps records of earlier work: under a step's key the snapshot that it made, under
// a chain ID the snapshot that a base image's layers were unpacked into, under a snapshot the layer
// that it was sealed as, and under an address a server's answer.
//
// A record is a small plain file, found by one open and one read; it is written to tmp/ and
// renamed. There is nothing to repair after a crash: a record that cannot be read is treated as
// missing.
//
// It imports atomicfile, smallfile and state/ledger. It writes only below its directory, and starts
// nothing.
//
// To test it, run go test ./internal/cache as any user. FuzzDecode reads damaged records.
//
// # When a record is trusted
//
// Neither records nor the snapshots that they name are synced to disk one by one. So each record
// carries a mark of the ledger of syncs. It is trusted if, by the ledger, the data that were
// written then are on disk, or still in memory.
package cache

// Package cache stores records of earlier work: for a step's key the snapshot that the step made,
// for a chain ID the snapshot into which a base image's layers were unpacked, for a snapshot the
// layer that was made from it, and for an address the answer of a server.
//
// A record is a small plain file, which is read with one open and one read. It is written to tmp/
// and renamed. Nothing has to be repaired after a crash: a record that cannot be read is treated as
// missing.
//
// It imports atomicfile, smallfile and state/ledger. It writes only below its directory, and starts
// no processes.
//
// To test it, run go test ./internal/cache as any user. FuzzDecode reads damaged records.
//
// # When a record is trusted
//
// Neither records nor the snapshots that they name are synced to disk one by one. So each record
// carries a mark of the ledger of syncs. It is trusted if the ledger shows that data written at
// that time are on the disk, or still in memory.
package cache

// Package ledger records which data of the state directory are known to be on the disk.
//
// Records and snapshots are not synced one by one, and overlay's volatile mounts are not synced at
// all. While the machine runs that does not matter: every process sees the data in memory. When the
// machine stops, a record can survive whose snapshot did not. So a writer stores a Mark with the
// data, and a reader calls Safe:
//
//	mark := l.Mark()        // after the data were written, stored beside them
//	…
//	if !l.Safe(mark) { … }  // the machine may have stopped before the data were on the disk
//
// A mark is safe in the boot in which it was made. It is safe in later boots if a sync has
// succeeded that was started after it was made. Clocks are not used: each boot counts the syncs
// that were started, and a mark contains the count.
//
// The ledger also contains the note that there is work to sync. It is removed when a sync has
// succeeded that was started after the work was done, and not earlier: a sync that fails or is
// killed leaves it.
//
// It imports atomicfile, lock and smallfile. It writes the file "syncs" of its directory. It does
// not sync; package state does.
//
// To test it, run go test ./internal/state/ledger as any user. FuzzParse reads damaged ledgers.
package ledger

// Package browse shows a report on the whole screen of a terminal.
//
// It imports analyze, dirfd, ui and units. It reads from and writes to its terminal, which it sets
// to raw mode and restores. It starts no processes.
//
// To test it, run go test ./analyze/browse as any user. The terminal is a virtual one
// (internal/vttest). testdata/walk-*.txt are golden screens, which -update rewrites. FuzzKeys reads
// random keys.
package browse

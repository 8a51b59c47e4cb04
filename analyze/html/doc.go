// Package html writes a report as one self-contained page: it needs no network, no server and no
// other file.
//
// It imports analyze, ui and units. It only writes to the given writer.
//
// To test it, run go test ./analyze/html as any user. The tests read the page, also one with
// hostile names.
package html

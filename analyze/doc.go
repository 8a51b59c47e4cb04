// Package analyze finds the bytes of an image that are not visible in it, and the instructions that
// caused them.
//
// It works on data only: layers as tar streams or as tables made of such streams, and facts about
// the instructions that made them. It does not read images itself, so that any program that has an
// image can use it.
//
// It imports giturl, markdown, pattern, sarif, sorting, units and unpack. It makes no system calls
// and opens no files.
//
// To test it, run go test ./analyze as any user. The tests make layers in memory and compare the
// counts with those of a naive implementation, on random images. FuzzTable, FuzzParseConfig and
// FuzzRemedy read hostile input.
//
// # Words
//
// A unit is the content of one inode in one layer: a file with all the names that its layer links
// to it. A unit is live when a path of the final file system refers to it, and dead otherwise. A
// dead unit has a creator (the layer that has its bytes), a killer (the layer that took away its
// last name) and one Reason. docs/WASTE.md has the definitions in full, with worked examples.
//
// The bytes of an image are always the sum of its live and its dead bytes. The dead bytes by
// creator, by killer and by reason each add up to the same number.
package analyze

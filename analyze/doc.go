// Package analyze finds the bytes that an image carries and nobody can see, and who put them there.
//
// It works on data alone: layers as streams of tar or as tables made of such streams, and what is known of the
// instructions that made them. It reads no image by itself, so that whatever has an image can ask it.
//
// # Words
//
// A unit is the content of one inode in one layer: a file with all the names that its layer links to it. A unit is
// live when a path of the final file system refers to it, and dead otherwise. A dead unit has a creator (the layer that
// has its bytes), a killer (the layer that took away its last name) and one Reason. docs/WASTE.md has the definitions
// in full, with worked examples.
//
// Always: the bytes of an image are its live and its dead ones; its dead bytes summed by creator, by killer and by
// reason are the same number.
package analyze

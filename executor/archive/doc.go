// Package archive unpacks the archives that ADD copies.
//
// It is separate from the executor because of its imports: the decompressors build their tables
// when a program starts, and a step's child that unpacks nothing should not spend time on that.
//
// It imports executor/copyfs and unpack. It reads the archive and writes below the destination that
// copyfs.UnpackOptions.Dest opens.
//
// It is tested by its users: go test ./executor unpacks archives in steps.
package archive

// Package sbom lists the software in an image: its software bill of materials.
//
// Scan reads the layers of an image, the lowest first, each once and as a stream. A cataloger reads
// each kind of file that lists or contains packages: the databases of package managers, the
// descriptions of single packages, and executables that record the modules they were built from.
// The result, a Document, has the packages of the image's final file system. Each names the layer
// that brought it: the one in which it first appears in the file that lists it. A package that was
// installed in the second layer therefore belongs to the second layer, even if the fourth rewrites
// the database.
//
// A Document is written as SPDX 2.3 or as CycloneDX 1.6. The same image gives the same bytes.
//
// It imports unpack. It makes no system calls and starts no processes. It reads layers through the
// caller's function and writes only temporary files: an executable or an archive that is too large
// for memory is copied to one.
//
// To test it, run go test ./internal/sbom as any user. The tests validate both formats with their
// published schemas. FuzzScan reads hostile layers; FuzzTexts, FuzzParagraphs, FuzzRPM, FuzzJava
// and FuzzExecutable read hostile files, and FuzzExpression hostile licenses.
package sbom

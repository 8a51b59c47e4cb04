// Package imageanalysis analyzes images of the store, lists their packages and removes dead bytes
// from them.
//
// It connects packages analyze, which works on tables of layers, and sbom with the store: it finds
// the end of an image's base, stores the tables of layers and the records that builds write about
// their images, and writes pruned images and indexes.
//
// It imports analyze, diff, image, ocidoc, ocijson, sbom, state and parser. It makes no system
// calls. It reads and writes blobs of the store and records in the cache, and starts no processes.
//
// To test it, run go test ./internal/imageanalysis as any user. TestPruneRandomImages compares
// images before and after dead bytes are removed.
package imageanalysis

// Package remotecache exports the results of steps for other machines, and imports them.
//
// Results are exported as a document of records, with the layers that the records name. A separate
// artifact is an OCI manifest that has the document as its configuration and the layers as its
// layers, so that registries and tools copy it like an image. Inline, the document is a field of
// the image's configuration.
//
// A Shared is a cache that many machines read and write at once. It has a document for each key, in
// a Store, and one for each cache mount whose files are shared.
//
// It imports export, cache, event, image, layers, memo, ocidoc, ocijson, sorting, store and units.
// It makes no system calls. It reads and writes layouts and registries by way of other packages.
//
// To test it, run go test ./internal/remotecache as any user. FuzzRecords reads hostile documents,
// FuzzHint those of a Shared, FuzzPlace values of --cache-to and --cache-from. go test
// ./internal/build tests it with builds.
package remotecache

// Package layercheck applies a layer to a listing of its parent and compares the result with the
// tree that the step saw.
//
// It checks package diff, which determines the changes and writes layers, and so shares no code
// with it: it lists merged views through the kernel instead of reading a driver's directories,
// reads the layer with archive/tar, and applies it according to the text of the OCI image
// specification (layer.md, "Applying Changesets"). It takes from elsewhere what a layer may
// contain: extended attributes by dirfd.InLayer, whole seconds, no sockets, no names that begin
// with ".wh.".
//
// It imports dirfd. It makes system calls to list directories and to read attributes, and
// only reads.
//
// To test it, run go test ./internal/layercheck as any user. With LAYERBUILD_CHECK_LAYERS=1, which
// make test sets, each build checks its layers.
package layercheck

// Package layercheck applies a layer to a listing of its parent and compares the result with the
// tree after the step.
//
// It checks package diff, which finds the changes and writes layers. It therefore shares no code
// with diff: it lists merged views through the kernel instead of reading a driver's directories,
// reads the layer with archive/tar, and applies it according to the text of the OCI image
// specification (layer.md, "Applying Changesets"). Only the rules for the contents of a layer are
// the same: extended attributes by dirfd.InLayer, whole seconds, no sockets, no names that begin
// with ".wh.".
//
// It imports dirfd. It makes system calls to list directories and to read attributes, and writes
// nothing.
//
// To test it, run go test ./internal/layercheck as any user. With LAYERBUILD_CHECK_LAYERS=1, which
// make test sets, each build checks its layers.
package layercheck

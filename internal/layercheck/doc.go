// Package layercheck applies a layer to a listing of its parent and compares the result with what the step saw.
//
// It guards package diff, which decides what has changed and writes layers, and so shares no code with it: it lists
// merged views through the kernel instead of reading a driver's directories, reads the layer with archive/tar, and
// applies it by the text of the OCI image specification (layer.md, "Applying Changesets"). What a layer holds at all is
// policy and not decided here: extended attributes by rawfs.InLayer, whole seconds, no sockets, no names that begin with
// ".wh.".
package layercheck

// Package imageref parses what users write to name an image: a name, or a scheme and a place, as in
// oci:DIR:TAG or docker-archive:FILE. It also has the schemes of other programs that layerbuild
// refuses, with the reasons.
//
// It imports reference. It does no I/O: a function of the caller reports which paths exist.
//
// To test it, run go test ./internal/imageref as any user. FuzzParse parses hostile words.
package imageref

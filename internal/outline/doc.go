// Package outline reduces the layers of an image to what a COPY needs of it.
//
// A COPY, an ADD or a WORKDIR looks at the directories and the symbolic links of the file system
// below it, and at its users and groups. It replaces files, but reads none of the others. So it can
// run on the outline of a base image that is not unpacked: a tree with the image's directories and
// symbolic links, with all their attributes, and with /etc/passwd and /etc/group. The layer of such
// a step is the same as on the unpacked image, unless it depends on a file that the outline lacks.
// The outline has a list of these files, in which [Files.Conflict] looks.
//
// An outline can be made of layers as builders write them. For others a Builder returns an error
// that wraps ErrNone, and the image has to be unpacked: it does not try to imitate what unpacking
// does with unusual layers.
//
// It imports diff and dirfd. It makes no system calls. It looks for files below the directories
// that Conflict gets, and reads the lists of outlines.
//
// To test it, run go test ./internal/outline as root, or as a user who may make user namespaces.
// TestBuilder and FuzzBuilder compare outlines with unpacked layers. FuzzParse reads damaged lists,
// FuzzUnpack packed outlines.
// TestOutline of test/drivers builds on outlines and on unpacked images.
package outline

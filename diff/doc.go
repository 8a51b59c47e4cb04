// Package diff turns the difference between two file system states into a layer, and a layer into a
// directory.
//
// It imports blocks, dirfd, fileentry and unpack. It makes system calls to walk trees and to set
// owners, modes and attributes. It reads the directories of a Tree, writes only to the directory
// that Apply and Inherit are called with, and makes no mounts.
//
// To test it, run go test ./diff as root, or as a user who may make user namespaces. The tests run
// in a mount namespace of their own, and again in user namespaces. testdata/golden.txt fixes the
// digests of layers. FuzzApply and FuzzEntries read hostile layers. test/differential and
// test/golden test it on every driver.
//
// # What is in a layer
//
// A layer depends only on the state before and the state after. It does not depend on how a
// snapshot driver recorded the changes (an overlay's upper directory, two plain trees), on the
// user, on the number of cores or on the time. So every driver produces the same bytes, and
// applying a layer to the state before produces exactly the state after:
//
//   - An entry is in the layer if its name is new or if type, content, mode, owner, time, an
//     extended attribute, or the set of names of the same file (hard links) has changed. Content is
//     compared by reading it.
//   - The directories above an entry are in the layer too, since readers that make a missing parent
//     guess its owner and mode. The root is in it only if its owner, mode or attributes changed.
//   - A removed name is a whiteout. A directory is written as opaque instead if all of its old
//     names were removed, and they were several or it has new ones. This applies to "rm -r d; mkdir
//     d" and to "rm d/*" alike, on any driver.
//   - Of a file with several names the first has the content, and the others are hard links to it
//     in the same layer. A file that gets another name is written again completely, since readers
//     differ in how they treat a hard link to a file of another layer.
//   - Times are whole seconds, rounded down, as other builders write them, and are compared in this
//     form.
//   - Extended attributes are user.*, security.capability and the POSIX access control lists (see
//     dirfd.InLayer for the reasons). A name with a "=" cannot be in a layer; Options.Warn is
//     called for it.
//   - Sockets are left out. Names that begin with ".wh." are left out too, and Options.Warn is
//     called for them.
//
// Two drivers write different layers for the same two states in one case only: if the hard links of
// a file were divided among otherwise equal files. The states do not contain which of these files
// is the old one. The states themselves differ if a command changes one name of a file that has
// several (docs/ARCHITECTURE.md, "Where the drivers cannot agree").
//
// # Opaque directories
//
// Linux's overlay sets its opaque attribute on a directory that it makes if a layer below has that
// name (ovl_create_over_whiteout) or if the parent directory is merged with one below
// (ovl_create_upper), and on one that it moves to such a parent (ovl_rename). It sets no attribute
// on a directory that it makes in, or moves to, a directory that is not merged: ovl_lookup looks a
// name up only in those layers in which it found the parent directory, so that an opaque directory
// hides the layers below for everything inside it, at any depth. Hence an upper directory is
// compared with the old state by one rule: if it or a directory above it is opaque, a name that it
// does not have is a removed name. A layer, in contrast, has an opaque mark (".wh..wh..opq") only
// in a directory of which all old names were removed. In any other directory it has a whiteout for
// each removed name. So it means the same to a reader that applies the mark to the directory alone
// and to a reader that applies it to everything below.
//
// The mark is the attribute of the driver that wrote the directory: trusted.overlay.opaque, or
// user.overlay.opaque in a user namespace. Package snapshot translates the marks of fuse-overlayfs
// (user.fuseoverlayfs.opaque and files named ".wh..wh..opq") when it commits. Attributes of the
// other drivers are data.
//
// # Order and format
//
// In each directory the opaque mark or the whiteouts come first, sorted by name. Then come the
// entries, sorted by the bytes of their names, each directory followed by its contents. Whiteouts
// are empty files with no owner, mode or time. Headers are ustar. A PAX header precedes one only if
// ustar cannot represent a value (a name or a link's target that is too long, attributes, large
// numbers, times before 1970 or after 2242). Two zero blocks end the stream.
package diff

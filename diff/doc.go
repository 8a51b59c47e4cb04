// Package diff turns the difference between two file system states into a layer, and a layer into a directory.
//
// # What is in a layer
//
// A layer follows from the state before and the state after, and from nothing else: neither from how a snapshot driver
// noted what happened (an overlay's upper directory, two plain trees) nor from user, cores or time. So every driver
// gives the same bytes, and applying a layer to the state before gives the state after, exactly:
//
//   - An entry is in the layer if its name is new or if type, content, mode, owner, time, an extended attribute, or the
//     set of names of the same file (hard links) is not what it was. Content is compared by reading it.
//   - The directories above an entry are in the layer too; readers that make a missing parent guess its owner and mode.
//     The root is only if its owner, mode or attributes changed.
//   - A removed name is a whiteout. A directory is written as opaque instead if none of its old names is left, and they
//     were several or it has new ones: the same for "rm -r d; mkdir d", for "rm d/*", and on any driver.
//   - Of a file with several names the first has the content, the others are hard links to it in the same layer. A file
//     that gets one more name comes along as a whole, since a link to a file of another layer means different things to
//     different readers.
//   - Times are whole seconds, rounded down, as other builders write them, and are compared so.
//   - Extended attributes are user.*, security.capability and the POSIX access lists (rawfs.InLayer says why). A name
//     with a "=" cannot be in a layer; Options.Warn is called for it.
//   - Sockets are left out; so are names that begin with ".wh.", of which Options.Warn is told.
//
// The only case in which two drivers give different layers for the same two states is a file whose hard links were
// divided among otherwise equal files: nothing in the states tells which of them is the old one. The states themselves
// differ where a command changes one name of a file that has several (docs/ARCHITECTURE.md, "Where the drivers cannot
// agree").
//
// # Opaque directories
//
// Linux's overlay sets its opaque attribute on a directory that it makes where a layer below has that name
// (ovl_create_over_whiteout) or whose parent directory is merged with one below (ovl_create_upper), and on one that it
// moves to such a parent (ovl_rename). It sets no attribute on a directory that it makes in, or moves to, a directory
// that is not merged: ovl_lookup looks a name up only in those layers in which it found the parent directory, so that an
// opaque directory hides the layers below for everything inside it, at any depth. Hence an upper directory is compared
// with the old state by one rule: as soon as it or a directory above it is opaque, a name that it does not have is a
// removed name. A layer, on the other hand, has an opaque mark (".wh..wh..opq") only in a directory of which no old
// name is left; everywhere else it has a whiteout for each removed name. So it means the same to a reader that lets the
// mark count for the directory alone and to one that lets it count for all that is below.
//
// The mark is the attribute of the driver that wrote the directory: trusted.overlay.opaque, or user.overlay.opaque in a
// user namespace. snapshot translates the marks of fuse-overlayfs (user.fuseoverlayfs.opaque and files named
// ".wh..wh..opq") when it commits. Attributes of the other drivers are data.
//
// # Order and format
//
// In each directory the opaque mark or the whiteouts come first, sorted by name, then what is there, sorted by the bytes
// of its name, each directory followed at once by what is in it. Whiteouts are empty files with no owner, mode or time.
// Headers are ustar; a PAX header stands before one only where ustar cannot say something (a name or a link's target
// that is too long, attributes, large numbers, times before 1970 or after 2242). Two zero blocks end the stream.
package diff

// Package mount performs mounts that are described as data.
//
// A Mount is made by whoever knows what a file system is put together from (a snapshotter), travels as JSON to the
// process that needs it, and is performed there, in that process's own mount namespace.
package mount

// Mount is one mount, as data.
type Mount struct {
	// Type is the file system type ("overlay", "tmpfs", "proc", "fuse-overlayfs"), or "bind".
	Type string `json:"type"`
	// Source is the directory or file that a bind mount shows; for other types what /proc/mounts shows.
	Source string `json:"source,omitempty"`
	// Target is where it is mounted, below the root that All is given; "" is that root itself.
	Target string `json:"target,omitempty"`
	// Lower are an overlay's lower directories, top first. They have a field of their own because hundreds of them
	// do not fit the 4096-byte option page; the new mount API takes them one by one (lowerdir+, Linux 6.5).
	Lower []string `json:"lower,omitempty"`
	// Upper and Work are an overlay's writable parts; both empty: a read-only view.
	Upper string `json:"upper,omitempty"`
	Work  string `json:"work,omitempty"`
	// Options are further options as mount(8) has them: "ro", "nosuid", "mode=755", "volatile", "userxattr", "rbind".
	Options []string `json:"options,omitempty"`
}

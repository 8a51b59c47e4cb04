// Package ns puts the program into the namespaces that it works in: once, at its start.
package ns

// Range is a range of ids: Count ids from Inside in the namespace are those from Outside in its parent.
type Range struct {
	Inside, Outside, Count uint32
}

// Info says where the program runs.
type Info struct {
	// Rootless says that this is a user namespace whose root is not the host's root.
	Rootless bool
	// SingleID says that only id 0 exists: owners other than root can't be had.
	SingleID bool
	// UIDs and GIDs are the ids of this namespace.
	UIDs, GIDs []Range
	// HostUID and HostGID are the ids of the user who started the program.
	HostUID, HostGID int
	// Entered says that Enter started this process; otherwise the program works where it was started.
	Entered bool
	// Reasons say, one sentence each, why it is not the better way: why there is a single id, for one.
	Reasons []string
}

// Options change how Enter works. The zero value is right for a build.
type Options struct {
	// Mounts asks for a private mount namespace even for root, who needs none as long as all mounts are detached
	// or performed in a step's child.
	Mounts bool
}

// Enter puts the program into its namespaces if it is not there already: it starts itself again in them, waits, and
// exits with the same status; so in the first process Enter only returns with an error. In the second it returns nil.
func Enter(o Options) error { return nil }

// Current says where the program runs. It may be called before Enter.
func Current() (Info, error) { return Info{}, nil }

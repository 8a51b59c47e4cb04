package parser

import (
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Comment is the comment of every history entry that comes from a step. It is BuildKit's, so
// that tools which search for it find it.
const Comment = "buildkit.dockerfile.v0"

// Range is a span of lines of the Dockerfile, both included, counted from 1. The zero Range means
// that the position is not known.
type Range struct {
	Start, End int
}

// Step is one instruction, expanded.
type Step struct {
	// Range is the position of the instruction. For a trigger of a base image it is the FROM line.
	Range Range
	// Text is the instruction as written, with continued lines joined and
	// nothing expanded.
	Text string
	// Name is Text with variables expanded, for a progress display: "RUN echo hi". Values of
	// secrets are replaced by ****. A trigger's name starts with "ONBUILD ".
	Name string
	// OnBuild reports whether the step is a trigger of the base.
	OnBuild bool
	// Args are the arguments that are declared before the instruction, with their values. An
	// argument that is declared twice is in the list twice.
	Args []Argument
	// Action is the step's action on the file system; nil if it only changes the configuration.
	Action Action
	// Image is the configuration after the step. History and RootFS are the base's: the caller
	// updates them. The caller may change the value.
	Image dockerspec.DockerOCIImage
	// History is the created_by text of the step's history entry. It is empty for ONBUILD and for
	// an instruction without an entry. If Action is nil, the entry is for an empty layer.
	History string
}

// Argument is a declared ARG of a stage. The value of an argument without one is "".
type Argument struct{ Name, Value string }

// Input is a source of files: one of StageInput, ImageInput, ContextInput or Scratch.
type Input interface{ input() }

// StageInput is the result of another stage of the same plan. If only an ONBUILD trigger names the
// stage, it may be missing from Plan.Stages.
type StageInput struct {
	Stage *Stage
}

// ImageInput is an image with its name.
type ImageInput struct {
	// Ref is the name as written, after expansion.
	Ref      string
	Platform ocispec.Platform
}

// ContextInput is a build context: the main one if Name is empty, otherwise the named one.
type ContextInput struct {
	// Name is a member of PlanOptions.Contexts, spelled as there.
	Name string
	// Platform is the platform to choose if the context is an image.
	Platform ocispec.Platform
}

// Scratch is the empty file system.
type Scratch struct{}

func (StageInput) input()   {}
func (ImageInput) input()   {}
func (ContextInput) input() {}
func (Scratch) input()      {}

// Action is an action of a step on the file system: one of *Run, *Copy or *Mkdir.
//
// The JSON form of an Action is canonical: equal actions have equal bytes, which do not depend on
// comments, on white space between instructions or on the position of the instruction. They do not
// include inputs (their digests are not known here) or the values of secrets and proxies.
type Action interface{ action() }

// Run is a command in a container.
type Run struct {
	// Args is the command, preceded by the shell if there is one.
	Args []string
	// Env is the whole environment in BuildKit's order: the image's variables and the stage's
	// arguments, in the order in which they were last set.
	Env []string
	// Proxy holds proxy variables. They are added after Env and are not part of the key.
	Proxy []string `json:"-"`
	// Dir is the working directory, absolute.
	Dir string
	// User is name, number, name:group or number:number; empty for root.
	User   string     `json:",omitempty"`
	Mounts []RunMount `json:",omitempty"`
	// Network is "" (the build's default), "none" or "host".
	Network string `json:",omitempty"`
	// Security is "" (a sandbox) or "insecure".
	Security string `json:",omitempty"`
	// Files are scripts from heredocs. Only the command can read them, at Path.
	Files []RunFile `json:",omitempty"`
	// Devices are the devices that the command requests. They are not part of the key: what the
	// command gets for them is.
	Devices []RunDevice `json:"-"`
}

// RunDevice is a device that a command requests (RUN --device).
type RunDevice struct {
	Name string
	// Required is set if the command is not run without the device.
	Required bool
}

// RunFile is a file at an absolute path for a command.
type RunFile struct {
	Path string
	Data []byte
	Mode uint32
}

// MountType is the kind of a RunMount.
type MountType string

// The kinds of mounts of RUN --mount.
const (
	MountBind   MountType = "bind"
	MountCache  MountType = "cache"
	MountTmpfs  MountType = "tmpfs"
	MountSecret MountType = "secret"
	MountSSH    MountType = "ssh"
)

// Sharing determines what happens if two steps use one cache at the same time.
type Sharing string

// The ways to share a cache mount.
const (
	SharingShared  Sharing = "shared"
	SharingPrivate Sharing = "private"
	SharingLocked  Sharing = "locked"
)

// RunMount is one --mount of a RUN.
type RunMount struct {
	Type MountType
	// ID names the cache, the secret or the ssh socket; it is never empty for these.
	ID string `json:",omitempty"`
	// Target is absolute. It is empty for a secret that is only a variable, and for an ssh
	// socket whose path the executor chooses (/run/buildkit/ssh_agent.N in BuildKit).
	Target string `json:",omitempty"`
	// Source is the absolute path inside From; "/": all of it.
	Source string `json:",omitempty"`
	// From is the source of a bind mount, or the initial content of a cache.
	From     Input `json:"-"`
	ReadOnly bool  `json:",omitempty"`
	// Sharing is set for caches.
	Sharing  Sharing `json:",omitempty"`
	Mode     *uint32 `json:",omitempty"`
	UID      *uint32 `json:",omitempty"`
	GID      *uint32 `json:",omitempty"`
	Required bool    `json:",omitempty"`
	// Env is the variable for a secret's value; "": none.
	Env string `json:",omitempty"`
	// Size limits a tmpfs, in bytes; 0: no limit.
	Size int64 `json:",omitempty"`
}

// Copy is COPY or ADD.
type Copy struct {
	Add  bool  `json:",omitempty"`
	From Input `json:"-"`
	// Sources are patterns relative to the root of From; with Add also URLs
	// and git references (see SourceKind).
	Sources []string `json:",omitempty"`
	Inline  []Inline `json:",omitempty"`
	// Dest is absolute; a trailing slash or "/." is kept.
	Dest  string
	Chown string `json:",omitempty"`
	// Chmod is octal or symbolic, checked.
	Chmod      string `json:",omitempty"`
	Link       bool   `json:",omitempty"`
	Parents    bool   `json:",omitempty"`
	KeepGitDir bool   `json:",omitempty"`
	// Unpack is nil without the flag: ADD then unpacks local archives and not remote ones.
	Unpack  *bool    `json:",omitempty"`
	Exclude []string `json:",omitempty"`
	// Checksum is the required checksum of a download: a digest for HTTP, a commit for git.
	Checksum string `json:",omitempty"`
}

// SplitSources returns the sources that are patterns in From, and those that must be downloaded.
func (c *Copy) SplitSources() (local, remote []string) {
	if !c.Add {
		return c.Sources, nil
	}
	for _, src := range c.Sources {
		if kind, _ := SourceKind(src); kind == Local { // the parser has checked it
			local = append(local, src)
		} else {
			remote = append(remote, src)
		}
	}
	return local, remote
}

// Inline is a file whose contents are in the Dockerfile. Its mode is 0644.
type Inline struct {
	Name string
	Data []byte
}

// Mkdir makes the directory of a WORKDIR if it does not exist.
type Mkdir struct {
	Path string
	// User owns the new directories; empty for root.
	User string `json:",omitempty"`
}

func (*Run) action()   {}
func (*Copy) action()  {}
func (*Mkdir) action() {}

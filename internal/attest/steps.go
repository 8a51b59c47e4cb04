package attest

// BuildConfig has the steps of a build. They have the form in which BuildKit writes its LLB
// definition (https://github.com/moby/buildkit/blob/v0.34.2/solver/pb/ops.proto), as far as
// the instructions of a Dockerfile need it.
type BuildConfig struct {
	Definition []Step `json:"llbDefinition,omitempty"`
}

// Step is one step. Inputs are results of earlier steps, such as "step0:0".
type Step struct {
	ID     string   `json:"id,omitempty"`
	Op     *Op      `json:"op,omitempty"`
	Inputs []string `json:"inputs,omitempty"`
}

// Op is the action of a step: one of the fields of Do is set.
type Op struct {
	Do struct {
		Exec   *Exec     `json:"exec,omitempty"`
		Source *SourceOp `json:"source,omitempty"`
		File   *FileOp   `json:"file,omitempty"`
	} `json:"Op"`
	Platform *OpPlatform `json:"platform,omitempty"`
}

// OpPlatform is a platform, with the spelling of BuildKit's steps.
type OpPlatform struct {
	Architecture string
	OS           string
	Variant      string   `json:",omitempty"`
	OSVersion    string   `json:",omitempty"`
	OSFeatures   []string `json:",omitempty"`
}

// SourceOp fetches an input from outside: docker-image://NAME, git://…, https://…, local://NAME.
type SourceOp struct {
	Identifier string            `json:"identifier,omitempty"`
	Attrs      map[string]string `json:"attrs,omitempty"`
}

// Exec runs a command.
type Exec struct {
	Meta      Meta        `json:"meta"`
	Mounts    []OpMount   `json:"mounts,omitempty"`
	Network   int         `json:"network,omitempty"`
	Security  int         `json:"security,omitempty"`
	SecretEnv []SecretEnv `json:"secretenv,omitempty"`
	Devices   []CDIDevice `json:"cdiDevices,omitempty"`
}

// CDIDevice is a device that a command requests.
type CDIDevice struct {
	Name     string `json:"name,omitempty"`
	Optional bool   `json:"optional,omitempty"`
}

// The numbers of networks, of privileged commands, of mounts and of ways to share caches.
const (
	NetworkHost, NetworkNone = 1, 2
	SecurityInsecure         = 1

	MountSecret, MountSSH, MountCache, MountTmpfs = 1, 2, 3, 4

	SharePrivate, ShareLocked = 1, 2
)

// Meta is the environment of a command.
type Meta struct {
	Args []string `json:"args,omitempty"`
	Env  []string `json:"env,omitempty"`
	Cwd  string   `json:"cwd,omitempty"`
	User string   `json:"user,omitempty"`
}

// NoIndex is the input of a mount without one, and the output of one that is discarded.
const NoIndex = -1

// OpMount is a mount of a command. The first one is the root.
type OpMount struct {
	Input     int       `json:"input,omitempty"` // index in Step.Inputs, or NoIndex
	Selector  string    `json:"selector,omitempty"`
	Dest      string    `json:"dest,omitempty"`
	Output    int       `json:"output,omitempty"` // the number of the result, or NoIndex
	ReadOnly  bool      `json:"readonly,omitempty"`
	MountType int       `json:"mountType,omitempty"`
	Tmpfs     *TmpfsOpt `json:"TmpfsOpt,omitempty"`
	Cache     *CacheOpt `json:"cacheOpt,omitempty"`
	Secret    *OwnedOpt `json:"secretOpt,omitempty"`
	SSH       *OwnedOpt `json:"SSHOpt,omitempty"`
}

// TmpfsOpt limits a file system in memory.
type TmpfsOpt struct {
	Size int64 `json:"size,omitempty"`
}

// CacheOpt names a cache.
type CacheOpt struct {
	ID      string `json:"ID,omitempty"`
	Sharing int    `json:"sharing,omitempty"`
}

// OwnedOpt names a secret or an SSH agent.
type OwnedOpt struct {
	ID       string `json:"ID,omitempty"`
	UID      uint32 `json:"uid,omitempty"`
	GID      uint32 `json:"gid,omitempty"`
	Mode     uint32 `json:"mode,omitempty"`
	Optional bool   `json:"optional,omitempty"`
}

// SecretEnv is a secret in a variable.
type SecretEnv struct {
	ID       string `json:"ID,omitempty"`
	Name     string `json:"name,omitempty"`
	Optional bool   `json:"optional,omitempty"`
}

// FileOp copies files and makes directories.
type FileOp struct {
	Actions []FileAction `json:"actions,omitempty"`
}

// FileAction is one change of files. Input and Secondary are indexes in Step.Inputs; from
// len(Step.Inputs) on they are the results of earlier actions of the step.
type FileAction struct {
	Input     int `json:"input"`
	Secondary int `json:"secondaryInput"`
	Output    int `json:"output"`
	Action    struct {
		Copy   *CopyFiles `json:"copy,omitempty"`
		MkFile *MkFile    `json:"mkfile,omitempty"`
		MkDir  *MkDir     `json:"mkdir,omitempty"`
	}
}

// CopyFiles copies files of the secondary input.
type CopyFiles struct {
	Src     string   `json:"src,omitempty"`
	Dest    string   `json:"dest,omitempty"`
	Owner   *Chown   `json:"owner,omitempty"`
	Mode    int      `json:"mode,omitempty"` // NoIndex: that of the file
	ModeStr string   `json:"modeStr,omitempty"`
	Follow  bool     `json:"followSymlink,omitempty"`
	Content bool     `json:"dirCopyContents,omitempty"`
	Unpack  bool     `json:"attemptUnpackDockerCompatibility,omitempty"`
	Create  bool     `json:"createDestPath,omitempty"`
	Wild    bool     `json:"allowWildcard,omitempty"`
	Exclude []string `json:"exclude_patterns,omitempty"`
}

// MkFile writes a file whose content is in the Dockerfile.
type MkFile struct {
	Path string `json:"path,omitempty"`
	Mode int    `json:"mode,omitempty"`
	Data []byte `json:"data,omitempty"`
}

// MkDir makes a directory.
type MkDir struct {
	Path        string `json:"path,omitempty"`
	Mode        int    `json:"mode,omitempty"`
	MakeParents bool   `json:"makeParents,omitempty"`
	Owner       *Chown `json:"owner,omitempty"`
}

// Chown is an owner.
type Chown struct {
	User  *Principal `json:"user,omitempty"`
	Group *Principal `json:"group,omitempty"`
}

// Principal is a user or group, by name or by number.
type Principal struct {
	User struct {
		ByName *NamedUser `json:"byName,omitempty"`
		ByID   uint32     `json:"byId,omitempty"`
	}
}

// NamedUser is a name that the files of an input define.
type NamedUser struct {
	Name  string `json:"name,omitempty"`
	Input int    `json:"input,omitempty"`
}

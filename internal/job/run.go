package job

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/executor/copyfs"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/cachemount"
	"github.com/layerbuild/layerbuild/internal/cdi"
	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/runmount"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// RunOptions holds the options for the commands of RUN.
type RunOptions struct {
	// Network is "host" or "none"; "" is "host".
	Network string
	Hosts   []executor.Host
	ShmSize int64
	Ulimits []executor.Ulimit
	// Insecure allows RUN --security=insecure. HostNetwork allows RUN --network=host if Network is
	// none.
	Insecure    bool
	HostNetwork bool
	Devices     DeviceOptions
	// Caps are the capabilities of commands; nil are Docker's default ones.
	Caps *executor.CapabilitySet
	// Volumes are paths of the host that are mounted for every command, below the mounts of its
	// own. They are part of its key, and their content is not.
	Volumes []Volume
	// Hostname is the host name of commands; "" is the default of package executor.
	Hostname string
	// ResolvConf is the /etc/resolv.conf of commands; nil: that of the host. As in buildah it is
	// not part of the key, as the host's is not.
	ResolvConf []byte
	// CacheNamespace keeps cache mounts with equal ids apart.
	CacheNamespace string
}

// Volume is a file or directory of the host in the containers of commands.
type Volume struct {
	Source, Target           string // absolute paths
	ReadOnly, NoSuid, NoExec bool
	// Overlay throws away what a command changes, when it has ended. Source is a directory.
	Overlay bool
}

// addVolumes adds the volumes to a process. The caller calls release when the command has ended,
// also after an error.
func (r *runAction) addVolumes(ctx context.Context, p *executor.Process) (release func() error,
	err error) {
	var undo []func() error
	release = func() error {
		var errs []error
		for _, f := range undo {
			errs = append(errs, f())
		}
		return errors.Join(errs...)
	}
	for _, v := range r.opts.Volumes {
		m := executor.Mount{Target: v.Target, Source: executor.Bind{Source: v.Source},
			ReadOnly: v.ReadOnly, NoSuid: v.NoSuid, NoExec: v.NoExec}
		if v.Overlay {
			tree, discard, err := r.mounter.Overlay(ctx, v.Source)
			if err != nil {
				return release, fmt.Errorf("volume at %s: %w", v.Target, err)
			}
			m.Source, undo = tree, append(undo, discard)
		}
		p.Mounts = append(p.Mounts, m)
	}
	return release, nil
}

// runAction runs the command of a RUN.
type runAction struct {
	w       *Worker
	opts    *RunOptions
	mounter *runmount.Mounter
	in      *inputs.Inputs
	inputs  Opener

	instr    *parser.Run
	key      cache.Key // key of the file system on which the command runs
	platform string

	devices   *cdi.Resolved // nil: the command requests none
	deviceKey string        // see the function deviceKey

	from map[int]*inputs.Files // by the mount's index
	// content holds the digest of a mount's content, or initial content, by the mount's index.
	// contentKey sets it.
	content map[int]digest.Digest
	// digested holds the files that contentKey digested. The same files are mounted.
	digested map[int]*source.Match
}

// run prepares a RUN for a platform, on the file system of the key parent.
func (p *Preparer) run(ctx context.Context, platform ocispec.Platform, parent cache.Key,
	a *parser.Run, name Namer) (*Job, error) {
	r := &runAction{
		w: p.Worker, opts: &p.Options, mounter: p.Mounter, in: p.Inputs, inputs: p.Opener,
		instr: a, key: parent, platform: parser.FormatPlatform(platform),
		from: map[int]*inputs.Files{}, content: map[int]digest.Digest{},
		digested: map[int]*source.Match{},
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	if err := r.resolveDevices(&p.machine); err != nil {
		return nil, err
	}
	names := r.environmentOptions()
	named, local, plain := true, true, true
	var results []snapshot.ID
	for _, m := range a.Mounts {
		if !showsFiles(m) {
			continue
		}
		from, err := name(ctx, m.From)
		if err != nil {
			return nil, err
		}
		names = append(names, from.Key)
		named, local, plain = named && from.Key != "", local && !r.in.HasOwners(m.From), false
		if _, ok := m.From.(parser.StageInput); ok {
			results = append(results, from.Result)
		}
	}
	j := &Job{action: r, Local: local, Inputs: JoinResults(results)}
	if !named {
		return j, nil
	}
	key, err := MakeKey(parent, "run", a, names...)
	if err != nil {
		return nil, err
	}
	if plain {
		j.Key = key
	} else {
		j.DefKey = key
	}
	return j, nil
}

// showsFiles reports whether a mount shows files of an input, or is a cache that starts with files
// of an input.
func showsFiles(m parser.RunMount) bool {
	if m.From == nil || m.Type != parser.MountBind && m.Type != parser.MountCache {
		return false
	}
	_, empty := m.From.(parser.Scratch)
	return !empty
}

// check returns an error for a RUN that needs a permission that the user has not given.
func (r *runAction) check() error {
	if r.instr.Security == "insecure" && !r.opts.Insecure {
		return errors.New("entitlement security.insecure is not allowed; add it with --allow")
	}
	if r.instr.Network == "host" && r.opts.Network == "none" && !r.opts.HostNetwork {
		return errors.New("entitlement network.host is not allowed where --network is none; " +
			"add it with --allow")
	}
	return nil
}

// contentKey digests the files that are mounted.
func (r *runAction) contentKey(ctx context.Context) (key cache.Key, inputs string, err error) {
	if err := r.open(ctx); err != nil {
		return "", "", err
	}
	list := r.environmentOptions()
	var made []snapshot.ID
	for i, m := range r.instr.Mounts {
		f := r.from[i]
		if f == nil {
			continue
		}
		found, err := match(ctx, f, m.From, r.mountQuery(m))
		if err != nil {
			return "", "", err
		}
		r.content[i], r.digested[i] = found.Digest, found
		list = append(list, fmt.Sprintf("mount %d %s", i, found.Digest))
		made = append(made, stageResult(f)...)
	}
	if len(r.content) > 0 {
		// The times of files of contexts, and of files that COPY and WORKDIR made in stages, depend
		// on this epoch. The command can copy such times.
		list = append(list, EpochKey(r.w.Epoch))
	}
	key, err = MakeKey(r.key, "run", r.instr, list...)
	return key, JoinResults(made), err
}

// environmentOptions returns the options of the build that affect the environment of a command.
func (r *runAction) environmentOptions() []string {
	list := []string{r.platform, r.network(),
		fmt.Sprint(r.opts.Hosts, r.opts.ShmSize, r.opts.Ulimits)}
	if name := r.opts.Hostname; name != "" {
		list = append(list, "hostname "+name)
	}
	if r.deviceKey != "" {
		list = append(list, r.deviceKey)
	}
	if r.opts.Caps != nil {
		list = append(list, fmt.Sprintf("capabilities %x", *r.opts.Caps))
	}
	for _, v := range r.opts.Volumes {
		name := fmt.Sprintf("volume %q %q %t %t %t", v.Source, v.Target, v.ReadOnly, v.NoSuid,
			v.NoExec)
		if v.Overlay {
			name += " overlay"
		}
		list = append(list, name)
	}
	return list
}

// network returns the network of a RUN: its own or, by default, the build's.
func (r *runAction) network() string {
	switch {
	case r.instr.Network != "" && r.instr.Network != "default":
		return r.instr.Network
	case r.opts.Network != "" && r.opts.Network != "default":
		return r.opts.Network
	}
	return "host"
}

// open opens the inputs of mounts. An input may be a stage that has to be built first.
func (r *runAction) open(ctx context.Context) error {
	for i, m := range r.instr.Mounts {
		if !showsFiles(m) {
			continue
		}
		f, err := r.inputs.Files(ctx, m.From)
		if err != nil {
			return err
		}
		r.from[i] = f
	}
	return nil
}

// mountQuery returns the query for the files of a mount. A bind mount shows a directory with its
// mode and attributes, so the digest covers them. The root of a context has the mode 0755 instead,
// and the top of a cache mount has the mode that the mount requests.
func (r *runAction) mountQuery(m parser.RunMount) source.Query {
	src := path.Join("/", m.Source)
	return source.Query{
		Patterns: []string{src}, Literal: true, KeepOwner: true, Epoch: r.w.Epoch,
		Root: m.Type == parser.MountBind && (src != "/" || r.in.HasOwners(m.From)),
	}
}

func (r *runAction) close() error { return nil }

// run runs the command.
func (r *runAction) run(ctx context.Context, active *snapshot.Active, out Output) (err error) {
	p := &executor.Process{
		Args: r.instr.Args, Env: append(slices.Clone(r.instr.Env), r.instr.Proxy...),
		Dir: r.instr.Dir, User: r.instr.User,
		Network: r.network(), Insecure: r.instr.Security == "insecure", ExtraHosts: r.opts.Hosts,
		ShmSize: r.opts.ShmSize, Ulimits: r.opts.Ulimits, Hostname: r.opts.Hostname,
		Caps: r.opts.Caps,
	}
	if r.opts.ResolvConf != nil {
		p.Mounts = append(p.Mounts, executor.Mount{Target: "/etc/resolv.conf", ReadOnly: true,
			Source: executor.Data{Data: r.opts.ResolvConf, Mode: 0o644}})
	}
	discard, err := r.addVolumes(ctx, p)
	defer func() { err = errors.Join(err, discard()) }()
	if err != nil {
		return err
	}
	for _, f := range r.instr.Files {
		p.Mounts = append(p.Mounts, executor.Mount{Target: f.Path,
			Source: executor.Data{Data: f.Data, Mode: f.Mode}, ReadOnly: true})
	}
	release, err := r.mounter.Add(ctx, p, r.mounts())
	defer func() { err = errors.Join(err, release()) }()
	if err != nil {
		return err
	}
	if err := r.addDevices(p, out); err != nil {
		return err
	}
	// A command that waits here may hold the lock of a cache mount. The commands that run have all
	// their locks, so they end.
	done, err := r.w.command(ctx)
	if err != nil {
		return err
	}
	defer done()
	return processError(r.instr.Args, r.w.run(ctx, active.Mounts(), p, out))
}

// mounts returns the mounts of the command with their sources.
func (r *runAction) mounts() []runmount.Mount {
	list := make([]runmount.Mount, len(r.instr.Mounts))
	for i, m := range r.instr.Mounts {
		list[i] = runmount.Mount{
			RunMount: m,
			Snapshot: func(ctx context.Context) (snapshot.ID, string, error) {
				return r.mountedSnapshot(ctx, i, m)
			},
			Cache:    func() (string, error) { return r.cacheName(i, m) },
			Platform: r.platform,
		}
		if f := r.from[i]; f != nil {
			list[i].Fill = func(ctx context.Context,
				dir string) error {
				return r.copyTo(ctx, dir, f, i, m)
			}
		}
	}
	return list
}

// mountedSnapshot returns the snapshot to mount and the path in it; "" is an empty file system.
func (r *runAction) mountedSnapshot(ctx context.Context, i int,
	m parser.RunMount) (snapshot.ID, string, error) {
	f := r.from[i]
	if f == nil {
		return "", m.Source, nil
	}
	if f.Snapshot != nil {
		return *f.Snapshot, m.Source, nil
	}
	id, place, err := r.inputs.SnapshotOf(ctx, f, r.digested[i], r.mountQuery(m).Root)
	return id, place, err
}

// cacheName returns the name of a cache mount's directory. As in BuildKit, mounts with different
// initial files, owner or mode have different directories.
func (r *runAction) cacheName(i int, m parser.RunMount) (string, error) {
	identity := []any{m.ID, m.UID, m.GID, m.Mode}
	if r.from[i] != nil {
		// the epoch limits the times of the files
		identity = append(identity, r.content[i], m.Source, EpochKey(r.w.Epoch))
	}
	if ns := r.opts.CacheNamespace; ns != "" {
		identity = append(identity, "namespace "+ns)
	}
	return cachemount.Name(identity...)
}

// copyTo copies the initial files of mount i, a directory of f, to a directory of the host. If
// contentKey has digested the files, it copies those files.
func (r *runAction) copyTo(ctx context.Context, dir string, f *inputs.Files, i int,
	from parser.RunMount) error {
	m := r.digested[i]
	if m == nil {
		var err error
		if m, err = match(ctx, f, from.From, r.mountQuery(from)); err != nil {
			return err
		}
	}
	act := &copyfs.Copy{Dest: "/", KeepOwner: true,
		Sources: []copyfs.Source{{Dir: f.Tree.Dir(), Items: items(m.Items, false)}}}
	act.Frozen = m.Frozen
	err := r.w.run(ctx, []mount.Mount{{Type: "bind", Source: dir}}, act, Silent)
	noteChanged(f, err)
	return err
}

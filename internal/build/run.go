package build

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
	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/runmount"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
	digest "github.com/opencontainers/go-digest"
)

// runner runs a RUN.
type runner struct {
	e       *Engine
	opts    *RunOptions
	mounter *runmount.Mounter
	inputs  stepInputs

	run      *parser.Run
	key      cache.Key // of what the command runs on
	platform string

	from map[int]*inputs.Files // by the mount's index
	// content holds the digest of a mount's content, or initial content, by the mount's index. look
	// sets it.
	content map[int]digest.Digest
	// looked holds the files that look digested, so that the same files are mounted.
	looked map[int]*source.Match
}

// check returns an error for a RUN that needs a permission which the user has not given.
func (r *runner) check() error {
	if r.run.Security == "insecure" && !r.opts.Insecure {
		return errors.New("RUN --security=insecure is not permitted; add --allow security.insecure")
	}
	if r.run.Network == "host" && r.opts.Network == "none" && !r.opts.HostNetwork {
		return errors.New("RUN --network=host is not permitted where --network is none; add --allow network.host")
	}
	return nil
}

// look digests the files that are mounted.
func (r *runner) look(ctx context.Context) (key cache.Key, inputs string, err error) {
	if err := r.open(ctx); err != nil {
		return "", "", err
	}
	list := r.surroundings()
	var made []snapshot.ID
	for i, m := range r.run.Mounts {
		f := r.from[i]
		if f == nil {
			continue
		}
		match, err := f.Tree.Match(ctx, r.mountQuery(m))
		if err != nil {
			return "", "", err
		}
		r.content[i], r.looked[i] = match.Digest, match
		list = append(list, fmt.Sprintf("mount %d %s", i, match.Digest))
		made = append(made, stageResult(f)...)
	}
	if len(r.content) > 0 {
		// The times of files of contexts, and of files that COPY and WORKDIR made in stages, depend
		// on this epoch. The command can copy such times.
		list = append(list, epochKey(r.e.epoch))
	}
	key, err = makeKey(r.key, "run", r.run, list...)
	return key, joinResults(made), err
}

// surroundings returns the options of the build that a command can observe.
func (r *runner) surroundings() []string {
	list := []string{r.platform, r.network(),
		fmt.Sprint(r.opts.Hosts, r.opts.ShmSize, r.opts.Ulimits)}
	if name := r.opts.Hostname; name != "" {
		list = append(list, "hostname "+name)
	}
	return list
}

// open opens the inputs of mounts. It builds stages first.
func (r *runner) open(ctx context.Context) error {
	for i, m := range r.run.Mounts {
		if !showsFiles(m) {
			continue
		}
		f, err := r.inputs.files(ctx, m.From)
		if err != nil {
			return err
		}
		r.from[i] = f
	}
	return nil
}

// mountQuery returns the query for the files of a mount. A bind mount shows a directory with its
// mode and attributes, so the digest covers them. The root of a context has the mode 0755 instead,
// and the top of a cache mount the mode that the mount asks for.
func (r *runner) mountQuery(m parser.RunMount) source.Query {
	src := path.Join("/", m.Source)
	return source.Query{
		Patterns: []string{src}, Literal: true, KeepOwner: true, Epoch: r.e.epoch,
		Root: m.Type == parser.MountBind && (src != "/" || r.inputs.hasOwners(m.From)),
	}
}

// do runs the command.
func (r *runner) do(ctx context.Context, active *snapshot.Active, out output) (err error) {
	p := &executor.Process{
		Args: r.run.Args, Env: append(slices.Clone(r.run.Env), r.run.Proxy...),
		Dir: r.run.Dir, User: r.run.User,
		Network: r.network(), Insecure: r.run.Security == "insecure", ExtraHosts: r.opts.Hosts,
		ShmSize: r.opts.ShmSize, Ulimits: r.opts.Ulimits, Hostname: r.opts.Hostname,
	}
	for _, f := range r.run.Files {
		p.Mounts = append(p.Mounts, executor.Mount{Target: f.Path,
			Source: executor.Data{Data: f.Data, Mode: f.Mode}, ReadOnly: true})
	}
	release, err := r.mounter.Add(ctx, p, r.mounts())
	defer func() { err = errors.Join(err, release()) }()
	if err != nil {
		return err
	}
	return processError(r.run.Args, r.e.run(ctx, active.Mounts(), p, out))
}

// mounts returns the mounts of the command with their sources.
func (r *runner) mounts() []runmount.Mount {
	list := make([]runmount.Mount, len(r.run.Mounts))
	for i, m := range r.run.Mounts {
		list[i] = runmount.Mount{
			RunMount: m,
			Snapshot: func(ctx context.Context) (snapshot.ID, string, error) {
				return r.mountedSnapshot(ctx, i, m)
			},
			Cache: func() (string, error) { return r.cacheName(i, m) },
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

// mountedSnapshot returns the snapshot that a mount shows, "" for an empty one, and the path in it.
func (r *runner) mountedSnapshot(ctx context.Context, i int,
	m parser.RunMount) (snapshot.ID, string, error) {
	f := r.from[i]
	if f == nil {
		return "", m.Source, nil
	}
	if f.Snapshot != nil {
		return *f.Snapshot, m.Source, nil
	}
	id, place, err := r.inputs.snapshotOf(ctx, f, r.looked[i], r.mountQuery(m).Root)
	return id, place, err
}

// cacheName returns the name of a cache mount's directory. As in BuildKit, mounts with different
// initial files, owner or mode have different directories.
func (r *runner) cacheName(i int, m parser.RunMount) (string, error) {
	identity := []any{m.ID, m.UID, m.GID, m.Mode}
	if r.from[i] != nil {
		// the epoch is in the times of the files
		identity = append(identity, r.content[i], m.Source, epochKey(r.e.epoch))
	}
	if ns := r.opts.CacheNamespace; ns != "" {
		identity = append(identity, "namespace "+ns)
	}
	return cachemount.Name(identity...)
}

// copyTo copies the initial files of mount i, a directory of f, to a directory of the host. If look
// has digested the files, it copies the digested ones.
func (r *runner) copyTo(ctx context.Context, dir string, f *inputs.Files, i int,
	from parser.RunMount) error {
	m := r.looked[i]
	if m == nil {
		var err error
		if m, err = f.Tree.Match(ctx, r.mountQuery(from)); err != nil {
			return err
		}
	}
	act := &copyfs.Copy{Dest: "/", KeepOwner: true,
		Sources: []copyfs.Source{{Dir: f.Tree.Dir(), Items: items(m.Items, false)}}}
	act.Frozen = frozen(f.Tree, m)
	err := r.e.run(ctx, []mount.Mount{{Type: "bind", Source: dir}}, act, silent())
	noteChanged(f, err)
	return err
}

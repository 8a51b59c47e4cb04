package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/cachemount"
	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/secret"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
	digest "github.com/opencontainers/go-digest"
)

// runner runs a RUN.
type runner struct {
	e           *engine
	opts        *RunOptions
	secrets     *secret.Store
	cacheMounts *cachemount.Store
	tempDir     func(pattern string) (string, error)
	inputs      stepInputs
	hostname    string // of the command; "" for the usual one
	namespace   string // keeps cache mounts apart that have the same id otherwise

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
		made = append(made, results(f)...)
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
	list := []string{r.platform, r.network(), fmt.Sprint(r.opts.Hosts, r.opts.ShmSize, r.opts.Ulimits)}
	if name := r.hostname; name != "" {
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
		Args: r.run.Args, Env: append(slices.Clone(r.run.Env), r.run.Proxy...), Dir: r.run.Dir, User: r.run.User,
		Network: r.network(), Insecure: r.run.Security == "insecure", ExtraHosts: r.opts.Hosts,
		ShmSize: r.opts.ShmSize, Ulimits: r.opts.Ulimits, Hostname: r.hostname,
	}
	for _, f := range r.run.Files {
		p.Mounts = append(p.Mounts, executor.Mount{Target: f.Path, Source: executor.Data{Data: f.Data, Mode: f.Mode}, ReadOnly: true})
	}
	release := releaser{}
	defer func() { err = errors.Join(err, release.all()) }()
	caches, err := r.lockCaches(ctx, &release)
	if err != nil {
		return err
	}
	for i, m := range r.run.Mounts {
		if m.Type == parser.MountCache {
			p.Mounts = append(p.Mounts, executor.Mount{Target: m.Target, Source: executor.Bind{Source: caches[i]}, ReadOnly: m.ReadOnly})
			continue
		}
		if err := r.mount(ctx, p, i, m, &release); err != nil {
			return fmt.Errorf("mount %s: %w", mountName(m), err)
		}
	}
	return processError(r.run.Args, r.e.run(ctx, active.Mounts(), p, out))
}

// releaser collects what must be undone when a command has ended. It undoes the last thing first.
type releaser struct{ undo []func() error }

func (r *releaser) add(f func() error) { r.undo = append(r.undo, f) }

func (r *releaser) all() error {
	var errs []error
	for _, f := range slices.Backward(r.undo) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

func mountName(m parser.RunMount) string {
	if m.Target != "" {
		return string(m.Type) + " at " + m.Target
	}
	return fmt.Sprintf("%s %s", m.Type, m.ID)
}

// mount adds a mount to the process. It does not handle cache mounts.
func (r *runner) mount(ctx context.Context, p *executor.Process, i int, m parser.RunMount, release *releaser) error {
	switch m.Type {
	case parser.MountTmpfs:
		p.Mounts = append(p.Mounts, executor.Mount{Target: m.Target, Source: executor.Tmpfs{Size: m.Size}})
		return nil
	case parser.MountSecret:
		return r.mountSecret(ctx, p, m)
	case parser.MountSSH:
		return r.mountSSH(ctx, p, i, m, release)
	case parser.MountBind:
		return r.mountBind(ctx, p, i, m, release)
	}
	panic("unreachable")
}

// mountBind mounts files of a stage, an image or a context. What the command writes there is
// discarded when it ends.
func (r *runner) mountBind(ctx context.Context, p *executor.Process, i int, m parser.RunMount, release *releaser) error {
	id, place, err := r.mountedSnapshot(ctx, i, m)
	if err != nil {
		return err
	}
	if err := r.e.lazy.Materialize(ctx, id); err != nil {
		return err
	}
	var mounts []mount.Mount
	if m.ReadOnly {
		mounts, err = r.e.snapshots.View(ctx, id)
	} else {
		var active *snapshot.Active
		if active, err = r.e.snapshots.Prepare(ctx, id); err == nil {
			release.add(active.Discard)
			mounts = active.Mounts()
		}
	}
	if err != nil {
		return err
	}
	p.Mounts = append(p.Mounts, executor.Mount{Target: m.Target, Source: executor.Tree{Mounts: mounts, Path: place}, ReadOnly: m.ReadOnly})
	return nil
}

// mountedSnapshot returns the snapshot that a mount shows, "" for an empty one, and the path in it.
func (r *runner) mountedSnapshot(ctx context.Context, i int, m parser.RunMount) (snapshot.ID, string, error) {
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

// mountSecret passes a secret to a command, as a file in memory or as a variable.
func (r *runner) mountSecret(ctx context.Context, p *executor.Process, m parser.RunMount) error {
	data, ok, err := r.secrets.Read(ctx, m.ID)
	if !ok {
		if m.Required {
			return fmt.Errorf("secret %s: not found; give it with --secret id=%s,src=FILE", m.ID, m.ID)
		}
		return nil
	}
	if err != nil {
		return err
	}
	if m.Env != "" {
		p.Env = append(p.Env, m.Env+"="+string(data))
	}
	if m.Target == "" {
		return nil
	}
	d := executor.Data{Data: data, Mode: 0o400}
	if m.Mode != nil {
		d.Mode = *m.Mode
	}
	if m.UID != nil {
		d.UID = *m.UID
	}
	if m.GID != nil {
		d.GID = *m.GID
	}
	p.Mounts = append(p.Mounts, executor.Mount{Target: m.Target, Source: d, ReadOnly: true})
	return nil
}

// mountSSH passes the socket of an agent to a command. The socket is a proxy with the owner and the
// mode that the mount names.
func (r *runner) mountSSH(ctx context.Context, p *executor.Process, i int, m parser.RunMount, release *releaser) error {
	agent, ok := r.secrets.Agent(m.ID)
	if !ok {
		if m.Required {
			return fmt.Errorf("ssh agent %s: not found; give it with --ssh %s", m.ID, m.ID)
		}
		return nil
	}
	dir, err := r.tempDir("ssh")
	if err != nil {
		return err
	}
	o := secret.Owner{Mode: 0o600}
	if m.Mode != nil {
		o.Mode = os.FileMode(*m.Mode & 0o777)
	}
	if m.UID != nil {
		o.UID = *m.UID
	}
	if m.GID != nil {
		o.GID = *m.GID
	}
	proxy, err := secret.NewProxy(ctx, dir, o, agent)
	if err != nil {
		return fmt.Errorf("ssh agent %s: %w", m.ID, err)
	}
	release.add(proxy.Close)
	target := m.Target
	if target == "" {
		target = fmt.Sprintf("/run/buildkit/ssh_agent.%d", i)
	}
	p.Env = append(p.Env, "SSH_AUTH_SOCK="+target)
	p.Mounts = append(p.Mounts, executor.Mount{Target: target, Source: executor.Bind{Source: proxy.Path}})
	return nil
}

// lockCaches locks the caches of all cache mounts and returns the directories of their files, by
// the mount's index.
func (r *runner) lockCaches(ctx context.Context, release *releaser) (map[int]string, error) {
	var mounts []cachemount.Mount
	var index []int // in the command's mounts
	for i, m := range r.run.Mounts {
		if m.Type != parser.MountCache {
			continue
		}
		name, err := r.cacheName(i, m)
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", mountName(m), err)
		}
		index = append(index, i)
		mounts = append(mounts, cachemount.Mount{Name: name, ID: m.ID, Sharing: m.Sharing, Fill: func(ctx context.Context, dir string) error {
			if f := r.from[i]; f != nil {
				if err := r.copyTo(ctx, dir, f, i, m); err != nil {
					return err
				}
			}
			return cachemount.Own(dir, m)
		}})
	}
	if len(mounts) == 0 {
		return nil, nil
	}
	locked, err := r.cacheMounts.Lock(ctx, mounts)
	if err != nil {
		return nil, err
	}
	release.add(locked.Close)
	files := map[int]string{}
	for k, m := range mounts {
		if files[index[k]], err = locked.Files(ctx, k, m); err != nil {
			return nil, fmt.Errorf("mount %s: %w", mountName(r.run.Mounts[index[k]]), err)
		}
	}
	return files, nil
}

// cacheName returns the name of a cache mount's directory. As in BuildKit, mounts with different
// initial files, owner or mode have different directories.
func (r *runner) cacheName(i int, m parser.RunMount) (string, error) {
	identity := []any{m.ID, m.UID, m.GID, m.Mode}
	if r.from[i] != nil {
		identity = append(identity, r.content[i], m.Source, epochKey(r.e.epoch)) // the epoch is in the times of the files
	}
	if ns := r.namespace; ns != "" {
		identity = append(identity, "namespace "+ns)
	}
	return cachemount.Name(identity...)
}

// copyTo copies the initial files of mount i, a directory of f, to a directory of the host. If look
// has digested the files, it copies the digested ones.
func (r *runner) copyTo(ctx context.Context, dir string, f *inputs.Files, i int, from parser.RunMount) error {
	m := r.looked[i]
	if m == nil {
		var err error
		if m, err = f.Tree.Match(ctx, r.mountQuery(from)); err != nil {
			return err
		}
	}
	act := &executor.Copy{Dest: "/", KeepOwner: true, Sources: []executor.Source{{Dir: f.Tree.Dir(), Items: items(m.Items, false)}}}
	act.Frozen = frozen(f.Tree, m)
	err := r.e.run(ctx, []mount.Mount{{Type: "bind", Source: dir}}, act, silent())
	noteChanged(f, err)
	return err
}

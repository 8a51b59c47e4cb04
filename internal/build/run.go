package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/lock"
	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
)

// runner is a RUN.
type runner struct {
	*solver
	stage *parser.Stage
	cur   rootfs
	run   *parser.Run
	from  map[int]*files // by the mount's index
}

// check refuses what the one who builds has not allowed.
func (r *runner) check() error {
	if r.run.Security == "insecure" && !r.opts.Run.Insecure {
		return fmt.Errorf("security.insecure is not allowed: %w with --allow security.insecure", errNotAllowed)
	}
	if r.run.Network == "host" && r.opts.Run.Network == "none" && !r.opts.Run.HostNetwork {
		return fmt.Errorf("network.host is not allowed: %w with --allow network.host", errNotAllowed)
	}
	return nil
}

// look digests what is mounted.
func (r *runner) look(ctx context.Context) (cache.Key, error) {
	if err := r.open(ctx); err != nil {
		return "", err
	}
	inputs := r.surroundings()
	for i, m := range r.run.Mounts {
		f := r.from[i]
		if f == nil {
			continue
		}
		match, err := f.tree.Match(ctx, mountQuery(m.Source))
		if err != nil {
			return "", err
		}
		inputs = append(inputs, fmt.Sprintf("mount %d %s", i, match.Digest))
	}
	return makeKey(r.cur.key, "run", r.run, inputs...)
}

// surroundings are what of the build a command may see besides its instruction.
func (r *runner) surroundings() []string {
	list := []string{parser.FormatPlatform(r.stage.Platform), r.network(r.run), fmt.Sprint(r.opts.Run.Hosts, r.opts.Run.ShmSize, r.opts.Run.Ulimits)}
	if name := r.hostname(); name != "" {
		list = append(list, "hostname "+name)
	}
	return list
}

// open opens what the mounts show, which may have to be built first.
func (r *runner) open(ctx context.Context) error {
	for i, m := range r.run.Mounts {
		if !showsFiles(m) {
			continue
		}
		f, err := r.files(ctx, m.From)
		if err != nil {
			return err
		}
		r.from[i] = f
	}
	return nil
}

// mountQuery names what a mount shows.
func mountQuery(src string) source.Query {
	return source.Query{Patterns: []string{path.Join("/", src)}, Literal: true, KeepOwner: true}
}

// do runs the command.
func (r *runner) do(ctx context.Context, active *snapshot.Active, out output) (err error) {
	p := &executor.Process{
		Args: r.run.Args, Env: append(slices.Clone(r.run.Env), r.run.Proxy...), Dir: r.run.Dir, User: r.run.User,
		Network: r.network(r.run), Insecure: r.run.Security == "insecure", ExtraHosts: r.opts.Run.Hosts,
		ShmSize: r.opts.Run.ShmSize, Ulimits: r.opts.Run.Ulimits, Hostname: r.hostname(),
	}
	for _, f := range r.run.Files {
		p.Mounts = append(p.Mounts, executor.Mount{Target: f.Path, Source: executor.Data{Data: f.Data, Mode: f.Mode}, ReadOnly: true})
	}
	release := releaser{}
	defer func() { err = errors.Join(err, release.all()) }()
	for i, m := range r.run.Mounts {
		if err := r.mount(ctx, p, i, m, &release); err != nil {
			return fmt.Errorf("mount %s: %w", mountName(m), err)
		}
	}
	return processError(r.run.Args, r.exec(ctx, active.Mounts(), p, out))
}

// releaser is what has to be undone when a command has ended, the last thing first.
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

// mount adds one mount to the process.
func (r *runner) mount(ctx context.Context, p *executor.Process, i int, m parser.RunMount, release *releaser) error {
	switch m.Type {
	case parser.MountTmpfs:
		p.Mounts = append(p.Mounts, executor.Mount{Target: m.Target, Source: executor.Tmpfs{Size: m.Size}})
		return nil
	case parser.MountSecret:
		return r.mountSecret(p, m)
	case parser.MountSSH:
		return r.mountSSH(ctx, p, i, m, release)
	case parser.MountBind:
		return r.mountBind(ctx, p, i, m, release)
	case parser.MountCache:
		return r.mountCache(ctx, p, i, m, release)
	}
	panic("unreachable")
}

// mountBind shows a stage, an image or a part of a context. What is written to it is thrown away with the step.
func (r *runner) mountBind(ctx context.Context, p *executor.Process, i int, m parser.RunMount, release *releaser) error {
	id, place, err := r.mountedSnapshot(ctx, i, m)
	if err != nil {
		return err
	}
	if err := r.ready(ctx, id); err != nil {
		return err
	}
	var mounts []mount.Mount
	if m.ReadOnly {
		mounts, err = r.state.Snapshots.View(ctx, id)
	} else {
		var active *snapshot.Active
		if active, err = r.state.Snapshots.Prepare(ctx, id); err == nil {
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

// mountedSnapshot gives the snapshot that a mount shows, "" for an empty one, and the place in it.
func (r *runner) mountedSnapshot(ctx context.Context, i int, m parser.RunMount) (snapshot.ID, string, error) {
	f := r.from[i]
	if f == nil {
		return "", m.Source, nil
	}
	if f.snapshot != nil {
		return *f.snapshot, m.Source, nil
	}
	id, place, _, err := r.contextSnapshot(ctx, f, m.Source)
	return id, place, err
}

// mountCache shows a directory that outlives the build.
func (r *runner) mountCache(ctx context.Context, p *executor.Process, i int, m parser.RunMount, release *releaser) error {
	dir, err := r.cacheDir(ctx, i, m, release)
	if err != nil {
		return err
	}
	fresh, err := r.fillCache(ctx, dir, i, m)
	if err != nil {
		return err
	}
	if fresh {
		if err := ownCache(dir, m); err != nil {
			return err
		}
	}
	p.Mounts = append(p.Mounts, executor.Mount{Target: m.Target, Source: executor.Bind{Source: filepath.Join(dir, "fs")}, ReadOnly: m.ReadOnly})
	return nil
}

// cacheDir finds the directory of a cache mount and locks it as its sharing mode says.
func (r *runner) cacheDir(ctx context.Context, i int, m parser.RunMount, release *releaser) (string, error) {
	// A cache that begins with other files, or with another owner or mode, is another one, as in BuildKit.
	begin := []any{m.ID, m.UID, m.GID, m.Mode}
	if f := r.from[i]; f != nil {
		begin = append(begin, f.name, m.Source)
	}
	if ns := r.cacheNamespace(); ns != "" {
		begin = append(begin, "namespace "+ns)
	}
	identity, err := json.Marshal(begin)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(identity)
	name := hex.EncodeToString(sum[:])
	top, err := r.state.Path("mounts")
	if err != nil {
		return "", err
	}
	for n := 0; ; n++ {
		dir := filepath.Join(top, name)
		if n > 0 {
			dir = fmt.Sprintf("%s.%d", dir, n)
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", err
		}
		file := filepath.Join(dir, "lock")
		var held *os.File
		switch m.Sharing {
		case parser.SharingPrivate:
			// One that is in use is left to whoever uses it: there is another.
			if held, err = lock.Try(file, true); errors.Is(err, lock.ErrHeld) {
				continue
			}
		case parser.SharingLocked:
			held, err = lock.Acquire(ctx, file, true)
		default:
			held, err = lock.Acquire(ctx, file, false)
		}
		if err != nil {
			return "", err
		}
		release.add(held.Close)
		if err := os.WriteFile(filepath.Join(dir, "id"), []byte(m.ID+"\n"), 0o600); err != nil {
			return "", err
		}
		return dir, nil
	}
}

// fillCache makes the directory of a cache mount if it is not there, with the files that it begins with. With
// --no-cache it begins anew, once in a build.
func (r *runner) fillCache(ctx context.Context, dir string, i int, m parser.RunMount) (fresh bool, err error) {
	return r.fills.do(ctx, dir, func() (bool, error) {
		fs := filepath.Join(dir, "fs")
		if r.opts.Cache.No {
			if err := os.RemoveAll(fs); err != nil {
				return false, err
			}
		}
		if _, err := os.Lstat(fs); err == nil {
			return false, nil
		}
		tmp, err := os.MkdirTemp(dir, "new-")
		if err != nil {
			return false, err
		}
		if err := os.Chmod(tmp, 0o755); err != nil {
			return false, err
		}
		if f := r.from[i]; f != nil {
			if err := r.copyTo(ctx, tmp, f, m.Source); err != nil {
				return false, errors.Join(err, os.RemoveAll(tmp))
			}
		}
		err = os.Rename(tmp, fs)
		if errors.Is(err, os.ErrExist) {
			return false, os.RemoveAll(tmp)
		}
		return true, err
	})
}

// copyTo copies a directory of f to a directory of the host.
func (r *runner) copyTo(ctx context.Context, dir string, f *files, src string) error {
	m, err := f.tree.Match(ctx, mountQuery(src))
	if err != nil {
		return err
	}
	act := &executor.Copy{Dest: "/", KeepOwner: true, Sources: []executor.Source{{Dir: f.tree.Dir(), Items: items(m.Items, false)}}}
	return r.exec(ctx, []mount.Mount{{Type: "bind", Source: dir}}, act, r.silent())
}

// ownCache gives the top of a new cache the mode and the owner that were asked for.
func ownCache(dir string, m parser.RunMount) error {
	fs := filepath.Join(dir, "fs")
	uid, gid, mode := 0, 0, os.FileMode(0o755)
	if m.UID != nil {
		uid = int(*m.UID)
	}
	if m.GID != nil {
		gid = int(*m.GID)
	}
	if m.Mode != nil {
		mode = os.FileMode(*m.Mode & 0o777)
		for bit, flag := range map[uint32]os.FileMode{0o4000: os.ModeSetuid, 0o2000: os.ModeSetgid, 0o1000: os.ModeSticky} {
			if *m.Mode&bit != 0 {
				mode |= flag
			}
		}
	}
	if uid != 0 || gid != 0 {
		if err := os.Chown(fs, uid, gid); err != nil {
			return err
		}
	}
	return os.Chmod(fs, mode)
}

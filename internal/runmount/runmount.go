package runmount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/internal/cachemount"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/secret"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
	"golang.org/x/sync/errgroup"
)

// Snapshots makes snapshots visible. *snapshot.Store implements it.
type Snapshots interface {
	Prepare(ctx context.Context, parent snapshot.ID) (*snapshot.Active, error)
	View(ctx context.Context, id snapshot.ID) ([]mount.Mount, error)
	Over(ctx context.Context, dir string) (*snapshot.Active, error)
}

// Mounter makes the mounts of commands.
type Mounter struct {
	Snapshots Snapshots
	Lazy      *layers.Lazy
	Secrets   *secret.Store
	Caches    *cachemount.Store
	// TempDir creates a temporary directory for a socket.
	TempDir func(pattern string) (string, error)
}

// Mount is a mount of a RUN.
type Mount struct {
	parser.RunMount
	// Snapshot returns the snapshot to bind mount and the path in it. "" is an empty file system.
	Snapshot func(ctx context.Context) (snapshot.ID, string, error)
	// Cache returns the name of a cache mount's cache, made by cachemount.Name.
	Cache func() (string, error)
	// Platform is the platform of the command, for a cache mount.
	Platform string
	// Fill copies the initial files of a cache mount to an empty directory; nil if there are none.
	Fill func(ctx context.Context, dir string) error
}

// Add adds mounts to a process, in their order. The caller calls release when the command has
// ended, also if Add returns an error.
func (m *Mounter) Add(ctx context.Context, p *executor.Process,
	list []Mount) (release func() error, err error) {
	a := &adding{mounter: m, p: p}
	caches, err := a.lockCaches(ctx, list)
	if err != nil {
		return a.release, err
	}
	for i, mt := range list {
		if mt.Type == parser.MountCache {
			a.mount(mt, executor.Bind{Source: caches[i]}, mt.ReadOnly)
			continue
		}
		if err := a.add(ctx, i, mt); err != nil {
			return a.release, fmt.Errorf("mount %s: %w", mt.name(), err)
		}
	}
	return a.release, nil
}

// Overlay returns a directory of the host whose changes are thrown away by release. The caller
// calls release when the command has ended.
func (m *Mounter) Overlay(ctx context.Context, dir string) (t executor.Tree, release func() error,
	err error) {
	active, err := m.Snapshots.Over(ctx, dir)
	if err != nil {
		return t, nil, err
	}
	return executor.Tree{Mounts: active.Mounts()}, active.Discard, nil
}

// adding is one call of Add.
type adding struct {
	mounter *Mounter
	p       *executor.Process
	undo    []func() error
}

// release releases everything that was set up for the mounts, in reverse order.
func (a *adding) release() error {
	var errs []error
	for _, f := range slices.Backward(a.undo) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

func (m *Mount) name() string {
	if m.Target != "" {
		return string(m.Type) + " at " + m.Target
	}
	return fmt.Sprintf("%s %s", m.Type, m.ID)
}

func (a *adding) mount(m Mount, src executor.MountSource, readOnly bool) {
	a.p.Mounts = append(a.p.Mounts, executor.Mount{Target: m.Target,
		Source: src, ReadOnly: readOnly})
}

// add adds a mount that is not a cache mount. i is its index in the RUN.
func (a *adding) add(ctx context.Context, i int, m Mount) error {
	switch m.Type {
	case parser.MountTmpfs:
		a.mount(m, executor.Tmpfs{Size: m.Size}, false)
		return nil
	case parser.MountSecret:
		return a.secret(ctx, m)
	case parser.MountSSH:
		return a.ssh(ctx, i, m)
	case parser.MountBind:
		return a.bind(ctx, m)
	}
	panic("unreachable")
}

// bind mounts files of a stage, an image or a context. Files that the command writes there are
// discarded when the command ends.
func (a *adding) bind(ctx context.Context, m Mount) error {
	id, place, err := m.Snapshot(ctx)
	if err != nil {
		return err
	}
	if err := a.mounter.Lazy.Materialize(ctx, id); err != nil {
		return err
	}
	var mounts []mount.Mount
	if m.ReadOnly {
		mounts, err = a.mounter.Snapshots.View(ctx, id)
	} else {
		var active *snapshot.Active
		if active, err = a.mounter.Snapshots.Prepare(ctx, id); err == nil {
			a.undo = append(a.undo, active.Discard)
			mounts = active.Mounts()
		}
	}
	if err != nil {
		return err
	}
	a.mount(m, executor.Tree{Mounts: mounts, Path: place}, m.ReadOnly)
	return nil
}

// secret passes a secret to the command, as a file in memory or as a variable.
func (a *adding) secret(ctx context.Context, m Mount) error {
	data, ok, err := a.mounter.Secrets.Read(ctx, m.ID)
	if !ok {
		if m.Required {
			return fmt.Errorf("secret %s: not found; give it with --secret id=%s,src=FILE", m.ID,
				m.ID)
		}
		return nil
	}
	if err != nil {
		return err
	}
	if m.Env != "" {
		a.p.Env = append(a.p.Env, m.Env+"="+string(data))
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
	a.mount(m, d, true)
	return nil
}

// ssh passes the socket of an agent to the command. The socket is a proxy with the owner and the
// mode that the mount requests.
func (a *adding) ssh(ctx context.Context, i int, m Mount) error {
	agent, ok := a.mounter.Secrets.Agent(m.ID)
	if !ok {
		if m.Required {
			return fmt.Errorf("ssh agent %s: not found; give it with --ssh %s", m.ID, m.ID)
		}
		return nil
	}
	dir, err := a.mounter.TempDir("ssh")
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
	a.undo = append(a.undo, proxy.Close)
	if m.Target == "" {
		m.Target = fmt.Sprintf("/run/buildkit/ssh_agent.%d", i)
	}
	a.p.Env = append(a.p.Env, "SSH_AUTH_SOCK="+m.Target)
	a.mount(m, executor.Bind{Source: proxy.Path}, false)
	return nil
}

// lockCaches locks the caches of all cache mounts and returns the directories of their files, by
// the index of the mount.
func (a *adding) lockCaches(ctx context.Context, list []Mount) (map[int]string, error) {
	var mounts []cachemount.Mount
	var index []int // the index in list
	for i, m := range list {
		if m.Type != parser.MountCache {
			continue
		}
		name, err := m.Cache()
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.name(), err)
		}
		index = append(index, i)
		mounts = append(mounts, cachemount.Mount{Name: name, ID: m.ID, Sharing: m.Sharing,
			Platform: m.Platform,
			Fill: func(ctx context.Context, dir string) error {
				if m.Fill != nil {
					if err := m.Fill(ctx, dir); err != nil {
						return err
					}
				}
				return cachemount.Own(dir, m.RunMount)
			}})
	}
	if len(mounts) == 0 {
		return nil, nil
	}
	locked, err := a.mounter.Caches.Lock(ctx, mounts)
	if err != nil {
		return nil, err
	}
	a.undo = append(a.undo, locked.Close)
	// copies of several caches are fetched at once
	dirs := make([]string, len(mounts))
	g, gctx := errgroup.WithContext(ctx)
	for k, m := range mounts {
		g.Go(func() (err error) {
			if dirs[k], err = locked.Files(gctx, k, m); err != nil {
				err = fmt.Errorf("mount %s: %w", list[index[k]].name(), err)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	files := map[int]string{}
	for k, i := range index {
		files[i] = dirs[k]
	}
	return files, nil
}

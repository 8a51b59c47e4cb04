package job

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/executor/copyfs"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
	digest "github.com/opencontainers/go-digest"
)

// copyAction runs a COPY or ADD.
type copyAction struct {
	w      *Worker
	in     *inputs.Inputs
	inputs Opener

	copy   *parser.Copy
	key    cache.Key     // key of the file system to which the files are copied
	owners bool          // without --chown, files keep the owners of the source
	from   *inputs.Files // nil before contentKey
	local  []string      // patterns in from
	remote []string      // addresses

	// set by contentKey
	match   *source.Match
	remotes []source.Remote
	fetched map[source.Remote]*source.Fetched // set by fetch

	files *copyfs.Copy // set by copyLocal
}

// copy prepares a COPY or ADD to the file system of the key parent.
func (p *Preparer) copy(ctx context.Context, parent cache.Key, a *parser.Copy,
	name Namer) (*Job, error) {
	c := &copyAction{w: p.Worker, in: p.Inputs, inputs: p.Opener, copy: a, key: parent}
	j := &Job{action: c}
	// With --chmod, BuildKit's --link is an ordinary COPY (docker/buildx issue 1855). Otherwise the
	// mode would also apply to the parent directories in the layer, which hide those of the image.
	j.Link = a.Link && a.Chmod == ""
	c.local, c.remote = a.SplitSources()
	j.Local = len(c.remote) == 0
	if len(c.local) == 0 {
		return j, nil
	}
	from, err := name(ctx, a.From)
	if err != nil {
		return nil, err
	}
	c.owners = p.Inputs.HasOwners(a.From)
	j.Local = j.Local && !c.owners
	if len(c.remote) == 0 && from.Key != "" {
		j.DefKey, err = MakeKey(parent, "copy from", a, from.Key, EpochKey(p.Worker.Epoch))
	}
	if _, ok := a.From.(parser.StageInput); ok {
		j.Inputs = JoinResults([]snapshot.ID{from.Result})
	}
	return j, err
}

// Context prepares the copy of files of a context to an empty file system.
func (p *Preparer) Context(f *inputs.Files, m *source.Match) (*Job, error) {
	key, err := MakeKey(ScratchKey, "context", nil, string(m.Digest), EpochKey(p.Worker.Epoch))
	if err != nil {
		return nil, err
	}
	return &Job{Key: key, action: &copyAction{w: p.Worker, from: f, match: m,
		copy: &parser.Copy{Dest: "/"}}}, nil
}

// close closes the downloads.
func (c *copyAction) close() error {
	var errs []error
	for _, got := range c.fetched {
		errs = append(errs, got.Close())
	}
	for _, r := range c.remotes {
		errs = append(errs, r.Close())
	}
	c.remotes, c.fetched, c.files = nil, nil, nil
	return errors.Join(errs...)
}

// contentKey finds the files that the sources name, and digests them.
func (c *copyAction) contentKey(ctx context.Context) (key cache.Key, inputs string, err error) {
	a := c.copy
	content := make([]string, 0, 1+len(c.remote))
	if len(c.local) > 0 {
		if c.from, err = c.inputs.Files(ctx, a.From); err != nil {
			return "", "", err
		}
		m, err := match(ctx, c.from, a.From, source.Query{Patterns: c.local, Exclude: a.Exclude,
			Parents: a.Parents, KeepOwner: c.keepOwner(), Epoch: c.w.Epoch})
		if err != nil {
			return "", "", err
		}
		inputs = JoinResults(stageResult(c.from))
		c.match = m
		content = append(content, string(m.Digest))
	}
	for _, src := range c.remote {
		r, err := c.in.Remote(ctx, a, src)
		if err != nil {
			return "", "", err
		}
		c.remotes = append(c.remotes, r)
		content = append(content, string(r.Key()))
	}
	key, err = MakeKey(c.key, "copy", copyKey{
		Dest: a.Dest, Chown: a.Chown, Chmod: a.Chmod, Link: a.Link && a.Chmod == "",
		Unpack: c.unpack(), Inline: a.Inline, KeepOwner: c.keepOwner(),
		Content: digest.FromString(fmt.Sprintf("%q", content)),
	}, EpochKey(c.w.Epoch), fmt.Sprint(c.remoteUnpack()))
	return key, inputs, err
}

// keepOwner reports whether files keep their owners, as files of stages and images do.
func (c *copyAction) keepOwner() bool { return c.copy.Chown == "" && c.owners }

// unpack reports whether local archives are unpacked, and remoteUnpack whether downloaded ones are.
func (c *copyAction) unpack() bool {
	if c.copy.Unpack != nil {
		return *c.copy.Unpack
	}
	return c.copy.Add
}

func (c *copyAction) remoteUnpack() bool { return c.copy.Unpack != nil && *c.copy.Unpack }

// namesFiles reports whether a source names a file, which may be an archive to unpack. Archives in
// a directory that is copied are not unpacked.
func (c *copyAction) namesFiles() bool {
	return c.match != nil && slices.ContainsFunc(c.match.Items,
		func(it source.Item) bool { return !it.Contents })
}

// run copies the files.
func (c *copyAction) run(ctx context.Context, active *snapshot.Active, out Output) error {
	if c.match != nil || len(c.copy.Inline) > 0 {
		res, err := c.w.execute(ctx, active.Mounts(), c.copyLocal(), out)
		if c.from != nil && noteChanged(c.from, err) {
			return err // the job begins again
		}
		c.tell(res, out)
		if err != nil {
			return err
		}
	}
	for _, r := range c.remotes {
		if err := c.runRemote(ctx, active, r, out); err != nil {
			return err
		}
	}
	return nil
}

// copyLocal returns the action that copies the files that are not downloaded.
func (c *copyAction) copyLocal() *copyfs.Copy {
	if c.files != nil {
		return c.files
	}
	act := c.action(c.unpack() && c.namesFiles())
	if c.match != nil {
		act.Sources = []copyfs.Source{{Dir: c.from.Tree.Dir(),
			Items: items(c.match.Items, c.copy.Parents)}}
		act.Frozen = c.match.Frozen
	}
	for _, in := range c.copy.Inline {
		act.Inline = append(act.Inline, copyfs.File{Name: in.Name, Data: in.Data})
	}
	c.files = act
	return act
}

// tell sends the messages of a copy to its line, and warns about sockets that were left out.
func (c *copyAction) tell(res executor.Result, out Output) {
	tell(res, out)
	if c.match == nil || c.from.Snapshot != nil || len(c.match.Sockets) == 0 {
		return
	}
	text := fmt.Sprintf("the socket %q is left out: a layer cannot hold sockets",
		c.match.Sockets[0])
	if n := len(c.match.Sockets) - 1; n > 0 {
		text = fmt.Sprintf("the socket %q and %d more are left out: a layer cannot hold sockets",
			c.match.Sockets[0], n)
	}
	out.Warn(text)
}

// fetch downloads the files of an address, once for all runs.
func (c *copyAction) fetch(ctx context.Context, r source.Remote) (*source.Fetched, error) {
	if got := c.fetched[r]; got != nil {
		return got, nil
	}
	got, err := r.Fetch(ctx)
	if err != nil {
		return nil, err
	}
	if c.fetched == nil {
		c.fetched = map[source.Remote]*source.Fetched{}
	}
	c.fetched[r] = got
	return got, nil
}

func (c *copyAction) runRemote(ctx context.Context, active *snapshot.Active, r source.Remote,
	out Output) error {
	got, err := c.fetch(ctx, r)
	if err != nil {
		return err
	}
	act := c.action(c.remoteUnpack())
	act.Sources = []copyfs.Source{{Dir: got.Dir, Items: items(got.Items, false)}}
	return c.w.run(ctx, active.Mounts(), act, out)
}

func (c *copyAction) action(unpack bool) *copyfs.Copy {
	a := c.copy
	return &copyfs.Copy{
		Dest: a.Dest, Chown: a.Chown, Chmod: a.Chmod, KeepOwner: c.keepOwner(),
		Unpack: unpack, StandIns: c.owners,
	}
}

// items converts the items of a match to items of the executor.
func items(list []source.Item, parents bool) []copyfs.Item {
	out := make([]copyfs.Item, len(list))
	for i, it := range list {
		out[i] = copyfs.Item{Path: it.Path, Contents: it.Contents, MtimeNs: it.MtimeNs,
			Entries: it.Entries.List()}
		// With --parents the item keeps its directories below the destination. Without it, a single
		// file is copied into the destination, or to the destination itself.
		if parents {
			out[i].Target = it.Target
		} else {
			out[i].Name = it.Target
		}
	}
	return slices.Clip(out)
}

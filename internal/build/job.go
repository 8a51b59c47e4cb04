package build

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/internal/runmount"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
	digest "github.com/opencontainers/go-digest"
)

// job is a step's action, ready to be run, with the keys that name its result.
type job struct {
	// defKey is the definition key. It is computed from the instruction and the keys of its inputs,
	// without reading contents. It is "" if an input has no key, such as the files of a context.
	defKey cache.Key
	// key is the content key, computed from the contents of the inputs; "" before load.
	key cache.Key
	// inputs names the snapshots of the stages that the job takes files from. A stage that is run
	// again has the same key and another snapshot, so a record under defKey is valid only for the
	// same inputs. inputs is "" if the job takes nothing from stages, and before load also if a
	// snapshot is not known yet.
	inputs string
	// link is set if the job runs on an empty file system and its result is put on top of the
	// parent (COPY --link).
	link bool
	// local is set if look needs nothing that must be built or downloaded first.
	local bool
	// look digests the inputs and returns the content key and the value of inputs; nil if key is
	// known at once.
	look func(ctx context.Context) (key cache.Key, inputs string, err error)
	// do runs the action.
	do jobFunc
	// copier runs the job if it is a COPY or ADD; nil for other jobs.
	copier *copier

	closers []io.Closer
}

// madeFrom reports whether a record under the job's definition key is of the inputs that the job
// has.
func (j *job) madeFrom(rec cache.Record) bool {
	return j.inputs == "" || j.inputs == rec.Inputs
}

type jobFunc func(ctx context.Context, active *snapshot.Active, out output) error

// load digests the contents of the job's inputs and sets the content key.
func (j *job) load(ctx context.Context) (err error) {
	if j.key == "" {
		j.key, j.inputs, err = j.look(ctx)
	}
	return err
}

func (j *job) close() {
	for _, c := range j.closers {
		c.Close() // read-only or temporary: there is nothing to lose
	}
}

// newID returns a new name for a snapshot.
func newID() (snapshot.ID, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	return snapshot.ID(hex.EncodeToString(b[:])), nil
}

// inputName names an input without reading its content.
type inputName struct {
	// key is the key of the stage or image; "" for the files of a context.
	key string
	// result is the snapshot of a stage; "" if it is not known, and for other inputs.
	result snapshot.ID
}

// stepInputs opens what a step takes files from. *Solver implements it.
type stepInputs interface {
	// files opens an input, which may have to be built first.
	files(ctx context.Context, in parser.Input) (*inputs.Files, error)
	// hasOwners reports whether the owners of an input's files are kept in the image.
	hasOwners(in parser.Input) bool
	// snapshotOf makes a snapshot of files of a context, so that they can be mounted.
	snapshotOf(ctx context.Context, f *inputs.Files, m *source.Match,
		whole bool) (id snapshot.ID, place string, err error)
}

// namer names inputs.
type namer func(context.Context, parser.Input) (inputName, error)

// joinResults joins the snapshots of a job's stages into its inputs; the result is "" if one is
// unknown.
func joinResults(list []snapshot.ID) string {
	var b strings.Builder
	for _, id := range list {
		if id == "" {
			return ""
		}
		fmt.Fprintf(&b, "%s ", id)
	}
	return b.String()
}

// prepare makes a job of a step's action.
func (s *Solver) prepare(ctx context.Context, st *parser.Stage, cur rootfs, step parser.Step,
	name namer) (*job, error) {
	switch a := step.Action.(type) {
	case *parser.Mkdir:
		return s.prepareMkdir(cur, a)
	case *parser.Copy:
		return s.prepareCopy(ctx, cur, a, name)
	case *parser.Run:
		return s.prepareRun(ctx, st, cur, a, name)
	}
	panic("unreachable")
}

func (s *Solver) prepareMkdir(cur rootfs, a *parser.Mkdir) (*job, error) {
	key, err := makeKey(cur.key, "mkdir", a, epochKey(s.e.epoch))
	if err != nil {
		return nil, err
	}
	return &job{key: key, do: func(ctx context.Context, active *snapshot.Active, out output) error {
		return s.e.run(ctx, active.Mounts(), &executor.Mkdir{Path: a.Path, User: a.User}, out)
	}}, nil
}

// tell warns about what an action could not keep, and sends the action's own warnings.
func tell(res executor.Result, out output) {
	f := &res.Files
	if f.StandIns > 0 {
		out.warn(fmt.Sprintf("device nodes cannot be made without root (%d, the first is %s): the image has them, and steps see empty files in their place", f.StandIns, f.FirstStandIn))
	}
	if f.AttrsLost > 0 {
		out.warn(fmt.Sprintf("extended attributes of an archive's files cannot be set without root and were left out (%d, the first is %s)", f.AttrsLost, f.FirstAttr))
	}
	if f.OwnersLost > 0 {
		out.warn(fmt.Sprintf("%d files could not be given their owner, the first of them %s: this user namespace has one id only", f.OwnersLost, f.FirstOwner))
	}
	for _, w := range slices.Concat(f.Warnings, res.Warnings) {
		out.warn(w)
	}
}

// prepareCopy prepares a COPY or ADD.
func (s *Solver) prepareCopy(ctx context.Context, cur rootfs, a *parser.Copy,
	name namer) (*job, error) {
	c := &copier{e: s.e, in: s.e.cfg.Inputs, inputs: s, copy: a, key: cur.key}
	j := &job{look: c.look, do: c.do, copier: c, closers: []io.Closer{c}}
	// With --chmod, BuildKit's --link is an ordinary COPY (docker/buildx issue 1855). Otherwise the
	// mode would also apply to the parent directories in the layer, which hide those of the image.
	j.link = a.Link && a.Chmod == ""
	local, remote, err := splitSources(a)
	if err != nil {
		return nil, err
	}
	c.local, c.remote = local, remote
	j.local = len(remote) == 0
	if len(local) == 0 {
		return j, nil
	}
	from, err := name(ctx, a.From)
	if err != nil {
		return nil, err
	}
	c.owners = s.hasOwners(a.From)
	j.local = j.local && !c.owners
	if len(remote) == 0 && from.key != "" {
		j.defKey, err = makeKey(cur.key, "copy from", a, from.key, epochKey(s.e.epoch))
	}
	if _, ok := a.From.(parser.StageInput); ok {
		j.inputs = joinResults([]snapshot.ID{from.result})
	}
	return j, err
}

// prepareRun prepares a RUN.
func (s *Solver) prepareRun(ctx context.Context, st *parser.Stage, cur rootfs, a *parser.Run,
	name namer) (*job, error) {
	r := &runner{
		e: s.e, opts: &s.e.cfg.Run, mounter: s.mounter(), inputs: s,
		run: a, key: cur.key,
		platform: parser.FormatPlatform(st.Platform),
		from:     map[int]*inputs.Files{}, content: map[int]digest.Digest{},
		looked: map[int]*source.Match{},
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	names := r.surroundings()
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
		names = append(names, from.key)
		named, local, plain = named && from.key != "", local && !s.hasOwners(m.From), false
		if _, ok := m.From.(parser.StageInput); ok {
			results = append(results, from.result)
		}
	}
	j := &job{look: r.look, do: r.do, local: local, inputs: joinResults(results)}
	if !named {
		return j, nil
	}
	key, err := makeKey(cur.key, "run", a, names...)
	if err != nil {
		return nil, err
	}
	if plain {
		j.key = key
	} else {
		j.defKey = key
	}
	return j, nil
}

// mounter returns what makes the mounts of RUNs.
func (s *Solver) mounter() *runmount.Mounter {
	return &runmount.Mounter{
		Snapshots: s.e.cfg.Snapshots, Lazy: s.e.cfg.Lazy, Secrets: s.e.cfg.Secrets,
		Caches: s.e.cfg.CacheMounts,
		TempDir: func(pattern string) (string, error) {
			dir, err := s.e.cfg.TempDir()
			if err != nil {
				return "", err
			}
			return os.MkdirTemp(dir, pattern+"-")
		},
	}
}

// hasOwners reports whether the owners of an input's files are kept in the image, as those of
// stages and images are.
func (s *Solver) hasOwners(in parser.Input) bool {
	c, ok := in.(parser.ContextInput)
	if ok {
		_, ok = s.e.cfg.Inputs.ContextImage(c)
		return ok
	}
	return true
}

// showsFiles reports whether a mount shows or starts with files of an input.
func showsFiles(m parser.RunMount) bool {
	if m.From == nil || m.Type != parser.MountBind && m.Type != parser.MountCache {
		return false
	}
	_, empty := m.From.(parser.Scratch)
	return !empty
}

// network returns the network of a RUN: its own, or else the build's.
func (r *runner) network() string {
	switch {
	case r.run.Network != "" && r.run.Network != "default":
		return r.run.Network
	case r.opts.Network != "" && r.opts.Network != "default":
		return r.opts.Network
	}
	return "host"
}

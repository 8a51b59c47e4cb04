package build

import (
	"context"
	"fmt"
	"strings"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/internal/runmount"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// job is a step's action, ready to be run, with the keys that name its result.
type job struct {
	// defKey is the definition key. It is computed from the instruction and the keys of its inputs,
	// without reading contents. It is "" if an input has no key, such as the files of a context.
	defKey cache.Key
	// key is the content key, computed from the contents of the inputs; "" before load.
	key cache.Key
	// inputs names the snapshots of the stages from which the job takes files. A stage that is run
	// again has the same key and another snapshot, so a record under defKey is valid only for the
	// same inputs. inputs is "" if the job takes nothing from stages, and before load also if a
	// snapshot is not known yet.
	inputs string
	// link is set if the job runs on an empty file system and its result is put on top of the
	// parent (COPY --link).
	link bool
	// local is set if load can run without building or downloading anything first.
	local  bool
	action action
}

// action is the work of a job: *copyAction, *runAction or *mkdirAction.
type action interface {
	// contentKey digests the inputs, and returns the content key and the value of job.inputs.
	contentKey(ctx context.Context) (key cache.Key, inputs string, err error)
	// run performs the action on a new snapshot.
	run(ctx context.Context, active *snapshot.Active, out output) error
	// close closes the inputs that contentKey has opened. Afterwards contentKey may be called
	// again.
	close() error
}

// madeFrom reports whether a record under the job's definition key was made from the job's inputs.
func (j *job) madeFrom(rec cache.Record) bool {
	return j.inputs == "" || j.inputs == rec.Inputs
}

// load digests the contents of the job's inputs and sets the content key.
func (j *job) load(ctx context.Context) (err error) {
	if j.key == "" {
		j.key, j.inputs, err = j.action.contentKey(ctx)
	}
	return err
}

// reset closes the inputs, so that load digests them again.
func (j *job) reset() error {
	j.key = ""
	return j.action.close()
}

// inputName names an input without reading its content.
type inputName struct {
	// key is the key of the stage or image; "" for the files of a context.
	key string
	// result is the snapshot of a stage; "" if it is not known, and for other inputs.
	result snapshot.ID
}

// stepInputs opens the inputs of a step. *Solver implements it.
type stepInputs interface {
	// files opens an input, which may have to be built first.
	files(ctx context.Context, in parser.Input) (*inputs.Files, error)
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

// preparer makes jobs of steps.
type preparer struct {
	worker  *worker
	epoch   *int64 // see Config
	inputs  *inputs.Inputs
	opener  stepInputs
	mounter *runmount.Mounter
	options RunOptions
}

// job makes a job of a step's action, for a platform and on the file system of the key parent.
func (p *preparer) job(ctx context.Context, platform ocispec.Platform, parent cache.Key,
	action parser.Action, name namer) (*job, error) {
	switch a := action.(type) {
	case *parser.Mkdir:
		return p.mkdir(parent, a)
	case *parser.Copy:
		return p.copy(ctx, parent, a, name)
	case *parser.Run:
		return p.run(ctx, platform, parent, a, name)
	}
	panic("unreachable")
}

// mkdirAction makes the directory of a WORKDIR.
type mkdirAction struct {
	w     *worker
	mkdir *executor.Mkdir
	key   cache.Key
}

func (m *mkdirAction) contentKey(context.Context) (cache.Key, string, error) {
	return m.key, "", nil
}

func (m *mkdirAction) run(ctx context.Context, active *snapshot.Active, out output) error {
	return m.w.run(ctx, active.Mounts(), m.mkdir, out)
}

func (m *mkdirAction) close() error { return nil }

func (p *preparer) mkdir(parent cache.Key, a *parser.Mkdir) (*job, error) {
	key, err := makeKey(parent, "mkdir", a, epochKey(p.epoch))
	if err != nil {
		return nil, err
	}
	return &job{key: key, action: &mkdirAction{w: p.worker, key: key,
		mkdir: &executor.Mkdir{Path: a.Path, User: a.User}}}, nil
}

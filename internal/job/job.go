package job

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/explain"
	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/internal/runmount"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Job is a step's action, ready to be run, with the keys that name its result.
type Job struct {
	// DefKey is the definition key. It is computed from the instruction and the keys of its inputs,
	// without reading contents. It is "" if an input has no key, such as the files of a context.
	DefKey cache.Key
	// Key is the content key, computed from the contents of the inputs; "" before Load.
	Key cache.Key
	// Inputs names the snapshots of the stages from which the job takes files. A stage that is run
	// again has the same key and another snapshot, so a record under DefKey is valid only for the
	// same inputs. Inputs is "" if the job takes nothing from stages, and before Load also if a
	// snapshot is not known yet.
	Inputs string
	// Link is set if the job runs on an empty file system and its result is put on top of the
	// parent (COPY --link).
	Link bool
	// Local is set if Load can run without building or downloading anything first.
	Local  bool
	action action
}

// IsCommand reports whether the job runs a command.
func (j *Job) IsCommand() bool {
	_, ok := j.action.(*runAction)
	return ok
}

// action is the work of a job: *copyAction, *runAction or *mkdirAction.
type action interface {
	// contentKey digests the inputs, and returns the content key and the value of Job.Inputs.
	contentKey(ctx context.Context) (key cache.Key, inputs string, err error)
	// run performs the action on a new snapshot.
	run(ctx context.Context, active *snapshot.Active, out Output) error
	// depends adds what the result depends on, after contentKey.
	depends(s *explain.Step)
	// close closes the inputs that contentKey has opened. Afterwards contentKey may be called
	// again.
	close() error
}

// Output receives the output of a job's command and the job's messages.
type Output interface {
	// Stream returns the writer of standard output, if n is 1, or of standard error, if it is 2.
	Stream(n int) io.Writer
	Warn(message string)
}

// Silent is an Output that discards everything.
var Silent Output = silent{}

type silent struct{}

func (silent) Stream(int) io.Writer { return io.Discard }
func (silent) Warn(string)          {}

// Run performs the action on a new snapshot. If Load was called and StartsAgain reports true for
// the error, the job can run again on another snapshot after Reset and Load.
func (j *Job) Run(ctx context.Context, active *snapshot.Active, out Output) error {
	return j.action.run(ctx, active, out)
}

// Close closes the inputs that Load has opened.
func (j *Job) Close() error { return j.action.close() }

// MadeFrom reports whether a record under the job's definition key was made from the job's inputs.
func (j *Job) MadeFrom(rec cache.Record) bool {
	return j.Inputs == "" || j.Inputs == rec.Inputs
}

// Load digests the contents of the job's inputs and sets the content key.
func (j *Job) Load(ctx context.Context) (err error) {
	if j.Key == "" {
		j.Key, j.Inputs, err = j.action.contentKey(ctx)
	}
	return err
}

// Reset closes the inputs, so that Load digests them again.
func (j *Job) Reset() error {
	j.Key = ""
	return j.action.close()
}

// InputName names an input without reading its content.
type InputName struct {
	// Key is the key of the stage or image; "" for the files of a context.
	Key string
	// Result is the snapshot of a stage; "" if it is not known, and for other inputs.
	Result snapshot.ID
}

// Opener opens the inputs of jobs.
type Opener interface {
	// Files opens an input, which may have to be built first.
	Files(ctx context.Context, in parser.Input) (*inputs.Files, error)
	// SnapshotOf makes a snapshot of the matched file or directory of a context, so that it can be
	// mounted. place is its path in the snapshot; a directory is the snapshot's root. If whole is
	// set, the root gets the mode and the attributes of the directory, and the digest of the match
	// must cover them.
	SnapshotOf(ctx context.Context, f *inputs.Files, m *source.Match,
		whole bool) (id snapshot.ID, place string, err error)
}

// Namer names inputs.
type Namer func(context.Context, parser.Input) (InputName, error)

// stageResult returns the snapshot of a stage's files, which identifies this result of the stage.
// It returns nil for other inputs.
func stageResult(f *inputs.Files) []snapshot.ID {
	if !f.Stage {
		return nil
	}
	return []snapshot.ID{ResultOf(*f.Snapshot)}
}

// scratchResult names the result of a stage without files in Job.Inputs, where "" means unknown.
const scratchResult snapshot.ID = "scratch"

// ResultOf returns the name of a stage's result: its snapshot or, for the empty file system,
// scratchResult.
func ResultOf(top snapshot.ID) snapshot.ID { return cmp.Or(top, scratchResult) }

// JoinResults joins the snapshots of a job's stages into its inputs; the result is "" if one is
// unknown.
func JoinResults(list []snapshot.ID) string {
	var b strings.Builder
	for _, id := range list {
		if id == "" {
			return ""
		}
		fmt.Fprintf(&b, "%s ", id)
	}
	return b.String()
}

// Preparer makes jobs of steps.
type Preparer struct {
	Worker  *Worker
	Inputs  *inputs.Inputs
	Opener  Opener
	Mounter *runmount.Mounter // for the mounts of RUNs
	Options RunOptions

	machine machine
}

// Job makes a job of a step's action, for a platform and on the file system of the key parent.
// Close it after use.
func (p *Preparer) Job(ctx context.Context, platform ocispec.Platform, parent cache.Key,
	action parser.Action, name Namer) (*Job, error) {
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
	w     *Worker
	mkdir *executor.Mkdir
	key   cache.Key
}

func (m *mkdirAction) contentKey(context.Context) (cache.Key, string, error) {
	return m.key, "", nil
}

func (m *mkdirAction) run(ctx context.Context, active *snapshot.Active, out Output) error {
	return m.w.run(ctx, active.Mounts(), m.mkdir, out)
}

func (m *mkdirAction) close() error { return nil }

func (p *Preparer) mkdir(parent cache.Key, a *parser.Mkdir) (*Job, error) {
	key, err := MakeKey(parent, "mkdir", a, EpochKey(p.Worker.Epoch))
	if err != nil {
		return nil, err
	}
	return &Job{Key: key, action: &mkdirAction{w: p.Worker, key: key,
		mkdir: &executor.Mkdir{Path: a.Path, User: a.User}}}, nil
}

package build_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/executor/copyfs"
	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/job"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/lock/locktest"
	"github.com/layerbuild/layerbuild/internal/secret"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/snapshot"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestSecondBuild builds twice, with a change in between, and checks which steps the second build
// runs.
func TestSecondBuild(t *testing.T) {
	const three = "FROM scratch\nRUN write a 1\nRUN write b 2\nRUN write c 3\n"
	args := func(kv ...string) imagebuild.Options {
		o := imagebuild.Options{Args: map[string]string{}}
		for i := 0; i < len(kv); i += 2 {
			o.Args[kv[i]] = kv[i+1]
		}
		return o
	}
	at := func(s int64) imagebuild.Options {
		return imagebuild.Options{Image: imagebuild.ImageOptions{Epoch: &s}}
	}
	for _, tt := range []struct {
		name          string
		first, second string // Dockerfiles; second "" is the same
		o1, o2        imagebuild.Options
		edit          func(b *bench)
		want          []string // the actions of the second build
	}{
		{name: "nothing changed", first: three},
		{name: "the last step", first: three, second: strings.Replace(three, "c 3", "c 4", 1),
			want: []string{"write c 4"}},
		{name: "the first step", first: three, second: strings.Replace(three, "a 1", "a 4", 1),
			want: []string{"write a 4", "write b 2", "write c 3"}},
		{name: "a step deleted", first: three,
			second: strings.Replace(three, "RUN write b 2\n", "", 1), want: []string{"write c 3"}},
		{name: "a comment", first: three, second: strings.Replace(three, "RUN write b",
			"# why\nRUN write b", 1)},
		{name: "a label", first: three, second: three + "LABEL x=y\n"},
		{name: "a variable before a step", first: three,
			second: strings.Replace(three, "RUN write c", "ENV X=1\nRUN write c", 1),
			want:   []string{"write c 3"}},
		{name: "a used argument", first: "FROM scratch\nARG A\nRUN write a ${A}\n",
			o1: args("A", "1"), o2: args("A", "2"), want: []string{"write a ${A}"}},
		{name: "an argument that no step uses", first: "FROM scratch\nRUN write a 1\nARG A\n",
			o1: args("A", "1"), o2: args("A", "2")},
		{name: "--no-cache", first: three,
			o2:   imagebuild.Options{Cache: imagebuild.CacheOptions{No: true}},
			want: []string{"write a 1", "write b 2", "write c 3"}},
		{
			name:  "--no-cache-filter",
			first: "FROM scratch AS x\nRUN write a 1\nFROM x AS y\nRUN write b 2\n",
			o2:    imagebuild.Options{Cache: imagebuild.CacheOptions{NoStages: []string{"Y"}}},
			want:  []string{"write b 2"},
		},
		{name: "the content of a copied file", first: "FROM scratch\nCOPY a /\nRUN nothing\n",
			edit: func(b *bench) { b.file("a", "b\n") }, want: []string{"copy /", "nothing"}},
		{name: "a file that is not copied", first: "FROM scratch\nCOPY a /\n",
			edit: func(b *bench) { b.file("b", "b\n") }},
		{name: "a new file in a copied directory", first: "FROM scratch\nCOPY . /\n",
			edit: func(b *bench) { b.file("d/b", "b\n") }, want: []string{"copy /"}},
		{
			name: "the time of a copied file", first: "FROM scratch\nCOPY a /\n",
			edit: func(b *bench) {
				os.Chtimes(filepath.Join(b.dir, "a"), time.Unix(1, 0), time.Unix(1, 0))
			},
		},
		{name: "the mode of a copied file", first: "FROM scratch\nCOPY a /\n",
			edit: func(b *bench) { os.Chmod(filepath.Join(b.dir, "a"), 0o600) },
			want: []string{"copy /"}},
		{
			name: "an ignored file", first: "FROM scratch\nCOPY . /\n",
			edit: func(b *bench) { b.file("skip", "x") },
		},
		{name: "the destination", first: "FROM scratch\nCOPY a /x\n",
			second: "FROM scratch\nCOPY a /y\n", want: []string{"copy /y"}},
		{name: "--chmod", first: "FROM scratch\nCOPY a /\n",
			second: "FROM scratch\nCOPY --chmod=0600 a /\n", want: []string{"copy /"}},
		{name: "--chown", first: "FROM scratch\nCOPY a /\n",
			second: "FROM scratch\nCOPY --chown=1:2 a /\n", want: []string{"copy /"}},
		{name: "--link", first: "FROM scratch\nCOPY a /\n",
			second: "FROM scratch\nCOPY --link a /\n", want: []string{"copy /"}},
		{name: "a heredoc", first: "FROM scratch\nCOPY <<E /f\n1\nE\n",
			second: "FROM scratch\nCOPY <<E /f\n2\nE\n", want: []string{"copy /f"}},
		{name: "the epoch and a copy", first: "FROM scratch\nCOPY a /\n", o1: at(1), o2: at(2),
			want: []string{"copy /"}},
		{name: "the epoch and a command", first: "FROM scratch\nRUN write a 1\n",
			o1: at(1), o2: at(2)},
		{name: "a result that is too old", first: three,
			o2:   imagebuild.Options{Cache: imagebuild.CacheOptions{MaxAge: 1}},
			want: []string{"write a 1", "write b 2", "write c 3"}},
		{name: "results that are not too old", first: three,
			o2: imagebuild.Options{Cache: imagebuild.CacheOptions{MaxAge: time.Hour}}},
		{name: "a host", first: three,
			o2: imagebuild.Options{Run: job.RunOptions{Hosts: []executor.Host{{Name: "h",
				IP: "10.0.0.1"}}}},
			want: []string{"write a 1", "write b 2", "write c 3"}},
		{name: "a limit", first: "FROM scratch\nRUN write a 1\n",
			o2:   imagebuild.Options{Run: job.RunOptions{ShmSize: 1 << 20}},
			want: []string{"write a 1"}},
		{name: "the network", first: "FROM scratch\nRUN write a 1\n",
			o2:   imagebuild.Options{Run: job.RunOptions{Network: "none"}},
			want: []string{"write a 1"}},
		{
			name: "a secret", first: "FROM scratch\nRUN --mount=type=secret,id=s,env=S write a 1\n",
			o1: imagebuild.Options{Secrets: []secret.Secret{{ID: "s", Env: "HOME"}}},
			o2: imagebuild.Options{Secrets: []secret.Secret{{ID: "s", Env: "PATH"}}},
		},
		{name: "a mounted file", first: "FROM scratch\nRUN --mount=target=/m write a 1\n",
			edit: func(b *bench) { b.file("a", "b\n") }, want: []string{"copy /", "write a 1"}},
		{
			name:   "a stage that is copied from",
			first:  "FROM scratch AS x\nRUN write a 1\nFROM scratch\nCOPY --from=x /a /\n",
			second: "FROM scratch AS x\nRUN write a 2\nFROM scratch\nCOPY --from=x /a /\n",
			want:   []string{"write a 2", "copy /"},
		},
		{
			name:   "a stage that is copied from, with the same result",
			first:  "FROM scratch AS x\nRUN write a 1\nFROM scratch\nCOPY --from=x /a /\n",
			second: "FROM scratch AS x\nRUN write a 1; nothing\nFROM scratch\nCOPY --from=x /a /\n",
			want:   []string{"write a 1; nothing"},
		},
		{name: "a step that changes nothing",
			first: "FROM scratch\nRUN write a 1\nRUN nothing\nRUN write b 2\n"},
		{
			name:   "a step after one that changes nothing",
			first:  "FROM scratch\nRUN write a 1\nRUN nothing\nRUN write b 2\n",
			second: "FROM scratch\nRUN write a 1\nRUN nothing\nRUN write b 3\n",
			want:   []string{"write b 3"},
		},
		{name: "a working directory", first: "FROM scratch\nWORKDIR /x\nRUN write a 1\n",
			second: "FROM scratch\nWORKDIR /y\nRUN write a 1\n",
			want:   []string{"mkdir /y", "write a 1"}},
		{name: "a shell", first: three, second: strings.Replace(three, "RUN write c",
			"SHELL [\"/bin/ash\", \"-c\"]\nRUN write c", 1), want: []string{"write c 3"}},
		{name: "another target", first: "FROM scratch AS x\nRUN write a 1\nFROM x\nRUN write b 2\n",
			o2: imagebuild.Options{Target: "x"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, "copy")
			b.file(".dockerignore", "skip\n")
			if tt.second == "" {
				tt.second = tt.first
			}
			b.must(tt.first, tt.o1)
			if tt.edit != nil {
				tt.edit(b)
			}
			_, ran := b.must(tt.second, tt.o2)
			b.want("second build", ran, tt.want...)
			_, ran = b.must(tt.second, imagebuild.Options{Args: tt.o2.Args,
				Image: tt.o2.Image, Run: tt.o2.Run,
				Target: tt.o2.Target})
			b.want("third build", ran)
			first, ran := b.must(tt.first, tt.o1)
			if tt.edit == nil {
				b.want("back again", ran)
			}
			if again, _ := b.must(tt.first, tt.o1); again.Root.Digest != first.Root.Digest {
				t.Errorf("the same build gives %s and %s", first.Root.Digest, again.Root.Digest)
			}
		})
	}
}

// TestFirstBuild checks which steps a build runs, and their order.
func TestFirstBuild(t *testing.T) {
	linux := func(arch string) ocispec.Platform {
		return ocispec.Platform{OS: "linux", Architecture: arch}
	}
	for _, tt := range []struct {
		name, dockerfile string
		o                imagebuild.Options
		want             []string // the actions
		layers           int
	}{
		{name: "steps in order", dockerfile: "FROM scratch\nRUN write a 1\nCOPY a /b\nWORKDIR /w\n",
			want: []string{"write a 1", "copy /b", "mkdir /w"}, layers: 3},
		{name: "a stage that nobody needs",
			dockerfile: "FROM scratch AS x\nRUN write x 1\nFROM scratch\nRUN write a 1\n",
			want:       []string{"write a 1"}, layers: 1},
		{name: "a target", dockerfile: "FROM scratch AS x\nRUN write x 1\nFROM x AS y\nRUN write a 1\n", o: imagebuild.Options{Target: "x"}, want: []string{"write x 1"}, layers: 1},
		{
			name: "equal steps of two stages run once",
			dockerfile: "FROM scratch AS x\nRUN write a 1\nFROM scratch AS y\nRUN write a 1\n" +
				"FROM scratch\nCOPY --from=x /a /x\nCOPY --from=y /a /y\n",
			want: []string{"write a 1", "copy /x", "copy /y"}, layers: 2,
		},
		{name: "two platforms", dockerfile: "FROM scratch\nRUN write a 1\n",
			o:    imagebuild.Options{Platforms: []ocispec.Platform{linux("amd64"), linux("arm64")}},
			want: []string{"write a 1", "write a 1"}},
		{name: "only metadata", dockerfile: "FROM scratch\nENV A=1\nCMD [\"x\"]\n"},
		{name: "a check", dockerfile: "FROM scratch\nRUN write a 1\n",
			o: imagebuild.Options{Check: true}},
		{name: "a list of targets", dockerfile: "FROM scratch\nRUN write a 1\n",
			o: imagebuild.Options{ListTargets: true}},
		{name: "a base with a trigger", dockerfile: "FROM base\nRUN write b 2\n",
			want: []string{"write a 1", "write b 2"}, layers: 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, "copy")
			b.images.configs["base"] = func(img *image.Image) {
				img.Config.Config.OnBuild = []string{"RUN write a 1"}
			}
			res, ran := b.must(tt.dockerfile, tt.o)
			b.want(tt.name, ran, tt.want...)
			if tt.layers > 0 {
				if n := len(b.manifest(res).Layers); n != tt.layers {
					t.Errorf("%d layers, want %d", n, tt.layers)
				}
			}
		})
	}
}

// TestFailures checks builds that fail: the line of the error, the actions that ran, and the
// actions of the next build.
func TestFailures(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name, dockerfile string
		o                imagebuild.Options
		change           func(*bench, *imagebuild.Parts)
		line             int    // line of the error; 0: none
		err              string // text in the error
		ran              []string
		again            []string // actions of a later build without the failure
	}{
		{
			name: "a command", dockerfile: "FROM scratch\nRUN write a 1\nRUN fail 3\nRUN write b 2\n", line: 3, err: "exit code: 3",
			ran: []string{"write a 1", "fail 3"}, again: []string{"fail 3"},
		},
		{name: "a missing source", dockerfile: "FROM scratch\nRUN write a 1\nCOPY gone /\n",
			line: 3, err: "gone", ran: []string{"write a 1"}},
		{name: "a missing base", dockerfile: "FROM scratch\nRUN write a 1\nFROM gone\nCOPY --from=0 / /\n", line: 3, err: "image gone: not found"},
		{name: "a missing image of a copy",
			dockerfile: "FROM scratch\nRUN write a 1\nCOPY --from=gone / /\n", line: 3,
			err: "image gone: not found"},
		{name: "a misspelled stage",
			dockerfile: "FROM scratch AS tools\nRUN write a 1\nFROM toolz\n", line: 3,
			err: "did you mean tools?"},
		{name: "the number of a stage", dockerfile: "FROM scratch\nRUN write a 1\nFROM 0\n",
			line: 3, err: "not its number"},
		{name: "a later instruction is wrong",
			dockerfile: "FROM scratch\nRUN write a 1\nEXPOSE x\n", line: 3, err: "x"},
		{name: "a command without permission",
			dockerfile: "FROM scratch\nRUN --security=insecure write a 1\n", line: 2,
			err: "entitlement security.insecure is not allowed; add it with --allow"},
		{name: "the network without permission",
			dockerfile: "FROM scratch\nRUN --network=host write a 1\n",
			o:          imagebuild.Options{Run: job.RunOptions{Network: "none"}}, line: 2,
			err: "entitlement network.host is not allowed"},
		{name: "a required secret",
			dockerfile: "FROM scratch\nRUN --mount=type=secret,id=s,required write a 1\n", line: 2,
			err: "--secret id=s"},
		{name: "a required agent",
			dockerfile: "FROM scratch\nRUN --mount=type=ssh,required write a 1\n", line: 2,
			err: "--ssh default"},
		{
			name: "a snapshot", dockerfile: "FROM scratch\nRUN write a 1\nRUN write b 2\n", line: 2,
			err: "broken", again: []string{"write a 1", "write b 2"},
			change: func(_ *bench, p *imagebuild.Parts) {
				p.Engine.Snapshots = brokenSnapshots{p.Engine.Snapshots, broken}
			},
		},
		{
			name: "a record", dockerfile: "FROM scratch\nRUN write a 1\nRUN write b 2\n", line: 2,
			err: "broken", ran: []string{"write a 1"}, again: []string{"write a 1", "write b 2"},
			change: func(_ *bench, p *imagebuild.Parts) {
				p.Engine.Records = brokenRecords{p.Engine.Records, broken}
			},
		},
		{
			name: "a seal", dockerfile: "FROM scratch\nRUN write a 1\nRUN write b 2\n", line: 3,
			err: `"RUN write b 2": broken`, ran: []string{"write a 1", "write b 2"},
			change: func(_ *bench, p *imagebuild.Parts) {
				p.NewSealer = sealerThat(func(l *layers.Layer) error {
					return fails(l, "write b", broken)
				})
			},
		},
		{
			name: "the executor", dockerfile: "FROM scratch\nRUN write a 1\nWORKDIR /w\n", line: 3,
			err: "broken", ran: []string{"write a 1"}, again: []string{"mkdir /w"},
			change: func(bench *bench, _ *imagebuild.Parts) {
				bench.exec.fail = func(action string) error {
					if action == "mkdir /w" {
						return broken
					}
					return nil
				}
			},
		},
		{
			name: "a cache that cannot be exported", dockerfile: "FROM scratch\nRUN write a 1\n",
			o: imagebuild.Options{
				Cache: imagebuild.CacheOptions{To: places("type=registry,ref=r")}},
			err: "pushing to a registry is not available", ran: []string{"write a 1"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, "copy")
			if tt.change != nil {
				b.change = func(p *imagebuild.Parts) { tt.change(b, p) }
			}
			_, ran, err := b.build(t.Context(), tt.dockerfile, tt.o)
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("error %v, want one with %q", err, tt.err)
			}
			if got := lineOf(err); got != tt.line {
				t.Errorf("the error %q has line %d, want %d", err, got, tt.line)
			}
			b.want("failing build", ran, tt.ran...)
			b.change, b.exec.fail = nil, nil
			if tt.again != nil {
				_, ran, _ := b.build(t.Context(), tt.dockerfile, tt.o)
				b.want("build after that", ran, tt.again...)
			}
		})
	}
}

// TestFailureCancels checks that a failing step ends the steps of other stages.
func TestFailureCancels(t *testing.T) {
	b := newBench(t, "copy")
	b.exec.fail = func(action string) error {
		if action == "nothing" {
			<-b.exec.began("waiting")
			return errors.New("broken")
		}
		return nil
	}
	_, ran, err := b.build(t.Context(),
		"FROM scratch AS x\nRUN mark waiting; wait\nFROM scratch AS y\nRUN nothing\nFROM scratch\nCOPY --from=x / /\nCOPY --from=y / /\n", imagebuild.Options{})
	if err == nil || lineOf(err) != 4 || !strings.Contains(err.Error(), "broken") {
		t.Errorf("error %v, want the one of line 4", err)
	}
	b.want("what has ended", ran, "mark waiting; wait")
	failed := 0
	for _, e := range b.events {
		if d, ok := e.(event.Done); ok && d.Err != nil && !errors.Is(d.Err, context.Canceled) {
			failed++
		}
	}
	if failed != 1 {
		t.Errorf("%d steps are shown as failed, want one", failed)
	}
}

// TestCancel checks that a build returns when its context ends, and that the next build runs only
// the steps that were not finished.
func TestCancel(t *testing.T) {
	b := newBench(t, "copy")
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-b.exec.began("now"); cancel() }()
	if _, _, err := b.build(ctx, "FROM scratch\nRUN write a 1\nRUN mark now; wait\n",
		imagebuild.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	_, ran := b.must("FROM scratch\nRUN write a 1\nRUN nothing\n", imagebuild.Options{})
	b.want("the next build", ran, "nothing")
}

// TestSyncEarlier checks that a build without work does not end the sync of earlier work: the sync
// ends when the state is closed.
func TestSyncEarlier(t *testing.T) {
	b := newBench(t, "copy")
	const file = "FROM scratch\nRUN write a 1\n"
	b.must(file, imagebuild.Options{})
	dir := filepath.Join(b.state.Root, "cache")
	syncs := func() (fields []string) {
		data, err := os.ReadFile(filepath.Join(dir, "syncs"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(data))
	}
	noted := syncs()
	if len(noted) != 5 {
		t.Fatalf("the first build has left no note of work to sync: %q", noted)
	}
	noted[4] = "1" // a note is due after a minute
	if err := os.WriteFile(filepath.Join(dir, "syncs"),
		[]byte(strings.Join(noted, " ")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.reopen()
	release := locktest.Hold(t, filepath.Join(dir, "lock")) // the sync waits for it
	b.must(file, imagebuild.Options{})
	release()
	b.reopen() // the sync ends before the state is closed
	if now := syncs(); len(now) != 3 || now[2] != "1" {
		t.Errorf("the ledger is %q, and the sync has not ended", now)
	}
}

// TestRepair checks that a build starts again because of a damaged blob, and does not repeat the
// steps that it has run, even with --no-cache.
func TestRepair(t *testing.T) {
	for _, no := range []bool{false, true} {
		b := newBench(t, "copy")
		damaged := 0
		b.change = func(p *imagebuild.Parts) {
			p.NewSealer = sealerThat(func(l *layers.Layer) error {
				if damaged++; damaged == 1 {
					return &store.BlobError{Digest: digest.FromString("x"),
						Err: errors.New("damaged")}
				}
				return nil
			})
		}
		_, ran := b.must("FROM scratch\nRUN write a 1\nRUN write b 2\n",
			imagebuild.Options{Cache: imagebuild.CacheOptions{No: no}})
		b.want(fmt.Sprintf("--no-cache=%v", no), ran, "write a 1", "write b 2")
		if w := b.warnings(); !slices.ContainsFunc(w,
			func(s string) bool { return strings.Contains(s, "the build makes the blob") }) {
			t.Errorf("warnings %q do not say that the build makes it again", w)
		}
		for _, e := range b.events {
			if d, ok := e.(event.Done); ok && d.Err != nil && !d.Repair &&
				!errors.Is(d.Err, context.Canceled) {
				t.Errorf("%s is shown as failed: %v", d.ID, d.Err)
			}
		}
	}
}

// TestRepairEnds checks that a blob that cannot be repaired is an error.
func TestRepairEnds(t *testing.T) {
	b := newBench(t, "copy")
	b.change = func(p *imagebuild.Parts) {
		p.NewSealer = sealerThat(func(*layers.Layer) error {
			return &store.BlobError{Digest: digest.FromString("x"), Err: errors.New("damaged")}
		})
	}
	if _, _, err := b.build(t.Context(), "FROM scratch\nRUN write a 1\n",
		imagebuild.Options{}); err == nil ||
		!strings.Contains(err.Error(), "damaged") {
		t.Errorf("error %v, want that of the blob", err)
	}
}

// TestChangedContext checks that a step whose files change while they are copied starts again, and
// copies the digested contents.
func TestChangedContext(t *testing.T) {
	b := newBench(t, "copy")
	changes := 0
	b.exec.fail = func(action string) error {
		if changes++; action == "copy /" && changes < 3 {
			b.file("a", fmt.Sprintln("changed", changes))
			return &copyfs.ChangedError{Path: "a"}
		}
		return nil
	}
	_, ran := b.must("FROM scratch\nCOPY a /\n", imagebuild.Options{})
	b.want("build", ran, "copy /")
	if changes != 3 {
		t.Errorf("the copy was tried %d times, want 3", changes)
	}
}

// lineOf returns the line of the Dockerfile that an error names; 0 for none.
func lineOf(err error) int {
	var step *build.StepError
	if errors.As(err, &step) {
		return step.Range.Start
	}
	return parsedLine(err)
}

// brokenSnapshots is a store in which no snapshot can be prepared.
type brokenSnapshots struct {
	build.Snapshots
	err error
}

func (s brokenSnapshots) Prepare(context.Context, snapshot.ID) (*snapshot.Active, error) {
	return nil, s.err
}

// brokenRecords is a cache to which no record can be written.
type brokenRecords struct {
	build.Records
	err error
}

func (r brokenRecords) Put(context.Context, cache.Key, cache.Record) error { return r.err }

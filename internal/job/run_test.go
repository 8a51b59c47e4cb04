package job

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/executor/copyfs"
	"github.com/layerbuild/layerbuild/internal/cachemount"
	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/internal/runmount"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// site prepares and runs jobs whose actions are recorded instead of performed.
type site struct {
	*Preparer
	t     *testing.T
	state *state.State
	ran   []executor.Action
	err   error           // of the next action
	res   executor.Result // of each action
	lines []string        // the messages
}

func newSite(t *testing.T, files ...string) *site {
	t.Helper()
	dir := t.TempDir()
	for _, name := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	st, err := state.Open(t.Context(), state.Options{Root: t.TempDir(), Driver: "copy"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	s := &site{Preparer: newPreparer(t, dir, RunOptions{}, nil), t: t, state: st}
	s.Worker.State = st
	s.Worker.RunFunc = func(_ context.Context, spec *executor.Spec, stdout,
		_ io.Writer) (executor.Result, error) {
		s.ran = append(s.ran, spec.Action)
		fmt.Fprint(stdout, "output")
		err := s.err
		s.err = nil
		return s.res, err
	}
	s.Mounter = &runmount.Mounter{Snapshots: st.Snapshots, Caches: &cachemount.Store{}}
	return s
}

// job makes a job of an action on the empty file system.
func (s *site) job(a parser.Action) *Job {
	s.t.Helper()
	j, err := s.Job(s.t.Context(), ocispec.Platform{OS: "linux", Architecture: "amd64"}, ScratchKey,
		a, func(context.Context, parser.Input) (InputName, error) { return InputName{}, nil })
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { j.Close() })
	return j
}

// loaded makes a job and loads it.
func (s *site) loaded(a parser.Action) *Job {
	s.t.Helper()
	j := s.job(a)
	if err := j.Load(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	return j
}

// active returns a new snapshot.
func (s *site) active() *snapshot.Active {
	s.t.Helper()
	active, err := s.state.Snapshots.Prepare(s.t.Context(), "")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := active.Discard(); err != nil {
			s.t.Error(err)
		}
	})
	return active
}

func (s *site) Stream(int) io.Writer { return io.Discard }

func (s *site) Warn(message string) { s.lines = append(s.lines, message) }

// copyOf returns a COPY from the context.
func copyOf(dest string, sources ...string) *parser.Copy {
	return &parser.Copy{From: parser.ContextInput{}, Sources: sources, Dest: dest}
}

// TestRunOverlays runs a RUN with a volume whose changes are thrown away, and with a resolv.conf.
func TestRunOverlays(t *testing.T) {
	s := newSite(t)
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "f"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Options = RunOptions{ResolvConf: []byte("nameserver 10.0.0.1\n"), Volumes: []Volume{
		{Source: host, Target: "/v", Overlay: true, NoSuid: true}}}
	if err := s.loaded(&parser.Run{Args: []string{"true"}}).Run(t.Context(), s.active(),
		Silent); err != nil {
		t.Fatal(err)
	}
	p := s.ran[0].(*executor.Process)
	if len(p.Mounts) != 2 {
		t.Fatalf("the mounts are %+v", p.Mounts)
	}
	if d, ok := p.Mounts[0].Source.(executor.Data); !ok || p.Mounts[0].Target !=
		"/etc/resolv.conf" || string(d.Data) != "nameserver 10.0.0.1\n" || d.Mode != 0o644 {
		t.Errorf("the first mount is %+v", p.Mounts[0])
	}
	tree, ok := p.Mounts[1].Source.(executor.Tree)
	if !ok || p.Mounts[1].Target != "/v" || !p.Mounts[1].NoSuid || len(tree.Mounts) != 1 {
		t.Fatalf("the second mount is %+v", p.Mounts[1])
	}
	if _, err := os.Stat(tree.Mounts[0].Source); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the changes are left in %s: %v", tree.Mounts[0].Source, err)
	}
	s.Options.Volumes[0].Source = "/none"
	err := s.loaded(&parser.Run{Args: []string{"true"}}).Run(t.Context(), s.active(), Silent)
	if err == nil || !strings.HasPrefix(err.Error(), "volume at /v: ") || len(s.ran) != 1 {
		t.Errorf("a volume that does not exist: %v", err)
	}
}

// TestRunPassesTheInstruction runs a RUN and looks at the process that the executor gets.
func TestRunPassesTheInstruction(t *testing.T) {
	s := newSite(t)
	s.Options = RunOptions{Network: "none", Hostname: "h", ShmSize: 1 << 20,
		Hosts:   []executor.Host{{Name: "a", IP: "10.0.0.1"}},
		Caps:    new(executor.CapabilitySet(1)),
		Volumes: []Volume{{Source: "/host", Target: "/v", NoExec: true}},
		Ulimits: []executor.Ulimit{{Name: "nofile", Soft: 1, Hard: 2}}}
	j := s.loaded(&parser.Run{Args: []string{"true"}, Env: []string{"A=1"},
		Proxy: []string{"http_proxy=p"}, Dir: "/d", User: "u",
		Files: []parser.RunFile{{Path: "/f", Data: []byte("x"), Mode: 0o755}}})
	if err := j.Run(t.Context(), s.active(), Silent); err != nil {
		t.Fatal(err)
	}
	p := s.ran[0].(*executor.Process)
	if !slices.Equal(p.Args, []string{"true"}) || p.Dir != "/d" || p.User != "u" ||
		!slices.Equal(p.Env, []string{"A=1", "http_proxy=p"}) || p.Network != "none" ||
		p.Hostname != "h" || p.ShmSize != 1<<20 || len(p.ExtraHosts) != 1 || len(p.Ulimits) != 1 ||
		*p.Caps != 1 || len(p.Mounts) != 2 || p.Mounts[1].Target != "/f" || !p.Mounts[1].ReadOnly ||
		p.Mounts[0].Target != "/v" || p.Mounts[0].ReadOnly || !p.Mounts[0].NoExec ||
		p.Mounts[0].Source != (executor.Bind{Source: "/host"}) {
		t.Errorf("the process is %+v", p)
	}
}

// TestRunNetwork checks which network a command gets, and which permissions it needs.
func TestRunNetwork(t *testing.T) {
	for _, tt := range []struct {
		instr, build, want string
		allow              bool
	}{
		{"", "", "host", false},
		{"default", "default", "host", false},
		{"default", "none", "none", false},
		{"none", "", "none", false},
		{"host", "host", "host", false},
		{"host", "none", "", false},
		{"host", "none", "host", true},
	} {
		r := runAction{instr: &parser.Run{Network: tt.instr},
			opts: &RunOptions{Network: tt.build, HostNetwork: tt.allow}}
		err := r.check()
		if (err == nil) != (tt.want != "") || err == nil && r.network() != tt.want {
			t.Errorf("RUN --network=%q where the build has %q: %q, %v, want %q", tt.instr,
				tt.build, r.network(), err, tt.want)
		}
	}
	for _, allow := range []bool{false, true} {
		r := runAction{instr: &parser.Run{Security: "insecure"}, opts: &RunOptions{Insecure: allow}}
		if err := r.check(); (err == nil) != allow {
			t.Errorf("RUN --security=insecure, permitted %v: error %v", allow, err)
		}
	}
}

// TestRunFails checks the error of a command that fails.
func TestRunFails(t *testing.T) {
	s := newSite(t)
	j := s.loaded(&parser.Run{Args: []string{"false"}})
	s.err = &executor.ExitError{Code: 1}
	var failed *CommandError
	if err := j.Run(t.Context(), s.active(), Silent); !errors.As(err, &failed) ||
		failed.Exit.Code != 1 || failed.Args[0] != "false" {
		t.Errorf("error %v, want a CommandError", err)
	}
}

// TestCopyStartsAgain changes a file after its digest was taken. The job runs again with another
// key.
func TestCopyStartsAgain(t *testing.T) {
	s := newSite(t, "f")
	j := s.loaded(copyOf("/f", "f"))
	first := j.Key
	s.err = &copyfs.ChangedError{Path: "f"}
	err := j.Run(t.Context(), s.active(), Silent)
	if !StartsAgain(err, 1) || StartsAgain(err, maxAttempts) {
		t.Errorf("error %v: the job must start again, and not for ever", err)
	}
	if StartsAgain(errors.New("other"), 1) || StartsAgain(nil, 1) ||
		!StartsAgain(fmt.Errorf("fetch: %w", source.ErrRemoteChanged), 1) {
		t.Error("StartsAgain: only a changed file and a changed download start a job again")
	}
	if err := j.Reset(); err != nil || j.Key != "" {
		t.Fatalf("Reset: %v, the key is %q", err, j.Key)
	}
	if err := j.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if j.Key != first { // the file has the same content, now from a private copy
		t.Errorf("the key is %s, and was %s", j.Key, first)
	}
	if err := j.Run(t.Context(), s.active(), Silent); err != nil {
		t.Error(err)
	}
	if act := s.ran[1].(*copyfs.Copy); act.Frozen == nil {
		t.Error("the second attempt does not copy the private copy")
	}
}

// TestDestination makes only the destination of a copy.
func TestDestination(t *testing.T) {
	s := newSite(t, "d/a", "d/b")
	j := s.loaded(copyOf("/x/", "d"))
	if n, size := j.Copies(); n != 2 || size != 6 {
		t.Errorf("Copies = %d, %d, want 2 entries of 6 bytes", n, size)
	}
	s.res.Files.Dest = &copyfs.Dest{Path: "x", Empty: true, Chown: true}
	dir, tell, err := j.MakeDestination(t.Context(), s.active(), s)
	if err != nil || dir == nil {
		t.Fatalf("MakeDestination = %v, %v", dir, err)
	}
	tell()
	if act := s.ran[0].(*copyfs.Copy); !act.DestOnly || act.Dest != "/x/" {
		t.Errorf("the action is %+v, want one of the destination only", act)
	}
	s.res.Files.Dest = nil // more than the directory's files would change
	if dir, _, err := j.MakeDestination(t.Context(), s.active(), s); err != nil || dir != nil {
		t.Errorf("MakeDestination = %v, %v, want nil", dir, err)
	}
	broken := errors.New("broken")
	s.err = broken
	if _, _, err := j.MakeDestination(t.Context(), s.active(), s); !errors.Is(err, broken) {
		t.Errorf("MakeDestination: error %v, want %v", err, broken)
	}
}

// TestKinds checks what the conductor asks about jobs before it runs them.
func TestKinds(t *testing.T) {
	for _, tt := range []struct {
		name                     string
		action                   parser.Action
		directory, outline, user bool
	}{
		{"a directory", copyOf("/x/", "d"), true, true, false},
		{"a directory with a user",
			&parser.Copy{From: parser.ContextInput{}, Sources: []string{"d"}, Dest: "/", Chown: "u"},
			true, true, true},
		{"two directories", copyOf("/x/", "d", "e"), false, true, false},
		{"a file", copyOf("/x", "f"), false, true, false},
		{"a linked directory",
			&parser.Copy{From: parser.ContextInput{}, Sources: []string{"d"}, Dest: "/", Link: true},
			false, true, false},
		{"ADD of a file", // it may be an archive
			&parser.Copy{From: parser.ContextInput{}, Sources: []string{"f"}, Dest: "/", Add: true},
			false, false, false},
		{"ADD of a directory",
			&parser.Copy{From: parser.ContextInput{}, Sources: []string{"d"}, Dest: "/", Add: true},
			true, true, false},
		{"ADD --unpack=false of a file", &parser.Copy{From: parser.ContextInput{},
			Sources: []string{"f"}, Dest: "/", Add: true, Unpack: new(bool)}, false, true, false},
		{"a heredoc", &parser.Copy{Inline: []parser.Inline{{Name: "i"}}, Dest: "/i"}, false, true,
			false},
		{"WORKDIR", &parser.Mkdir{Path: "/w"}, false, true, false},
		{"WORKDIR of a user", &parser.Mkdir{Path: "/w", User: "u"}, false, true, true},
		{"RUN", &parser.Run{Args: []string{"true"}}, false, false, false},
	} {
		s := newSite(t, "d/a", "e/b", "f")
		j := s.loaded(tt.action)
		if got := j.CopiesDirectory(); got != tt.directory {
			t.Errorf("%s: CopiesDirectory = %t", tt.name, got)
		}
		if got := j.RunsOnOutline(); got != tt.outline {
			t.Errorf("%s: RunsOnOutline = %t", tt.name, got)
		}
		if got := j.NamesUser(); got != tt.user {
			t.Errorf("%s: NamesUser = %t", tt.name, got)
		}
	}
}

// TestNamedInputs checks which keys a job has before its files are read.
func TestNamedInputs(t *testing.T) {
	s := newSite(t, "f")
	bind := parser.RunMount{Type: parser.MountBind, Target: "/m", Source: "/"}
	stage, ctx := bind, bind
	stage.From, ctx.From = parser.StageInput{}, parser.ContextInput{}
	for _, tt := range []struct {
		name          string
		action        parser.Action
		def, key      bool
		inputs        string
		local, linked bool
	}{
		{"WORKDIR", &parser.Mkdir{Path: "/w"}, false, true, "", false, false},
		{"RUN", &parser.Run{}, false, true, "", true, false},
		{"RUN that mounts a stage", &parser.Run{Mounts: []parser.RunMount{stage}}, true, false,
			"made ", false, false},
		{"RUN that mounts a context", &parser.Run{Mounts: []parser.RunMount{ctx}}, false, false, "",
			true, false},
		{"COPY", copyOf("/f", "f"), false, false, "", true, false},
		{"COPY --from of a stage",
			&parser.Copy{From: parser.StageInput{}, Sources: []string{"f"}, Dest: "/"}, true, false,
			"made ", false, false},
		{"COPY --link",
			&parser.Copy{From: parser.ContextInput{}, Sources: []string{"f"}, Dest: "/", Link: true},
			false, false, "", true, true},
		{"COPY --link --chmod", &parser.Copy{From: parser.ContextInput{}, Sources: []string{"f"},
			Dest: "/", Link: true, Chmod: "0700"}, false, false, "", true, false},
		{"ADD of an address", &parser.Copy{Sources: []string{"https://example.com/f"}, Dest: "/",
			Add: true}, false, false, "", false, false},
	} {
		j, err := s.Job(t.Context(), ocispec.Platform{}, ScratchKey, tt.action,
			func(_ context.Context, in parser.Input) (InputName, error) {
				if _, ok := in.(parser.StageInput); ok {
					return InputName{Key: "stage", Result: "made"}, nil
				}
				return InputName{}, nil
			})
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if (j.DefKey != "") != tt.def || (j.Key != "") != tt.key || j.Inputs != tt.inputs ||
			j.Local != tt.local || j.Link != tt.linked {
			t.Errorf("%s: definition key %q, key %q, inputs %q, local %t, link %t", tt.name,
				j.DefKey, j.Key, j.Inputs, j.Local, j.Link)
		}
	}
	broken := errors.New("broken")
	for _, a := range []parser.Action{copyOf("/f", "f"),
		&parser.Run{Mounts: []parser.RunMount{ctx}}} {
		if _, err := s.Job(t.Context(), ocispec.Platform{}, ScratchKey, a,
			func(context.Context, parser.Input) (InputName, error) {
				return InputName{}, broken
			}); !errors.Is(err, broken) {
			t.Errorf("an input without a name: error %v, want %v", err, broken)
		}
	}
}

// TestCacheName checks that caches with other initial files, attributes or namespaces have other
// directories.
func TestCacheName(t *testing.T) {
	s := newSite(t, "d/a", "e/b")
	name := func(m parser.RunMount, namespace string) string {
		t.Helper()
		s.Options.CacheNamespace = namespace
		j := s.loaded(&parser.Run{Mounts: []parser.RunMount{m}})
		got, err := j.action.(*runAction).cacheName(0, m)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	base := parser.RunMount{Type: parser.MountCache, ID: "c", Target: "/c"}
	filled, other, owned := base, base, base
	filled.From, filled.Source = parser.ContextInput{}, "d"
	other.From, other.Source = parser.ContextInput{}, "e"
	owned.UID = new(uint32)
	elsewhere := base
	elsewhere.Target = "/elsewhere"
	names := []string{name(base, ""), name(filled, ""), name(other, ""), name(owned, ""),
		name(base, "n")}
	if slices.Sort(names); len(slices.Compact(names)) != 5 {
		t.Errorf("two of these caches have one directory: %s", strings.Join(names, " "))
	}
	if name(base, "") != name(elsewhere, "") {
		t.Error("the target of a cache mount changes its directory")
	}
}

// TestContext checks that equal files of a context have one key, wherever they come from.
func TestContext(t *testing.T) {
	key := func(epoch *int64, files ...string) (*site, *Job) {
		s := newSite(t, files...)
		s.Worker.Epoch = epoch
		f, err := s.Inputs.Files(t.Context(), parser.ContextInput{})
		if err != nil {
			t.Fatal(err)
		}
		m, err := f.Tree.Match(t.Context(), source.Query{Patterns: []string{"/"}, Literal: true})
		if err != nil {
			t.Fatal(err)
		}
		j, err := s.Context(f, m)
		if err != nil {
			t.Fatal(err)
		}
		return s, j
	}
	s, one := key(nil, "a")
	_, other := key(nil, "b")
	_, clamped := key(new(int64), "a")
	if one.Key == other.Key || one.Key == clamped.Key {
		t.Error("the files or the epoch do not change the key")
	}
	if err := one.Run(t.Context(), s.active(), Silent); err != nil {
		t.Fatal(err)
	}
	if act := s.ran[0].(*copyfs.Copy); act.Dest != "/" || len(act.Sources) != 1 {
		t.Errorf("the action is %+v", act)
	}
}

// TestStageResults checks the names of the results of stages.
func TestStageResults(t *testing.T) {
	id, empty := snapshot.ID("made"), snapshot.ID("")
	for _, tt := range []struct {
		files inputs.Files
		want  string
	}{
		{inputs.Files{Snapshot: &id, Stage: true}, "made "},
		{inputs.Files{Snapshot: &empty, Stage: true}, "scratch "},
		{inputs.Files{Snapshot: &id}, ""},
		{inputs.Files{}, ""},
	} {
		if got := JoinResults(stageResult(&tt.files)); got != tt.want {
			t.Errorf("the result is %q, want %q", got, tt.want)
		}
	}
}

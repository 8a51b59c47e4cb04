package inputs

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/mount/mounttest"
	"github.com/layerbuild/layerbuild/internal/secret"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
)

func TestMain(m *testing.M) { os.Exit(mounttest.Main(m)) }

// viewer shows directories as snapshots, and counts its calls.
type viewer struct {
	dirs map[snapshot.ID]string

	mu     sync.Mutex
	viewed []snapshot.ID
}

var errNoSnapshot = errors.New("no such snapshot")

func (v *viewer) View(_ context.Context, id snapshot.ID) ([]mount.Mount, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.viewed = append(v.viewed, id)
	dir, ok := v.dirs[id]
	if !ok {
		return nil, errNoSnapshot
	}
	return []mount.Mount{{Type: mount.Bind, Source: dir, Options: []string{"ro"}}}, nil
}

// directory makes a directory with a file, whose content is the file's name.
func directory(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// options returns options for contexts on this machine.
func options(t *testing.T) Options {
	t.Helper()
	return Options{Lazy: &layers.Lazy{}, Secrets: &secret.Store{}, Sink: event.Discard,
		TempDir: func() (string, error) { return t.TempDir(), nil },
		Index: func() (source.IndexPlace, error) {
			return source.IndexPlace{Dir: t.TempDir()}, nil
		}}
}

// namesIn lists the files of a tree.
func namesIn(t *testing.T, tree *source.Tree) []string {
	t.Helper()
	m, err := tree.Match(t.Context(), source.Query{Patterns: []string{"*"}})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, item := range m.Items {
		names = append(names, item.Path)
	}
	return names
}

// TestFiles opens each kind of input twice: it is opened once.
func TestFiles(t *testing.T) {
	mounttest.Need(t)
	empty := t.TempDir()
	v := &viewer{dirs: map[snapshot.ID]string{"": empty, "top": directory(t, "image"),
		"lazy": directory(t, "lazy")}}
	images := &fakeImages{images: map[string]func(*image.Image){"a": nil}, top: "top"}
	o := options(t)
	o.Images, o.Snapshots = images, v
	o.Contexts = map[string]string{"dir": directory(t, "named"), "img": "docker-image://a",
		"none": filepath.Join(empty, "none")}
	made := 0
	o.Lazy.Add("lazy", func(context.Context) error { made++; return nil })
	in := New(o)
	if _, err := in.Main(t.Context(), directory(t, "main"), "", nil); err != nil {
		t.Fatal(err)
	}
	top, none := snapshot.ID("top"), snapshot.ID("")
	var trees []*source.Tree
	for _, tt := range []struct {
		input    parser.Input
		want     []string
		snapshot *snapshot.ID
	}{
		{parser.ImageInput{Ref: "a", Platform: linux}, []string{"image"}, &top},
		{parser.ContextInput{}, []string{"main"}, nil},
		{parser.ContextInput{Name: "dir"}, []string{"named"}, nil},
		{parser.ContextInput{Name: "img", Platform: linux}, []string{"image"}, &top},
		{parser.Scratch{}, nil, &none},
	} {
		var first *source.Tree
		for range 2 {
			f, err := in.Files(t.Context(), tt.input)
			if err != nil {
				t.Fatalf("%+v: %v", tt.input, err)
			}
			if got := namesIn(t, f.Tree); !slices.Equal(got, tt.want) || f.Stage {
				t.Errorf("%+v: files %q, want %q; of a stage: %v", tt.input, got, tt.want, f.Stage)
			}
			if diff := cmp.Diff(tt.snapshot, f.Snapshot); diff != "" {
				t.Errorf("%+v: snapshot %s", tt.input, diff)
			}
			if first != nil && f.Tree != first {
				t.Errorf("%+v: the second tree is another one", tt.input)
			}
			first = f.Tree
		}
		trees = append(trees, first)
	}
	for range 2 {
		f, err := in.OfSnapshot(t.Context(), "lazy")
		if err != nil {
			t.Fatal(err)
		}
		trees = append(trees, f.Tree)
	}
	if want := []snapshot.ID{"top", "", "lazy"}; !slices.Equal(v.viewed, want) || made != 1 {
		t.Errorf("viewed %q, want %q; the lazy snapshot was made %d times", v.viewed, want, made)
	}
	if want := []string{"resolve a amd64", "unpack a amd64"}; !slices.Equal(images.asked, want) {
		t.Errorf("images: %q, want %q", images.asked, want)
	}
	if _, err := in.Files(t.Context(), parser.ContextInput{Name: "none"}); err == nil ||
		!strings.HasPrefix(err.Error(), "--build-context none: ") {
		t.Errorf("a missing context: error %v", err)
	}
	if _, err := in.Files(t.Context(), parser.ImageInput{Ref: "b"}); !errors.Is(err, errNoImage) {
		t.Errorf("a missing image: error %v", err)
	}
	if _, err := in.OfSnapshot(t.Context(), "gone"); err != errNoSnapshot {
		t.Errorf("a missing snapshot: error %v", err)
	}
	broken := errors.New("broken")
	o.Lazy.Add("broken", func(context.Context) error { return broken })
	if _, err := in.OfSnapshot(t.Context(), "broken"); err != broken ||
		slices.Contains(v.viewed, "broken") {
		t.Errorf("a lazy snapshot that cannot be made: error %v, viewed %q", err, v.viewed)
	}
	for range 2 {
		if err := in.Again(o.Lazy).Close(); err != nil {
			t.Error(err)
		}
	}
	for i, tree := range trees {
		if _, err := tree.Dir().Stat(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("tree %d is open after Close: %v", i, err)
		}
	}
}

// TestTreeOnce opens a snapshot in many goroutines.
func TestTreeOnce(t *testing.T) {
	mounttest.Need(t)
	v := &viewer{dirs: map[snapshot.ID]string{"a": directory(t, "a")}}
	o := options(t)
	o.Snapshots = v
	in := New(o)
	defer in.Close()
	var trees [20]*source.Tree
	var wg sync.WaitGroup
	for i := range trees {
		wg.Go(func() {
			var err error
			if trees[i], err = in.Tree(t.Context(), "a"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(v.viewed) != 1 || len(slices.Compact(trees[:])) != 1 {
		t.Errorf("viewed %q", v.viewed)
	}
}

// TestUnpack checks the requests and the events of images that are unpacked.
func TestUnpack(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name  string
		fail  string // the request that fails
		line  string // the name in the progress
		asked []string
		want  []string // events
	}{
		{"good", "", "[x 1/2] FROM a", []string{"resolve a amd64", "unpack a amd64"},
			[]string{"start image a linux/amd64: [x 1/2] FROM a",
				"done image a linux/amd64: true <nil>"}},
		{"without a name", "", "", []string{"resolve a amd64", "unpack a amd64"},
			[]string{"start image a linux/amd64: [image] a",
				"done image a linux/amd64: true <nil>"}},
		{"not found", "resolve", "", []string{"resolve a amd64"},
			[]string{"start image a linux/amd64: [image] a",
				"done image a linux/amd64: false broken"}},
		{"damaged", "unpack", "", []string{"resolve a amd64", "unpack a amd64"},
			[]string{"start image a linux/amd64: [image] a",
				"done image a linux/amd64: false broken"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			images := &fakeImages{images: map[string]func(*image.Image){"a": nil}, top: "top",
				before: func(_ context.Context, what string) error {
					if tt.fail != "" && strings.HasPrefix(what, tt.fail) {
						return broken
					}
					return nil
				}}
			var mu sync.Mutex
			var events []string
			in := New(Options{Images: images, Sink: func(e event.Event) {
				mu.Lock()
				defer mu.Unlock()
				switch e := e.(type) {
				case event.Start:
					events = append(events, fmt.Sprintf("start %s: %s", e.ID, e.Name))
				case event.Done:
					events = append(events, fmt.Sprintf("done %s: %v %v", e.ID, e.Cached, e.Err))
				}
			}})
			ref := parser.ImageInput{Ref: "a", Platform: linux}
			var wg sync.WaitGroup
			for range 5 {
				wg.Go(func() {
					u, err := in.Unpack(t.Context(), ref, tt.line)
					if tt.fail == "" && (err != nil || u.Top != "top" || u.Image.Name != "a") ||
						tt.fail != "" && err != broken {
						t.Errorf("Unpack = %+v, %v", u, err)
					}
				})
			}
			wg.Wait()
			if !slices.Equal(images.asked, tt.asked) || !slices.Equal(events, tt.want) {
				t.Errorf("requests %q, events %q, want %q and %q", images.asked, events, tt.asked,
					tt.want)
			}
			ref.Platform.Architecture = "arm64"
			if _, err := in.Unpack(t.Context(), ref, ""); (err == nil) != (tt.fail == "") ||
				len(images.asked) != 2*len(tt.asked) {
				t.Errorf("another platform: error %v, requests %q", err, images.asked)
			}
		})
	}
}

// TestUnpackCanceled cancels the first of two callers: the other one makes the snapshots.
func TestUnpackCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		images := &fakeImages{images: map[string]func(*image.Image){"a": nil}, top: "top"}
		images.before = func(ctx context.Context, what string) error {
			if ctx.Value(canceled{}) != nil && strings.HasPrefix(what, "unpack") {
				<-ctx.Done()
				return context.Cause(ctx)
			}
			return nil
		}
		in := New(Options{Images: images, Sink: event.Discard})
		ref := parser.ImageInput{Ref: "a", Platform: linux}
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), canceled{}, true))
		go func() {
			if _, err := in.Unpack(ctx, ref, ""); !errors.Is(err, context.Canceled) {
				t.Errorf("the canceled caller gets the error %v", err)
			}
		}()
		synctest.Wait()
		go func() {
			if u, err := in.Unpack(t.Context(), ref, ""); err != nil || u.Top != "top" {
				t.Errorf("the other caller gets %+v, %v", u, err)
			}
		}()
		synctest.Wait()
		cancel()
		synctest.Wait()
	})
}

// canceled is the key of a value in the context of the caller that is canceled.
type canceled struct{}

// TestContextImage checks which named contexts are images.
func TestContextImage(t *testing.T) {
	in := New(Options{Contexts: map[string]string{"img": "docker-image://a:1",
		"layout": "oci-layout:///l:x", "dir": "docker-image", "git": "https://host/r.git"}})
	for name, want := range map[string]string{"img": "a:1", "layout": "oci-layout:///l:x",
		"dir": "", "git": "", "unknown": "", "": ""} {
		got, ok := in.ContextImage(parser.ContextInput{Name: name, Platform: linux})
		if got.Ref != want || ok != (want != "") || ok && got.Platform.Architecture != "amd64" {
			t.Errorf("ContextImage(%q) = %+v, %v, want %q", name, got, ok, want)
		}
		if owners := in.HasOwners(parser.ContextInput{Name: name}); owners != ok {
			t.Errorf("the owners of %q are kept: %v", name, owners)
		}
	}
	if !in.HasOwners(parser.ImageInput{Ref: "a"}) || !in.HasOwners(parser.StageInput{}) {
		t.Error("the owners of an image and of a stage are kept")
	}
}

// TestContexts opens the main context and a named one with options of the build: where downloads
// and archives are unpacked, and which directory is left out. Close removes the files.
func TestContexts(t *testing.T) {
	archive := imagetest.Tar(t, imagetest.TarFile(tar.Header{Name: "a", Mode: 0o644}, "1"))
	dir, temp := directory(t, "named"), t.TempDir()
	own := filepath.Join(dir, "state")
	if err := os.Mkdir(own, 0o755); err != nil {
		t.Fatal(err)
	}
	o := options(t)
	o.TempDir = func() (string, error) { return temp, nil }
	o.Own = source.OwnState{Dir: own, Holds: func(string) bool { return false }}
	o.Contexts = map[string]string{"x": dir}
	in := New(o)
	c, err := in.Main(t.Context(), "-", "", bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	if got := namesIn(t, c.Tree()); !slices.Equal(got, []string{"a"}) {
		t.Errorf("the context has %q", got)
	}
	if list, err := os.ReadDir(temp); err != nil || len(list) == 0 {
		t.Errorf("the archive is not unpacked in TempDir: %v, %v", list, err)
	}
	named, err := in.Named(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	if got := namesIn(t, named.Tree()); !slices.Equal(got, []string{"named"}) {
		t.Errorf("the named context has %q, want it without the state directory", got)
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if list, err := os.ReadDir(temp); err != nil || len(list) > 0 {
		t.Errorf("after Close there is %v, %v", list, err)
	}
}

// TestContextFails checks the errors of contexts that cannot be opened, and that nothing is left.
func TestContextFails(t *testing.T) {
	broken := errors.New("broken")
	temp := t.TempDir()
	for _, tt := range []struct {
		name string
		set  func(*Options)
		main string // the context
		want string
	}{
		{"no index", func(o *Options) {
			o.Index = func() (source.IndexPlace, error) { return source.IndexPlace{}, broken }
		}, temp, "broken"},
		{"no such directory", func(*Options) {}, filepath.Join(temp, "none"), "no such directory"},
		{"a damaged archive", func(*Options) {}, "-", "standard input"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := options(t)
			o.TempDir = func() (string, error) { return temp, nil }
			tt.set(&o)
			o.Contexts = map[string]string{"x": tt.main}
			in := New(o)
			_, err := in.Main(t.Context(), tt.main, "", strings.NewReader("\x1f\x8b\x08damaged"))
			_, named := in.Named(t.Context(), "x")
			for _, err := range []error{err, named} {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v, want %q", err, tt.want)
				}
			}
			if !strings.HasPrefix(named.Error(), "--build-context x: ") && tt.want != "broken" {
				t.Errorf("error %v, want the name of the context", named)
			}
			if err := in.Close(); err != nil {
				t.Error(err)
			}
			if list, err := os.ReadDir(temp); err != nil || len(list) > 0 {
				t.Errorf("left: %v, %v", list, err)
			}
		})
	}
}

// fakeRemote has what servers have answered.
type fakeRemote struct {
	found   map[string]cache.Finding
	touched []string
}

func (r *fakeRemote) Remote(address string) (cache.Finding, bool) {
	f, ok := r.found[address]
	return f, ok
}

func (r *fakeRemote) PutRemote(_ context.Context, address string, f cache.Finding) error {
	r.found[address] = f
	return nil
}

func (r *fakeRemote) TouchRemote(address string) { r.touched = append(r.touched, address) }

// TestAnswers checks that the answers of servers are kept between builds, apart from those about
// images, and are used only by downloads.
func TestAnswers(t *testing.T) {
	r := &fakeRemote{found: map[string]cache.Finding{"image": {Value: "no"}}}
	o := options(t)
	o.Remote = r
	store := New(o).HTTP().Store
	for _, name := range []string{"image", "a"} {
		if got := store.Load(name); got != nil || len(r.touched) > 0 {
			t.Errorf("Load(%q) = %q, touched %q", name, got, r.touched)
		}
	}
	if err := store.Store(t.Context(), "a", []byte("answer")); err != nil {
		t.Fatal(err)
	}
	if got := New(o).HTTP().Store.Load("a"); string(got) != "answer" || len(r.touched) != 1 {
		t.Errorf("Load = %q, touched %q", got, r.touched)
	}
}

// TestCredentials checks that downloads and git get the secrets and the agent of the build.
func TestCredentials(t *testing.T) {
	t.Setenv("TOKEN", "t0ken")
	o := options(t)
	o.Secrets = &secret.Store{Agents: []secret.Agent{{ID: "default", Socket: "/agent"}},
		Secrets: []secret.Secret{{ID: "HTTP_AUTH_TOKEN_host", Env: "TOKEN"},
			{ID: "GIT_AUTH_TOKEN.host", Env: "TOKEN"}}}
	in := New(o)
	git := in.Git(true)
	if got := in.HTTP().Authorization(t.Context(), "host"); !strings.Contains(got, "t0ken") {
		t.Errorf("downloads get %q", got)
	}
	if got := git.Authorization(t.Context(), "host"); got == "" || !git.KeepGitDir ||
		git.SSH != (source.SSHKeys{Agent: "/agent"}) {
		t.Errorf("git gets %q, %+v", got, git)
	}
	if got := in.HTTP().Authorization(t.Context(), "other"); got != "" {
		t.Errorf("downloads from another host get %q", got)
	}
}

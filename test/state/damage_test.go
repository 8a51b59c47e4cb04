package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/layerbuild/layerbuild/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// dockerfile has a layer of each kind: a layer of a base image, a layer sealed from a snapshot, a
// layer written while files are copied, and a last layer without a snapshot.
const dockerfile = `FROM busybox
RUN mkdir /made && echo made >/made/f && rm -r /home
COPY many /many
RUN --mount=type=cache,target=/cache true >/cache/f && true >/made/g
COPY f /f
CMD ["cat", "/f", "/made/f"]
`

const output = "file\nmade\n"

// template is a state in which the image was built, exported and analyzed.
type template struct {
	*lab.Lab
	manifest, config string // digests
	report           string
}

func newTemplate(t *testing.T) *template {
	l := lab.New(t)
	l.Busybox()
	l.Env = append(l.Env, "SOURCE_DATE_EPOCH=1700000000")
	l.Write("Dockerfile", dockerfile, "f", "file\n")
	for i := range 150 {
		l.Write(fmt.Sprintf("many/%d", i), strings.Repeat("x", 100*i))
	}
	l.Run("build", "-t", "app", "-q", ".")
	l.Run("build", "-t", "app", "-q", "-o", "type=oci,dest=first.tar", ".")
	img := l.Image("app")
	report := l.Run("analyze", "--format=json", "app")
	return &template{Lab: l, manifest: img.Descriptor.Digest.String(),
		config: img.Manifest.Config.Digest.String(), report: report}
}

// object is a kind of object in the state directory.
type object struct {
	name string
	// find returns the paths of such objects below the state directory.
	find func(t *testing.T, tp *template) []string
	// lost lists the operations that need the object, if it cannot be made again without the
	// registry.
	lost []string
	// there lists the operations that do not read the object, but fail in that case if it is
	// missing: a build only stores an image with all of its layers.
	there []string
	// silent is set if damage needs no warning, because the lost data are computed again.
	silent bool
}

func blobOf(pick func(*imagetest.Image) string) func(*testing.T, *template) []string {
	return func(t *testing.T, tp *template) []string {
		_, hex, _ := strings.Cut(pick(tp.Image("app")), ":")
		return []string{"oci/blobs/sha256/" + hex}
	}
}

// files returns the files below a directory of the state.
func files(dir string, keep func(path string) bool) func(*testing.T, *template) []string {
	return func(t *testing.T, tp *template) []string {
		var all []string
		err := filepath.WalkDir(filepath.Join(tp.State, dir),
			func(path string, e fs.DirEntry, err error) error {
				if err == nil && e.Type().IsRegular() && (keep == nil || keep(path)) {
					rel, _ := filepath.Rel(tp.State, path)
					all = append(all, rel)
				}
				return err
			})
		if err != nil || len(all) == 0 {
			t.Fatalf("nothing in %s: %v", dir, err)
		}
		return all
	}
}

func layer(n int) func(*testing.T, *template) []string {
	return blobOf(func(img *imagetest.Image) string {
		return img.Manifest.Layers[n].Digest.String()
	})
}

var objects = []object{
	{name: "layer of the base image", find: layer(0), lost: []string{"export", "push", "analyze"},
		there: []string{"cached", "no-cache"}},
	{name: "layer of a command", find: layer(1)},
	{name: "layer of a copy", find: layer(2)},
	{name: "layer without a snapshot", find: layer(4), lost: []string{"push", "run", "analyze"}},
	{name: "manifest", find: blobOf(func(img *imagetest.Image) string {
		return img.Descriptor.Digest.String()
	}), lost: []string{"push", "run", "analyze"}, silent: true},
	{name: "configuration", find: blobOf(func(img *imagetest.Image) string {
		return img.Manifest.Config.Digest.String()
	}), lost: []string{"push", "run", "analyze"}, silent: true},
	{name: "records of steps", find: files("cache/step", nil), silent: true},
	{name: "records of chains", find: files("cache/chain", nil), silent: true},
	{name: "records of layers", find: files("cache/sealed", nil), silent: true},
	{name: "records of registries", find: files("cache/remote", nil), silent: true,
		lost: []string{"cached", "no-cache", "export"}},
	{name: "index.json", find: func(*testing.T, *template) []string {
		return []string{"oci/index.json"}
	}},
	{name: "copy of index.json", find: func(*testing.T, *template) []string {
		return []string{"oci/index.json.copy"}
	}, silent: true},
	{name: "oci-layout", find: func(*testing.T, *template) []string {
		return []string{"oci/oci-layout"}
	}, silent: true},
	{name: "index of the context", find: files("cache/context", nil), silent: true},
	{name: "tables", find: files("cache/tables", nil), silent: true},
	{name: "build records", find: files("cache/builds", nil), silent: true},
	{name: "ledger of syncs", find: func(*testing.T, *template) []string {
		return []string{"cache/syncs"}
	}, silent: true},
	{name: "info of snapshots", find: files("snapshots", func(p string) bool {
		return filepath.Base(p) == "info.json"
	}), silent: true, lost: []string{"run"}},
}

// damages are kinds of damage to a file. Mode 0 has no effect for root; a link to itself is a file
// that cannot be opened.
var damages = []struct {
	name   string
	damage func(path string, data []byte) error
	warns  bool // a repair is reported; a missing file may have been removed on purpose
}{
	{"truncated", func(p string, data []byte) error { return os.Truncate(p, int64(len(data)/2)) },
		true},
	{"flipped", func(p string, data []byte) error {
		if len(data) == 0 {
			return nil
		}
		fi, err := os.Stat(p)
		if err != nil {
			return err
		}
		flipped := slices.Clone(data)
		flipped[len(data)/2] ^= 4
		// A disk that loses a bit does not change the time.
		return errors.Join(os.WriteFile(p, flipped, 0o644),
			os.Chtimes(p, time.Time{}, fi.ModTime()))
	}, true},
	{"empty", func(p string, _ []byte) error { return os.Truncate(p, 0) }, true},
	{"missing", func(p string, _ []byte) error { return os.Remove(p) }, false},
	{"mode 0", func(p string, _ []byte) error { return os.Chmod(p, 0) }, false},
	{"unreadable", func(p string, _ []byte) error {
		return errors.Join(os.Remove(p), os.Symlink(filepath.Base(p), p))
	}, true},
	{"directory", func(p string, _ []byte) error {
		return errors.Join(os.Remove(p), os.MkdirAll(filepath.Join(p, "sub"), 0o755))
	}, true},
	{"garbage", func(p string, _ []byte) error {
		return os.WriteFile(p, []byte("layerbuild-record 9\n\x00{garbage"), 0o644)
	}, true},
}

// operations are performed on a damaged state. They return a description of what is wrong.
var operations = []struct {
	name string
	do   func(t *testing.T, tp *template) (log string, wrong string, err error)
}{
	{"cached", func(t *testing.T, tp *template) (string, string, error) { return tp.build(t) }},
	{"no-cache", func(t *testing.T, tp *template) (string, string, error) {
		return tp.build(t, "--no-cache")
	}},
	{"export", func(t *testing.T, tp *template) (string, string, error) {
		log, wrong, err := tp.build(t, "-o", "type=oci,dest=out.tar")
		if err != nil || wrong != "" {
			return log, wrong, err
		}
		return log, tp.whole(filepath.Join(tp.Dir, "out.tar"), ""), nil
	}},
	{"push", func(t *testing.T, tp *template) (string, string, error) {
		tp.tag(t)
		_, log, err := tp.try("push", "app", tp.Registry.Host+"/pushed:x")
		return log, "", err
	}},
	{"run", func(t *testing.T, tp *template) (string, string, error) {
		tp.tag(t)
		out, log, err := tp.try("run", "app")
		if err == nil && out != output {
			return log, fmt.Sprintf("run prints %q", out), nil
		}
		return log, "", err
	}},
	{"analyze", func(t *testing.T, tp *template) (string, string, error) {
		tp.tag(t)
		out, log, err := tp.try("analyze", "--format=json", "app")
		if err == nil && out != tp.report && !sameButLines(out, tp.report) {
			return log, fmt.Sprintf("analyze prints\n%s\nand not\n%s", out, tp.report), nil
		}
		return log, "", err
	}},
}

// sameButLines compares reports without the facts that are known only from the build.
func sameButLines(a, b string) bool {
	var x, y map[string]any
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil {
		return false
	}
	return fmt.Sprint(x["size"], x["totals"]) == fmt.Sprint(y["size"], y["totals"])
}

func (tp *template) try(verb string, args ...string) (stdout, stderr string, err error) {
	cmd := tp.Command(verb, args...)
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	err = cmd.Run()
	return out.String(), log.String(), err
}

// build builds, and compares the digest with the expected one.
func (tp *template) build(t *testing.T, args ...string) (log, wrong string, err error) {
	t.Helper()
	_, log, err = tp.try("build", append([]string{"--progress=plain", "-t", "app", "."},
		args...)...)
	if err != nil {
		return log, "", err
	}
	img, err := imagetest.Open(filepath.Join(tp.State, "oci"), "app")
	if err != nil {
		return log, "after the build the image cannot be read: " + err.Error(), nil
	}
	if got := img.Descriptor.Digest.String(); got != tp.manifest {
		return log, fmt.Sprintf("the image is %s, not %s", got, tp.manifest), nil
	}
	return log, "", nil
}

// tag does nothing. It stands for a verb that needs the image's name, which a lost index.json does
// not have.
func (tp *template) tag(*testing.T) {}

// whole reads all layers of an image and returns what is wrong.
func (tp *template) whole(path, name string) string {
	img, err := imagetest.Open(path, name)
	if err != nil {
		return err.Error()
	}
	for i := range img.Manifest.Layers {
		if _, err := img.Layer(i); err != nil {
			return fmt.Sprintf("layer %d: %v", i, err)
		}
	}
	return ""
}

// named matches an error about damage that cannot be repaired: it names the blob and the remedy.
var named = regexp.MustCompile(`sha256:[0-9a-f]{64}.*build or pull|docker.io/library/app:latest`)

func TestDamage(t *testing.T) {
	lab.Root(t)
	tp := newTemplate(t)
	pristine := filepath.Join(filepath.Dir(tp.State), "pristine")
	if err := os.Rename(tp.State, pristine); err != nil {
		t.Fatal(err)
	}
	// otherwise, each operation is tested with one kind of damage to each object
	all := os.Getenv("LAYERBUILD_FAULTS") == "1"
	for i, o := range objects {
		for j, d := range damages {
			for k, op := range operations {
				if !all && (i+k)%len(damages) != j {
					continue
				}
				t.Run(o.name+"/"+d.name+"/"+op.name, func(t *testing.T) {
					lab.Output(t, "cp", "-a", pristine, tp.State)
					defer os.RemoveAll(tp.State)
					var path string
					var data []byte
					for _, name := range o.find(t, tp) {
						path = filepath.Join(tp.State, name)
						var err error
						if data, err = os.ReadFile(path); err != nil {
							t.Fatal(err)
						}
						if err := d.damage(path, data); err != nil {
							t.Fatal(err)
						}
					}
					log, wrong, err := op.do(t, tp)
					now, e := os.ReadFile(path)
					if e == nil && bytes.Equal(now, data) && !o.silent &&
						d.warns && op.name != "no-cache" && !strings.Contains(log, "damaged") {
						t.Errorf("repaired without a warning:\n%s", log)
					}
					switch {
					case wrong != "":
						t.Errorf("%s\n%s", wrong, log)
					case err != nil && slices.Contains(o.lost, op.name) && named.MatchString(log):
					case err != nil:
						t.Errorf("%v\n%s", err, log)
					case strings.Contains(log, "ERROR"):
						t.Errorf("the repair looks like a failure\n%s", log)
					}
					if strings.Contains(log, "panic") {
						t.Errorf("%s", log)
					}
					warned := strings.Contains(log, "damaged")
					// After the repair a further build finds no damage.
					if log, wrong, err := tp.build(t); wrong != "" || err != nil ||
						warned && strings.Contains(log, "damaged") {
						t.Errorf("the next build: %s %v\n%s", wrong, err, log)
					}
				})
			}
		}
	}
}

// TestSourceGone damages blobs that only a registry has, while the registry cannot be reached. The
// error must name the blob and the remedy, and operations that do not need the blob must work.
func TestSourceGone(t *testing.T) {
	lab.Root(t)
	tp := newTemplate(t)
	conf := filepath.Join(filepath.Dir(tp.State), "gone.conf")
	text := "[[registry]]\nprefix = \"docker.io\"\nlocation = \"127.0.0.1:1\"\ninsecure = true\n"
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	tp.Env = append(tp.Env, "CONTAINERS_REGISTRIES_CONF="+conf)
	pristine := filepath.Join(filepath.Dir(tp.State), "pristine")
	if err := os.Rename(tp.State, pristine); err != nil {
		t.Fatal(err)
	}
	for _, o := range objects[:6] {
		for _, op := range operations {
			for _, d := range []string{"flipped", "missing"} {
				t.Run(o.name+"/"+d+"/"+op.name, func(t *testing.T) {
					lab.Output(t, "cp", "-a", pristine, tp.State)
					defer os.RemoveAll(tp.State)
					for _, path := range o.find(t, tp) {
						path = filepath.Join(tp.State, path)
						data, err := os.ReadFile(path)
						if err != nil {
							t.Fatal(err)
						}
						for _, damage := range damages {
							if damage.name != d {
								continue
							}
							if err := damage.damage(path, data); err != nil {
								t.Fatal(err)
							}
						}
					}
					log, wrong, err := op.do(t, tp)
					if wrong != "" {
						t.Errorf("%s\n%s", wrong, log)
					}
					if err == nil {
						return
					}
					lines := strings.Split(strings.TrimSpace(log), "\n")
					allowed := slices.Contains(o.lost, op.name) ||
						d == "missing" && slices.Contains(o.there, op.name)
					if last := lines[len(lines)-1]; !allowed || !named.MatchString(last) ||
						strings.Count(last, "build or pull") != 1 {
						t.Errorf("%v\n%s", err, log)
					}
				})
			}
		}
	}
}

// TestSnapshotsGone removes snapshots, or their files, in several ways, and checks that they are
// made again.
func TestSnapshotsGone(t *testing.T) {
	lab.Root(t)
	tp := newTemplate(t)
	pristine := filepath.Join(filepath.Dir(tp.State), "pristine")
	if err := os.Rename(tp.State, pristine); err != nil {
		t.Fatal(err)
	}
	infos := files("snapshots", func(p string) bool { return filepath.Base(p) == "info.json" })
	each := func(do func(dir string) error) func(t *testing.T, tp *template) error {
		return func(t *testing.T, tp *template) error {
			for _, info := range infos(t, tp) {
				if err := do(filepath.Dir(filepath.Join(tp.State, info))); err != nil {
					return err
				}
			}
			return nil
		}
	}
	one := func(n int) func(t *testing.T, tp *template) error {
		return func(t *testing.T, tp *template) error {
			all := infos(t, tp)
			return os.RemoveAll(filepath.Dir(filepath.Join(tp.State, all[n%len(all)])))
		}
	}
	ways := map[string]func(t *testing.T, tp *template) error{
		"all": func(_ *testing.T, tp *template) error {
			return os.RemoveAll(filepath.Join(tp.State, "snapshots"))
		},
		"each": each(os.RemoveAll), "files": each(func(dir string) error {
			return os.RemoveAll(filepath.Join(dir, "fs"))
		}),
		"a file in its place": each(func(dir string) error {
			return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, []byte("x"), 0o600))
		}),
		"a link to nothing": each(func(dir string) error {
			return errors.Join(os.RemoveAll(dir), os.Symlink("nothing", dir))
		}),
		"first": one(0), "second": one(1), "third": one(2), "fourth": one(3),
	}
	for name, damage := range ways {
		for i, op := range operations {
			if os.Getenv("LAYERBUILD_FAULTS") != "1" && i%2 == len(name)%2 {
				continue
			}
			t.Run(name+"/"+op.name, func(t *testing.T) {
				lab.Output(t, "cp", "-a", pristine, tp.State)
				defer os.RemoveAll(tp.State)
				if err := damage(t, tp); err != nil {
					t.Fatal(err)
				}
				if log, wrong, err := op.do(t, tp); wrong != "" || err != nil {
					t.Errorf("%s %v\n%s", wrong, err, log)
				}
				if log, wrong, err := tp.build(t); wrong != "" || err != nil {
					t.Errorf("the next build: %s %v\n%s", wrong, err, log)
				}
				tp.Run("prune")
			})
		}
	}
}

// TestKinds replaces each file of the state by a directory with a file in it, and each directory by
// a file. The next build must have the right digest, and the one after it must have no warnings.
func TestKinds(t *testing.T) {
	lab.Root(t)
	tp := newTemplate(t)
	pristine := filepath.Join(filepath.Dir(tp.State), "pristine")
	if err := os.Rename(tp.State, pristine); err != nil {
		t.Fatal(err)
	}
	var all []string
	seen := map[string]bool{} // use one file of each kind, and not each blob
	digits := regexp.MustCompile(`/[0-9a-f]{2,}|/index-[^/]*`)
	err := filepath.WalkDir(pristine, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(pristine, path)
		if e.Name() == "fs" && strings.HasPrefix(rel, "snapshots/") {
			return fs.SkipDir
		}
		kind := digits.ReplaceAllString(rel, "/#")
		if rel != "." && !seen[kind] {
			seen[kind] = true
			all = append(all, rel)
		}
		return nil
	})
	if err != nil || len(all) < 40 {
		t.Fatalf("only %q, %v", all, err)
	}
	for _, rel := range all {
		t.Run(rel, func(t *testing.T) {
			lab.Output(t, "cp", "-a", pristine, tp.State)
			defer os.RemoveAll(tp.State)
			path := filepath.Join(tp.State, rel)
			fi, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			if fi.IsDir() {
				err = os.WriteFile(path, []byte("x"), 0o644)
			} else {
				err = os.MkdirAll(filepath.Join(path, "sub"), 0o755)
			}
			if err != nil {
				t.Fatal(err)
			}
			log, wrong, err := tp.build(t, "--no-cache")
			// it protects the owners of files, and the program cannot know whether they are right
			if rel == "snapshots/ids" {
				if err == nil || !strings.Contains(log, "remove it if no other user") {
					t.Errorf("%v\n%s", err, log)
				}
				return
			}
			if wrong != "" || err != nil {
				t.Fatalf("%s %v\n%s", wrong, err, log)
			}
			if log, wrong, err = tp.build(t); wrong != "" || err != nil ||
				strings.Contains(log, "warning") {
				t.Errorf("the next build: %s %v\n%s", wrong, err, log)
			}
			if _, log, err := tp.try("prune"); err != nil {
				t.Errorf("prune: %v\n%s", err, log)
			}
		})
	}
}

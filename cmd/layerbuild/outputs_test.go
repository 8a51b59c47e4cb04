package main_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/layerbuild/layerbuild/internal/registrytest"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// outputKinds are the destinations of an image. %d makes the destinations of several outputs of a
// build different.
var outputKinds = []struct{ name, spec string }{
	{"oci archive", "type=oci,dest=oci%d.tar"},
	{"oci directory", "type=oci,tar=false,dest=oci%d"},
	{"docker archive", "type=docker,dest=docker%d.tar"},
	{"docker directory", "type=docker,tar=false,dest=docker%d"},
	{"image", "type=image,name=REGISTRY/image:%d"},
	{"registry", "type=registry,registry.insecure=true,name=REGISTRY/pushed:%d"},
	{"local", "type=local,dest=local%d"},
	{"tar", "type=tar,dest=tar%d.tar"},
}

// outputOptions are the options of an output. want is the part of the output's documents that shows
// the option's effect. The option is an error for a type that does not accept it, and a warning if
// it has no effect in this build.
var outputOptions = []struct {
	option    string
	platforms string
	want      string // a regular expression
	not       string // text that the output must not contain
	err       string // the error, for an option that no output accepts
	warns     string
	refused   []string // the types that do not accept the option
}{
	{option: "compression=zstd", want: `layer\.v1\.tar\+zstd`},
	{option: "compression=uncompressed", want: `layer\.v1\.tar"`},
	{option: "compression=gzip,compression-level=9", want: `layer\.v1\.tar\+gzip`},
	{option: "compression=uncompressed,compression-level=3",
		err: "compression-level has no effect"},
	{option: "compression=zstd,force-compression=true", want: `layer\.v1\.tar\+zstd`,
		not: `layer\.v1\.tar\+gzip`},
	{option: "oci-mediatypes=false", want: `distribution\.manifest\.v2\+json`,
		not: `vnd\.oci\.image\.(manifest|config|layer)`},
	{option: "oci-mediatypes=false,annotation.k=v",
		err: "oci-mediatypes=false and annotation k: Docker's format has no annotations"},
	{option: "oci-mediatypes=false", platforms: "linux/amd64,linux/arm64",
		want: `distribution\.manifest\.list\.v2\+json`, refused: dockerKinds},
	{option: "prune-dead=true", want: `"layers"`},
	{option: "prune-dead=true,compression=zstd,compression-level=19", want: `layer\.v1\.tar\+zstd`},
	{option: "rewrite-timestamp=true", want: `"layers"`},
	{option: "unpack=true,store=false,oci-artifact=true", want: `"layers"`},
	{option: "compression=estargz", err: "compression=estargz: layerbuild writes no eStargz layers"},
	{option: "rewrite-timestamp=false", warns: "rewrite-timestamp=false has no effect"},
	{option: "annotation.id=one", want: `"annotations":\{"id":"one"\}`},
	{option: "annotation[linux/AMD64].id=one", platforms: "linux/amd64,linux/arm64",
		want: `"annotations":\{"id":"one"\}`, refused: dockerKinds},
	{option: "annotation[linux/s390x].id=one", err: "the build has no platform linux/s390x"},
	{option: "annotation-manifest-descriptor.id=one", platforms: "linux/amd64,linux/arm64",
		want: `"annotations":\{"id":"one"\},"platform"`, refused: dockerKinds},
	{option: "annotation-index.id=one", platforms: "linux/amd64,linux/arm64",
		want: `\],"annotations":\{"id":"one"\}`, refused: dockerKinds},
	{option: "annotation-index.id=one", err: "an image for one platform has no index"},
	// A registry and the store cannot keep it; --metadata-file shows it.
	{option: "annotation-index-descriptor.id=one", platforms: "linux/amd64,linux/arm64",
		want: `"id":"one"`, refused: dockerKinds},
	{option: "annotation-index-descriptor.id=one", err: "an image for one platform has no index"},
	{option: "name=REGISTRY/special:tag", want: `special|"layers"`},
	{option: "name=", err: "name is empty"},
	{option: "push-by-digest=true", refused: []string{"image", "oci archive", "oci directory",
		"docker archive", "docker directory", "local", "tar"}, want: ""},
}

var dockerKinds = []string{"docker archive", "docker directory"}

var flatKinds = []string{"local", "tar"}

// outputLab is a directory with the files and images for builds.
type outputLab struct {
	t        *testing.T
	dir      string
	registry *registrytest.Registry
}

func newOutputLab(t *testing.T) *outputLab {
	t.Helper()
	if os.Getuid() != 0 && !userns() {
		t.Skip("neither root nor user namespaces")
	}
	dir, err := os.MkdirTemp("", "layerbuild-outputs-")
	if err != nil {
		t.Fatal(err)
	}
	l := &outputLab{t: t, dir: dir, registry: registrytest.New(t)}
	t.Cleanup(func() {
		if os.Getuid() != 0 {
			exec.Command("unshare", "--map-root-user", "--map-auto", "rm", "-rf",
				"--one-file-system", dir).Run()
		}
		os.RemoveAll(dir)
	})
	base, err := imagetest.Make(dockerspec.DockerOCIImageConfig{}, []imagetest.Entry{
		{Path: "base", Header: &tar.Header{Typeflag: tar.TypeReg, Mode: 0o644},
			Data: bytes.Repeat([]byte("base "), 2000)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := base.WriteLayout(filepath.Join(dir, "base"), "base:latest"); err != nil {
		t.Fatal(err)
	}
	l.write("Dockerfile", "FROM base\nCOPY f /f\nCOPY --chmod=600 f /f\n")
	l.write("scratch.Dockerfile", "FROM scratch\nCOPY f /f\nCOPY --chmod=600 f /f\n")
	l.write("f", strings.Repeat("content ", 2000))
	return l
}

func (l *outputLab) write(name, data string) {
	l.t.Helper()
	if err := os.WriteFile(filepath.Join(l.dir, name), []byte(data), 0o644); err != nil {
		l.t.Fatal(err)
	}
}

// build builds, returns standard error, and reports whether the build succeeded.
func (l *outputLab) build(platforms string, outputs ...string) (string, bool) {
	l.t.Helper()
	args := []string{"build", "--root=state", "--progress=plain", "-f", "Dockerfile"}
	if platforms != "" {
		args[4] = "scratch.Dockerfile"
		args = append(args, "--platform", platforms)
	} else {
		args = append(args, "--build-context", "base=oci-layout://"+l.dir+"/base")
	}
	for _, o := range outputs {
		args = append(args, "-o", strings.ReplaceAll(o, "REGISTRY", l.registry.Host))
	}
	// an image would be added to an existing layout
	for _, name := range []string{"oci1", "oci2", "docker1", "docker2"} {
		if err := os.RemoveAll(filepath.Join(l.dir, name)); err != nil {
			l.t.Fatal(err)
		}
	}
	cmd := exec.Command(binary, append(args, ".")...)
	cmd.Dir = l.dir
	cmd.Env = append(os.Environ(), "LAYERBUILD_CHECK_LAYERS=1", "SOURCE_DATE_EPOCH=1700000000",
		"CONTAINERS_REGISTRIES_CONF=/dev/null")
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() < 0) {
		l.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out), err == nil
}

// documents returns the manifests and indexes at an output's destination, in one text, or for a
// flat output the names of files.
func (l *outputLab) documents(kind string, n int) string {
	l.t.Helper()
	at := func(format string) string { return filepath.Join(l.dir, fmt.Sprintf(format, n)) }
	switch kind {
	case "oci archive":
		return layoutDocuments(l.t, tarFiles(l.t, at("oci%d.tar")), "")
	case "oci directory":
		return layoutDocuments(l.t, dirFiles(at("oci%d")), "")
	case "docker archive":
		return layoutDocuments(l.t, tarFiles(l.t, at("docker%d.tar")), "")
	case "docker directory":
		return layoutDocuments(l.t, dirFiles(at("docker%d")), "")
	case "image":
		return layoutDocuments(l.t, dirFiles(filepath.Join(l.dir, "state/oci")),
			fmt.Sprintf("%s/image:%d", l.registry.Host, n))
	case "registry":
		return l.pushed(fmt.Sprintf("/v2/pushed/manifests/%d", n))
	case "tar":
		var names []string
		for name := range tarFiles(l.t, at("tar%d.tar")) {
			names = append(names, name)
		}
		slices.Sort(names)
		return strings.Join(names, "\n")
	}
	var names []string
	top := at("local%d")
	err := filepath.WalkDir(top, func(path string, _ os.DirEntry, err error) error {
		names = append(names, strings.TrimPrefix(path, top))
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return strings.Join(names, "\n")
}

// pushed returns a manifest in the registry and the manifests below it.
func (l *outputLab) pushed(path string) string {
	l.t.Helper()
	resp, err := http.Get("http://" + l.registry.Host + path)
	if err != nil {
		l.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		l.t.Fatalf("%s: %s %v", path, resp.Status, err)
	}
	text := string(data)
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		l.t.Fatal(err)
	}
	for _, d := range index.Manifests {
		text += "\n" + l.pushed("/v2/pushed/manifests/"+d.Digest.String())
	}
	return text
}

type filesOf map[string]func() ([]byte, error)

func dirFiles(top string) filesOf {
	files := filesOf{}
	filepath.WalkDir(top, func(path string, _ os.DirEntry, err error) error {
		if err == nil {
			files[strings.TrimPrefix(path, top+"/")] = func() ([]byte, error) {
				return os.ReadFile(path)
			}
		}
		return nil
	})
	return files
}

func tarFiles(t *testing.T, path string) filesOf {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files := filesOf{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		files[h.Name] = func() ([]byte, error) { return data, err }
	}
}

// layoutDocuments returns index.json and the manifests below it; with a name, only the entries with
// that name.
func layoutDocuments(t *testing.T, files filesOf, name string) string {
	t.Helper()
	read := func(path string) []byte {
		get := files[path]
		if get == nil {
			t.Fatalf("there is no %s", path)
		}
		data, err := get()
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	top := read("index.json")
	text := string(top)
	if name != "" {
		text = ""
	}
	var follow func(data []byte, top bool)
	follow = func(data []byte, top bool) {
		var index ocispec.Index
		if err := json.Unmarshal(data, &index); err != nil {
			t.Fatal(err)
		}
		for _, d := range index.Manifests {
			if top && name != "" && d.Annotations["io.containerd.image.name"] != name {
				continue
			}
			doc := read("blobs/sha256/" + d.Digest.Encoded())
			text += "\n" + string(doc)
			follow(doc, false)
		}
	}
	follow(top, true)
	return text
}

// TestOutputOptions checks that an option of one output changes that output and no other output of
// the same build, and that an option that cannot be applied is an error or a warning.
func TestOutputOptions(t *testing.T) {
	l := newOutputLab(t)
	plain := map[string]string{} // by kind and platforms
	for _, o := range outputOptions {
		for _, k := range outputKinds {
			t.Run(strings.ReplaceAll(strings.Join([]string{o.option, o.platforms, k.name}, " "),
				"/", "-"), func(t *testing.T) {
				l.t = t
				first, second := fmt.Sprintf(k.spec, 1), fmt.Sprintf(k.spec, 2)
				if strings.HasPrefix(o.option, "name=") && o.err == "" {
					first, _, _ = strings.Cut(first, ",name=") // the option replaces the name
				}
				first += "," + o.option
				out, ok := l.build(o.platforms, first)
				if o.err != "" || slices.Contains(flatKinds, k.name) ||
					slices.Contains(o.refused, k.name) {
					if ok {
						t.Fatalf("-o %s was taken:\n%s", first, out)
					}
					if o.err != "" && !slices.Contains(flatKinds, k.name) &&
						!strings.Contains(out, o.err) {
						t.Errorf("-o %s says %s\nwant %s", first, out, o.err)
					}
					return
				}
				if !ok {
					t.Fatalf("-o %s: %s", first, out)
				}
				if o.warns != "" {
					if !strings.Contains(out, o.warns) {
						t.Errorf("-o %s says %s\nwant a warning: %s", first, out, o.warns)
					}
					return
				}
				if o.option == "push-by-digest=true" ||
					strings.HasPrefix(o.option, "name=") &&
						(k.name == "image" || k.name == "registry") {
					return // the output has another name: other tests check that
				}
				alone := l.documents(k.name, 1)
				l.shows(alone, o.want, o.not, k.name)
				key := k.name + o.platforms
				if plain[key] == "" {
					if out, ok := l.build(o.platforms, second); !ok {
						t.Fatalf("-o %s: %s", second, out)
					}
					plain[key] = l.documents(k.name, 2)
				}
				// With another output before it, and after it.
				for _, list := range [][]string{{first, second}, {second, first}} {
					if out, ok := l.build(o.platforms, list...); !ok {
						t.Fatalf("-o %s: %s", strings.Join(list, " -o "), out)
					}
					if got := l.documents(k.name, 1); got != alone {
						t.Errorf("beside another output it is\n%s\nalone it was\n%s", got, alone)
					}
					if got := l.documents(k.name, 2); got != plain[key] {
						t.Errorf("the other output is\n%s\nand without this one it was\n%s", got,
							plain[key])
					}
				}
			})
		}
	}
}

func (l *outputLab) shows(docs, want, not, kind string) {
	l.t.Helper()
	if strings.Contains(want, `"id":"one"`) && strings.HasPrefix(want, `"id"`) &&
		(kind == "image" || kind == "registry") {
		return // a descriptor that this type does not store
	}
	if !regexp.MustCompile(want).MatchString(docs) {
		l.t.Errorf("no %s in\n%s", want, docs)
	}
	if not != "" && regexp.MustCompile(not).MatchString(docs) {
		l.t.Errorf("%s in\n%s", not, docs)
	}
}

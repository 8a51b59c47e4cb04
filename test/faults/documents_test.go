package faults

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/test/lab"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// rewriteDocument changes the text of one document of a layout with one image, and the descriptors
// that refer to it.
func rewriteDocument(t *testing.T, dir, which string, change func(string) string) {
	t.Helper()
	read := func(name string) string {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put := func(text string) string {
		d := digest.FromString(text)
		write("blobs/sha256/"+d.Encoded(), text)
		return fmt.Sprintf(`"digest":"%s","size":%d`, d, len(text))
	}
	at := func(d ocispec.Descriptor) string {
		return fmt.Sprintf(`"digest":"%s","size":%d`, d.Digest, d.Size)
	}
	blob := func(d ocispec.Descriptor) string { return read("blobs/sha256/" + d.Digest.Encoded()) }
	var index ocispec.Index
	var manifest ocispec.Manifest
	root := read("index.json")
	if err := json.Unmarshal([]byte(root), &index); err != nil {
		t.Fatal(err)
	}
	text := blob(index.Manifests[0])
	if err := json.Unmarshal([]byte(text), &manifest); err != nil {
		t.Fatal(err)
	}
	switch which {
	case "config":
		text = strings.Replace(text, at(manifest.Config), put(change(blob(manifest.Config))), 1)
	case "manifest":
		text = change(text)
	}
	root = strings.Replace(root, at(index.Manifests[0]), put(text), 1)
	if which == "index" {
		root = change(root)
	}
	write("index.json", root)
}

// TestDocuments checks that documents are refused that two readers could interpret differently, or
// that need much more memory than their text.
func TestDocuments(t *testing.T) {
	lab.Root(t)
	replace := func(old, new string) func(string) string {
		return func(s string) string {
			if !strings.Contains(s, old) {
				t.Fatalf("no %s in %.300s", old, s)
			}
			return strings.Replace(s, old, new, 1)
		}
	}
	many := func(s string) string { return strings.Repeat(s+",", 3_000_000) }
	for _, tt := range []struct {
		name, which string
		change      func(string) string
		err         string
	}{
		{"a platform in two cases", "config",
			replace(`"os":"linux"`, `"os":"linux","OS":"windows"`), "only in case"},
		{"two configurations", "config", replace(`"rootfs":`,
			`"config":{},"config":{"User":"0"},"rootfs":`), "twice"},
		{"a user in two cases", "config", replace(`"config":{}`,
			`"config":{"User":"1","user":"0"}`), "only in case"},
		{"layers in two cases", "config", replace(`"rootfs":`,
			`"Rootfs":{"diff_ids":[]},"rootfs":`), "only in case"},
		{"a layer with two digests", "manifest",
			replace(`"layers":[{`, `"layers":[{"Digest":"sha256:0",`), "only in case"},
		{"an index with two digests", "index",
			replace(`"manifests":[{`, `"manifests":[{"digest":"sha256:0",`), "twice"},
		{"a history of empty objects", "config",
			replace(`"rootfs":`, `"history":[`+many("{}")+`{}],"rootfs":`), "values"},
		{"empty variables", "config", replace(`"config":{}`, `"config":{"Env":[`+many(`""`)+`""]}`),
			"values"},
		{"variables", "config", replace(`"config":{}`,
			`"config":{"Env":[`+strings.Repeat(`"A=b",`, 20_000)+`"A=b"]}`), "variables"},
		{"triggers", "config", replace(`"config":{}`,
			`"config":{"OnBuild":[`+strings.Repeat(`"LABEL a=b",`, 20_000)+`"LABEL a=b"]}`),
			"ONBUILD triggers"},
		{"empty layers", "manifest", replace(`"layers":[`,
			`"layers":[`+strings.Repeat("{},", 2_500_000)), "values"},
		{"empty manifests", "index", replace(`"manifests":[`,
			`"manifests":[`+strings.Repeat("{},", 2_500_000)), "values"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := lab.New(t)
			dir := filepath.Join(l.Dir, "base")
			layout(t, dir, ocispec.MediaTypeImageLayerGzip, func(w io.Writer) error {
				_, err := w.Write(make([]byte, 1024))
				return err
			})
			l.Write(".dockerignore", "*\n", "Dockerfile", "FROM base\nLABEL a=b\n")
			cmd := func() result {
				return run(t, build(l, "--driver=copy", "--build-context=base=oci-layout://"+dir,
					"--platform=linux/amd64"))
			}
			if r := cmd(); r.status != 0 {
				t.Fatalf("the unchanged image: status %d\n%s", r.status, tail(r.log))
			}
			rewriteDocument(t, dir, tt.which, tt.change)
			r := cmd()
			t.Logf("%d MiB", r.peak>>20)
			if r.status == 0 || !strings.Contains(r.log, tt.err) {
				t.Errorf("status %d, want an error with %q\n%s", r.status, tt.err, tail(r.log))
			}
		})
	}
}

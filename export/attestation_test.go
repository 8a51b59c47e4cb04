package export

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/internal/attest"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// attestedTree returns a tree with a file, a hard link and a directory, and with attestations.
func attestedTree(t *testing.T, arch, name string, list ...attest.Attestation) Tree {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, h := range []tar.Header{{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o755},
		{Typeflag: tar.TypeReg, Name: "d/" + name, Mode: 0o644, Size: 1},
		{Typeflag: tar.TypeLink, Name: "link-" + arch, Linkname: "d/" + name},
		{Typeflag: tar.TypeSymlink, Name: "sym-" + arch, Linkname: "d"}} {
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := tw.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return Tree{Platform: ocispec.Platform{OS: "linux", Architecture: arch},
		Time: time.Unix(5, 0),
		Tar: func(_ context.Context, w io.Writer) error {
			_, err := w.Write(b.Bytes())
			return err
		},
		Attestations: func(context.Context) ([]attest.Attestation, error) { return list, nil }}
}

var (
	how   = attest.Attestation{Filename: "provenance.json", PredicateType: attest.PredicateV1, Predicate: json.RawMessage(`{}`)}
	parts = attest.Attestation{Filename: "sbom.spdx.json", PredicateType: attest.PredicateSPDX, Predicate: json.RawMessage(`{}`)}
)

// TestAttestedFiles exports trees with attestations, and lists the files.
func TestAttestedFiles(t *testing.T) {
	inline := how
	inline.InlineOnly = true
	for i, tt := range []struct {
		spec  string
		archs []string
		list  []attest.Attestation
		want  string // the names of the files with attestations
	}{
		{"", []string{"amd64"}, []attest.Attestation{parts, how}, "provenance.json sbom.spdx.json"},
		{",attestation-prefix=x-", []string{"amd64"}, []attest.Attestation{how}, "x-provenance.json"},
		{",platform-split=true", []string{"amd64"}, []attest.Attestation{how},
			"linux_amd64/provenance.json"},
		{"", []string{"amd64", "arm64"}, []attest.Attestation{how},
			"linux_amd64/provenance.json linux_arm64/provenance.json"},
		{",platform-split=false", []string{"amd64", "arm64"}, []attest.Attestation{parts},
			"sbom.spdx.linux_amd64.json sbom.spdx.linux_arm64.json"},
		{"", []string{"amd64"}, []attest.Attestation{inline}, ""},
		{"", []string{"amd64"}, nil, ""},
	} {
		// The name is part of the directory's, which is an attribute.
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			img := &Image{}
			for _, arch := range tt.archs {
				img.Trees = append(img.Trees, attestedTree(t, arch, arch, tt.list...))
			}
			dest := filepath.Join(t.TempDir(), "out")
			if err := run(t, Env{}, "type=local,dest="+dest+tt.spec, img); err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, pattern := range []string{"*.json", "*/*.json"} {
				found, err := filepath.Glob(filepath.Join(dest, pattern))
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range found {
					names = append(names, strings.TrimPrefix(f, dest+"/"))
					if fi, err := os.Stat(f); err != nil || fi.Mode() != 0o600 ||
						!fi.ModTime().Equal(time.Unix(5, 0)) {
						t.Errorf("%s: %v, %v", f, fi, err)
					}
				}
			}
			slices.Sort(names)
			if got := strings.Join(names, " "); got != tt.want {
				t.Errorf("local has %q, want %q", got, tt.want)
			}
			var out bytes.Buffer
			if err := run(t, Env{Stdout: &out}, "type=tar,dest=-"+tt.spec, img); err != nil {
				t.Fatal(err)
			}
			names = nil
			for tr := tar.NewReader(&out); ; {
				h, err := tr.Next()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if strings.HasSuffix(h.Name, ".json") {
					names = append(names, h.Name)
				}
			}
			slices.Sort(names)
			if got := strings.Join(names, " "); got != tt.want {
				t.Errorf("tar has %q, want %q", got, tt.want)
			}
		})
	}
}

// TestAttestedSubjects checks the subjects of an exported statement: the regular files.
func TestAttestedSubjects(t *testing.T) {
	dest := filepath.Join(t.TempDir(), "out")
	img := &Image{Trees: []Tree{attestedTree(t, "amd64", "f", how)}}
	if err := run(t, Env{}, "type=local,dest="+dest, img); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dest, "provenance.json"))
	if err != nil {
		t.Fatal(err)
	}
	var s attest.Statement
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	want := digest.FromString("x").Encoded()
	if len(s.Subject) != 2 || s.Subject[0].Name != "d/f" || s.Subject[1].Name != "link-amd64" ||
		s.Subject[0].Digest["sha256"] != want || s.Subject[1].Digest["sha256"] != want {
		t.Errorf("subjects %+v", s.Subject)
	}
}

// TestAttestedFails checks names that are taken, and an error of the attestations. The destination
// is unchanged.
func TestAttestedFails(t *testing.T) {
	broken := errors.New("broken")
	failing := attestedTree(t, "amd64", "f")
	failing.Attestations = func(context.Context) ([]attest.Attestation, error) {
		return nil, broken
	}
	taken := how
	taken.Filename = "link-amd64"
	for want, tree := range map[string]Tree{
		"the image has a file /link-amd64": attestedTree(t, "amd64", "f", taken),
		"two attestations have the file":   attestedTree(t, "amd64", "f", how, how),
		"broken":                           failing,
	} {
		dest := filepath.Join(t.TempDir(), "out")
		for _, spec := range []string{"type=local,dest=" + dest, "type=tar,dest=" + dest} {
			err := run(t, Env{}, spec, &Image{Trees: []Tree{tree}})
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", spec, err, want)
			}
			if _, err := os.Stat(dest); err == nil {
				t.Errorf("%s: the destination exists after %q", spec, want)
			}
		}
	}
}

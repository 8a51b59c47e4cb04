package outputs

import (
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/internal/attest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestAttests checks which outputs have attestations, and which cannot have them.
func TestAttests(t *testing.T) {
	b := newBench(t)
	all := attest.Options{Provenance: &attest.Provenance{}}
	inline := attest.Options{Provenance: &attest.Provenance{InlineOnly: true}}
	both := inline
	both.SBOM = &attest.SBOM{}
	for _, tt := range []struct {
		o         attest.Options
		spec      string
		platforms []ocispec.Platform
		want      bool
		err       string
	}{
		{all, "type=image", nil, true, ""},
		{all, "type=oci,dest=x", nil, true, ""},
		{all, "type=docker,dest=x", nil, true, "the docker format holds one image"},
		{all, "type=oci,dest=x,oci-mediatypes=false", nil, true, "oci-mediatypes=false"},
		{all, "type=local,dest=x", nil, false, ""},
		{all, "type=cacheonly", nil, false, ""},
		{inline, "type=image", nil, true, ""},
		{inline, "type=image,attestation-inline=false", nil, false, ""},
		{inline, "type=oci,dest=x", nil, false, ""},
		{inline, "type=oci,dest=x,attestation-inline=true", nil, true, ""},
		{inline, "type=oci,dest=x", []ocispec.Platform{amd64, arm64}, true, ""},
		{inline, "type=docker,dest=x", nil, false, ""},
		{both, "type=oci,dest=x", nil, true, ""},
		{both, "type=docker,dest=x", nil, true, "the docker format holds one image"},
		{attest.Options{}, "type=image,oci-artifact=true", nil, false, ""},
	} {
		o := Options{Attest: tt.o, Platforms: tt.platforms, Specs: b.specs(tt.spec)}
		r := o.recipe(o.Specs[0])
		if r.Attest != tt.want || r.Artifact {
			t.Errorf("%s with %+v: recipe %+v, want attestations: %v", tt.spec, tt.o, r, tt.want)
		}
		err := o.Check()
		if tt.err == "" && err != nil || tt.err != "" && (err == nil ||
			!strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%s with %+v: error %v, want %q", tt.spec, tt.o, err, tt.err)
		}
	}
	o := Options{Attest: all, Specs: b.specs("type=image,oci-artifact=true", "type=oci,dest=x")}
	if !o.recipe(o.Specs[0]).Artifact || o.recipe(o.Specs[1]).Artifact {
		t.Error("oci-artifact=true applies to its output only")
	}
	if r := (&Options{Attest: all}).StoreRecipe(); !r.Attest {
		t.Error("without an output the image in the store has no attestations")
	}
}

// TestSubjects checks the names in statements: those of -t and of outputs of the same image.
func TestSubjects(t *testing.T) {
	b := newBench(t)
	target := ocispec.Descriptor{Digest: ocispec.DescriptorEmptyJSON.Digest, Platform: &amd64}
	names := func(o Options, of int) string {
		w, _ := b.writer(o)
		r := w.Recipe
		if of >= 0 {
			r = o.recipe(o.Specs[of])
		}
		list, err := w.subjects(r, target)
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, s := range list {
			if s.Digest["sha256"] != target.Digest.Encoded() {
				t.Errorf("%s has the digest %v", s.Name, s.Digest)
			}
			all = append(all, s.Name)
		}
		return strings.Join(all, " ")
	}
	all := attest.Options{Provenance: &attest.Provenance{}}
	if got := names(Options{Attest: all}, -1); got != "_" {
		t.Errorf("an image without a name: %s", got)
	}
	o := Options{Attest: all, Names: []string{"a", "docker.io/library/a:latest"},
		Specs: b.specs("type=image,name=r.example/b:1", "type=oci,dest=x,name=c,oci-artifact=true")}
	const a, p = "pkg:docker/a@latest?platform=linux%2Famd64", "?platform=linux%2Famd64"
	if got, want := names(o, 0), a+" pkg:docker/r.example/b@1"+p; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := names(o, 1), a+" pkg:docker/c@latest"+p; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

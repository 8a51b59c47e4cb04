package export

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func ptr[T any](v T) *T { return &v }

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Spec
	}{
		{"out", Spec{Type: TypeLocal, Dest: "out", Dir: true}},
		{"./out dir", Spec{Type: TypeLocal, Dest: "./out dir", Dir: true}},
		{"a=b", Spec{Type: TypeLocal, Dest: "a=b", Dir: true}},
		{"-", Spec{Type: TypeTar, Dest: "-"}},
		{"type=local,dest=out", Spec{Type: TypeLocal, Dest: "out", Dir: true}},
		{"type=local,dest=out,platform-split=false",
			Spec{Type: TypeLocal, Dest: "out", Dir: true, Split: ptr(false)}},
		{"type=tar", Spec{Type: TypeTar, Dest: "-"}},
		{"type=tar,dest=-", Spec{Type: TypeTar, Dest: "-"}},
		{"type=tar,dest=out.tar,platform-split=1",
			Spec{Type: TypeTar, Dest: "out.tar", Split: ptr(true)}},
		{"type=oci", Spec{Type: TypeOCI, Dest: "-"}},
		{"Type=OCI, DEST=a.tar", Spec{Type: TypeOCI, Dest: "a.tar"}},
		{"type=oci,dest=out.tar,name=a,name=b:1",
			Spec{Type: TypeOCI, Dest: "out.tar", Names: []string{"a", "b:1"}}},
		{`type=oci,dest=out.tar,"name=a, b:1"`,
			Spec{Type: TypeOCI, Dest: "out.tar", Names: []string{"a", "b:1"}}},
		{"dest=out,tar=false,type=oci", Spec{Type: TypeOCI, Dest: "out", Dir: true}},
		{`type=oci,"dest=a,b.tar"`, Spec{Type: TypeOCI, Dest: "a,b.tar"}},
		{"type=docker", Spec{Type: TypeDocker}},
		{"type=docker,context=other", Spec{Type: TypeDocker, Context: "other"}},
		{"type=docker,dest=-", Spec{Type: TypeDocker, Dest: "-"}},
		{"type=image", Spec{Type: TypeImage}},
		{"type=image,push=true,name=r.example/a",
			Spec{Type: TypeImage, Push: true, Names: []string{"r.example/a"}}},
		{"type=registry", Spec{Type: TypeImage, Push: true}},
		{"type=registry,push=false", Spec{Type: TypeImage, NoPush: true}},
		{"type=registry,registry.insecure=true", Spec{Type: TypeImage, Push: true, Insecure: true}},
		{"type=image,name=ghcr.io/a/b,push-by-digest=true,name-canonical=true,push=true",
			Spec{Type: TypeImage, Push: true, ByDigest: true, Names: []string{"ghcr.io/a/b"}}},
		{"type=oci,dest=o,compression=zstd,compression-level=22,force-compression=true,oci-mediatypes=false,rewrite-timestamp=true",
			Spec{Type: TypeOCI, Dest: "o", Layers: Layers{Compression: "zstd", Level: ptr(22),
				Force: true, OCIMediaTypes: ptr(false), RewriteTimestamp: ptr(true)}}},
		{"type=image,compression=uncompressed",
			Spec{Type: TypeImage, Layers: Layers{Compression: "uncompressed"}}},
		{"type=image,annotation.org.Example=a=b,annotation-index.k=,annotation[linux/arm64].x=y,annotation-manifest-descriptor[linux/amd64].z=1",
			Spec{Type: TypeImage, Annotations: []Annotation{
				{Target: "manifest", Key: "org.Example", Value: "a=b"},
				{Target: "index", Key: "k"},
				{Target: "manifest", Platform: "linux/arm64", Key: "x", Value: "y"},
				{Target: "manifest-descriptor", Platform: "linux/amd64", Key: "z", Value: "1"},
			}}},
	} {
		got, err := Parse(tt.in)
		if err != nil {
			t.Errorf("Parse(%q) = %v", tt.in, err)
			continue
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("Parse(%q) differs (-want +got):\n%s", tt.in, diff)
		}
	}
}

// An epoch is a time in seconds, for each type that writes something.
func TestParseEpoch(t *testing.T) {
	for _, kind := range []string{"image", "oci", "docker", "tar", "local,dest=d"} {
		s, err := Parse("type=" + kind + ",source-date-epoch=17")
		if err != nil || s.Epoch == nil || *s.Epoch != 17 {
			t.Errorf("%s: the epoch is %v, %v, want 17", kind, s.Epoch, err)
		}
		s, err = Parse("type=" + kind + ",source-date-epoch=")
		if err != nil || s.Epoch != nil || !s.NoEpoch {
			t.Errorf("%s: an empty epoch is %v, %v, want none", kind, s.Epoch, err)
		}
		for _, bad := range []string{" ", "context", "-1", "1e9"} {
			if _, err := Parse("type=" + kind + ",source-date-epoch=" + bad); err == nil {
				t.Errorf("%s: the epoch %q is accepted", kind, bad)
			}
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", "it is empty"},
		{" ", "it is empty"},
		{"\n", "it is empty"},
		{`""`, "it is empty"},
		{"a\nb", "more than one line"},
		{"a\x00", "NUL"},
		{"dest=x", "type is missing: one of cacheonly, docker, image, local, oci, registry, tar"},
		{"dest=x,name=a", "type is missing"},
		{"out,name=a", `"out" is not key=value`},
		{"type=", `unknown type ""`},
		{"type=dokcer", `unknown type "dokcer": did you mean docker? (known: cacheonly, docker, image, local, oci, registry, tar)`},
		{"type=oci,type=tar", "type is given twice"},
		{"type=oci,dset=x", `unknown key "dset": did you mean dest? (known: annotation.KEY, attestation-inline, compression,`},
		{"type=oci,annotation=x", `unknown key "annotation"`},
		{"type=oci,annotation.=x", "has no annotation key"},
		{"type=oci,annotation-manfest.k=x",
			`unknown annotation target "manfest": did you mean manifest?`},
		{"type=oci,annotation[linux.k=x", "is not annotation[PLATFORM].KEY"},
		{"type=local", "type=local requires dest, a directory"},
		{"type=local,dest=-", "cannot be written to standard output"},
		{"type=oci,tar=false", "type=oci requires dest"},
		{"type=oci,tar=no", `tar is "no": true or false`},
		{"type=local,dest=x,name=a",
			"type=local does not accept name: it accepts attestation-prefix, dest, platform-split"},
		{"type=tar,annotation.a=b", "type=tar does not accept annotation"},
		{"type=image,dest=x", "type=image does not accept dest"},
		{"type=oci,dest=", "dest is empty"},
		{"type=docker,context=", "context is empty"},
		{"type=oci,dest=a,dest=b", "dest is given twice"},
		{"type=oci,Compression=gzip,compression=zstd", "compression is given twice"},
		{"type=oci,annotation.a=1,annotation.a=2", "annotation.a is given twice"},
		{"type=image,name=", "name is empty"},
		{`type=image,"name= ,"`, "name is empty"},
		{"type=oci,compression=", `unknown compression ""`},
		{"type=oci,compression=uncompressed,compression-level=1",
			"compression-level has no effect with compression=uncompressed"},
		{"type=oci,compression-level=0", "not in 1..9; to disable compression, give compression=uncompressed"},
		{"type=docker,dest=x,context=y", "give one of them"},
		{"type=oci,name=Up", `name "Up"`},
		{"type=oci,compression=lz4", `unknown compression "lz4" (known: gzip, uncompressed, zstd)`},
		{"type=oci,compression-level=x", `"x" is not a number`},
		{"type=oci,compression=gzip,compression-level=10", "not in 1..9"},
		{"type=oci,compression-level=-1", "not in 1..9"},
		{`type=oci,name="a,b"`, `quoted with its key: "name=a,b"`},
		{`"type=oci`, "quoted with its key"},
	} {
		_, err := Parse(tt.in)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Parse(%q) = %v, want an error with %q", tt.in, err, tt.want)
		}
	}
}

// FuzzParse checks that an accepted value has a known type, and a destination if one is required.
// It also checks that each name can be normalized.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"out", "-", "type=oci,dest=out.tar,name=a,\"name=b,c:1\"",
		"type=image,push=true,compression=zstd,compression-level=3",
		"type=image,annotation-index[linux/arm/v7].a.b=c", "type=local,dest=x,platform-split=0",
		"type=docker,context=x", "type=registry"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		spec, err := Parse(s)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "output ") {
				t.Errorf("Parse(%q) = %v, which does not name the output", s, err)
			}
			return
		}
		if !slices.Contains([]Type{TypeImage, TypeOCI, TypeDocker, TypeLocal, TypeTar}, spec.Type) {
			t.Errorf("Parse(%q) has type %q", s, spec.Type)
		}
		if needs := spec.Type == TypeLocal || spec.Type == TypeTar ||
			spec.Type == TypeOCI; needs && spec.Dest == "" {
			t.Errorf("Parse(%q) has no destination", s)
		}
		if spec.Dir && spec.Dest == "-" {
			t.Errorf("Parse(%q) writes a directory to standard output", s)
		}
		for _, name := range spec.Names {
			if _, err := normalize(name); err != nil {
				t.Errorf("Parse(%q) has the name %q: %v", s, name, err)
			}
		}
		if _, err := names(&Image{}, spec); err != nil {
			t.Errorf("names of Parse(%q): %v", s, err)
		}
	})
}

func TestNames(t *testing.T) {
	got, err := names(&Image{Names: []string{"a", "docker.io/library/a:latest",
		"localhost:5000/x/y:1"}},
		Spec{Names: []string{"b:2", "a:latest", "quay.io/q@sha256:" + strings.Repeat("0", 64),
			"c:3@sha256:" + strings.Repeat("0", 64)}})
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, n := range got {
		list = append(list, n.String())
	}
	want := []string{"docker.io/library/a:latest", "localhost:5000/x/y:1", "docker.io/library/b:2",
		"quay.io/q:latest", "docker.io/library/c:3"}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Errorf("names differ (-want +got):\n%s", diff)
	}
	if _, err := names(&Image{Names: []string{"A B"}}, Spec{}); err == nil {
		t.Error("the name \"A B\" is accepted")
	}
}

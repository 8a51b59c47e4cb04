package outputs

import (
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/attest"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/parser"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestCheck checks that contradicting options are refused.
func TestCheck(t *testing.T) {
	two := []ocispec.Platform{{OS: "linux", Architecture: "amd64"},
		{OS: "linux", Architecture: "arm64"}}
	annotation := func(target export.Target, platform string) []export.Annotation {
		return []export.Annotation{{Target: target, Platform: platform, Key: "k", Value: "v"}}
	}
	for _, tt := range []struct {
		name    string
		outputs []string
		o       Options
		err     string
	}{
		{name: "nothing"},
		{name: "two outputs", outputs: []string{"type=oci,dest=a.tar", "type=local,dest=d"}},
		{name: "by digest without a push",
			outputs: []string{"type=image,name=a,push-by-digest=true"},
			err:     "no effect without push"},
		{name: "docker for two platforms", outputs: []string{"type=docker,dest=a.tar"},
			o: Options{Platforms: two}, err: "use type=oci"},
		{name: "one name for two images", outputs: []string{"type=image,name=a",
			"type=image,name=a,compression=zstd"}, err: "to another image"},
		{name: "one name for one image", outputs: []string{"type=image,name=a",
			"type=image,name=a,compression=gzip"}},
		{name: "an annotation of an index that is not made",
			o: Options{Annotations: annotation("index", "")}, err: "no index"},
		{name: "an annotation of an index", o: Options{Platforms: two,
			Annotations: annotation("index", "")}},
		{name: "an annotation of a platform",
			o: Options{Platforms: two, Annotations: annotation("manifest", "linux/arm64")}},
		{name: "an annotation of another platform",
			o:   Options{Platforms: two, Annotations: annotation("manifest", "linux/s390x")},
			err: "linux/s390x"},
		{name: "an annotation of the host's platform",
			o: Options{Annotations: annotation("manifest",
				parser.FormatPlatform(parser.HostPlatform()))}},
		{name: "an annotation of another platform than the host's",
			o:   Options{Annotations: annotation("manifest", "plan9/s390x")},
			err: "the build has no platform plan9/s390x"},
		{name: "an annotation of the host's platform, which is a default",
			o: Options{Platforms: []ocispec.Platform{{}}, Annotations: annotation("manifest",
				parser.FormatPlatform(parser.HostPlatform()))}},
		{name: "an annotation of a platform that is none",
			o: Options{Annotations: annotation("manifest", "a/b/c/d")}, err: "a/b/c/d"},
		{name: "a platform of an index",
			o:   Options{Platforms: two, Annotations: annotation("index", "linux/arm64")},
			err: "an index has no platform"},
		{name: "an annotation of an index of one platform",
			o: Options{Index: true, Annotations: annotation("index-descriptor", "")}},
		{name: "an output's annotation of an index that is not made",
			outputs: []string{"type=oci,dest=a.tar,annotation-index.k=v"}, err: "no index"},
		{name: "an annotation of the build in Docker's format",
			outputs: []string{"type=oci,dest=a.tar,oci-mediatypes=false"},
			o:       Options{Annotations: annotation("manifest", "")}, err: "no annotations"},
		{name: "an annotation outside of the documents in Docker's format",
			outputs: []string{"type=oci,dest=a.tar,oci-mediatypes=false"},
			o:       Options{Annotations: annotation("manifest-descriptor", "")}},
		{name: "an annotation of a descriptor in Docker's index",
			outputs: []string{"type=oci,dest=a.tar,oci-mediatypes=false"},
			o:       Options{Platforms: two, Annotations: annotation("manifest-descriptor", "")},
			err:     "no annotations"},
		{name: "insecure without a push",
			outputs: []string{"type=image,name=a,registry.insecure=true"},
			err:     "registry.insecure has no effect"},
		{name: "a name of -t that is none", outputs: []string{"type=image"},
			o: Options{Names: []string{"A"}}, err: "must be lowercase"},
		{name: "one name for two images, by digest", outputs: []string{"type=image,name=a",
			"type=image,name=a,compression=zstd,push=true,push-by-digest=true"}},
		{name: "a name of -t for two images", outputs: []string{"type=image",
			"type=image,compression=zstd"}, o: Options{Names: []string{"a"}},
			err: "another output gives the name a to another image"},
		{name: "two mistakes", outputs: []string{"type=image,name=a,push-by-digest=true",
			"type=image,name=a,registry.insecure=true"}, err: "no effect without push=true\noutput"},
		{name: "an annotation in Docker's format",
			outputs: []string{"type=oci,dest=a.tar,oci-mediatypes=false,annotation.k=v"},
			err:     "no annotations"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, s := range tt.outputs {
				spec, err := export.Parse(s)
				if err != nil {
					t.Fatal(err)
				}
				tt.o.Specs = append(tt.o.Specs, spec)
			}
			err := tt.o.Check()
			if (err == nil) != (tt.err == "") ||
				err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want one with %q", err, tt.err)
			}
		})
	}
}

// TestWarn checks which options get a warning that they have no effect.
func TestWarn(t *testing.T) {
	const image = "type=image,name=a"
	epoch := int64(1)
	sbom := attest.Options{SBOM: &attest.SBOM{}}
	for _, tt := range []struct {
		name    string
		outputs []string
		o       Options
		want    []string // parts of the warnings
	}{
		{"nothing", nil, Options{}, nil},
		{"an annotation of files", []string{"type=local,dest=d"},
			Options{Annotations: []export.Annotation{{Target: "manifest"}}},
			[]string{"--annotation has no effect"}},
		{"an annotation of an image", []string{"type=local,dest=d", image},
			Options{Annotations: []export.Annotation{{Target: "manifest"}}}, nil},
		{"a time without an epoch", []string{image + ",rewrite-timestamp=true"}, Options{},
			[]string{"rewrite-timestamp has no effect without SOURCE_DATE_EPOCH"}},
		{"a time with an epoch", []string{image + ",rewrite-timestamp=true"},
			Options{Epoch: &epoch}, nil},
		{"no time with an epoch", []string{image + ",rewrite-timestamp=false"},
			Options{Epoch: &epoch}, []string{"rewrite-timestamp=false has no effect"}},
		{"no time without an epoch", []string{image + ",rewrite-timestamp=false"}, Options{}, nil},
		{"records of two images", []string{image, "type=oci,dest=d,prune-dead=true"},
			Options{InlineCache: true}, []string{"output type=oci,dest=d: it has no cache records"}},
		{"records of files", []string{"type=local,dest=d"}, Options{InlineCache: true},
			[]string{"--cache-to type=inline has no effect"}},
		{"attestations of nothing", []string{"type=cacheonly"}, Options{Attest: sbom},
			[]string{"--provenance, --sbom and --attest have no effect"}},
		{"attestations of files", []string{"type=local,dest=d,attestation-prefix=a", "type=cacheonly",
			image + ",oci-artifact=true,attestation-inline=true"}, Options{Attest: sbom}, nil},
		{"attributes for attestations", []string{"type=local,dest=d,attestation-prefix=a",
			"type=tar,dest=t,attestation-prefix=a", image + ",oci-artifact=true",
			"type=oci,dest=o,attestation-inline=true"}, Options{},
			[]string{"attestation-prefix has no effect", "attestation-prefix has no effect",
				"oci-artifact=true has no effect", "attestation-inline=true has no effect"}},
		{"attributes that are off", []string{image +
			",oci-artifact=false,attestation-inline=false"}, Options{}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := &bench{T: t}
			tt.o.Specs = b.specs(tt.outputs...)
			tt.o.Warn(b.sink)
			if len(b.events) != len(tt.want) {
				t.Fatalf("events %v, want %q", b.events, tt.want)
			}
			for i, want := range tt.want {
				if w, ok := b.events[i].(event.Warning); !ok || !strings.Contains(w.Message, want) {
					t.Errorf("event %+v, want a warning with %q", b.events[i], want)
				}
			}
		})
	}
}

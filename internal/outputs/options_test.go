package outputs

import (
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/export"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestCheck checks that contradicting options are refused.
func TestCheck(t *testing.T) {
	two := []ocispec.Platform{{OS: "linux", Architecture: "amd64"},
		{OS: "linux", Architecture: "arm64"}}
	annotation := func(target, platform string) []export.Annotation {
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

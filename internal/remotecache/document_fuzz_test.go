package remotecache

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/internal/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// FuzzRecords reads a cache document from another machine, as a separate artifact and inside an
// image. Records that were read must be the same after they are written and read again.
func FuzzRecords(f *testing.F) {
	record := `{"key":"sha256:00","content":"sha256:01","created":"2001-02-03T04:05:06Z","layer":{"descriptor":{"mediaType":"x","digest":"sha256:02","size":3},"diffID":"sha256:04","parent":"sha256:05","sealed":"gzip epoch 7"}}`
	f.Add(`{"records":[` + record + `]}`)
	f.Add(`{"` + Field + `":{"records":[` + record +
		`,{"key":"k","created":"2001-02-03T04:05:06+07:00"}]}}`)
	f.Add(`{"records":null}`)
	f.Add(`[]`)
	f.Fuzz(func(t *testing.T, config string) {
		for _, mediaType := range []string{MediaType, ocispec.MediaTypeImageConfig} {
			a := &image.Artifact{Config: []byte(config)}
			a.Manifest.Config.MediaType = mediaType
			records, err := recordsOf(a)
			if err != nil {
				continue
			}
			for _, r := range records {
				if r.Layer != nil {
					_ = r.Layer.Epoch()
				}
			}
			data, err := json.Marshal(Document{Records: records})
			if err != nil {
				t.Fatalf("write the records of %q: %v", config, err)
			}
			a = &image.Artifact{Config: data}
			a.Manifest.Config.MediaType = MediaType
			again, err := recordsOf(a)
			if err != nil {
				t.Fatalf("read %s: %v", data, err)
			}
			if diff := cmp.Diff(records, again); diff != "" {
				t.Errorf("-first +again\n%s", diff)
			}
		}
	})
}

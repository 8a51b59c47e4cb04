package ocijson

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestUnmarshal(t *testing.T) {
	for _, tt := range []struct {
		in  string
		to  any
		err string
	}{
		{`{"layers":[{"digest":"a","size":1}]}`, new(ocispec.Manifest), ""},
		{` { "layers" : [ { "digest" : "a" } , { } ] } `, new(ocispec.Manifest), ""},
		{`{"layers":[{"digest":"a","Digest":"b"}]}`, new(ocispec.Manifest), "only in case"},
		{`{"layers":[{"digest":"a","digest":"b"}]}`, new(ocispec.Manifest), "twice"},
		{`{"layers":[{"digest":"a","d\u0069gest":"b"}]}`, new(ocispec.Manifest), "twice"},
		{`{"layers":[{"Digest":"a"}]}`, new(ocispec.Manifest), "only in case"},
		{"{\"layers\":[{\"digest\":\"a\",\"dige\u017ft\":\"b\"}]}", new(ocispec.Manifest), "only in case"},
		{"{\"layers\":[{\"size\":1,\"\u017fize\":2}]}", new(ocispec.Manifest), "only in case"},
		{"{\"loo\u212a\":1}", new(struct{ Look int }), "only in case"},
		{`{"manifests":[{"platform":{"os":"linux","OS":"windows"}}]}`,
			new(ocispec.Index), "only in case"},
		{`{"manifests":[{"annotations":{"a":"1","A":"2"}}]}`, new(ocispec.Index), ""},
		{`{"manifests":[{"annotations":{"a":"1","a":"2"}}]}`, new(ocispec.Index), "twice"},
		{`{"config":{"User":"1","user":"0"}}`, new(dockerspec.DockerOCIImage), "only in case"},
		{`{"config":{"User":"1"},"Config":{}}`, new(dockerspec.DockerOCIImage), "only in case"},
		{`{"config":{"User":"1"},"config":{}}`, new(dockerspec.DockerOCIImage), "twice"},
		{`{"os":"linux","OS":"x"}`, new(dockerspec.DockerOCIImage), "only in case"},
		{`{"config":{"Labels":{"a":"1","A":"2"}},"rootfs":{"diff_ids":[]}}`,
			new(dockerspec.DockerOCIImage), ""},
		{`{"config":{"Healthcheck":{"Test":[],"test":[]}}}`,
			new(dockerspec.DockerOCIImage), "only in case"},
		{`{"history":[{"created_by":"x","Created_By":"y"}]}`,
			new(dockerspec.DockerOCIImage), "only in case"},
		{`{"other":{"x":1,"X":2}}`, new(dockerspec.DockerOCIImage), ""},
		{`{"other":[{"x":1,"x":2}]}`, new(dockerspec.DockerOCIImage), "twice"},
		{`[{"digest":"a","Digest":"b"}]`, new([]ocispec.Descriptor), "only in case"},
		{`{"a":{"digest":"a","Digest":"b"}}`, new(map[string]ocispec.Descriptor), "only in case"},
		{`{"a":{"digest":"a","Digest":"b"}}`, new(map[string]json.RawMessage), ""},
		{`{`, new(ocispec.Index), "unexpected end"},
		{`{} x`, new(ocispec.Index), "invalid character"},
		{`null`, new(ocispec.Index), ""},
		{`7`, new(int), ""},
		{`{"manifests":[` + strings.Repeat("{},", MaxValues) + `{}]}`,
			new(ocispec.Index), "values"},
		{`{"x":[` + strings.Repeat("0,", MaxValues-3) + `0]}`, new(ocispec.Index), ""},
	} {
		err := Unmarshal([]byte(tt.in), tt.to)
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("Unmarshal(%.80s): error %v, want %q", tt.in, err, tt.err)
		}
	}
}

// FuzzUnmarshal checks that a document that Unmarshal accepts is decoded to the same value as by
// encoding/json, whatever the order of its keys.
func FuzzUnmarshal(f *testing.F) {
	f.Add(`{"config":{"User":"1","Env":["A=b"],"Labels":{"a":"b"}},"rootfs":{"type":"layers","diff_ids":["x"]},"history":[{}]}`)
	f.Add(`{"os":"linux","OS":"x"}`)
	f.Add("{\"o\u017f\":\"x\",\"os\":\"linux\"}")
	f.Add(`{"a":[{"b":{}},null,true,-1.5e3,"\"\\u0041"]}`)
	f.Fuzz(func(t *testing.T, in string) {
		var got, want dockerspec.DockerOCIImage
		err := Unmarshal([]byte(in), &got)
		if wantErr := json.Unmarshal([]byte(in), &want); err == nil &&
			(wantErr != nil || !reflect.DeepEqual(got, want)) {
			t.Errorf("%q: got %+v, want %+v, %v", in, got, want, wantErr)
		}
		if err != nil {
			return
		}
		// A reader that uses the first of equal keys gets the same value.
		var tree any
		if json.Unmarshal([]byte(in), &tree) == nil {
			again, err := json.Marshal(tree)
			var sorted dockerspec.DockerOCIImage
			if err != nil || json.Unmarshal(again, &sorted) != nil ||
				!reflect.DeepEqual(sorted, want) {
				t.Errorf("%q: with sorted keys %+v, want %+v", in, sorted, want)
			}
		}
	})
}

func BenchmarkUnmarshal(b *testing.B) {
	history := strings.Repeat(`{"created":"2024-01-01T00:00:00Z","created_by":"RUN /bin/sh -c apt-get update","comment":"buildkit.dockerfile.v0"},`, 20)
	doc := []byte(`{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin","A=b"],"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":["sha256:0"]},"history":[` + strings.TrimSuffix(history, ",") + `]}`)
	for name, f := range map[string]func([]byte, any) error{"ocijson": Unmarshal,
		"encoding": json.Unmarshal} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(doc)))
			for b.Loop() {
				var img dockerspec.DockerOCIImage
				if err := f(doc, &img); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

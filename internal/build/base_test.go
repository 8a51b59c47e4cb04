package build_test

import (
	"archive/tar"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// TestBaseIsUnpacked checks when a base image is unpacked: not for instructions that only change
// the configuration, nor for steps whose results are imported, and for everything else.
func TestBaseIsUnpacked(t *testing.T) {
	base := t.TempDir()
	made, err := imagetest.Make(dockerspec.DockerOCIImageConfig{},
		[]imagetest.Entry{imagetest.TarFile(tar.Header{
			Typeflag: tar.TypeReg, Name: "file", Mode: 0o644, Size: 5}, "base\n")})
	if err != nil {
		t.Fatal(err)
	}
	if err := made.WriteLayout(base, "base"); err != nil {
		t.Fatal(err)
	}
	const metadata = "FROM base\nENV A=1\nLABEL b=2\nCMD [\"c\"]\n"
	const run = "FROM base\nRUN write a 1\nENV A=1\n"
	for _, tt := range []struct {
		name, first, second string
		outputs             []string
		want                bool
	}{
		{"only metadata", "", metadata, nil, false},
		{"only metadata, in two stages", "", "FROM base AS b\nFROM b\nUSER u\n", nil, false},
		{"a command", "", run, nil, true},
		{"a command in a stage above", "", "FROM base AS b\nFROM b\nRUN write a 1\n", nil, true},
		{"files of the base", "", "FROM base AS b\nFROM scratch\nCOPY --from=b /file /\n", nil,
			true},
		{"the files are exported", "", metadata, []string{"type=local,dest=DIR/out"}, true},
		{"all results are imported", run, run, nil, false},
		{"a result is imported", run, run + "RUN write b 2\n", nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			o := imagebuild.Options{}
			o.Source.Contexts = map[string]string{"base": "oci-layout://" + base}
			if tt.first != "" {
				earlier := newBench(t, "")
				earlier.real()
				to := o
				to.Cache.To = places("type=local,dest=" + dir + "/cache")
				earlier.must(tt.first, to)
				from, err := remotecache.ParseFrom("type=local,src=" + dir + "/cache")
				if err != nil {
					t.Fatal(err)
				}
				o.Cache.From = []remotecache.Place{from}
			}
			b := newBench(t, "")
			b.real()
			o.Outputs = specs(t, dir, tt.outputs...)
			res, _ := b.must(tt.second, o)
			if tt.outputs == nil && len(b.manifest(res).Layers) == 0 {
				t.Error("the image has no layers")
			}
			unpacked, lines := false, 0
			for _, e := range b.events {
				switch e := e.(type) {
				case event.Start:
					if strings.HasPrefix(string(e.ID), "image ") {
						lines++
					}
				case event.Done:
					if strings.HasPrefix(string(e.ID), "image ") && e.Note == "" {
						unpacked = true
					}
				}
			}
			if unpacked != tt.want || lines != 1 {
				t.Errorf("unpacked %v with %d lines in the progress, want %v with one", unpacked,
					lines, tt.want)
			}
			if got := len(b.state.Snapshots.IDs()) > 0; got != tt.want {
				t.Errorf("there are snapshots: %v, want %v", got, tt.want)
			}
		})
	}
}

package outputs

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/diff"
	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/layers"
)

// TestRecipeOf checks the recipe of an output, and that outputs for the same image have the same
// recipe however they are written.
func TestRecipeOf(t *testing.T) {
	for _, tt := range []struct {
		output string
		want   Recipe
		format string // of the layers
	}{
		{"type=oci,dest=d", Recipe{}, " 0"},
		{fmt.Sprint("type=oci,dest=d,compression=gzip,oci-mediatypes=true,compression-level=",
			diff.DefaultGzipLevel), Recipe{}, " 0"},
		{"type=oci,dest=d,compression-level=9", Recipe{Level: 9}, " 9"},
		{fmt.Sprint("type=oci,dest=d,compression=zstd,compression-level=", diff.DefaultZstdLevel),
			Recipe{Compression: "zstd"}, "zstd 0"},
		{"type=oci,dest=d,compression=zstd,compression-level=19",
			Recipe{Compression: "zstd", Level: 19}, "zstd 19"},
		{"type=oci,dest=d,compression=uncompressed", Recipe{Compression: "none"}, "none 0"},
		{"type=docker,dest=d,oci-mediatypes=false,force-compression=true,prune-dead=true",
			Recipe{Docker: true, Force: true, PruneDead: true}, " 0"},
		{"type=oci,dest=d,rewrite-timestamp=true", Recipe{Clamped: true}, " 0"},
		{"type=oci,dest=d,rewrite-timestamp=true,source-date-epoch=", Recipe{}, " 0"},
		{"type=oci,dest=d,source-date-epoch=,rewrite-timestamp=true", Recipe{}, " 0"},
		{"type=image,name=a,annotation.k=v", Recipe{Annotations: []export.Annotation{
			{Target: "manifest", Key: "k", Value: "v"}}}, " 0"},
	} {
		spec, err := export.Parse(tt.output)
		if err != nil {
			t.Fatal(err)
		}
		got := RecipeOf(spec)
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: %s", tt.output, d)
		}
		seven := int64(7)
		if f := got.Format(&seven).String(); !strings.HasPrefix(f, tt.format+" ") ||
			*layers.EpochOf(f) != 7 {
			t.Errorf("%s: the format is %q, want %q", tt.output, f, tt.format)
		}
	}
}

// TestStoreRecipe checks which output determines the image in the store, and whether there is an
// image at all.
func TestStoreRecipe(t *testing.T) {
	const gzip, zstd = "type=oci,dest=a", "type=oci,dest=b,compression=zstd"
	for _, tt := range []struct {
		names                []string
		outputs              []string
		compression          string
		wantsImage, hasFiles bool
	}{
		{nil, nil, "", true, false},
		{nil, []string{gzip}, "", true, false},
		{nil, []string{zstd}, "zstd", true, false},
		{nil, []string{zstd, "type=docker,dest=c,compression=zstd"}, "zstd", true, false},
		{nil, []string{zstd, gzip}, "", true, false},
		{nil, []string{zstd, "type=local,dest=d"}, "zstd", true, true},
		{nil, []string{gzip, "type=image,name=a,compression=zstd"}, "zstd", true, false},
		{nil, []string{"type=registry,name=a", "type=image,name=b,compression=zstd"}, "", true,
			false},
		{nil, []string{"type=local,dest=d", "type=tar,dest=t"}, "", false, true},
		{[]string{"a"}, []string{"type=local,dest=d"}, "", true, true},
		{nil, []string{"type=cacheonly"}, "", false, false},
		{[]string{"a"}, []string{"type=cacheonly"}, "", false, false},
		{[]string{"a"}, []string{"type=cacheonly", "type=local,dest=d"}, "", true, true},
		{nil, []string{"type=cacheonly", zstd}, "zstd", true, false},
	} {
		o := Options{Names: tt.names, Specs: (&bench{T: t}).specs(tt.outputs...)}
		if got := o.StoreRecipe(); got.Compression != tt.compression {
			t.Errorf("%q: the compression is %q, want %q", tt.outputs, got.Compression,
				tt.compression)
		}
		if o.WantsImage() != tt.wantsImage || o.WantsFiles() != tt.hasFiles {
			t.Errorf("%q, %q: an image %v, files %v, want %v, %v", tt.names, tt.outputs,
				o.WantsImage(), o.WantsFiles(), tt.wantsImage, tt.hasFiles)
		}
	}
}

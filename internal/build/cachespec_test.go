package build

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseCachePlaces(t *testing.T) {
	for _, c := range []struct {
		parse func(string) (CachePlace, error)
		in    string
		want  CachePlace
		err   string
	}{
		{ParseCacheFrom, "app", CachePlace{Type: "registry", Ref: "app", Plain: true}, ""},
		{ParseCacheFrom, "type=registry,ref=host:5000/app:1", CachePlace{Type: "registry", Ref: "host:5000/app:1"}, ""},
		{ParseCacheFrom, "type=local,src=dir,tag=x", CachePlace{Type: "local", Dir: "dir", Tag: "x"}, ""},
		{ParseCacheFrom, `type=local,"src=a,b"`, CachePlace{Type: "local", Dir: "a,b"}, ""},
		{ParseCacheFrom, "type=local", CachePlace{}, "src=DIR is missing"},
		{ParseCacheFrom, "type=registry", CachePlace{}, "ref=NAME is missing"},
		{ParseCacheFrom, "type=gha,scope=x", CachePlace{}, `type "gha" is not supported`},
		{ParseCacheFrom, "type=s3", CachePlace{}, `type "s3" is not supported`},
		{ParseCacheFrom, "type=local,src=d,digest=x", CachePlace{}, "invalid checksum digest format"},
		{ParseCacheFrom, "", CachePlace{}, "a name or type=TYPE"},
		{ParseCacheFrom, "a,type=local", CachePlace{}, `"a" is not key=value`},
		{ParseCacheTo, "app:c", CachePlace{Type: "registry", Ref: "app:c", Plain: true}, ""},
		{ParseCacheTo, "type=inline", CachePlace{Type: "inline"}, ""},
		{ParseCacheTo, "type=local,dest=d,mode=max,ignore-error=true", CachePlace{Type: "local", Dir: "d", Max: true, IgnoreError: true}, ""},
		{ParseCacheTo, "type=registry,ref=r,mode=min,image-manifest=true,oci-mediatypes=true", CachePlace{Type: "registry", Ref: "r"}, ""},
		{ParseCacheTo, "type=registry,ref=r,mode=most", CachePlace{}, `mode "most"`},
		{ParseCacheTo, "type=registry,ref=r,ignore-error=perhaps", CachePlace{}, "true or false is expected"},
		{ParseCacheTo, "type=registry,ref=r,image-manifest=false", CachePlace{}, "not supported"},
		{ParseCacheTo, "type=registry,ref=r,compression=zstd", CachePlace{}, "to --output"},
		{ParseCacheTo, "type=inline,mode=max", CachePlace{}, "of its own stages only"},
		{ParseCacheTo, "type=local,src=d", CachePlace{}, `unknown key "src"`},
	} {
		got, err := c.parse(c.in)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("parse %q: error %v, want one with %q", c.in, err, c.err)
			}
			continue
		}
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("parse %q: %v, %s", c.in, err, diff)
		}
	}
}

func TestDocumentIsSorted(t *testing.T) {
	a, b := carried{Key: "a"}, carried{Key: "b", Layer: &carriedLayer{Parent: "p", DiffID: "x"}}
	other := carried{Key: "b", Layer: &carriedLayer{Parent: "q", DiffID: "x"}}
	one := cacheDocument{Records: []carried{other, b, a, b, a}}
	one.sort()
	if diff := cmp.Diff([]carried{a, b, other}, one.Records); diff != "" {
		t.Errorf("sorted: %s", diff)
	}
}

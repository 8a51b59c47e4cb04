package remotecache

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParsePlaces(t *testing.T) {
	for _, c := range []struct {
		parse func(string) (Place, error)
		in    string
		want  Place
		err   string
	}{
		{ParseFrom, "app", Place{Type: "registry", Ref: "app", Plain: true}, ""},
		{ParseFrom, "type=registry,ref=host:5000/app:1",
			Place{Type: "registry", Ref: "host:5000/app:1"}, ""},
		{ParseFrom, "type=local,src=dir,tag=x", Place{Type: "local", Dir: "dir", Tag: "x"}, ""},
		{ParseFrom, `type=local,"src=a,b"`, Place{Type: "local", Dir: "a,b"}, ""},
		{ParseFrom, "type=local", Place{}, "src=DIR is missing"},
		{ParseFrom, "type=registry", Place{}, "ref=NAME is missing"},
		{ParseFrom, "type=gha,scope=x", Place{}, `type "gha" is not supported`},
		{ParseFrom, "type=s3", Place{}, `type "s3" is not supported`},
		{ParseFrom, "type=local,src=d,digest=x", Place{}, "invalid checksum digest format"},
		{ParseFrom, "type=local,src=d,type=gha", Place{}, "type is given twice"},
		{ParseFrom, "type=local,type=local,src=d", Place{}, "type is given twice"},
		{ParseFrom, "src=d", Place{}, "type is missing: registry or local is expected"},
		{ParseFrom, "", Place{}, "a name or type=TYPE"},
		{ParseFrom, "a,type=local", Place{}, `"a" is not key=value`},
		{ParseTo, "app:c", Place{Type: "registry", Ref: "app:c", Plain: true}, ""},
		{ParseTo, "type=inline", Place{Type: "inline"}, ""},
		{ParseTo, "type=local,dest=d,mode=max,ignore-error=true",
			Place{Type: "local", Dir: "d", Max: true, IgnoreError: true}, ""},
		{ParseTo, "type=registry,ref=r,mode=min,image-manifest=true,oci-mediatypes=true",
			Place{Type: "registry", Ref: "r"}, ""},
		{ParseTo, "type=registry,ref=r,mode=most", Place{}, `mode "most"`},
		{ParseTo, "type=registry,ref=r,ignore-error=perhaps", Place{}, "true or false is expected"},
		{ParseTo, "type=registry,ref=r,image-manifest=false", Place{}, "not supported"},
		{ParseTo, "type=registry,ref=r,compression=zstd", Place{}, "to --output"},
		{ParseTo, "type=inline,mode=max", Place{}, "only the results of its own stages"},
		{ParseTo, "type=local,src=d", Place{}, `unknown key "src"`},
		{ParseTo, "type=inline,type=local,mode=max", Place{}, "type is given twice"},
		{ParseTo, "type=local,mode=max", Place{}, "dest=DIR is missing"},
		{ParseTo, "mode=max", Place{}, "type is missing: registry, local or inline is expected"},
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

package remotecache

import (
	"slices"
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
		{ParseFrom, "type=gha,scope=x", Place{Type: "gha"}, ""},
		{ParseFrom, "type=s3,bucket=b,region=r", Place{Type: "s3"}, ""},
		{ParseFrom, "type=azblob", Place{Type: "azblob"}, ""},
		{ParseFrom, "type=gcs", Place{}, `type "gcs" is not supported`},
		{ParseFrom, "type=registry,ref=r,registry.insecure=true",
			Place{Type: "registry", Ref: "r", Insecure: true}, ""},
		{ParseFrom, "type=registry,ref=r,registry.insecure=x", Place{}, "true or false"},
		{ParseTo, "type=gha,mode=max", Place{}, "cannot access a cache of type gha"},
		{ParseTo, "type=s3,bucket=b,ignore-error=true", Place{Type: "s3", IgnoreError: true}, ""},
		{ParseTo, "type=azblob,ignore-error=false", Place{}, "with ignore-error=true the build"},
		{ParseTo, "type=gha,ignore-error=x", Place{}, "true or false is expected"},
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
		{ParseTo, "type=registry,ref=r,image-manifest=perhaps", Place{}, "true or false"},
		{ParseTo, "type=registry,ref=r,compression=lz4", Place{}, "gzip or zstd or"},
		{ParseTo, "type=registry,ref=r,compression-level=x", Place{}, "a number is expected"},
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

// Each value of each row of the table has no effect, or is refused with the reason.
func TestAttributes(t *testing.T) {
	plain, err := ParseTo("type=local,dest=d")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range Attributes() {
		if row.Why == "" || len(row.Values) == 0 {
			t.Errorf("%s has no reason or no values", row.Key)
		}
		for _, value := range row.Values {
			if value == "N" {
				value = "7"
			}
			spec := "type=local,dest=d," + row.Key + "=" + value
			got, err := ParseTo(spec)
			if slices.Contains(row.Refused, value) {
				if err == nil || !strings.Contains(err.Error(), row.Why) {
					t.Errorf("%s: error %v, want the reason %q", spec, err, row.Why)
				}
			} else if diff := cmp.Diff(plain, got); err != nil || diff != "" {
				t.Errorf("%s: %v, %s", spec, err, diff)
			}
		}
		if _, err := ParseTo("type=local,dest=d," + row.Key + "=nonsense"); err == nil {
			t.Errorf("%s=nonsense is accepted", row.Key)
		}
		if _, err := ParseFrom("type=local,src=d," + row.Key + "=true"); err == nil {
			t.Errorf("--cache-from accepts %s", row.Key)
		}
	}
}

package remotecache

import (
	"slices"
	"testing"
)

// FuzzPlace checks that any value of --cache-from and --cache-to is an error, or a place of a known
// type with the fields that an import or an export needs.
func FuzzPlace(f *testing.F) {
	for _, s := range []string{"type=registry,ref=a/b", "a/b:c", "type=local,src=d",
		"type=local,dest=d,mode=max", "type=inline", "type=gha", "type=", ",", "ref=",
		`"type=local","src=a,b"`, "type=registry,ref=x,compression=zstd,compression-level=99",
		"type=inline,mode=max,type=local", "type=registry,ref=r,type=gha"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		from, err := ParseFrom(s)
		if err == nil && !from.isService() && !complete(from, "registry", "local") {
			t.Errorf("--cache-from %q is the place %+v", s, from)
		}
		to, err := ParseTo(s)
		if err == nil && to.isService() && !to.IgnoreError ||
			err == nil && !to.isService() && !complete(to, "registry", "local", "inline") {
			t.Errorf("--cache-to %q is the place %+v", s, to)
		}
	})
}

// complete reports whether a place has one of some types and the fields that this type requires.
func complete(p Place, types ...string) bool {
	return slices.Contains(types, p.Type) && (p.Type != "registry" || p.Ref != "") &&
		(p.Type != "local" || p.Dir != "") && (p.Type != "inline" || !p.Max)
}

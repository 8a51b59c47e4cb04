package remotecache

import "testing"

// FuzzPlace checks that any value of --cache-from and --cache-to is parsed or is an error.
func FuzzPlace(f *testing.F) {
	for _, s := range []string{"type=registry,ref=a/b", "a/b:c", "type=local,src=d",
		"type=local,dest=d,mode=max", "type=inline", "type=gha", "type=", ",", "ref=",
		`"type=local","src=a,b"`, "type=registry,ref=x,compression=zstd,compression-level=99"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for name, parse := range map[string]func(string) (Place, error){"from": ParseFrom,
			"to": ParseTo} {
			if p, err := parse(s); err == nil && p == (Place{}) {
				t.Errorf("--cache-%s %q is no place, and no error", name, s)
			}
		}
	})
}

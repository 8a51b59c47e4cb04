package registry

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// FuzzAuthFile checks that a file of credentials gives none to a server that it does not name.
func FuzzAuthFile(f *testing.F) {
	for _, text := range []string{
		`{"auths":{"example.com":{"auth":"bWU6c2VjcmV0"}}}`,
		`{"auths":{"https://example.com/v1/":{"identitytoken":"x"}}}`, `{"auths":[]}`,
		`{"auths":{"example.com":{"auth":"!"}}}`, `{"auths":{"example.com":{"auth":"bWU="}}}`,
		`{"auths":{"example.com":null}}`, ``, `{`,
		`{"auths":{"example.com/a/b":{"username":"u","password":"p"}}}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "config.json")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := readAuthFile(path)
		if err != nil || a.helper != "" || len(a.helpers) > 0 {
			return // a helper is a program, which nothing here is to start
		}
		ctx := context.Background()
		a.get(ctx, "example.com")
		const other = "other.invalid:5000"
		for key := range a.auths {
			if key == other || serverOfKey(key) == other {
				return
			}
		}
		if c, err := a.get(ctx, other); err != nil || c != (credential{}) {
			t.Errorf("%q gives %+v, %v to a server that it does not name", data, c, err)
		}
	})
}

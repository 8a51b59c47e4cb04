package registry

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAuthFile(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // no helpers
	for _, test := range []struct {
		name, data, server string
		want               credential
		err                string
	}{
		{name: "empty"},
		{name: "blank", data: " \n"},
		{name: "null", data: "null", server: "a"},
		{name: "no entry", data: `{"auths":{"a":{"auth":"eDp5"}}}`, server: "b"},
		{name: "auth", data: `{"auths":{"a":{"auth":"eDp5"}}}`, server: "a",
			want: credential{username: "x", password: "y"}},
		{name: "auth before username",
			data: `{"auths":{"a":{"auth":"eDp5","username":"u","password":"p"}}}`, server: "a",
			want: credential{username: "x", password: "y"}},
		{name: "username", data: `{"auths":{"a":{"username":"u","password":"p"}}}`, server: "a",
			want: credential{username: "u", password: "p"}},
		{name: "tokens", data: `{"auths":{"a":{"identitytoken":"i","registrytoken":"r"}}}`,
			server: "a", want: credential{refresh: "i", access: "r"}},
		{name: "address with a scheme", data: `{"auths":{"https://a/v1/":{"auth":"eDp5"}}}`,
			server: "a", want: credential{username: "x", password: "y"}},
		{name: "exact address first",
			data: `{"auths":{"http://a":{"auth":"!"},"a":{"auth":"eDp5"}}}`, server: "a",
			want: credential{username: "x", password: "y"}},
		{name: "what follows the object", data: `{"auths":{"a":{"auth":"eDp5"}}} x`, server: "a",
			want: credential{username: "x", password: "y"}},
		{name: "another's entry is broken", data: `{"auths":{"a":{"auth":"eDp5"},"b":[]}}`,
			server: "a", want: credential{username: "x", password: "y"}},
		{name: "broken entry", data: `{"auths":{"a":[]}}`, server: "a",
			err: `config.json: auths: "a": `},
		{name: "no base64", data: `{"auths":{"a":{"auth":"!"}}}`, server: "a",
			err: `auths: "a": auth: illegal base64`},
		{name: "no colon", data: `{"auths":{"a":{"auth":"eHh4"}}}`, server: "a",
			err: "not the base64 of username:password"},
		{name: "helper of the server", data: `{"credsStore":"s","credHelpers":{"a":"h"}}`,
			server: "a", err: "docker-credential-h"},
		{name: "helper of the others", data: `{"credsStore":"s","credHelpers":{"a":"h"}}`,
			server: "b", err: "docker-credential-s"},
		{name: "helper of Docker Desktop", data: `{"credsStore":"desktop.exe"}`, server: "a",
			err: "is Docker Desktop running?"},
		{name: "half", data: `{"auths":`, err: "config.json: invalid JSON"},
		{name: "auths of another type", data: `{"auths":[]}`, err: "config.json: auths: "},
		{name: "helper of another type", data: `{"credsStore":1}`, err: "json: credsStore: "},
		{name: "helpers of another type", data: `{"credHelpers":1}`, err: "json: credHelpers: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.json")
			if err := os.WriteFile(path, []byte(test.data), 0o600); err != nil {
				t.Fatal(err)
			}
			var got credential
			file, err := readAuthFile(path)
			if err == nil {
				got, err = file.get(t.Context(), test.server)
			}
			if test.err == "" && err != nil || test.err != "" &&
				(err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("error %v, want %q", err, test.err)
			}
			if got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

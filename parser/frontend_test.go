package parser

import (
	"errors"
	"testing"
)

// TestCheckFrontend checks that a file for another frontend is an error that names it.
func TestCheckFrontend(t *testing.T) {
	tests := []struct{ name, text, arg, want string }{
		{"none", "FROM scratch\n", "", ""},
		{"usual", "# syntax=docker/dockerfile:1\nFROM scratch\n", "", ""},
		{"labs", "#syntax = docker/dockerfile:1.20-labs\nFROM scratch\n", "", ""},
		{"upstream", "# syntax=docker/dockerfile-upstream:master\nFROM scratch\n", "", ""},
		{"registry", "# syntax=docker.io/docker/dockerfile:1.4\nFROM scratch\n", "", ""},
		{"mirror", "# syntax=mirror.example:5000/hub/docker/dockerfile:1\nFROM scratch\n", "", ""},
		{"digest", "# syntax=docker/dockerfile:1@sha256:" +
			"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\nFROM scratch\n", "", ""},
		{"options", "# syntax=docker/dockerfile:1 --x\nFROM scratch\n", "", ""},
		{"not a directive", "# a\n# syntax=other/frontend\nFROM scratch\n", "", ""},
		{"other", "# check=skip=all\n# syntax=other/frontend:2\n", "", `Dockerfile:2: unknown ` +
			`frontend "other/frontend:2": layerbuild only reads Dockerfiles (docker/dockerfile)`},
		{"another language", "// syntax=a.example/mopy\nimage: {}\n", "", `Dockerfile:1: unknown ` +
			`frontend "a.example/mopy": layerbuild only reads Dockerfiles (docker/dockerfile)`},
		{"invalid", "# syntax=Docker/Dockerfile\nFROM scratch\n", "", `Dockerfile:1: unknown ` +
			`frontend "Docker/Dockerfile": layerbuild only reads Dockerfiles (docker/dockerfile)`},
		{"argument", "FROM scratch\n", "other/frontend x", `Dockerfile: BUILDKIT_SYNTAX: unknown ` +
			`frontend "other/frontend": layerbuild only reads Dockerfiles (docker/dockerfile)`},
		{"argument replaces", "# syntax=other/frontend\n", "docker/dockerfile:1", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if err := CheckFrontend("Dockerfile", []byte(tt.text), tt.arg); err != nil {
				got = err.Error()
				if !errors.As(err, new(*Error)) {
					t.Errorf("error is a %T, want an *Error", err)
				}
			}
			if got != tt.want {
				t.Errorf("error = %q, want %q", got, tt.want)
			}
		})
	}
}

package main

import (
	"errors"
	"fmt"
)

// pullPolicy is the value of --pull: whether base images are looked up in registries. buildx has
// the values true and false, buildah and podman have all of them.
type pullPolicy string

func (p *pullPolicy) Set(s string) error {
	switch s {
	case "true", "always", "newer", "ifnewer":
		*p = "always"
	case "false", "missing", "ifmissing":
		*p = "missing"
	case "never":
		*p = "never"
	default:
		return errors.New("always, missing, newer, never, true or false is expected")
	}
	return nil
}

// resolvePull applies podman's flags --pull-always and --pull-never.
func (f *buildFlags) resolvePull() error {
	for _, flag := range [...]struct {
		name  string
		given bool
	}{{"always", f.pullAlways}, {"never", f.pullNever}} {
		if !flag.given {
			continue
		}
		if f.pull != "" && string(f.pull) != flag.name {
			return fmt.Errorf("--pull-%s and --pull=%s: give one of them", flag.name, f.pull)
		}
		f.pull = pullPolicy(flag.name)
	}
	return nil
}

func (p *pullPolicy) Type() string   { return "string" }
func (p *pullPolicy) String() string { return string(*p) }
func (p *pullPolicy) values() []string {
	return []string{"always", "missing", "newer", "never"}
}

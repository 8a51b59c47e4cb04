package main

import "errors"

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

func (p *pullPolicy) Type() string   { return "string" }
func (p *pullPolicy) String() string { return string(*p) }
func (p *pullPolicy) values() []string {
	return []string{"always", "missing", "newer", "never"}
}

package parser

import "strings"

// env is an ordered set of variables. The variable that was set last is at the end, which is
// BuildKit's order for the environment of commands. An env is immutable: set returns a new env, so
// steps and stages can share it.
type env struct {
	kv []string
}

func newEnv(kv []string) env {
	var e env
	for _, s := range kv {
		k, v, _ := strings.Cut(s, "=")
		e = e.set(k, v)
	}
	return e
}

func (e env) index(key string) int {
	for i, s := range e.kv {
		if len(s) > len(key) && s[len(key)] == '=' && s[:len(key)] == key {
			return i
		}
	}
	return -1
}

func (e env) set(key, value string) env { return e.setPair(key, key+"="+value) }

// setPair is set for a string "key=value".
func (e env) setPair(key, kv string) env {
	out := make([]string, 0, len(e.kv)+1)
	if i := e.index(key); i >= 0 {
		out = append(append(out, e.kv[:i]...), e.kv[i+1:]...)
	} else {
		out = append(out, e.kv...)
	}
	return env{append(out, kv)}
}

func (e env) del(key string) env {
	i := e.index(key)
	if i < 0 {
		return e
	}
	out := make([]string, 0, len(e.kv))
	return env{append(append(out, e.kv[:i]...), e.kv[i+1:]...)}
}

// Get and Keys are the methods with which the word expander reads variables.
func (e env) Get(key string) (string, bool) {
	if i := e.index(key); i >= 0 {
		return e.kv[i][len(key)+1:], true
	}
	return "", false
}

func (e env) Keys() []string {
	keys := make([]string, len(e.kv))
	for i, s := range e.kv {
		keys[i], _, _ = strings.Cut(s, "=")
	}
	return keys
}

// maskedEnv returns **** for variables that hold secrets.
type maskedEnv struct {
	env
	secrets []string
}

func (m maskedEnv) Get(key string) (string, bool) {
	for _, s := range m.secrets {
		if s == key {
			return "****", true
		}
	}
	return m.env.Get(key)
}

// replaceEnv sets the variable key of an image's configuration to kv, "key=value": at its index
// if it exists, otherwise at the end. The slice is not changed.
func replaceEnv(list []string, key, kv string) []string {
	out := make([]string, len(list), len(list)+1)
	copy(out, list)
	for i, s := range out {
		if k, _, _ := strings.Cut(s, "="); k == key {
			out[i] = kv
			return out
		}
	}
	return append(out, kv)
}

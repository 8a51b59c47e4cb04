package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/units"
)

// keepStorage is the variable that sets the default of build's --keep-storage.
const keepStorage = "LAYERBUILD_KEEP_STORAGE"

// storagePolicy returns the limit for the state after a build: from the flag, or the variable,
// or a configuration file.
func storagePolicy(e *env, flag string) (state.Policy, error) {
	if flag != "" {
		p, err := parsePolicy(flag)
		if err != nil {
			return p, badValue("keep-storage", flag, err)
		}
		return p, nil
	}
	if value := e.getenv(keepStorage); value != "" {
		p, err := parsePolicy(value)
		if err != nil {
			return p, fmt.Errorf("%s %q: %w", keepStorage, value, err)
		}
		return p, nil
	}
	for _, file := range configFiles(e) {
		value, at, err := configured(file, "keep-storage")
		if err != nil {
			return state.Policy{}, err
		}
		if value == "" {
			continue
		}
		p, err := parsePolicy(value)
		if err != nil {
			return p, fmt.Errorf("%s: keep-storage %q: %w", at, value, err)
		}
		return p, nil
	}
	return state.Policy{}, nil
}

// parsePolicy parses a size or "off".
func parsePolicy(s string) (state.Policy, error) {
	if s == "off" {
		return state.Policy{Limit: state.NoLimit}, nil
	}
	n, err := units.ParseDocker(s)
	if err != nil {
		return state.Policy{}, errors.New("a size such as 500m or 10g, or off, is expected")
	}
	return state.Policy{Limit: max(n, 1)}, nil
}

// configFiles returns the user's configuration file and the machine's, by the XDG base directory
// specification.
func configFiles(e *env) []string {
	var files []string
	if dir := e.getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		files = append(files, filepath.Join(dir, "layerbuild", "config"))
	} else if home := e.getenv("HOME"); filepath.IsAbs(home) {
		files = append(files, filepath.Join(home, ".config", "layerbuild", "config"))
	}
	return append(files, "/etc/layerbuild/config")
}

// configured reads a key from a configuration file, which has lines "key = value" and comments that
// begin with "#". It returns the value, "" if there is none, with its place.
func configured(file, wanted string) (value, at string, err error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return "", "", nil
	}
	if err != nil {
		return "", "", err
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		key, v, ok := strings.Cut(line, "=")
		key = strings.TrimSpace(key)
		if !ok || key != "keep-storage" && key != "cache" && key != "cache-key" &&
			key != "cache-mounts" {
			return "", "", fmt.Errorf("%s:%d: %q: keep-storage = SIZE, cache = REPOSITORY, "+
				"cache-key = FILE or cache-mounts = ID is expected", file, n, line)
		}
		if key == wanted {
			value, at = strings.TrimSpace(v), fmt.Sprintf("%s:%d", file, n)
		}
	}
	return value, at, nil
}

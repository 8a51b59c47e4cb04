package explain

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/layerbuild/layerbuild/internal/atomicfile"
	"github.com/layerbuild/layerbuild/internal/smallfile"
	"github.com/layerbuild/layerbuild/internal/sorting"
)

// version is the version of the files. A file of another version counts as missing.
const version = 1

// Limits of an account.
const (
	maxVersions = 4 // steps with one place in one stage
	maxAccount  = 8 << 20
)

type accountFile struct {
	Version int    `json:"version"`
	Steps   []Step `json:"steps"`
}

// History has what is known of earlier builds of a Dockerfile.
type History struct {
	// Steps have run, the earliest first.
	Steps []Step
	// Last are the keys of the steps of the last build, those that were in the cache included.
	Last []string
}

// lastSuffix is the suffix of the file of the last build beside that of an account.
const lastSuffix = ".last"

// lastFile returns the file of the last build. Targets of bake with one Dockerfile have one
// account, and files of their own.
func lastFile(file, target string) string {
	if target != "" {
		file += "-" + Sum(target)
	}
	return file + lastSuffix
}

// Read returns an account, with the last build of a target of bake; "" is for other builds. A file
// that is missing or damaged is like one of no builds: an account only explains.
func Read(file, target string) (h History) {
	if b := readBuild(lastFile(file, target)); b != nil {
		for _, step := range b.Steps {
			h.Last = append(h.Last, step.Key)
		}
	}
	if data, err := smallfile.Read(file); err == nil {
		h.Steps = decodeSteps(data)
	}
	return h
}

func decodeSteps(data []byte) []Step {
	var doc accountFile
	if len(data) > maxAccount || json.Unmarshal(data, &doc) != nil || doc.Version != version {
		return nil
	}
	return doc.Steps
}

// Write adds a build, and the steps of it that have run, to an account. The account keeps the
// latest of the steps at each place, and those of this build and the one before. A large account
// loses its earliest steps. Of two builds that write at the same time one is lost.
func Write(temp atomicfile.Own, file string, ran []Step, b *Build) error {
	if len(ran) > 0 {
		if err := writeSteps(temp, file, ran, b); err != nil {
			return err
		}
	}
	b.Version = version
	data, err := b.encode()
	if err == nil {
		err = temp.ReplaceFile(lastFile(file, b.Target), data)
	}
	if err != nil {
		return fmt.Errorf("write the steps of the build: %w", err)
	}
	return nil
}

func writeSteps(temp atomicfile.Own, file string, ran []Step, b *Build) error {
	h := Read(file, b.Target)
	needed := map[string]bool{}
	for _, key := range h.Last {
		needed[key] = true
	}
	for _, step := range b.Steps {
		needed[step.Key] = true
	}
	kept := keep(append(h.Steps, ran...), needed)
	for {
		data, err := json.Marshal(accountFile{version, kept})
		if err == nil && len(data) > maxAccount && len(kept) > 0 {
			kept = kept[(len(kept)+1)/2:]
			continue
		}
		if err == nil {
			err = temp.ReplaceFile(file, data)
		}
		if err != nil {
			return fmt.Errorf("write what steps were made from: %w", err)
		}
		return nil
	}
}

// keep returns the latest of the steps at each place, and those with the needed keys. Each key is
// in the result once.
func keep(list []Step, needed map[string]bool) (kept []Step) {
	type place struct {
		platform, stage string
		number          int
	}
	seen := map[place]int{}
	keys := map[string]bool{}
	for _, s := range slices.Backward(list) {
		at := place{s.Platform, s.Stage, s.Number}
		if keys[s.Key] || seen[at] >= maxVersions && !needed[s.Key] {
			continue
		}
		seen[at]++
		keys[s.Key] = true
		kept = append(kept, s)
	}
	slices.Reverse(kept)
	return kept
}

// Build is a build whose steps can be shown.
type Build struct {
	Version int       `json:"version"`
	Time    time.Time `json:"time"`
	// Command is different for each command; builds of the targets of bake have the same.
	Command string `json:"command"`
	// Target is the target of bake; "" for other builds. Name is the name of the image, or "".
	Target  string    `json:"target,omitempty"`
	Name    string    `json:"name,omitempty"`
	File    string    `json:"file"`
	Context string    `json:"context"`
	Steps   []Outcome `json:"steps"`
}

// State tells whether a step has run.
type State string

// The states of a step.
const (
	Cached State = "cached"
	Ran    State = "ran"
	Failed State = "failed"
)

// Outcome is a step of a Build.
type Outcome struct {
	Step  string `json:"step"` // such as "[build 2/3] RUN make"
	Line  int    `json:"line,omitempty"`
	State State  `json:"state"`
	// Key is the key of its result; "" for a step that failed.
	Key string `json:"key,omitempty"`
	// Reason is nil if the result was in the cache.
	Reason *Reason `json:"reason,omitempty"`
}

// encode returns the build as JSON. For a build in which all is in the cache it does not use
// package json, whose first call for these types makes their encoders: 0.24 ms for one json.Marshal
// in a new process, 4 % of the CPU time of a build of ten steps without changes.
func (b *Build) encode() ([]byte, error) {
	for _, step := range b.Steps {
		if step.Reason != nil {
			return json.Marshal(b)
		}
	}
	d := strconv.AppendInt([]byte(`{"version":`), int64(b.Version), 10)
	d = append(d, `,"time":"`...)
	d = append(b.Time.AppendFormat(d, time.RFC3339Nano), '"')
	for _, field := range [...][2]string{{"command", b.Command}, {"target", b.Target},
		{"name", b.Name}, {"file", b.File}, {"context", b.Context}} {
		d = appendField(append(d, ','), field[0], field[1])
	}
	d = append(d, `,"steps":[`...)
	for i, step := range b.Steps {
		if i > 0 {
			d = append(d, ',')
		}
		d = append(appendField(append(d, '{'), "step", step.Step), `,"line":`...)
		d = strconv.AppendInt(d, int64(step.Line), 10)
		d = appendField(append(d, ','), "state", string(step.State))
		d = append(appendField(append(d, ','), "key", step.Key), '}')
	}
	return append(d, "]}"...), nil
}

// appendField appends a field of a JSON object. name has letters only.
func appendField(d []byte, name, value string) []byte {
	d = append(append(append(d, '"'), name...), `":"`...)
	for _, c := range value { // a byte that is not UTF-8 is U+FFFD
		switch {
		case c == '"' || c == '\\':
			d = append(d, '\\', byte(c))
		case c < ' ':
			d = fmt.Appendf(d, `\u%04x`, c)
		default:
			d = utf8.AppendRune(d, c)
		}
	}
	return append(d, '"')
}

func readBuild(file string) *Build {
	data, err := smallfile.Read(file)
	if err != nil {
		return nil
	}
	b := new(Build)
	if json.Unmarshal(data, b) != nil || b.Version != version {
		return nil
	}
	return b
}

// Latest returns the builds of the last command whose accounts are in a directory.
func Latest(dir string) []*Build {
	names, _ := filepath.Glob(filepath.Join(dir, "*"+lastSuffix))
	var all []*Build
	var last *Build
	for _, name := range names {
		if b := readBuild(name); b != nil {
			all = append(all, b)
			if last == nil || b.Time.After(last.Time) {
				last = b
			}
		}
	}
	all = slices.DeleteFunc(all, func(b *Build) bool { return b.Command != last.Command })
	sorting.StableFunc(all, func(a, b *Build) int { return a.Time.Compare(b.Time) })
	return all
}

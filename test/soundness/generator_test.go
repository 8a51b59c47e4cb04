package soundness

import (
	"io/fs"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/job"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/test/lab"
)

// mkfifo matches the only text of a command that may contain the name of a fifo.
var mkfifo = regexp.MustCompile(`\[ -e [/a-z]+/fifo \] \|\| mkfifo -m 644 [/a-z]+/fifo`)

// TestNoFifoIsOpened checks that fifos have names that no command opens: a round would wait for the
// other end for ever.
func TestNoFifoIsOpened(t *testing.T) {
	b := &bench{lab: lab.New(t), prepared: &prepared{drivers: []string{"overlay"}}}
	made, inContext := 0, 0
	for seed := range uint64(100) {
		w := b.newInputs(b.newSite(t, seed), seed)
		w.own = "own"
		for range 20 {
			w.edit()
			for _, top := range []string{w.context, w.named} {
				w.check(filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
					is := err == nil && d.Type() == fs.ModeNamedPipe
					if is != (filepath.Base(path) == fifo) {
						t.Errorf("seed %d: %s: %v", seed, path, d)
					}
					if is {
						inContext++
					}
					return err
				}))
			}
		}
		for line := range strings.Lines(w.dockerfile()) {
			made += len(mkfifo.FindAllString(line, -1))
			if verb, _, _ := strings.Cut(line, " "); verb == "COPY" || verb == "ADD" {
				continue // these do not open fifos
			}
			if strings.Contains(mkfifo.ReplaceAllString(line, ""), fifo) {
				t.Errorf("seed %d: a command names a fifo: %s", seed, line)
			}
		}
	}
	if made < 10 || inContext < 10 {
		t.Errorf("%d commands make a fifo, and contexts have %d", made, inContext)
	}
}

// fields has, for each field of a step and of the environment that a build gives to its commands,
// the subject and the input that change it, or "-" and the reason why no result depends on it.
var fields = map[string]string{
	"Run.Args": "run/word", "Run.Env": "run/env", "Run.Proxy": "- not in a key, as in BuildKit",
	"Run.Dir": "from image/image", "Run.User": "run/user",
	"Run.Mounts": "mount/option", "Run.Network": "run/flags", "Run.Security": "run/flags",
	"Run.Files":    "run script/word",
	"RunFile.Path": "run script/tag", "RunFile.Data": "run script/option",
	"RunFile.Mode":  "- always the same",
	"RunMount.Type": "- the texts of mounts of two types differ in more", "RunMount.ID": "cache/id",
	"RunMount.Target": "mount/n", "RunMount.Source": "mount/src",
	"RunMount.From": "mount another stage/stage", "RunMount.ReadOnly": "mount/option",
	"RunMount.Sharing": "cache/option", "RunMount.Mode": "cache/option",
	"RunMount.UID": "cache/option", "RunMount.GID": "cache/option",
	"RunMount.Required": "secret/option", "RunMount.Env": "secret/option",
	"RunMount.Size": "tmpfs/size",
	"Copy.Add":      "add archive/verb", "Copy.From": "from another stage/stage",
	"Copy.Sources": "copy/src", "Copy.Inline": "copy heredoc/word", "Copy.Dest": "copy/dest",
	"Copy.Chown": "copy/flags", "Copy.Chmod": "copy/flags", "Copy.Link": "copy over a link/flags",
	"Copy.Parents": "copy/flags", "Copy.KeepGitDir": "add git/flags",
	"Copy.Unpack": "add url of an archive/flags", "Copy.Exclude": "copy/flags",
	"Copy.Checksum": "add url/flags",
	"Inline.Name":   "copy heredoc/name", "Inline.Data": "copy heredoc/word",
	"Mkdir.Path": "workdir/path", "Mkdir.User": "workdir/user",
	"RunOptions.Network": "/network", "RunOptions.Hosts": "/host", "RunOptions.ShmSize": "/shm",
	"RunOptions.Ulimits":        "/ulimit",
	"Run.Devices":               "- the script run_device changes specifications of devices",
	"RunOptions.Devices":        "- they permit devices, and the key has those of the command",
	"RunOptions.Insecure":       "- it permits RUN --security=insecure, and the key has Run.Security",
	"RunOptions.HostNetwork":    "- it permits RUN --network=host, and the key has Run.Network",
	"RunOptions.Caps":           "- the script capabilities changes them",
	"RunOptions.ResolvConf":     "- the key does not have the name servers, as that of buildah",
	"RunOptions.Volumes":        "- the script build_volume changes volumes",
	"RunOptions.Hostname":       "/name",
	"RunOptions.CacheNamespace": "/caches",
	"ImageOptions.Epoch":        "/epoch", "ImageOptions.Labels": "/label",
	"ImageOptions.Annotations": "/annotation", "ImageOptions.Names": "- no part of the image",
	"Query.Patterns": "copy by pattern/pattern", "Query.Exclude": "copy/flags",
	"Query.Parents": "copy/flags", "Query.Literal": "- set by the kind of step",
	"Query.KeepOwner": "- set by the kind of step", "Query.Root": "- set by the kind of step",
	"Query.Epoch": "/epoch",
}

// TestEachFieldIsAnInput checks that TestInputs changes each field of each kind of step.
func TestEachFieldIsAnInput(t *testing.T) {
	inputs := map[string]bool{}
	for _, s := range subjects {
		for _, c := range s.changes() {
			inputs[s.name+"/"+c.input] = true
			if edit := fileEdits[c.value]; edit == nil &&
				slices.Contains([]string{"files", "named", "web"}, c.input) {
				t.Errorf("%s: there is no such edit", c)
			}
		}
	}
	for name := range global {
		inputs["/"+name] = true
	}
	for _, v := range []any{
		parser.Run{}, parser.RunFile{}, parser.RunMount{}, parser.Copy{}, parser.Inline{},
		parser.Mkdir{}, job.RunOptions{}, imagebuild.ImageOptions{}, source.Query{},
	} {
		typ := reflect.TypeOf(v)
		for i := range typ.NumField() {
			name := typ.Name() + "." + typ.Field(i).Name
			if input := fields[name]; !inputs[input] && !strings.HasPrefix(input, "- ") {
				t.Errorf("%s is changed by %q, which is not an input of a subject", name, input)
			}
		}
	}
}

// TestTextsOfSubjects checks that each input of a subject is in one of its texts, and that the
// texts have no other inputs.
func TestTextsOfSubjects(t *testing.T) {
	known := []string{"i", "d", "url", "images", "secret", "socket", "sum"}
	for _, s := range subjects {
		text := s.text + s.before + s.from + s.flags
		for input := range s.vary {
			if input != "ignore" && !strings.Contains(text, "{"+input+"}") {
				t.Errorf("%s: %s is in no text", s.name, input)
			}
		}
		for _, m := range regexp.MustCompile(`\{([a-z]+)\}`).FindAllStringSubmatch(text, -1) {
			if s.vary[m[1]] == nil && !slices.Contains(known, m[1]) {
				t.Errorf("%s: %s is not known", s.name, m[0])
			}
		}
	}
}

// TestWalkHasEachChange checks that the first rounds of TestInputs have each change of each subject
// once.
func TestWalkHasEachChange(t *testing.T) {
	seen := map[string]int{}
	list, common := walk()
	for _, round := range list {
		for i, changes := range round {
			for _, c := range changes {
				seen[c.String()]++
				if c.of.config && i < len(round)-1 {
					t.Errorf("%s is not in the last trial of its round", c)
				}
			}
		}
	}
	n := 0
	for _, s := range subjects {
		for _, c := range s.changes() {
			if n++; seen[c.String()] != 1 {
				t.Errorf("%s: %d times", c, seen[c.String()])
			}
		}
	}
	t.Logf("%d changes of %d subjects in %d rounds, %d of which go test runs", n,
		len(subjects), len(list), common)
}

package soundness

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// editKinds is the number of cases of edit.
const editKinds = 24

// edit makes a random change in the inputs of the build, and returns its description.
func (w *world) edit() string {
	switch n := pick(w.r, w.edits...); {
	case n < 8:
		return w.editFile(w.context)
	case n < 10:
		return w.editFile(w.named)
	case n == 10:
		return w.editIgnore()
	case n < 16:
		return w.editStep()
	case n == 16:
		w.target = w.r.IntN(len(w.stages))
		return fmt.Sprintf("target s%d", w.target)
	case n == 17:
		w.epoch = pick(w.r, earlyEpoch, firstEpoch, secondEpoch)
		return fmt.Sprintf("epoch %d", w.epoch)
	case n == 18:
		i := w.r.IntN(len(w.stages))
		s := w.newStage(i)
		for s.shell != w.stages[i].shell { // stages based on it may need a shell
			s = w.newStage(i)
		}
		w.stages[i] = s
		return fmt.Sprintf("stage s%d becomes:\n%s", i, w.stages[i].text(i))
	case n < 21:
		return w.editFlags()
	default:
		return w.tweak()
	}
}

// editFlags changes the flags and the environment of the build.
func (w *world) editFlags() string {
	r := w.r
	choices := map[string][]string{
		"A": {"", "--build-arg=A=1", "--build-arg=A=2"}, "G": {"", "--build-arg=G=1"},
		"network": {"", "--network=none"}, "host": {"", "--add-host=one:10.0.0.1",
			"--add-host=one:10.0.0.2"},
		"ulimit":   {"", "--ulimit=nofile=100", "--ulimit=nofile=200"},
		"shm":      {"", "--shm-size=1m", "--shm-size=2m"},
		"hostname": {"", "--build-arg=BUILDKIT_SANDBOX_HOSTNAME=other"},
		"label":    {"", "--label=l=1"},
		"output":   {"", "", "tar", "zstd"}, "umask": {"", "077", "000"},
		"zone": {"", "Asia/Tokyo"},
	}
	names := slices.Sorted(maps.Keys(choices))
	if w.option == "" {
		w.option = pick(r, names...)
	}
	name := w.option
	if r.IntN(3) == 0 {
		name = pick(r, names...)
	}
	w.flags[name] = pick(r, choices[name]...)
	return fmt.Sprintf("flag %s: %q", name, w.flags[name])
}

// tweaks are pairs of texts that can replace each other in a step.
var tweaks = [][2]string{
	{"--chmod=0640", "--chmod=0644"}, {"--chmod=u+x", "--chmod=a+x"},
	{"--chown=1000:100", "--chown=1000:101"},
	{"--chown=1 ", "--chown=2 "}, {"COPY ", "COPY --link "},
	{"COPY ", "COPY --parents "}, {"COPY ", "ADD "},
	{"--exclude=*b", "--exclude=*a"}, {"/w/d/", "/w/f/"}, {"RUN ", "RUN --network=none "},
	{",rw", ""}, {",source=dir", ",source=dir/sub"},
	{"USER 1000:100", "USER 1000:101"}, {"WORKDIR /w", "WORKDIR /x"}, {"echo 1", "echo 2"},
	{"target=/m ", "target=/m,rw "},
	{"sharing=locked", "sharing=private"}, {"here 1", "here 2"}, {"/w/here", "/w/there"},
	{"from=s0", "from=s1"}, {"ENV E=1", "ENV E=2"},
	{"RUN ", "RUN  "}, {"--mount=type=tmpfs", "--mount=type=tmpfs,size=1m"},
	{"COPY .", "COPY ./"}, {"[ab]*", "[abx]*"},
}

// fits reports whether a tweak of a stage's step results in an instruction that can be executed.
func fits(stage int, step string, pair [2]string) bool {
	switch {
	case pair[0] == "" || !strings.Contains(step, pair[0]):
		return false
	case pair[1] == "ADD ":
		return !strings.Contains(step, "--from") && !strings.Contains(step, "--parents")
	case pair[1] == "COPY --parents ":
		return !strings.Contains(step, "--parents") && !strings.Contains(step, "--from") &&
			!strings.Contains(step, "<<")
	case pair[1] == "COPY --link ":
		return !strings.Contains(step, "--link")
	case pair[1] == "from=s1":
		return stage > 1
	}
	return true
}

// tweak makes a small change in a step, so that the next step runs on the same files or on nearly
// the same.
func (w *world) tweak() string {
	r := w.r
	for range 50 {
		i := r.IntN(len(w.stages))
		s := w.stages[i]
		at := r.IntN(len(s.steps))
		pair := pick(r, tweaks...)
		if r.IntN(2) == 0 {
			pair[0], pair[1] = pair[1], pair[0]
		}
		if !fits(i, s.steps[at], pair) {
			continue
		}
		s.steps[at] = strings.Replace(s.steps[at], pair[0], pair[1], 1)
		return fmt.Sprintf("s%d: step %d becomes: %s", i, at, s.steps[at])
	}
	return "nothing"
}

// editStep adds, removes, replaces or moves an instruction of a stage.
func (w *world) editStep() string {
	r := w.r
	i := r.IntN(len(w.stages))
	s := w.stages[i]
	at := 1 + r.IntN(len(s.steps)) // not the first one
	switch n := r.IntN(8); {
	case n < 3 || len(s.steps) < 2 || at == len(s.steps):
		step := w.step(i, s.shell)
		s.steps = slices.Insert(s.steps, min(at, len(s.steps)), step)
		return fmt.Sprintf("s%d: insert at %d: %s", i, at, step)
	case n < 5:
		s.steps[at] = w.step(i, s.shell)
		return fmt.Sprintf("s%d: step %d becomes: %s", i, at, s.steps[at])
	case n == 5:
		s.steps = slices.Delete(s.steps, at, at+1)
		return fmt.Sprintf("s%d: delete step %d", i, at)
	case n == 6 && at > 1:
		s.steps[at], s.steps[at-1] = s.steps[at-1], s.steps[at]
		return fmt.Sprintf("s%d: swap steps %d and %d", i, at-1, at)
	case s.shell:
		s.steps[0] = w.firstRun(i)
		return fmt.Sprintf("s%d: first step becomes %s", i, s.steps[0])
	}
	return "nothing"
}

func (w *world) editIgnore() string {
	list := []string{"", "dir", "*b", "dir\n!dir/a", "**/c", "*\n!dir", "new*", "x y\n#c\n/dir/sub"}
	text := pick(w.r, list...)
	if text != "" {
		text += "\n!keep\n!dir/keep\n!dir/sub/keep\n!t.tar"
	}
	path := filepath.Join(w.context, ".dockerignore")
	if text == "" {
		w.check(os.RemoveAll(path))
	} else {
		w.write(path, text+"\n")
	}
	return fmt.Sprintf(".dockerignore: %q", text)
}

// editFile changes a file, a directory or a link below one of the contexts. See dockerfile_test.go
// for the classes of names.
func (w *world) editFile(top string) string {
	r := w.r
	odd := []string{"odd", "dir/thing"}
	if top == w.named {
		odd = []string{"other", "dir/others"}
	}
	file := pick(r, "a", "b", "file", "dir/a", "dir/b", "dir/sub/c", "dir/sub/i", "new", "x y")
	name := pick(r, file, file, file, file, pick(r, odd...), pick(r, fifo, "dir/"+fifo),
		pick(r, "dir", "dir/sub", "t.tar"))
	path := filepath.Join(top, name)
	said := fmt.Sprintf("%s/%s: ", filepath.Base(top), name)
	switch {
	case name == "t.tar":
		v := r.IntN(4)
		w.writeTar(path, v)
		return fmt.Sprintf("%sarchive %d", said, v)
	case filepath.Base(name) == fifo:
		return said + w.editFifo(path)
	case slices.Contains(odd, name):
		return said + w.replace(path)
	}
	info, err := os.Lstat(path)
	if err != nil {
		v := fmt.Sprintf("%d\n", r.IntN(5))
		w.write(path, v)
		return fmt.Sprintf("%sfile %q", said, v)
	}
	if info.IsDir() || r.IntN(2) == 0 {
		return said + w.describe(path, info)
	}
	return said + w.rewrite(top, path, info)
}

// describe changes the metadata of a file or a directory: mode, attributes or time.
func (w *world) describe(path string, info os.FileInfo) string {
	r := w.r
	switch r.IntN(3) {
	case 0:
		mode := pick(r, os.FileMode(0o600), 0o644, 0o755, 0o700, 0o444)
		if info.IsDir() {
			mode |= 0o700
		}
		w.check(os.Chmod(path, mode))
		return fmt.Sprintf("mode %o", mode)
	case 1:
		_ = unix.Setxattr(path, "user.soundness", []byte{byte('0' + r.IntN(3))}, 0)
		return "attribute"
	default:
		at := pick(r, int64(oldTime), middleTime, lateTime)
		w.touch(path, at)
		return fmt.Sprintf("time %d", at)
	}
}

// rewrite removes or renames a regular file, adds another name, or changes its content.
func (w *world) rewrite(top, path string, info os.FileInfo) string {
	r := w.r
	switch r.IntN(6) {
	case 0:
		w.check(os.Remove(path))
		return "deleted"
	case 1:
		to := filepath.Join(top, pick(r, "a", "new", "dir/moved", "dir/a"))
		w.check(os.Rename(path, to))
		return "renamed to " + to
	case 2:
		to := filepath.Join(top, pick(r, "hard", "dir/hard"))
		_ = os.Remove(to)
		w.check(os.Link(path, to))
		return "linked to " + to
	case 3:
		if info.Size() == 0 {
			return "nothing"
		}
		// Write new content of the old length, and restore the time: only ctime differs.
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return "cannot be written" // a user cannot write to a file without the mode for it
		}
		_, err = f.WriteAt([]byte{byte('0' + r.IntN(10))}, 0)
		w.check(err)
		w.check(f.Close())
		w.check(os.Chtimes(path, info.ModTime(), info.ModTime()))
		return "changed in place, time restored"
	case 4:
		_ = os.Remove(path)
		w.write(path, strings.Repeat("large ", 2000+r.IntN(3)))
		return "large file"
	default:
		_ = os.Remove(path)
		v := fmt.Sprintf("%d\n", r.IntN(5))
		w.write(path, v)
		return fmt.Sprintf("content %q", v)
	}
}

// replace makes a file of any type at a path of the class odd.
func (w *world) replace(path string) string {
	r := w.r
	w.check(os.RemoveAll(path))
	switch r.IntN(4) {
	case 0:
		to := pick(r, "a", "dir/a", "../a", "nowhere", "/w/a")
		w.check(os.Symlink(to, path))
		w.give(path)
		return "link to " + to
	case 1:
		w.check(os.Mkdir(path, 0o755))
		w.give(path)
		w.write(filepath.Join(path, "inner"), fmt.Sprintf("%d\n", r.IntN(3)))
		return "directory"
	case 2:
		return "removed"
	default:
		v := fmt.Sprintf("%d\n", r.IntN(5))
		w.write(path, v)
		return fmt.Sprintf("file %q", v)
	}
}

// editFifo makes or removes a fifo at a path.
func (w *world) editFifo(path string) string {
	if os.Remove(path) == nil {
		return "removed"
	}
	mode := pick(w.r, uint32(0o644), 0o600)
	w.check(syscall.Mkfifo(path, mode))
	w.give(path)
	return fmt.Sprintf("fifo with mode %o", mode)
}

package soundness

import (
	"archive/tar"
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// editKinds bounds the cases of edit.
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
		w.epoch = pick(w.r, 900000000, 1000000000, 1100000000)
		return fmt.Sprintf("epoch %d", w.epoch)
	case n == 18:
		i := w.r.IntN(len(w.stages))
		s := w.newStage(i)
		for s.shell != w.stages[i].shell { // or stages that are based on it could not run anything
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

// editFlags changes what is given to the build besides the files.
func (w *world) editFlags() string {
	r := w.r
	choices := map[string][]string{
		"A": {"", "--build-arg=A=1", "--build-arg=A=2"}, "G": {"", "--build-arg=G=1"},
		"network": {"", "--network=none"}, "host": {"", "--add-host=one:10.0.0.1", "--add-host=one:10.0.0.2"},
		"ulimit": {"", "--ulimit=nofile=100", "--ulimit=nofile=200"}, "shm": {"", "--shm-size=1m", "--shm-size=2m"},
		"hostname": {"", "--build-arg=BUILDKIT_SANDBOX_HOSTNAME=other"}, "label": {"", "--label=l=1"},
		"output": {"", "", "tar", "zstd"}, "umask": {"", "077", "000"}, "zone": {"", "Asia/Tokyo"},
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

// tweaks are pairs of texts of which one can stand for the other in a step.
var tweaks = [][2]string{
	{"--chmod=0640", "--chmod=0644"}, {"--chmod=u+x", "--chmod=a+x"}, {"--chown=1000:100", "--chown=1000:101"},
	{"--chown=1", "--chown=2"}, {"COPY ", "COPY --link "}, {"COPY ", "COPY --parents "}, {"COPY ", "ADD "},
	{"--exclude=*b", "--exclude=*a"}, {"/w/d/", "/w/f/"}, {"RUN ", "RUN --network=none "}, {",rw", ""}, {",source=dir", ",source=dir/sub"},
	{"USER 1000:100", "USER 1000:101"}, {"WORKDIR /w", "WORKDIR /x"}, {"echo 1", "echo 2"}, {"target=/m", "target=/m,rw"},
	{"sharing=locked", "sharing=private"}, {"here 1", "here 2"}, {"/w/here", "/w/there"}, {"from=s0", "from=x"}, {"ENV E=1", "ENV E=2"},
	{"RUN ", "RUN  "}, {"--mount=type=tmpfs", "--mount=type=tmpfs,size=1m"}, {" /w/", " /w"}, {"COPY .", "COPY ./"}, {"[ab]*", "[abx]*"},
}

// tweak changes a little of a step, so that the step after it is on the same files or on nearly the same.
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
		if strings.Contains(s.steps[at], "--from") && pair[1] == "ADD " {
			continue
		}
		if pair[0] == "" || !strings.Contains(s.steps[at], pair[0]) {
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
		step := w.step(i)
		s.steps = slices.Insert(s.steps, min(at, len(s.steps)), step)
		return fmt.Sprintf("s%d: insert at %d: %s", i, at, step)
	case n < 5:
		s.steps[at] = w.step(i)
		return fmt.Sprintf("s%d: step %d becomes: %s", i, at, s.steps[at])
	case n == 5:
		s.steps = slices.Delete(s.steps, at, at+1)
		return fmt.Sprintf("s%d: delete step %d", i, at)
	case n == 6 && at > 1:
		s.steps[at], s.steps[at-1] = s.steps[at-1], s.steps[at]
		return fmt.Sprintf("s%d: swap steps %d and %d", i, at-1, at)
	case s.shell:
		s.steps[0] = w.firstRun()
		return fmt.Sprintf("s%d: first step becomes %s", i, s.steps[0])
	}
	return "nothing"
}

func (w *world) editIgnore() string {
	list := []string{"", "dir", "*b", "dir\n!dir/a", "**/c", "*\n!dir", "new*", "x y\n#c\n/dir/sub"}
	text := pick(w.r, list...)
	path := filepath.Join(w.context, ".dockerignore")
	if text == "" {
		w.check(os.RemoveAll(path))
	} else {
		w.write(path, text+"\n")
	}
	return fmt.Sprintf(".dockerignore: %q", text)
}

// editFile changes a file, a directory or a link below one of the contexts.
func (w *world) editFile(top string) string {
	r := w.r
	name := pick(r, "a", "b", "file", "dir/a", "dir/b", "dir/sub/c", "dir/sub/d", "dir/sub", "dir", "new", "x y", "t.tar", fifo, "dir/"+fifo)
	path := filepath.Join(top, name)
	w.parents(top, path)
	said := fmt.Sprintf("%s/%s: ", filepath.Base(top), name)
	if name == "t.tar" {
		v := r.IntN(4)
		w.writeTar(path, v)
		return fmt.Sprintf("%sarchive %d", said, v)
	}
	if filepath.Base(name) == fifo {
		return said + w.editFifo(path)
	}
	info, err := os.Lstat(path)
	if err != nil || r.IntN(4) == 0 {
		return said + w.replace(path)
	}
	switch r.IntN(8) {
	case 0:
		mode := pick(r, os.FileMode(0o600), 0o644, 0o755, 0o700, 0o444)
		if info.IsDir() {
			mode |= 0o700
		}
		if info.Mode()&os.ModeSymlink == 0 {
			w.check(os.Chmod(path, mode))
		}
		return fmt.Sprintf("%smode %o", said, mode)
	case 1:
		w.check(os.RemoveAll(path))
		return said + "deleted"
	case 2:
		to := filepath.Join(top, pick(r, "a", "new", "dir/moved", "dir/a"))
		w.parents(top, to)
		if err := os.Rename(path, to); err != nil {
			return said + "cannot be renamed"
		}
		return said + "renamed to " + to
	case 3:
		to := filepath.Join(top, pick(r, "hard", "dir/hard"))
		_ = os.Remove(to)
		if info.Mode().IsRegular() && os.Link(path, to) == nil {
			return said + "linked to " + to
		}
	case 4:
		if info.Mode().IsRegular() {
			_ = unix.Setxattr(path, "user.soundness", []byte{byte('0' + r.IntN(3))}, 0)
			return said + "attribute"
		}
	case 5:
		// New content of the old length, with the old time: only ctime differs.
		if info.Mode().IsRegular() && info.Size() > 0 {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return said + "cannot be written"
			}
			_, err = f.WriteAt([]byte{byte('0' + r.IntN(10))}, 0)
			w.check(err)
			w.check(f.Close())
			w.check(os.Chtimes(path, info.ModTime(), info.ModTime()))
			return said + "changed in place, time restored"
		}
	case 6:
		at := time.Unix(pick(r, int64(850000000), 1250000000), 0)
		if info.Mode()&os.ModeSymlink == 0 {
			w.check(os.Chtimes(path, at, at))
			return fmt.Sprintf("%stime %d", said, at.Unix())
		}
	}
	if info.Mode().IsRegular() {
		v := fmt.Sprintf("%d\n", r.IntN(5))
		w.write(path, v)
		return fmt.Sprintf("%scontent %q", said, v)
	}
	return said + w.replace(path)
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

// parents makes the directories above a path, below top, and replaces other files there.
func (w *world) parents(top, path string) {
	dir := filepath.Dir(path)
	if dir == top {
		return
	}
	w.parents(top, dir)
	if info, err := os.Lstat(dir); err == nil && info.IsDir() {
		return
	}
	w.check(os.RemoveAll(dir))
	w.check(os.Mkdir(dir, 0o755))
	w.give(dir)
}

// replace makes something new at a path.
func (w *world) replace(path string) string {
	r := w.r
	w.check(os.RemoveAll(path))
	switch r.IntN(7) {
	case 0:
		to := pick(r, "a", "dir/a", "../a", "nowhere", "/w/a")
		w.check(os.Symlink(to, path))
		w.give(path)
		return "link to " + to
	case 1:
		w.check(os.Mkdir(path, 0o755))
		w.give(path)
		w.write(filepath.Join(path, "in"), fmt.Sprintf("%d\n", r.IntN(3)))
		return "directory"
	case 2:
		w.write(path, strings.Repeat("large ", 2000+r.IntN(3)))
		return "large file"
	default:
		v := fmt.Sprintf("%d\n", r.IntN(5))
		w.write(path, v)
		return fmt.Sprintf("file %q", v)
	}
}

// write writes a file that belongs to the user who builds.
func (w *world) write(path, text string) {
	w.check(os.WriteFile(path, []byte(text), 0o644))
	w.give(path)
}

// give gives a file, and its directory, to the user who builds.
func (w *world) give(path string) {
	if w.uid > 0 {
		w.check(os.Lchown(path, w.uid, w.gid))
		w.check(os.Lchown(filepath.Dir(path), w.uid, w.gid))
	}
}

// writeTar writes one of a few archives.
func (w *world) writeTar(path string, v int) {
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	at := time.Unix(800000000, 0)
	for _, h := range []tar.Header{
		{Name: "in/", Typeflag: tar.TypeDir, Mode: 0o750},
		{Name: "in/file", Typeflag: tar.TypeReg, Mode: 0o644 + int64(v), Size: 2},
		{Name: "in/link", Typeflag: tar.TypeLink, Linkname: "in/file"},
		{Name: "in/soft", Typeflag: tar.TypeSymlink, Linkname: fmt.Sprint(v)},
	} {
		h.ModTime = at
		w.check(tw.WriteHeader(&h))
		if h.Size > 0 {
			_, err := fmt.Fprintf(tw, "%d\n", v)
			w.check(err)
		}
	}
	w.check(tw.Close())
	w.check(os.RemoveAll(path))
	w.write(path, b.String())
}

func (w *world) check(err error) {
	if err != nil {
		w.t.Helper()
		w.t.Fatal(err)
	}
}

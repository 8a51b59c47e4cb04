package soundness

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
)

// stage is a stage of a generated Dockerfile. A stage without a shell only copies.
type stage struct {
	base  string
	shell bool
	steps []string
}

// pick returns one of a list.
func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

func (s *stage) text(i int) string {
	return fmt.Sprintf("FROM %s AS s%d\n%s\n", s.base, i, strings.Join(s.steps, "\n"))
}

// dockerfile is the whole text.
func (w *world) dockerfile() string {
	var b strings.Builder
	b.WriteString("ARG G=0\n")
	for i, s := range w.stages {
		b.WriteString(s.text(i))
	}
	return b.String()
}

// newStage makes the stage with an index: on busybox, on a stage before it, on nothing, or on the named context.
func (w *world) newStage(i int) *stage {
	s := &stage{base: "busybox", shell: true}
	switch n := w.r.IntN(10); {
	case n < 4 && i > 0:
		k := w.r.IntN(i)
		s.base, s.shell = fmt.Sprintf("s%d", k), w.stages[k].shell
	case n == 4:
		s.base, s.shell = "scratch", false
	case n == 5:
		s.base, s.shell = "x", false
	case n < 8 && w.own != "":
		s.base = "own"
	}
	if s.shell {
		s.steps = append(s.steps, w.firstRun())
	} else {
		s.steps = append(s.steps, "COPY . /w/")
	}
	for range 1 + w.r.IntN(4) {
		s.steps = append(s.steps, w.step(i))
	}
	return s
}

// firstRun makes files, and shows in them all that a command sees besides files.
func (w *world) firstRun() string {
	return fmt.Sprintf("RUN mkdir -p /w/d/e /d; echo %d >/w/a; echo b >/w/d/b; cat /etc/hosts >/seen; "+
		"(ulimit -a; df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2; wc -l </proc/net/dev; hostname; id; umask; env | sort; pwd) >>/seen", w.r.IntN(3))
}

// step makes an instruction for the stage with an index.
func (w *world) step(i int) string {
	shell := i >= len(w.stages) || w.stages[i].shell
	switch n := w.r.IntN(20); {
	case n < 8 && shell:
		return w.run(i)
	case n < 12:
		return w.copyContext()
	case n < 15 && i > 0:
		return w.copyStage(i)
	case n == 15:
		if w.own != "" && w.r.IntN(2) == 0 {
			return "COPY --from=own /w /own/"
		}
		return pick(w.r, "COPY --from=busybox /etc/passwd /etc/group /w/", "COPY --from=x . /w/x/", "COPY --from=x --chown=1000:100 fil* /w/d/")
	default:
		if shell && w.r.IntN(6) == 0 {
			return fmt.Sprintf("ONBUILD RUN echo %d >/onbuild", w.r.IntN(3))
		}
		return w.metadata()
	}
}

func (w *world) metadata() string {
	r := w.r
	return pick(r,
		fmt.Sprintf("ENV E=%d", r.IntN(3)), fmt.Sprintf("LABEL l=%d", r.IntN(3)), "ARG A", "ARG A=1", "ARG G",
		pick(r, "WORKDIR /w", "WORKDIR /w/new", "WORKDIR /"), pick(r, "USER 1000:100", "USER root", "USER root"),
		fmt.Sprintf("CMD [\"%d\"]", r.IntN(2)), "EXPOSE 80", "# a comment", "VOLUME /v", "STOPSIGNAL 9",
		pick(r, `SHELL ["/bin/sh", "-e", "-c"]`, `SHELL ["/bin/sh", "-c"]`),
		fmt.Sprintf("COPY <<EOF /w/here\nhere %d $A\nEOF", r.IntN(3)),
	)
}

// commandKinds are the cases of shellCommand.
const commandKinds = 18

// fifo is the name of each fifo, and of nothing else, in images and in contexts. A command that opened one would wait for ever,
// and so no command opens a file of this name.
const fifo = "fifo"

// path is a path in the image that commands change.
func (w *world) path() string {
	return pick(w.r, "/w/a", "/w/b", "/w/c", "/w/d/a", "/w/d/b", "/w/d/e/c", "/w/d/e", "/w/d", "/d/a", "/etc/new")
}

// shellCommand makes a command that leaves the same files for the same files before it.
func (w *world) shellCommand() string {
	r := w.r
	p, q, v := w.path(), w.path(), r.IntN(4)
	switch pick(r, w.commands...) {
	case 0, 1:
		return fmt.Sprintf("echo %d >%s", v, p)
	case 2:
		return fmt.Sprintf("echo %d >>%s", v, p)
	case 3:
		return "rm -rf " + p
	case 4:
		return "rm -rf /w/d; mkdir -p /w/d/e"
	case 5:
		return fmt.Sprintf("mv %s %s", p, q)
	case 6:
		return fmt.Sprintf("cp -a %s %s", p, q)
	case 7:
		return fmt.Sprintf("ln -f %s %s", p, q)
	case 8:
		return fmt.Sprintf("ln -sfn %s %s", q, p)
	case 9:
		return fmt.Sprintf("chmod %s %s", pick(r, "0600", "0755", "4711", "0700", "1777"), p)
	case 10:
		return fmt.Sprintf("chown -h %s %s", pick(r, "1000:100", "0:0", "65534"), p)
	case 11:
		return fmt.Sprintf("touch -h -d @%d %s", pick(r, 800000000, 950000000, 1050000000), p)
	case 12:
		dir := pick(r, "/w", "/w/d", "/w/d/e", "/d")
		return fmt.Sprintf("[ -e %[1]s/%[2]s ] || mkfifo %[1]s/%[2]s", dir, fifo)
	case 13:
		return "find /w /d -exec stat -c '%n %a %u:%g %F %N' {} + | sort >/census"
	case 14:
		return "env | sort >/env; id >/id; pwd >/pwd; umask >/umask"
	case 15:
		return "find /w /d -type f | sort | xargs cat | sha256sum >/sum"
	case 16:
		return pick(r, "cat /etc/hosts >/hosts", "ulimit -n >/limit", "df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2 >/shm", "wc -l </proc/net/dev >/net", "hostname >/hostname.txt")
	default:
		return pick(r, "true", "chmod 0755 /w", ": >>/w/a", "touch /tmp/x; rm /tmp/x", "echo $A$G$E >/args")
	}
}

// run makes a RUN for the stage with an index.
func (w *world) run(i int) string {
	r := w.r
	var list []string
	for range 1 + r.IntN(3) {
		list = append(list, w.shellCommand())
	}
	text := strings.Join(list, "; ") + "; true"
	look := "; cp -a /m /w/m; find /m -exec stat -c '%n %a %u:%g %F %N' {} + | sort >/m.txt"
	switch n := r.IntN(16); {
	case n == 0:
		return "RUN --mount=target=/m" + pick(r, "", ",rw", ",source=dir") + " " + text + look + "; true"
	case n == 1:
		return "RUN --mount=from=x,target=/m" + pick(r, "", ",rw", ",source=dir") + " " + text + look + "; true"
	case n == 2 && i > 0:
		return fmt.Sprintf("RUN --mount=from=s%d,source=/w,target=/m%s %s%s; true", r.IntN(i), pick(r, "", ",rw"), text, look)
	case n == 3:
		return "RUN --mount=type=cache,target=/m,from=x" + pick(r, "", ",source=dir") + " " + text + look + "; true"
	case n == 4 && i > 0:
		return fmt.Sprintf("RUN --mount=type=cache,target=/m,from=s%d,source=/w/d%s %s%s; true", r.IntN(i), pick(r, "", ",sharing=locked", ",sharing=private"), text, look)
	case n == 5:
		return "RUN --mount=type=cache,target=/c" + pick(r, "", ",sharing=locked") + " --mount=type=cache,target=/c/sub echo c >>/c/log; echo c >>/c/sub/log; " + text
	case n == 6:
		return "RUN --mount=type=tmpfs,target=/w/d " + text
	case n == 7:
		return "RUN --network=none " + text
	case n == 8:
		return "RUN <<EOF\n" + strings.ReplaceAll(text, "; ", "\n") + "\nEOF"
	}
	return "RUN " + text
}

// copyContext makes a COPY or an ADD of files of the context.
func (w *world) copyContext() string {
	r := w.r
	names := []string{".", "dir", "d*", "dir/*", "[ab]*", "*e", ".", "dir/s*"}
	for path := range w.files() {
		names = append(names, path)
	}
	slices.Sort(names)
	src := pick(r, names...)
	flags := ""
	verb := "COPY"
	if r.IntN(6) == 0 {
		verb, src = "ADD", pick(r, "t.tar", src)
	}
	for range r.IntN(3) {
		flag := pick(r, "--chown=1000:100", "--chown=1", "--chmod=0640", "--chmod=u+x", "--link", "--parents", "--exclude=*b")
		if !strings.Contains(flags, flag[:6]) {
			flags += " " + flag
		}
	}
	if r.IntN(4) == 0 {
		src += " " + pick(r, names...)
	}
	return fmt.Sprintf("%s%s %s %s", verb, flags, src, pick(r, "/w/", "/w/d/", "/d/", "/", "/w/n/o/"))
}

// copyStage makes a COPY from a stage before the one with an index.
func (w *world) copyStage(i int) string {
	r := w.r
	flags := pick(r, "", "", " --link", " --chown=1000:100", " --chmod=0700", " --exclude=b")
	return fmt.Sprintf("COPY --from=s%d%s %s %s", r.IntN(i), flags, pick(r, "/w", "/w/d", "/w/*", "/w/d/e", "/w/a*", "/"), pick(r, "/w/", "/w/d/", "/d/", "/got/"))
}

// files lists what is in the context, below the context's directory.
func (w *world) files() map[string]fs.DirEntry {
	found := map[string]fs.DirEntry{}
	_ = filepath.WalkDir(w.context, func(path string, d fs.DirEntry, err error) error {
		if rel, relErr := filepath.Rel(w.context, path); err == nil && relErr == nil && rel != "." {
			found[rel] = d
		}
		return nil
	})
	return found
}

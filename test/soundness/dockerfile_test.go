package soundness

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// The generated builds must succeed, since builds that fail in the same way test nothing. So each
// name in the context and in the image belongs to one of these classes, and no edit changes the
// class of a name:
//
//	kept   are always there: keep, dir, dir/keep, dir/sub, dir/sub/keep in contexts, /w/keep in
//	       images
//	files  are regular files or absent; sources that may be absent are named by patterns
//	dirs   are directories: a command that removes one makes it again
//	odd    may be anything; they are copied with their directory, and no two copies put them to
//	       one place
//	fifo   is the name of each fifo
//
// Each command is followed by "|| true", since commands may fail.

// stage is a stage of a generated Dockerfile. A stage without a shell only copies.
type stage struct {
	base  string
	shell bool
	steps []string
}

// pick returns a random element of list.
func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

func (s *stage) text(i int) string {
	return fmt.Sprintf("FROM %s AS s%d\n%s\n", s.base, i, strings.Join(s.steps, "\n"))
}

// dockerfile returns the whole text.
func (w *world) dockerfile() string {
	var b strings.Builder
	b.WriteString("ARG G=0\n")
	for i, s := range w.stages {
		b.WriteString(s.text(i))
	}
	return b.String()
}

// newStage makes the stage with an index: on a base image, on an earlier stage, on scratch, or on
// the named context.
func (w *world) newStage(i int) *stage {
	s := &stage{base: "base", shell: true}
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
		s.steps = append(s.steps, w.firstRun(i))
	} else {
		s.steps = append(s.steps, "COPY . /w/")
	}
	for range 1 + w.r.IntN(3) {
		s.steps = append(s.steps, w.step(i, s.shell))
	}
	return s
}

// script joins commands, each of which may fail.
func script(commands ...string) string { return strings.Join(commands, " || true; ") + " || true" }

// firstRun makes files. In the first stage they contain everything that a command can observe
// besides files.
func (w *world) firstRun(i int) string {
	list := []string{"mkdir -p /w/d/e /d/sub", "echo keep >/w/keep",
		fmt.Sprintf("echo %d >/w/a", w.r.IntN(3)), "echo b >/w/d/b"}
	if i == 0 {
		list = append(list, seen)
	}
	return "RUN " + script(list...)
}

// step makes an instruction for the stage with an index.
func (w *world) step(i int, shell bool) string {
	switch n := w.r.IntN(20); {
	case n < 8 && shell:
		return w.run(i)
	case n < 12:
		return w.copyContext()
	case n < 15 && i > 0:
		return w.copyStage(i)
	case n == 15:
		if w.own != "" && w.r.IntN(2) == 0 {
			return fmt.Sprintf("COPY --from=own /w /own%d/", w.published)
		}
		return pick(w.r, "COPY --from=base /etc/passwd /etc/group /w/", "COPY --from=x . /w/x/",
			"COPY --from=x --chown=1000:100 keep fil* /w/d/")
	default:
		if shell && w.r.IntN(6) == 0 {
			return fmt.Sprintf("ONBUILD RUN echo %d >/onbuild || true", w.r.IntN(3))
		}
		return w.metadata()
	}
}

func (w *world) metadata() string {
	r := w.r
	return pick(r,
		fmt.Sprintf("ENV E=%d", r.IntN(3)), fmt.Sprintf("LABEL l=%d", r.IntN(3)),
		"ARG A", "ARG A=1", "ARG G",
		pick(r, "WORKDIR /w", "WORKDIR /w/work", "WORKDIR /"),
		pick(r, "USER 1000:100", "USER root", "USER root"),
		fmt.Sprintf("CMD [\"%d\"]", r.IntN(2)), "EXPOSE 80", "# a comment",
		"VOLUME /v", "STOPSIGNAL 9",
		pick(r, `SHELL ["/bin/sh", "-e", "-c"]`, `SHELL ["/bin/sh", "-c"]`),
		fmt.Sprintf("COPY <<EOF /w/here\nhere %d $A\nEOF", r.IntN(3)),
	)
}

// fifo is the name of each fifo, and of nothing else, in images and in contexts. A command that
// opens a fifo would wait for ever, so no command opens a file of this name.
const fifo = "fifo"

// commandKinds are the cases of shellCommand.
const commandKinds = 18

// shellCommand makes a command whose resulting files depend only on the files before it.
func (w *world) shellCommand() string {
	r := w.r
	file := func() string {
		return pick(r, "/w/a", "/w/b", "/w/dir/a", "/w/d/a", "/w/d/b", "/d/a", "/etc/new")
	}
	dir := func() string { return pick(r, "/w/d/e", "/w/d", "/d/sub") }
	odd := func() string { return pick(r, "/w/t1", "/w/t2", "/w/d/t3") }
	path := func() string { return pick(r, file, file, dir, odd)() }
	f, v := pick(r, file, odd)(), r.IntN(4)
	switch pick(r, w.commands...) {
	case 0, 1:
		return fmt.Sprintf("echo %d >%s", v, f)
	case 2:
		return fmt.Sprintf("echo %d >>%s", v, f)
	case 3:
		return "rm -rf " + f
	case 4:
		return pick(r, "rm -rf /w/d && mkdir -p /w/d/e", "rm -rf /d && mkdir -p /d/sub",
			"rm -rf /w/d/e && mkdir -p /w/d/e")
	case 5:
		return pick(r, fmt.Sprintf("mv %s %s", f, odd()), fmt.Sprintf("mv %s %s", file(), file()),
			fmt.Sprintf("mv /w/d %s; mkdir -p /w/d/e", pick(r, "/w/t1", "/w/t2")))
	case 6:
		return pick(r, fmt.Sprintf("cp -a %s %s", path(), odd()),
			fmt.Sprintf("cp -a %s %s", file(), file()))
	case 7:
		return fmt.Sprintf("ln -f %s %s", file(), f)
	case 8:
		return fmt.Sprintf("ln -sfn %s %s", path(), odd())
	case 9:
		return fmt.Sprintf("chmod %s %s", pick(r, "0600", "0755", "4711", "0700", "1777"), path())
	case 10:
		return fmt.Sprintf("chown -h %s %s", pick(r, "1000:100", "0:0", "65534"), path())
	case 11:
		return fmt.Sprintf("touch -h -d @%d %s", pick(r, 800000000, 950000000, 1050000000), path())
	case 12:
		in := pick(r, "/w", "/w/d", "/w/d/e", "/d")
		return fmt.Sprintf("[ -e %[1]s/%[2]s ] || mkfifo -m 644 %[1]s/%[2]s", in, fifo)
	case 13:
		return "find /w /d -exec stat -c '%n %a %u:%g %F %N' {} + | sort >/census"
	case 14:
		return "env | sort >/env; id >/id; pwd >/pwd; umask >/umask"
	case 15:
		return "find /w /d -type f | sort | xargs cat | sha256sum >/sum"
	case 16:
		return pick(r, "cat /etc/hosts >/hosts", "ulimit -n >/limit",
			"df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2 >/shm", "hostname >/hostname.txt")
	default:
		return pick(r, "true", "chmod 0755 /w", "true >>/w/a", "touch /tmp/x; rm /tmp/x",
			"echo $A$G$E >/args")
	}
}

// run makes a RUN for the stage with an index.
func (w *world) run(i int) string {
	r := w.r
	var list []string
	for range 1 + r.IntN(3) {
		list = append(list, w.shellCommand())
	}
	text := script(list...)
	look := script(list[0], "cp -a /m /w/m",
		"find /m -exec stat -c '%n %a %u:%g %F %N' {} + | sort >/m.txt")
	switch n := r.IntN(16); {
	case n == 0:
		return "RUN --mount=target=/m" + pick(r, "", ",rw", ",source=dir") + " " + look
	case n == 1:
		return "RUN --mount=from=x,target=/m" + pick(r, "", ",rw", ",source=dir") + " " + look
	case n == 2 && i > 0:
		return fmt.Sprintf("RUN --mount=from=s%d,source=/w,target=/m%s %s", r.IntN(i),
			pick(r, "", ",rw"), look)
	case n == 3:
		return "RUN --mount=type=cache,target=/m,from=x" + pick(r, "", ",source=dir") + " " + look
	case n == 4 && i > 0:
		return fmt.Sprintf("RUN --mount=type=cache,target=/m,from=s%d,source=/w%s %s", r.IntN(i),
			pick(r, "", ",sharing=locked", ",sharing=private"), look)
	case n == 5:
		return "RUN --mount=type=cache,target=/c" + pick(r, "", ",sharing=locked") +
			" --mount=type=cache,target=/c/sub " +
			script("echo c >>/c/log", "echo c >>/c/sub/log", text)
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
	sources := []string{".", ".", "dir", "d*", "dir/[ab]*", "[ab]*", "*e", "dir/s*", "fil[e]",
		"ne[w]", "x?y", "[a]", "dir/[b]", "dir/sub/[c]", "fif[o]", "hard*"}
	src := pick(r, sources...)
	flags := ""
	verb := "COPY"
	if r.IntN(6) == 0 {
		verb, src = "ADD", pick(r, "t.tar", src)
	}
	for range r.IntN(3) {
		flag := pick(r, "--chown=1000:100", "--chown=1", "--chmod=0640", "--chmod=u+x", "--link",
			"--parents", "--exclude=*b")
		if !strings.Contains(flags, flag[:6]) && !(verb == "ADD" && flag == "--parents") {
			flags += " " + flag
		}
	}
	if r.IntN(4) == 0 {
		src += " " + pick(r, sources...)
	}
	return fmt.Sprintf("%s%s %s keep %s", verb, flags, src,
		pick(r, "/w/", "/w/d/", "/d/", "/", "/w/n/o/"))
}

// copyStage makes a COPY for the stage with an index from an earlier stage.
func (w *world) copyStage(i int) string {
	r := w.r
	k := r.IntN(i)
	from := fmt.Sprintf("COPY --from=s%d%s ", k,
		pick(r, "", "", " --link", " --chown=1000:100", " --chmod=0700", " --exclude=b"))
	if r.IntN(2) == 0 {
		return from + pick(r, "/w/keep /w/a*", "/w/keep /w/[b]", "/w/keep /w/[ab]*") + " " +
			pick(r, "/w/", "/w/d/", "/d/")
	}
	return fmt.Sprintf("%s%s /got%d-%d/", from,
		pick(r, "/w", "/w/keep /w/d*", "/w"), k, w.published)
}

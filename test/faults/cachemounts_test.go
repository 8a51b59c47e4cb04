package faults

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/layerbuild/layerbuild/test/lab"
)

// mountsFile is a Dockerfile with a cache mount. Its command prints what the mount has, and adds
// to it.
const mountsFile = `FROM busybox
ARG N
RUN --mount=type=cache,id=files,target=/c echo "saw [$(cat /c/seen /c/sub/large 2>/dev/null | wc -c)]" && mkdir -p /c/sub && echo $N >>/c/seen && yes | head -c 100000 >/c/sub/large
`

// TestCacheMounts saves and fetches cache mounts by way of a registry that fails in the middle.
// Builds succeed with one warning, and a mount that cannot be fetched begins empty.
func TestCacheMounts(t *testing.T) {
	lab.Root(t)
	const blob, doc, upload = "/blobs/sha256:", "/manifests/layerbuild-mount-1-", "/blobs/uploads/"
	half := func(w http.ResponseWriter, data []byte) {
		w.Header().Set("Content-Length", "100000")
		w.Write(data)
		panic(http.ErrAbortHandler)
	}
	for _, tt := range []struct {
		name, method, path string
		answer             func(w http.ResponseWriter, r *http.Request)
		warning            string
	}{
		{"no answer", "GET", blob, func(http.ResponseWriter, *http.Request) {
			panic(http.ErrAbortHandler)
		}, "cache mount files is not restored"},
		{"a missing blob", "GET", blob, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(404)
		}, "cache mount files is not restored"},
		{"a blob that is cut off", "GET", blob, func(w http.ResponseWriter, _ *http.Request) {
			half(w, []byte("\x28\xb5\x2f\xfd"))
		}, "cache mount files is not restored"},
		{"another blob", "GET", blob, func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, strings.Repeat("x", 5000))
		}, "cache mount files is not restored"},
		{"an endless blob", "GET", blob, endless, "cache mount files is not restored"},
		{"a document that is none", "GET", doc, func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "<html>")
		}, "is not read"},
		{"an upload that fails", "POST", upload, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(413)
		}, "cache mounts are not saved"},
		{"a document that is refused", "PUT", doc, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(403)
		}, "cache mounts are not saved"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := lab.New(t)
			l.Busybox()
			l.Write("Dockerfile", mountsFile)
			// The fault begins when the document of the mount is fetched: steps are not affected.
			var on, mounts atomic.Bool
			host := front(t, l, func(w http.ResponseWriter, r *http.Request) bool {
				mounts.Store(mounts.Load() || strings.Contains(r.URL.Path, doc))
				if !on.Load() || !mounts.Load() || r.Method != tt.method ||
					!strings.Contains(r.URL.Path, tt.path) {
					return false
				}
				tt.answer(w, r)
				return true
			})
			args := []string{"--cache", host + "/team/cache", "--cache-mounts", "all"}
			accepted(t, build(l, append(args, "--build-arg=N=1")...))
			l.State += "2"
			on.Store(true)
			mounts.Store(false)
			r := accepted(t, build(l, append(args, "--build-arg=N=2")...))
			want := "saw [0]"
			if tt.method != "GET" {
				want = "saw [100002]"
			}
			if !strings.Contains(r.log, want) || strings.Count(r.log, tt.warning) != 1 {
				t.Errorf("want %q and one warning %q\n%s", want, tt.warning, tail(r.log))
			}
			clean(t, l)
		})
	}
}

// TestCacheMountsKilled kills builds while they fetch a mount. The next build fetches it whole.
func TestCacheMountsKilled(t *testing.T) {
	lab.Root(t)
	l := lab.New(t)
	l.Busybox()
	l.Write("Dockerfile", mountsFile)
	var stop atomic.Bool
	var once sync.Once
	reached := make(chan struct{})
	host := front(t, l, func(w http.ResponseWriter, r *http.Request) bool {
		if !stop.Load() || r.Method != "GET" ||
			!strings.Contains(r.URL.Path, "/team/cache/blobs/") {
			return false
		}
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		once.Do(func() { close(reached) })
		<-r.Context().Done()
		return true
	})
	args := []string{"--cache", host + "/team/cache", "--cache-mounts", "all"}
	accepted(t, build(l, append(args, "--build-arg=N=1")...))
	l.State += "2"
	stop.Store(true)
	cmd := build(l, append(args, "--build-arg=N=2")...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-reached
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	stop.Store(false)
	if r := accepted(t, build(l, append(args, "--build-arg=N=3")...)); !strings.Contains(r.log,
		"saw [100002]") {
		t.Errorf("the mount was not fetched after a build that was killed\n%s", tail(r.log))
	}
}

// TestCacheMountsAtOnce lets builds on one state and on others use a mount at once. What is saved
// is always a whole mount: its files agree with each other.
func TestCacheMountsAtOnce(t *testing.T) {
	lab.Root(t)
	l := lab.New(t)
	l.Busybox()
	l.Write("Dockerfile", `FROM busybox
ARG N
RUN --mount=type=cache,target=/c,sharing=locked { [ ! -e /c/a ] || cmp /c/a /c/b; } && echo $N >/c/a && sleep 0.1 && echo $N >/c/b
`)
	args := []string{"--cache", l.Registry.Host + "/team/cache", "--cache-mounts", "all"}
	var wg sync.WaitGroup
	for n, state := range []string{"", "", "", "2", "2", "3"} {
		other := l.For(t)
		other.State += state
		cmd := build(other, append(args, "--build-arg=N="+string(rune('a'+n)))...)
		var log bytes.Buffer
		cmd.Stdout, cmd.Stderr = &log, &log
		wg.Go(func() {
			if err := cmd.Run(); err != nil || strings.Contains(log.String(), "is not") {
				t.Errorf("%v\n%s", err, log.String())
			}
		})
	}
	wg.Wait()
	for _, state := range []string{"4", "5"} {
		other := l.For(t)
		other.State += state
		r := accepted(t, build(other, append(args, "--build-arg=N="+state)...))
		if !strings.Contains(r.log, "restoring cache mount") {
			t.Errorf("nothing was saved\n%s", tail(r.log))
		}
	}
}

// TestCacheMountsOfUsers shares a mount of root with users that have some ids, and with users that
// have one.
func TestCacheMountsOfUsers(t *testing.T) {
	lab.Root(t)
	for _, ranges := range []bool{true, false} {
		user := lab.User(t, ranges)
		l := lab.New(t)
		l.Busybox()
		l.Write("Dockerfile", `FROM busybox
ARG N
RUN --mount=type=cache,target=/c echo saw $(stat -c '%n=%a:%u:%g' /c/* 2>/dev/null) && [ -e /c/own ] || { echo x >/c/own; chmod 4750 /c/own; mkdir /c/read; echo x >/c/read/only; chmod 555 /c/read; echo x >/c/other; [ $N != root ] || chown 70:80 /c/other; }
`)
		args := []string{"--cache", l.Registry.Host + "/team/cache", "--cache-mounts", "all"}
		accepted(t, build(l, append(args, "--build-arg=N=root")...))
		if err := os.RemoveAll(l.State); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(l.State), 0o755); err != nil {
			t.Fatal(err)
		}
		l.As(user)
		r := accepted(t, build(l, append(args, "--build-arg=N=user")...))
		want := "saw /c/other=644:70:80 /c/own=4750:0:0 /c/read=555:0:0"
		if !ranges {
			want = "saw /c/other=644:0:0 /c/own=4750:0:0 /c/read=555:0:0"
		}
		if !strings.Contains(r.log, want) {
			t.Errorf("%s: want %q\n%s", user, want, tail(r.log))
		}
		l.Run("prune", "--all") // although the mount has directories that are read-only
	}
}

package caches

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/internal/cachestore"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/remotecache/remotecachetest"
	"github.com/layerbuild/layerbuild/test/lab"
)

// server is a running server with a cache.
type server struct {
	cache string   // a value of --cache
	env   []string // the variables that it needs
	dir   string   // of its files; "": it is not known
	// lose removes the layers; nil: the test cannot.
	lose func(t *testing.T)
}

// servers start the servers that are not registries.
var servers = map[string]func(t *testing.T) server{
	"nginx": func(t *testing.T) server {
		cache, dir := lab.Nginx(t)
		return server{cache: cache, lose: func(t *testing.T) {
			if err := os.RemoveAll(filepath.Join(dir, "cas")); err != nil {
				t.Fatal(err)
			}
		}}
	},
	"bazel-remote": func(t *testing.T) server { return server{cache: lab.BazelRemote(t)} },
	"versitygw": func(t *testing.T) server {
		cache, env, dir := lab.S3(t)
		return server{cache: cache, env: env, dir: dir}
	},
}

// each calls test with each of the servers.
func each(t *testing.T, test func(t *testing.T, s server)) {
	for _, name := range []string{"nginx", "bazel-remote", "versitygw"} {
		t.Run(name, func(t *testing.T) { test(t, servers[name](t)) })
	}
}

// TestStores tests the stores with the tests that all stores must pass.
func TestStores(t *testing.T) {
	lab.Root(t)
	each(t, func(t *testing.T, s server) {
		remotecachetest.Test(t, func(t *testing.T, m *remotecachetest.Machine) remotecache.Store {
			return s.open(t, m)
		})
	})
}

// open returns the store as a machine uses it.
func (s server) open(t *testing.T, m *remotecachetest.Machine) remotecache.Store {
	t.Helper()
	store, err := cachestore.Open(remotecache.SharedPlace{Ref: s.cache}, cachestore.Options{
		Client: m.Client, Blobs: m.State.Store, Getenv: func(name string) string {
			for _, v := range s.env {
				if value, ok := strings.CutPrefix(v, name+"="); ok {
					return value
				}
			}
			return ""
		}})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// on returns a machine that can use the server.
func (s server) on(t *testing.T, l *lab.Lab) machine {
	m := newMachine(t, l)
	m.Env = append(m.Env, s.env...)
	return m
}

// TestMendedBuildInStores builds a Dockerfile whose last step fails on one machine, and the mended
// one on others: they run the last step only, and make the same image.
func TestMendedBuildInStores(t *testing.T) {
	lab.Root(t)
	l := lab.New(t)
	l.Busybox()
	each(t, func(t *testing.T, s server) {
		cache := "--cache=" + s.cache
		text := "FROM busybox AS tools\n" +
			"RUN echo ran-tools; head -c 5000000 /dev/urandom > /tool\n" +
			"FROM busybox\nCOPY --from=tools /tool /tool\n" +
			"RUN echo ran-2; cat /proc/sys/kernel/random/uuid > /b\n"
		l.Write("Dockerfile", text+"RUN echo ran-3; false\n")
		out := s.on(t, l).build(false, cache, ".")
		if len(ran.FindAllString(out, -1)) != 3 || strings.Contains(out, "warning") {
			t.Fatalf("three steps should run:\n%s", out)
		}
		l.Write("Dockerfile", text+"RUN echo ran-3; md5sum /tool /b > /sum\n")
		var digests []string
		for i := range 3 {
			m := s.on(t, l)
			args := []string{cache, "-t", "app", "."}
			if i == 2 {
				args[0] += ",ro"
			}
			out := m.build(true, args...)
			steps := ran.FindAllString(out, -1)
			if want := min(1, 1-i); len(steps) != max(0, want) ||
				strings.Contains(out, "warning") {
				t.Errorf("build %d ran %q:\n%s", i, steps, out)
			}
			digests = append(digests, m.Run("inspect", "--format", "{{.Digest}}", "app"))
		}
		if len(slices.Compact(digests)) != 1 {
			t.Errorf("the images are %q", digests)
		}
		if strings.HasPrefix(s.cache, "s3:") {
			s.catalog(t, l)
		}
		if s.lose != nil {
			s.lose(t)
			m := s.on(t, l)
			out := m.build(true, cache, "-t", "app", ".")
			if len(ran.FindAllString(out, -1)) == 0 {
				t.Errorf("without the layers no step ran:\n%s", out)
			}
			if out := s.on(t, l).build(true, cache, "-t", "app", "."); ran.MatchString(out) {
				t.Errorf("the steps were not written again:\n%s", out)
			}
		}
	})
}

// catalog lists and prunes the cache.
func (s server) catalog(t *testing.T, l *lab.Lab) {
	t.Helper()
	m := s.on(t, l)
	out := m.Run("cache", "ls", s.cache)
	for _, want := range []string{"ran-tools", "ran-2", "ran-3", "COPY", "hint"} {
		if !strings.Contains(out, want) {
			t.Errorf("the list lacks %q:\n%s", want, out)
		}
	}
	m.Run("cache", "prune", "--keep-storage", "1", s.cache)
	if out := m.Run("cache", "ls", s.cache); !strings.Contains(out, "0 steps") {
		t.Errorf("after the removal of all steps:\n%s", out)
	}
}

// TestLeases builds a Dockerfile on six machines at the same time, with one cache in S3. Each
// command runs on one of them.
func TestLeases(t *testing.T) {
	lab.Root(t)
	s := servers["versitygw"](t)
	l := lab.New(t)
	l.Busybox()
	l.Write("Dockerfile", "FROM busybox AS tools\n"+
		"RUN echo ran-tools; sleep 1; cat /proc/sys/kernel/random/uuid > /tool\n"+
		"FROM busybox\nRUN echo ran-1; sleep 1; cat /proc/sys/kernel/random/uuid > /a\n"+
		"COPY --from=tools /tool /tool\nRUN echo ran-2; sleep 1; cat /a /tool > /b\n")
	var mu sync.Mutex
	var outs []string
	digests := map[string]bool{}
	var wg sync.WaitGroup
	for range 6 {
		m := s.on(t, l)
		// The COPY may run on several machines, at different times.
		m.Env = append(m.Env, "SOURCE_DATE_EPOCH=1")
		wg.Go(func() {
			out := m.build(true, "--cache="+s.cache, "-t", "app", ".")
			digest := m.Run("inspect", "--format", "{{.Digest}}", "app")
			mu.Lock()
			defer mu.Unlock()
			outs, digests[digest] = append(outs, out), true
		})
	}
	wg.Wait()
	all := strings.Join(outs, "\n")
	steps := ran.FindAllString(all, -1)
	if len(steps) != 3 || len(digests) != 1 || strings.Contains(all, "warning") ||
		!strings.Contains(all, "waiting for the machine that runs") {
		t.Errorf("ran %q, images %v:\n%s", steps, digests, all)
	}
	s.left(t)
}

// TestLeaseOfKilled kills a machine while a command runs. Another machine that waits for the result
// runs the command after the time of a lease.
func TestLeaseOfKilled(t *testing.T) {
	lab.Root(t)
	s := servers["versitygw"](t)
	l := lab.New(t)
	l.Busybox()
	l.Write("Dockerfile", "FROM busybox\nRUN echo ran-killed; sleep 3; echo done > /a\n")
	first, second := s.on(t, l), s.on(t, l)
	cmd := first.Command("build", "--progress=plain", "--cache="+s.cache, ".")
	var log lockedLog
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); !ran.MatchString(log.String()); {
		if time.Now().After(end) {
			t.Fatal(log.String())
		}
		time.Sleep(10 * time.Millisecond)
	}
	cmd.Process.Kill()
	cmd.Wait()
	began := time.Now()
	out := second.build(true, "--cache="+s.cache, ".")
	took := time.Since(began)
	if !ran.MatchString(out) || took < 50*time.Second || took > 2*time.Minute ||
		!strings.Contains(out, "the step runs here") {
		t.Errorf("after %v:\n%s", took, out)
	}
	t.Logf("the step of a machine that was killed ran after %v", took)
	s.left(t)
}

// left checks that no lease is left.
func (s server) left(t *testing.T) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(s.dir, "bucket/team/lease/*"))
	if err != nil || len(names) > 0 {
		t.Errorf("the leases %q are left: %v", names, err)
	}
}

// lockedLog is an output that can be read while it is written.
type lockedLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

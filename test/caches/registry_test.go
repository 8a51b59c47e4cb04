package caches

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/internal/counting"
	"github.com/layerbuild/layerbuild/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// machine runs builds with a state directory of its own.
type machine struct {
	*lab.Lab
	t *testing.T
}

// newMachine returns a machine with an empty state directory.
func newMachine(t *testing.T, l *lab.Lab) machine {
	other := *l
	other.State = filepath.Join(t.TempDir(), "state")
	// A check of a layer needs the files below it.
	other.Env = append(slices.Clone(l.Env), "LAYERBUILD_CHECK_LAYERS=")
	t.Cleanup(func() { os.RemoveAll(other.State) })
	return machine{&other, t}
}

// build builds and returns the progress. ok is the expected outcome.
func (m machine) build(ok bool, args ...string) string {
	m.t.Helper()
	cmd := m.Command("build", append([]string{"--progress=plain"}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); (err == nil) != ok {
		m.t.Fatalf("build %q: %v\n%s", args, err, out.String())
	}
	return out.String()
}

var (
	ran    = regexp.MustCompile(`[0-9.]+ ran-[a-z0-9]+`)
	pushed = regexp.MustCompile(`(?m)^#\d+ (sha256:[0-9a-f]{64})`)
)

// digestOf returns the digest of the image in the progress of a build.
func digestOf(t *testing.T, out string) string {
	t.Helper()
	found := pushed.FindStringSubmatch(out)
	if found == nil {
		t.Fatalf("no digest:\n%s", out)
	}
	return found[1]
}

// moved returns the bytes that were sent and received since the last call.
func moved(p *counting.Proxy) (sent, received int64) {
	n := p.Counts()
	return n.Sent, n.Received
}

// TestPushMovesNothing builds an image of 40 MB on a machine, and again on an empty one, whose
// steps are all in the cache. The second build moves less than 50,000 bytes, and makes the same
// image. A build with one changed step fetches only the layers below that step.
func TestPushMovesNothing(t *testing.T) {
	lab.Root(t)
	l := lab.New(t)
	l.Busybox()
	registry := lab.Count(t, lab.DockerRegistry(t))
	cache := "--cache=" + registry.Host + "/team/cache"
	l.Write("base.df", "FROM busybox\nRUN head -c 10000000 /dev/urandom > /base\n")
	one := newMachine(t, l)
	one.build(true, "-f", "base.df", "-t", registry.Host+"/lib/base", "--push", ".")
	text := "FROM busybox AS tools\nRUN echo ran-tools; head -c 10000000 /dev/urandom > /tool\n" +
		"FROM " + registry.Host + "/lib/base\nLABEL one=1\nENV TWO=2\n" +
		"COPY --from=tools /tool /tool\n"
	for i := range 8 {
		text += fmt.Sprintf("RUN echo ran-%d; head -c 2500000 /dev/urandom > /f%d\n", i, i)
	}
	l.Write("Dockerfile", text+"RUN echo ran-last; cat /f7 | md5sum > /last\nCMD [\"/tool\"]\n")
	want := digestOf(t, one.build(true, cache, "-t", registry.Host+"/team/app:1", "--push", "."))
	if n := registry.Counts(); n.Sent < 40_000_000 {
		t.Fatalf("the first build has sent %d bytes, want more than 40 MB", n.Sent)
	}

	two := newMachine(t, l)
	out := two.build(true, cache, "-t", registry.Host+"/team/app:2", "--push", ".")
	sent, received := moved(registry)
	t.Logf("a build whose steps are all in the cache has sent %d and received %d bytes", sent,
		received)
	if ran.MatchString(out) || sent+received > 50_000 || digestOf(t, out) != want {
		t.Errorf("sent %d, received %d bytes, want %s:\n%s", sent, received, want, out)
	}

	// The last step needs the layers below it: 10 MB of the base, 10 MB of COPY, 8 × 2.5 MB.
	l.Write("Dockerfile", text+"RUN echo ran-last; md5sum /f7 > /last\nCMD [\"/tool\"]\n")
	three := newMachine(t, l)
	out = three.build(true, cache, "-t", registry.Host+"/team/app:3", "--push", ".")
	sent, received = moved(registry)
	if got := ran.FindAllString(out, -1); len(got) != 1 || sent > 100_000 ||
		received < 40_000_000 || received > 45_000_000 {
		t.Errorf("the steps %q ran; sent %d, received %d bytes", got, sent, received)
	}

	// A COPY --link needs no layer below it.
	l.Write("Dockerfile", text+"COPY --link Dockerfile /last\n")
	four := newMachine(t, l)
	out = four.build(true, cache, "-t", registry.Host+"/team/app:4", "--push", ".")
	sent, received = moved(registry)
	if ran.MatchString(out) || sent+received > 100_000 {
		t.Errorf("a COPY --link on the cached steps has sent %d and received %d bytes:\n%s", sent,
			received, out)
	}
	img := newMachine(t, l)
	img.Run("pull", registry.Host+"/team/app:4")
	if got := img.Run("run", registry.Host+"/team/app:4", "cat", "/last"); got !=
		text+"COPY --link Dockerfile /last\n" {
		t.Errorf("the image has %q", got)
	}
	// A COPY needs the outline of the layers below it, for which the first machine reads them.
	registry.Counts()
	for i, limit := range []int64{45_000_000, 100_000} {
		l.Write("Dockerfile", text+"COPY Dockerfile /last\n", "new", fmt.Sprint(i))
		five := newMachine(t, l)
		out = five.build(true, cache, "-t", registry.Host+"/team/app:5", "--push", ".")
		sent, received = moved(registry)
		t.Logf("build %d with a COPY has sent %d and received %d bytes", i, sent, received)
		if ran.MatchString(out) || sent > 100_000 || received > limit {
			t.Errorf("build %d with a COPY has sent %d and received %d bytes:\n%s", i, sent,
				received, out)
		}
		text += "# another\n"
		layers := func(m machine, tag string) string {
			return m.Run("inspect", "--format={{json .RootFS.Layers}}",
				"docker://"+registry.Host+"/team/app:"+tag)
		}
		// On the first machine the COPY runs on the files themselves.
		one.build(true, "-t", registry.Host+"/team/app:6", "--push", ".")
		if a, b := layers(five, "5"), layers(one, "6"); a != b {
			t.Errorf("build %d: the layers with an outline are %s, without it %s", i, a, b)
		}
		registry.Counts()
	}
}

// TestMendedBuild builds a Dockerfile of ten steps of which the ninth fails. On another machine the
// mended Dockerfile runs two steps.
func TestMendedBuild(t *testing.T) {
	lab.Root(t)
	l := lab.New(t)
	l.Busybox()
	cache := "--cache=" + lab.DockerRegistry(t) + "/team/cache"
	text := "FROM busybox\n"
	for i := range 8 {
		text += fmt.Sprintf("RUN echo ran-%d; cat /proc/sys/kernel/random/uuid > /f%d\n", i, i)
	}
	l.Write("Dockerfile", text+"RUN echo ran-9; false\nRUN echo ran-10\n")
	if out := newMachine(t, l).build(false, cache, "."); len(ran.FindAllString(out, -1)) != 9 {
		t.Fatalf("nine steps should run:\n%s", out)
	}
	l.Write("Dockerfile", text+"RUN echo ran-9; true\nRUN echo ran-10\n")
	out := newMachine(t, l).build(true, cache, ".")
	if got := ran.FindAllString(out, -1); len(got) != 2 || strings.Count(out, "CACHED") != 8 {
		t.Errorf("the steps %q ran:\n%s", got, out)
	}
}

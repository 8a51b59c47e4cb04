package drivers

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/test/lab"
)

// TestLongChain runs more steps that write files than a chain has directories. Whether snapshots
// are merged, and when, must not change the image.
func TestLongChain(t *testing.T) {
	lab.Root(t)
	for _, user := range []bool{false, true} {
		l := lab.New(t)
		l.Busybox()
		l.Env = append(l.Env, "SOURCE_DATE_EPOCH=1700000000")
		if user {
			l.As(lab.User(t, true))
		}
		rnd := rand.New(rand.NewPCG(1, 2))
		name := func() string { return fmt.Sprintf("/w/%d/%d", rnd.IntN(4), rnd.IntN(4)) }
		steps := "FROM busybox\nWORKDIR /w\nRUN mkdir 0 1 2 3\n"
		for i := range 100 {
			// The number of links of a directory depends on the driver, so /last has no
			// directories. Some commands fail, and their steps change less.
			changes := []string{"rm -rf " + name(), "mkdir " + name(),
				"d=" + name() + "; rm -rf $d; mkdir $d; echo x >$d/x",
				"mv " + name() + " " + name(), "chmod 0700 " + name()}
			steps += fmt.Sprintf("RUN echo %d >%s; %s; stat -c %%F,%%h,%%s,%%n /w/*/* | "+
				"grep -v ^dir >/last\n", i, name(), changes[rnd.IntN(len(changes))])
		}
		digests := map[string]string{}
		build := func(what string, args ...string) {
			l.Run("build", append(args, "-t", "img", ".")...)
			digests[what] = l.Image("img").Descriptor.Digest.String()
		}
		l.Write("Dockerfile", steps)
		build("overlay")
		merged, err := filepath.Glob(filepath.Join(l.State, "snapshots/*/merged/fs"))
		if err != nil || len(merged) == 0 {
			t.Errorf("no chain was merged: %v", err)
		}
		// A later program starts on the merged chain.
		l.Write("Dockerfile", steps+"RUN rm -r /w/1; mkdir /w/1; find /w | sort >/all\n")
		build("overlay, one more step")
		build("overlay, again", "--no-cache")
		if !user {
			build("copy", "--driver=copy", "--no-cache")
		}
		want := digests["overlay, one more step"]
		delete(digests, "overlay")
		for what, got := range digests {
			if got != want {
				t.Errorf("%s: the digest is %s, not %s", what, got, want)
			}
		}
		l.Run("prune", "--all", "--force")
		left, err := os.ReadDir(filepath.Join(l.State, "snapshots"))
		for _, e := range left {
			if strings.HasPrefix(e.Name(), "sha256") || len(e.Name()) == 32 {
				t.Errorf("%s is left after prune --all", e.Name())
			}
		}
		if err != nil {
			t.Error(err)
		}
	}
}

package golden

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/test/lab"
)

var update = flag.Bool("update", false,
	"write testdata/digests.txt anew: a decision, since every user's digests change with it")

func TestMain(m *testing.M) { lab.Main(m) }

// TestDigests builds every image with each driver and with one and two threads at once. The digests
// are in testdata/digests.txt and change only on purpose.
func TestDigests(t *testing.T) {
	lab.Root(t)
	if runtime.GOARCH != "amd64" {
		t.Skip("some of the images run commands for amd64")
	}
	var want string
	if !*update {
		raw, err := os.ReadFile("testdata/digests.txt")
		if err != nil {
			t.Fatal(err)
		}
		want = string(raw)
	}
	for _, driver := range []string{"overlay", "copy", "fuse-overlayfs"} {
		for _, procs := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s/%d", driver, procs), func(t *testing.T) {
				l := lab.New(t)
				Context(t, l)
				l.Env = append(l.Env, fmt.Sprintf("GOMAXPROCS=%d", procs))
				var got strings.Builder
				for _, img := range Images {
					fmt.Fprintln(&got, img.Name, Build(l, img, "--driver="+driver))
				}
				if want == "" {
					want = got.String()
				}
				if diff := cmp.Diff(want, got.String()); diff != "" {
					t.Errorf("digests (-want +got):\n%s", diff)
				}
			})
		}
	}
	if *update && !t.Failed() {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("testdata/digests.txt", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUmask checks that an image depends neither on the umask nor on the time zone of the user who
// builds it.
func TestUmask(t *testing.T) {
	lab.Root(t)
	l := lab.New(t)
	Context(t, l)
	img := Images[2]
	want := Build(l, img)
	l.Env = append(l.Env, "TZ=Asia/Tokyo", "LANG=C", "USER=other")
	l.Prefix = []string{"sh", "-c", `umask 077 && exec "$@"`, "sh"}
	if got := Build(l, img); got != want {
		t.Errorf("with another umask and time zone the digest is %s, not %s\n%s", got, want,
			bytes.TrimSpace([]byte(l.Layer(img.Name, 0))))
	}
}

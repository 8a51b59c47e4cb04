package examples

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/test/lab"
)

// TestWaste follows the README of examples/waste, on busybox.
func TestWaste(t *testing.T) {
	if testing.Short() {
		t.Skip("writes a gigabyte")
	}
	lab.Root(t)
	lab.Need(t, "tar")
	l := lab.New(t)
	l.Busybox()
	for _, name := range []string{"Dockerfile", "mended.Dockerfile", ".dockerignore"} {
		data, err := os.ReadFile(filepath.Join(lab.Top(), "examples/waste", name))
		if err != nil {
			t.Fatal(err)
		}
		l.Write("waste/"+name, string(data))
	}
	dir := filepath.Join(l.Dir, "waste")
	lab.Output(t, filepath.Join(lab.Top(), "examples/waste/archive.sh"), "200",
		filepath.Join(dir, "app.tar"))
	archive, err := os.Stat(filepath.Join(dir, "app.tar"))
	if err != nil {
		t.Fatal(err)
	}

	out := l.Run("build", "-q", "-t", "waste", "--build-arg", "BASE=busybox", "--analyze", dir)
	text := strings.Join(strings.Fields(out), " ") // sentences are wrapped
	for _, want := range []string{
		"created by line 3: COPY app.tar /tmp/", "made dead by line 6: RUN rm -r /tmp/app.tar /app/src",
		"→ use RUN --mount=type=bind,source=app.tar,target=/tmp/app.tar at line 4, line 5 and line 6 instead of the COPY at line 3",
		"→ join the RUNs of line 4, line 5 and line 6",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, out)
		}
	}
	const sources = 200e6
	if r := report(t, l, "waste"); r.Total.Dead != archive.Size()+sources {
		t.Errorf("dead are %d bytes, want %d of the archive and %d of the sources", r.Total.Dead,
			archive.Size(), int64(sources))
	}

	before := blobs(l, "waste")
	l.Run("prune-image", "waste", "-t", "slim")
	if freed := before - blobs(l, "slim"); freed < 400e6 {
		t.Errorf("prune-image frees %d bytes, want 400 MB", freed)
	}
	if r := report(t, l, "slim"); r.Total.Dead != 0 {
		t.Errorf("slim has %d dead bytes", r.Total.Dead)
	}
	if out := l.Run("diff", "waste", "slim"); !strings.Contains(out, "the files are the same") {
		t.Errorf("diff prints\n%s", out)
	}
	if a, b := l.Run("run", "waste"), l.Run("run", "slim"); a != b || len(a) < 64 {
		t.Errorf("waste prints %q, slim %q", a, b)
	}

	l.Run("build", "-q", "-t", "mended", "--build-arg", "BASE=busybox", "-f",
		filepath.Join(dir, "mended.Dockerfile"), dir)
	if r := report(t, l, "mended"); r.Total.Dead != 0 {
		t.Errorf("mended has %d dead bytes", r.Total.Dead)
	}
}

type waste struct {
	Total struct{ Dead int64 }
}

func report(t *testing.T, l *lab.Lab, name string) (r waste) {
	t.Helper()
	if err := json.Unmarshal([]byte(l.Run("analyze", "--format", "json", name)), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func blobs(l *lab.Lab, name string) (sum int64) {
	for _, d := range l.Image(name).Manifest.Layers {
		sum += d.Size
	}
	return sum
}

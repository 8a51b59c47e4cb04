package source

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/layerbuild/layerbuild/internal/giturl"
	"golang.org/x/sys/unix"
)

// below returns a function for the TempDir of options.
func below(dir string) func() (string, error) { return func() (string, error) { return dir, nil } }

// open opens a context and closes it with the test.
func open(t *testing.T, name string, o Options) *Context {
	t.Helper()
	temp := t.TempDir()
	o.TempDir = below(temp)
	c, err := Open(t.Context(), name, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(temp); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	return c
}

// content returns the Dockerfile and a listing of the context.
func content(t *testing.T, c *Context) (display, dockerfile, files string) {
	t.Helper()
	display, b, err := c.ReadDockerfile(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.Tree().Match(t.Context(), Query{Patterns: []string{"."}})
	if err != nil {
		t.Fatal(err)
	}
	return display, string(b), strings.TrimPrefix(show(m), "* < .:")
}

func TestContextDirectory(t *testing.T) {
	tests := []struct {
		name, tree, file       string // file is the value of -f; "@" stands for the directory
		display, text, matched string
	}{
		{"plain", "file Dockerfile FROM a\nfile f x\n", "", "Dockerfile",
			"FROM a", " Dockerfile f\n"},
		{"lower case", "file dockerfile FROM a\n", "", "dockerfile", "FROM a", " dockerfile\n"},
		{"both", "file Dockerfile FROM a\nfile dockerfile FROM b\n", "", "Dockerfile", "FROM a",
			" Dockerfile dockerfile\n"},
		{"named", "file b/Containerfile FROM b\n", "@/b/Containerfile", "@/b/Containerfile",
			"FROM b", " b b/Containerfile\n"},
		{"named from the context", "file b/Containerfile FROM b\n", "b/Containerfile",
			"b/Containerfile", "FROM b", " b b/Containerfile\n"},
		{"named, lower case", "file b/dockerfile FROM b\n", "@/b/Dockerfile", "@/b/dockerfile",
			"FROM b", " b b/dockerfile\n"},
		{"link", "link Dockerfile -> d/real\nfile d/real FROM a\n", "", "Dockerfile", "FROM a",
			" Dockerfile d d/real\n"},
		{"ignored", "file Dockerfile FROM a\nfile .dockerignore \"Dockerfile\\n.dockerignore\\n\"\nfile f x\n", "", "Dockerfile", "FROM a", " f\n"},
		{"ignore behind a link", "file Dockerfile FROM a\nlink .dockerignore -> /ign\nfile ign f\nfile f x\n", "", "Dockerfile", "FROM a", " .dockerignore Dockerfile ign\n"},
		{"ignore file of its own",
			"file Dockerfile FROM a\nfile .dockerignore f\nfile Dockerfile.dockerignore g\nfile f x\nfile g x\n", "", "Dockerfile", "FROM a", " .dockerignore Dockerfile Dockerfile.dockerignore f\n"},
		{"empty ignore file of its own",
			"file Dockerfile FROM a\nfile .dockerignore f\nfile Dockerfile.dockerignore\nfile f x\n", "", "Dockerfile", "FROM a", " .dockerignore Dockerfile Dockerfile.dockerignore f\n"},
		{"ignore file of another",
			"file b/C FROM b\nfile b/C.dockerignore f\nfile .dockerignore b\nfile f x\n", "@/b/C",
			"@/b/C", "FROM b", " .dockerignore b b/C b/C.dockerignore\n"},
		{"Containerfile", "file Containerfile FROM c\nfile .containerignore f\nfile .dockerignore g\nfile f x\nfile g x\n", "", "Containerfile", "FROM c", " .containerignore .dockerignore Containerfile g\n"},
		{"Containerfile without an ignore file of its kind",
			"file Containerfile FROM c\nfile .dockerignore f\nfile f x\n", "", "Containerfile",
			"FROM c", " .dockerignore Containerfile\n"},
		{"Containerfile beside Dockerfile",
			"file Containerfile FROM c\nfile .containerignore f\nfile Dockerfile FROM a\nfile f x\n",
			"", "Dockerfile", "FROM a", " .containerignore Containerfile Dockerfile f\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := makeTree(t, tt.tree)
			c := open(t, dir, Options{Dockerfile: strings.ReplaceAll(tt.file, "@", dir)})
			display, text, files := content(t, c)
			if display != strings.ReplaceAll(tt.display, "@", dir) || text != tt.text ||
				files != tt.matched {
				t.Errorf("got %q, %q, %q, want %q, %q, %q", display, text, files,
					tt.display, tt.text, tt.matched)
			}
		})
	}
}

func TestContextDockerfileElsewhere(t *testing.T) {
	dir := makeTree(t, "file Dockerfile FROM wrong\nfile f x\n")
	other := makeTree(t, "file Other FROM o\nlink out -> /etc/hostname\n")
	_, text, _ := content(t, open(t, dir, Options{Dockerfile: filepath.Join(other, "Other")}))
	if text != "FROM o" {
		t.Errorf("Dockerfile = %q", text)
	}
	display, text, files := content(t, open(t, dir,
		Options{Dockerfile: "-", Stdin: strings.NewReader("FROM in")}))
	if display != "-" || text != "FROM in" || files != " Dockerfile f\n" {
		t.Errorf("got %q, %q, %q", display, text, files)
	}
	s := newSite(t)
	s.content = "FROM web"
	display, text, _ = content(t, open(t, dir, Options{Dockerfile: s.URL + "/Dockerfile"}))
	if display != s.URL+"/Dockerfile" || text != "FROM web" {
		t.Errorf("got %q, %q", display, text)
	}
	fifo := filepath.Join(other, "pipe")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	go os.WriteFile(fifo, []byte("FROM pipe"), 0)
	if _, text, _ = content(t, open(t, dir, Options{Dockerfile: fifo})); text != "FROM pipe" {
		t.Errorf("Dockerfile = %q", text)
	}
}

func TestContextErrors(t *testing.T) {
	dir := makeTree(t, "file f x\nfile bad/.dockerignore \"[\"\nfile bang/.dockerignore !\nfile text hello\ndir Dockerfile\n")
	for name, want := range map[string]string{
		dir + "/none":                "no such directory",
		dir + "/bad":                 `read .dockerignore: pattern "[": syntax error in pattern`,
		dir + "/bang":                `read .dockerignore: illegal exclusion pattern: "!"`,
		dir + "/text":                dir + `/text": it is neither a directory nor an archive`,
		"https://u:secret@h.invalid": "u:xxxxx@h.invalid",
		"-":                          "build context -: there is no standard input",
	} {
		temp := t.TempDir()
		o := Options{TempDir: below(temp)}
		c, err := Open(t.Context(), name, o)
		if err == nil || !strings.Contains(err.Error(), want) || c != nil {
			t.Errorf("Open(%q) = %v, %v, want %s", name, c, err, want)
		}
		if left, _ := os.ReadDir(temp); len(left) > 0 {
			t.Errorf("Open(%q) left behind: %v", name, left)
		}
	}
	if _, err := Open(t.Context(), "-", Options{Dockerfile: "-",
		Stdin: strings.NewReader("")}); err == nil {
		t.Error("context and Dockerfile both from standard input")
	}
	_, _, err := open(t, dir+"/bad", Options{NoIgnore: true}).ReadDockerfile(t.Context())
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "bad/Dockerfile") {
		t.Errorf("error = %v, want that the Dockerfile does not exist", err)
	}
	if _, _, err := open(t, dir, Options{}).ReadDockerfile(t.Context()); !errors.Is(err,
		unix.EISDIR) {
		t.Errorf("error = %v, want is a directory", err)
	}
	// BuildKit's words for a Dockerfile that is too large
	long := makeTree(t, "file Dockerfile x\nfile other/f x\n")
	if err := os.Truncate(long+"/Dockerfile", maxDockerfile+1); err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{{}, {Dockerfile: long + "/Dockerfile"}} {
		want := "the Dockerfile exceeds maximum allowed size of 16 MiB: " + long + "/Dockerfile"
		if _, _, err := open(t, long, o).ReadDockerfile(t.Context()); err == nil ||
			err.Error() != want {
			t.Errorf("error = %v, want %s", err, want)
		}
	}
	// A pipe without a writer is not a Dockerfile, and opening it must not block.
	pipes := makeTree(t, "fifo Dockerfile\nfifo .dockerignore\n")
	if _, err := Open(t.Context(), pipes, Options{}); !errors.Is(err, errFifo) {
		t.Errorf("a fifo for an ignore file: %v", err)
	}
	if _, _, err := open(t, pipes,
		Options{NoIgnore: true}).ReadDockerfile(t.Context()); !errors.Is(err, errFifo) {
		t.Errorf("a fifo for a Dockerfile: %v", err)
	}
	if _, _, err := open(t, pipes, Options{NoIgnore: true,
		Dockerfile: pipes + "/Dockerfile"}).ReadDockerfile(t.Context()); !errors.Is(err,
		errNoWriter) {
		t.Errorf("a fifo that is named and that nobody writes to: %v", err)
	}
	written := pipes + "/Dockerfile"
	go func() {
		w, err := os.OpenFile(written, os.O_WRONLY, 0)
		if err != nil {
			return
		}
		defer w.Close()
		w.WriteString("FROM a\n")
		w.Write(bytes.Repeat([]byte("#\n"), 1<<20))
	}()
	if _, b, err := open(t, pipes, Options{NoIgnore: true,
		Dockerfile: written}).ReadDockerfile(t.Context()); err != nil || len(b) != 7+2<<20 {
		t.Errorf("a fifo that is written to: %d bytes, %v", len(b), err)
	}
	if _, err := Open(t.Context(), dir+"/none", Options{}); err == nil ||
		!strings.HasSuffix(err.Error(), "/none\": no such directory") {
		t.Errorf("error = %v", err)
	}
}

// tarball makes an archive of files and links.
func tarball(t *testing.T, compress bool, entries ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser = nopCloser{&b}
	if compress {
		w = gzip.NewWriter(&b)
	}
	tw := tar.NewWriter(w)
	for _, e := range entries {
		name, text, _ := strings.Cut(e, " ")
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), Uid: 4711, Gid: 4711}
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, target, 0
			text = ""
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(tw, text)
	}
	if err := errors.Join(tw.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func TestContextArchive(t *testing.T) {
	entries := []string{"Dockerfile FROM a", "sub/Containerfile FROM s", "f x", ".dockerignore f",
		"out -> /etc/passwd", "link -> /sub/Containerfile"}
	const files = " .dockerignore Dockerfile f link out sub sub/Containerfile\n"
	for _, compress := range []bool{false, true} {
		data := tarball(t, compress, entries...)
		file := filepath.Join(t.TempDir(), "context.tar")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		s := newSite(t)
		s.content = string(data)
		for name, o := range map[string]Options{
			"-":   {Stdin: bytes.NewReader(data)},
			file:  {},
			s.URL: {},
		} {
			display, text, got := content(t, open(t, name, o))
			if display != "Dockerfile" || text != "FROM a" || got != files {
				t.Errorf("%s: got %q, %q, %q, want %q", name, display, text, got, files)
			}
		}
		for name, want := range map[string]string{"sub/Containerfile": "FROM s", "link": "FROM s",
			"../link": "FROM s"} {
			if _, text, _ := content(t, open(t, file, Options{Dockerfile: name})); text != want {
				t.Errorf("Dockerfile %s = %q, want %q", name, text, want)
			}
		}
		c := open(t, file, Options{Dockerfile: "out"})
		if _, _, err := c.ReadDockerfile(t.Context()); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a Dockerfile that is a link out of the archive: %v, want not there", err)
		}
	}
}

// With the options of FetchedOptions a context from elsewhere is used like a directory.
func TestContextFetched(t *testing.T) {
	entries := []string{"Dockerfile FROM a", "f x", "g x", ".dockerignore f",
		"sub/Dockerfile FROM s", "sub/Dockerfile.dockerignore h", "sub/h x", "sub/i x",
		"link -> sub"}
	file := filepath.Join(t.TempDir(), "context.tar")
	if err := os.WriteFile(file, tarball(t, true, entries...), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRemoteRepo(t, true)
	r.commit(r.dir, "file Dockerfile FROM a\nfile f x\nfile g x\nfile .dockerignore f\n"+
		"file sub/Dockerfile FROM s\nfile sub/Dockerfile.dockerignore h\nfile sub/h x\n"+
		"file sub/i x\nlink link -> sub\n")
	own := makeTree(t, "file Own FROM own\nfile Own.dockerignore sub\n")
	all := " .dockerignore Dockerfile g link sub sub/Dockerfile sub/Dockerfile.dockerignore " +
		"sub/h sub/i\n"
	for _, tt := range []struct{ dockerfile, subdir, text, files string }{
		{"", "", "FROM a", all},
		{"sub/Dockerfile", "", "FROM s", strings.Replace(all, " g", " f g", 1)},
		{"", "sub", "FROM s", " Dockerfile Dockerfile.dockerignore i\n"},
		{own + "/Own", "", "FROM own", " .dockerignore Dockerfile f g link\n"},
	} {
		o := Options{Dockerfile: tt.dockerfile,
			Fetched: FetchedOptions{Subdir: tt.subdir, AsDirectory: true}}
		_, text, files := content(t, open(t, file, o))
		if text != tt.text || files != tt.files {
			t.Errorf("%+v: archive %q, %q", tt, text, files)
		}
		o.Fetched.Repository = &giturl.URL{Remote: r.URL, Subdir: tt.subdir}
		_, text, files = content(t, open(t, "any name", o))
		if text != tt.text || files != tt.files {
			t.Errorf("%+v: repository %q, %q", tt, text, files)
		}
	}
	for _, subdir := range []string{"none", "f", "link", "../x", "/etc"} {
		_, err := Open(t.Context(), file, Options{TempDir: below(t.TempDir()),
			Fetched: FetchedOptions{Subdir: subdir}})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("directory %q: ", subdir)) {
			t.Errorf("directory %s: %v", subdir, err)
		}
	}
}

func TestContextCutArchive(t *testing.T) {
	data := tarball(t, true, "Dockerfile FROM a", "big "+strings.Repeat("x", 100_000))
	temp := t.TempDir()
	if _, err := Open(t.Context(), "-", Options{TempDir: below(temp),
		Stdin: bytes.NewReader(data[:len(data)/2])}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error = %v, want unexpected EOF", err)
	}
	if left, _ := os.ReadDir(temp); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestEndlessURL checks that the download of an endless Dockerfile ends at the limit, and that an
// archive at a URL may be larger.
func TestEndlessURL(t *testing.T) {
	var sent atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/archive" {
			big := "big " + strings.Repeat("x", maxDockerfile)
			w.Write(tarball(t, false, "Dockerfile FROM a", big))
			return
		}
		comment := bytes.Repeat([]byte("#"), 1<<20)
		for sent.Load() < 1<<30 {
			n, err := w.Write(comment)
			if sent.Add(int64(n)); err != nil {
				return
			}
		}
	}))
	defer srv.Close()
	temp := t.TempDir()
	o := Options{TempDir: below(temp)}
	if _, err := Open(t.Context(), srv.URL+"/f", o); err == nil ||
		!strings.Contains(err.Error(), "maximum allowed size of 16 MiB") {
		t.Errorf("as a context: %v", err)
	}
	o.Dockerfile = srv.URL + "/f"
	c, err := Open(t.Context(), t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, _, err := c.ReadDockerfile(t.Context()); err == nil ||
		!strings.Contains(err.Error(), "the Dockerfile exceeds maximum allowed size of 16 MiB") {
		t.Errorf("as a Dockerfile: %v", err)
	}
	if n := sent.Load(); n > 200<<20 {
		t.Errorf("%d bytes were sent", n)
	}
	if left, _ := os.ReadDir(temp); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, text, _ := content(t, open(t, srv.URL+"/archive", Options{})); text != "FROM a" {
		t.Errorf("the archive has %q", text)
	}
}

func TestContextDockerfileOnly(t *testing.T) {
	s := newSite(t)
	s.content = "FROM web\n"
	for name, o := range map[string]Options{
		"-":            {Stdin: strings.NewReader("FROM web\n")},
		s.URL + "/any": {},
	} {
		display, text, files := content(t, open(t, name, o))
		if display != name || text != "FROM web\n" || files != "\n" {
			t.Errorf("%s: got %q, %q, %q", name, display, text, files)
		}
	}
	archive := bytes.NewReader(tarball(t, false, "Containerfile FROM c"))
	if display, text, _ := content(t, open(t, "-",
		Options{Stdin: archive})); display != "Containerfile" || text != "FROM c" {
		t.Errorf("an archive with a Containerfile: got %q, %q", display, text)
	}
	c := open(t, "-", Options{Stdin: strings.NewReader("FROM x"), Dockerfile: "other"})
	if _, _, err := c.ReadDockerfile(t.Context()); err == nil {
		t.Error("two Dockerfiles, no error")
	}
	// Empty input is a Dockerfile without instructions, which the parser rejects.
	if _, text, _ := content(t, open(t, "-", Options{Stdin: strings.NewReader("")})); text != "" {
		t.Errorf("Dockerfile = %q", text)
	}
}

func TestContextGit(t *testing.T) {
	r := newRemoteRepo(t, true)
	commit := r.commit(r.dir,
		"file Dockerfile FROM g\nfile d/Dockerfile FROM d\nfile .dockerignore d\n")
	c := open(t, r.URL, Options{})
	display, text, files := content(t, c)
	if display != "Dockerfile" || text != "FROM g" ||
		files != " .dockerignore Dockerfile d d/Dockerfile\n" || c.Commit != commit {
		t.Errorf("got %q, %q, %q, %s", display, text, files, c.Commit)
	}
	if _, text, files := content(t, open(t, r.URL+"#main:d", Options{})); text != "FROM d" ||
		files != " Dockerfile\n" {
		t.Errorf("got %q, %q", text, files)
	}
	if _, text, _ := content(t, open(t, r.URL,
		Options{Dockerfile: "-", Stdin: strings.NewReader("FROM in")})); text != "FROM in" {
		t.Errorf("Dockerfile = %q", text)
	}
	// A directory takes precedence over a URL with the same text.
	t.Chdir(makeTree(t, "file github.com/u/r/Dockerfile FROM local\n"))
	if _, text, _ := content(t, open(t, "github.com/u/r", Options{})); text != "FROM local" {
		t.Errorf("Dockerfile = %q", text)
	}
}

// TestReadInterrupted checks that canceling a build ends reads from standard input and from a pipe
// without a writer.
func TestReadInterrupted(t *testing.T) {
	dir := t.TempDir()
	var fd int
	silent := func() *os.File {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close(); w.Close() })
		if _, err := w.WriteString("FROM"); err != nil {
			t.Fatal(err)
		}
		fd = int(r.Fd())
		return r
	}
	for _, test := range []struct {
		name string
		read func(ctx context.Context, f *os.File) error
	}{
		{"context on standard input", func(ctx context.Context, f *os.File) error {
			_, err := Open(ctx, "-", Options{TempDir: below(t.TempDir()), Stdin: f})
			return err
		}},
		{"Dockerfile on standard input", func(ctx context.Context, f *os.File) error {
			_, _, err := open(t, dir, Options{Dockerfile: "-", Stdin: f}).ReadDockerfile(ctx)
			return err
		}},
		{"Dockerfile in a pipe", func(ctx context.Context, f *os.File) error {
			_, _, err := open(t, dir, Options{Dockerfile: fmt.Sprintf("/dev/fd/%d",
				f.Fd())}).ReadDockerfile(ctx)
			return err
		}},
		{"secret in a pipe", func(ctx context.Context, f *os.File) error {
			_, err := ReadHostFile(ctx, fmt.Sprintf("/dev/fd/%d", f.Fd()), 1000)
			return err
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := silent()
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- test.read(ctx, f) }()
			for n := 1; n > 0; { // until it has read all data and waits for more
				var err error
				if n, err = unix.IoctlGetInt(fd, unix.TIOCINQ); err != nil {
					t.Fatal(err)
				}
				runtime.Gosched()
			}
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("error = %v, want that the context was canceled", err)
			}
		})
	}
}

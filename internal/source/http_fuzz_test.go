package source

import (
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
)

// FuzzDownload saves a response with any headers from any URL. It checks that the file's name has
// one component, that the file is in the directory made for it, and that nothing else is made.
func FuzzDownload(f *testing.F) {
	f.Add("http://h/a/b.txt", `attachment; filename="x"`, "Tue, 02 Jan 2024 03:04:05 GMT")
	f.Add("http://h/", `attachment; filename="../../etc/passwd"`, "Tuesday, 02-Jan-24 03:04:05 GMT")
	f.Add("http://h/%2e%2e", `attachment; filename*=UTF-8''%2e%2e%2fx`, "")
	f.Add("http://h/..", `attachment; filename=".."`, "Tue, 02 Jan 9999 03:04:05 GMT")
	f.Add("http://h/%00", "attachment; filename=\"a\x00b\"", "x")
	f.Fuzz(func(t *testing.T, address, disposition, modified string) {
		u, err := url.Parse(address)
		if err != nil {
			return
		}
		top := t.TempDir()
		temp := filepath.Join(top, "temp")
		if err := os.Mkdir(temp, 0o700); err != nil {
			t.Fatal(err)
		}
		d := &Download{url: u, Name: safeName(path.Base(u.Path)), mtime: time.Unix(0, 0)}
		d.o.TempDir = func() (string, error) { return os.MkdirTemp(temp, "") }
		resp := &http.Response{Header: http.Header{"Content-Disposition": {disposition},
			"Last-Modified": {modified}}, Body: io.NopCloser(strings.NewReader("content"))}
		got, err := d.save(resp)
		if len(d.Name) > 255 {
			return // no file system permits such a name
		}
		if err != nil {
			t.Fatalf("save %q from %q: %v", d.Name, address, err)
		}
		defer got.Close()
		if name := d.name(); name == "." || name == ".." || strings.ContainsRune(name, '/') ||
			strings.ContainsFunc(name, unicode.IsControl) {
			t.Errorf("the name is %q", name)
		}
		if entries, err := os.ReadDir(top); err != nil || len(entries) != 1 {
			t.Errorf("%v, %v, want only the temporary directory", entries, err)
		}
	})
}

package imageref

import (
	"strings"
	"testing"
)

const sum = "sha256:7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa"

func exists(path string) bool { return path == "a:b" || path == "./dir" || path == "x.tar" }

func TestParse(t *testing.T) {
	for _, test := range []struct {
		in       string
		explicit bool
		want     Ref
		err      string
	}{
		{in: "app:v2", want: Ref{Name: "app:v2"}},
		{in: "", want: Ref{}},
		{in: "oci:latest", want: Ref{Name: "oci:latest"}},
		{in: "dir:latest", want: Ref{Name: "dir:latest"}},
		{in: "oci:latest", explicit: true, want: Ref{Scheme: OCI, Path: "latest"}},
		{in: "oci:./dir", want: Ref{Scheme: OCI, Path: "./dir"}},
		{in: "oci:./dir:v1", want: Ref{Scheme: OCI, Path: "./dir", Tag: "v1"}},
		{in: "oci:new/dir:host:5/app:v1",
			want: Ref{Scheme: OCI, Path: "new/dir", Tag: "host:5/app:v1"}},
		{in: "oci:a:b:c", want: Ref{Scheme: OCI, Path: "a:b", Tag: "c"}},
		{in: "oci-archive:x.tar:app", want: Ref{Scheme: OCIArchive, Path: "x.tar", Tag: "app"}},
		{in: "oci-archive:y.tar", want: Ref{Name: "oci-archive:y.tar"}},
		{in: "oci-archive:y.tar", explicit: true, want: Ref{Scheme: OCIArchive, Path: "y.tar"}},
		{in: "docker-archive:./y.tar", want: Ref{Scheme: DockerArchive, Path: "./y.tar"}},
		{in: "oci-layout://d@" + sum, want: Ref{Scheme: Layout, Path: "d", Digest: sum}},
		{in: "docker://a/b:c", want: Ref{Scheme: Docker, Name: "a/b:c"}},
		{in: "docker-image://a", want: Ref{Scheme: Name, Name: "a"}},
		{in: "docker-daemon:a", want: Ref{Scheme: Daemon, Name: "a"}},
		{in: "docker-daemon:" + sum, want: Ref{Scheme: Daemon, Name: sum}},
		{in: "docker-daemon:A", err: "lowercase"},
		{in: "docker://", err: "an image name is expected"},
		{in: "oci-layout://", err: "no path is given"},
		{in: "oci::", err: "no path is given"},
		{in: "containers-storage:[/var]app:latest", err: "podman save -o FILE"},
		{in: "containers-storage:app", explicit: true, err: "podman save -o FILE"},
		{in: "dir:/x", err: "skopeo copy"},
	} {
		got, err := Parse(test.in, Options{Exists: exists, Explicit: test.explicit})
		if got != test.want || test.err == "" && err != nil ||
			test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("Parse(%q) = %+v, %v, want %+v, %q", test.in, got, err, test.want, test.err)
		}
	}
}

// FuzzParse checks that the text of a reference is parsed as the same reference.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"a", "oci:a:b:c", "oci:./dir:v1@" + sum, "docker://a", "oci:x",
		"docker-daemon:" + sum, "containers-storage:x/y", "oci-layout://./dir:é@x"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, s string, explicit bool) {
		o := Options{Exists: exists, Explicit: explicit}
		r, err := Parse(s, o)
		if err != nil {
			return
		}
		// Without the empty tag of "oci:a:" it may be a name.
		explicitly := Options{Exists: exists, Explicit: explicit || r.Scheme.IsPath()}
		if again, err := Parse(r.String(), explicitly); err != nil || again != r {
			t.Errorf("Parse(%q) = %+v; of its text %q: %+v, %v", s, r, r.String(), again, err)
		}
		if !r.Scheme.IsPath() && r.String() != s || !strings.HasPrefix(s, string(r.Scheme)) {
			t.Errorf("Parse(%q) = %+v with the text %q", s, r, r)
		}
	})
}

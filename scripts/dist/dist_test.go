package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPackageVersion(t *testing.T) {
	for version, want := range map[string]string{
		"v1.2.3": "1.2.3", "v1.2.3-rc.1": "1.2.3~rc.1",
		"v0.0.0-20260102030405-0123456789ab": "0.0.0~20260102030405~0123456789ab",
	} {
		if got := packageVersion(version); got != want {
			t.Errorf("packageVersion(%q) = %q, want %q", version, got, want)
		}
	}
}

func TestReleaseTag(t *testing.T) {
	for tag, want := range map[string]bool{"v1.2.3": true, "v1.2.3-rc.1": true, "1.2.3": false,
		"v1.2": false, "v2x": false, "v1.2.3 x": false} {
		if got := releaseTag.MatchString(tag); got != want {
			t.Errorf("releaseTag matches %q: %v, want %v", tag, got, want)
		}
	}
}

func TestRoots(t *testing.T) {
	n := 0
	for rest := roots(); len(rest) > 0; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			t.Fatalf("no certificate in %q", rest)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			t.Error(err)
		}
	}
	if n < 50 {
		t.Errorf("%d certificates, want those of Mozilla", n)
	}
}

// TestLicenses reads the licenses of a package and of the directories above it in its module. A
// text that two modules have is printed once.
func TestLicenses(t *testing.T) {
	top := t.TempDir()
	for name, text := range map[string]string{
		"a/LICENSE": "one\r\n", "a/deep/pkg/COPYING.md": "two\n",
		"a/deep/license.go": "package deep\n", "b/LICENCE": "one\n", "c/README": "none\n"} {
		path := filepath.Join(top, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l := licenseList{owners: map[string][]string{}}
	for owner, dir := range map[string]string{"b v1": "b", "a v1": "a/deep/pkg"} {
		module, _, _ := strings.Cut(dir, "/")
		if err := l.add(owner, filepath.Join(top, dir), filepath.Join(top, module)); err != nil {
			t.Fatal(err)
		}
	}
	line := "\n" + strings.Repeat("-", 72) + "\n\n"
	if got, want := l.String(), "a v1\n\ntwo\n"+line+"a v1\nb v1\n\none\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if err := l.add("c v1", filepath.Join(top, "c"), filepath.Join(top, "c")); err == nil {
		t.Error("a module without a license has no error")
	}
}

// TestMember compares with the form of ar(5): a header of 60 bytes, and even lengths.
func TestMember(t *testing.T) {
	var b bytes.Buffer
	member(&b, "control.tar.gz", []byte("abc"), program{}.time)
	if b.Len() != 60+4 || !strings.HasSuffix(b.String(), "`\nabc\n") {
		t.Errorf("%q", b.String())
	}
}

func TestFolded(t *testing.T) {
	for line := range strings.Lines(folded(about)) {
		if !strings.HasPrefix(line, " ") || len(line) > 78 {
			t.Errorf("%q: want a line that begins with a space and has at most 77 characters", line)
		}
	}
}

func TestOptions(t *testing.T) {
	good := options{archs: []string{"amd64"}, images: []string{"inplace"}, helpers: []string{"ecr"}}
	if err := good.check(nil); err != nil {
		t.Error(err)
	}
	for want, o := range map[string]options{
		"-arch: unknown architecture \"riscv64\"": {archs: []string{"riscv64"}},
		"-images: unknown image \"x\"":            {images: []string{"x"}},
		"-helpers: unknown helper \"ibm\"":        {helpers: []string{"ibm"}},
	} {
		if err := o.check(nil); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if good.check([]string{"x"}) == nil {
		t.Error("an argument is accepted")
	}
}

// TestDeliver replaces the files of an earlier run and keeps others.
func TestDeliver(t *testing.T) {
	top := t.TempDir()
	made, out := filepath.Join(top, "made"), filepath.Join(top, "out")
	for _, name := range []string{"out/layerbuild-1-linux-amd64.tar.gz",
		"out/layerbuild_1_amd64.deb", "out/SHA256SUMS", "out/notes",
		"made/layerbuild_2_amd64.deb", "made/SHA256SUMS"} {
		path := filepath.Join(top, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := (&distribution{made: made}).deliver(out); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(out)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if want := "SHA256SUMS layerbuild_2_amd64.deb notes"; strings.Join(got, " ") != want {
		t.Errorf("%q, want %s", got, want)
	}
}

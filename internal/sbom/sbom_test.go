package sbom

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
)

// stanza is the entry of an installed package in a database of dpkg.
func stanza(name, version string) string {
	return fmt.Sprintf("Package: %s\nStatus: install ok installed\nMaintainer: Someone <s@x>\n"+
		"Architecture: amd64\nVersion: %s\nDescription: text\n Version: 9 is not a field\n\n", name,
		version)
}

func status(stanzas ...string) entry {
	return entry{path: dpkgStatus, content: strings.Join(stanzas, "")}
}

const debian = "ID=debian\nVERSION_ID=\"13\"\nPRETTY_NAME=\"Debian 13\"\n"

// TestLayerOfPackage checks that a package belongs to the layer that installed it, and not to the
// last one that wrote the database.
func TestLayerOfPackage(t *testing.T) {
	d := scanned(t,
		layerOf(t, entry{path: "usr/lib/os-release", content: debian},
			status(stanza("base", "1"), stanza("old", "1"))),
		layerOf(t, entry{path: "usr/bin/x", content: "x"}),
		layerOf(t, status(stanza("base", "1"), stanza("old", "1"), stanza("tool", "2:1+b~1"))),
		layerOf(t, status(stanza("base", "2"), stanza("tool", "2:1+b~1"))),
		layerOf(t, status(stanza("base", "2"), stanza("old", "1"), stanza("tool", "2:1+b~1"))),
	)
	equal(t, lines(d), `
		4 pkg:deb/debian/base@2?arch=amd64&distro=debian-13 var/lib/dpkg/status
		5 pkg:deb/debian/old@1?arch=amd64&distro=debian-13 var/lib/dpkg/status
		3 pkg:deb/debian/tool@2:1%2Bb~1?arch=amd64&distro=debian-13 var/lib/dpkg/status`)
	if d.Distro.Name != "Debian 13" || d.Packages[0].Supplier != "Someone <s@x>" {
		t.Errorf("distribution %+v, package %+v", d.Distro, d.Packages[0])
	}
}

// TestHidden checks which files of lower layers count.
func TestHidden(t *testing.T) {
	one := entry{path: dpkgStatusD + "/one", content: "Package: one\nVersion: 1\n"}
	two := entry{path: dpkgStatusD + "/two", content: "Package: two\nVersion: 2\n"}
	base := layerOf(t, one, two)
	both := "1 pkg:deb/one@1 var/lib/dpkg/status.d/one\n1 pkg:deb/two@2 var/lib/dpkg/status.d/two"
	for _, c := range []struct {
		name  string
		upper []entry
		want  string
	}{
		{"nothing", nil, both},
		{"a whiteout", []entry{{path: dpkgStatusD + "/.wh.one"}},
			"1 pkg:deb/two@2 var/lib/dpkg/status.d/two"},
		{"a whiteout of a directory", []entry{{path: "var/lib/.wh.dpkg"}}, ""},
		{"a whiteout after the file of its layer",
			[]entry{one, {path: dpkgStatusD + "/.wh.two"}},
			"1 pkg:deb/one@1 var/lib/dpkg/status.d/one"},
		{"a whiteout of another name", []entry{{path: "var/.wh.li"}}, both},
		{"an opaque directory", []entry{two, {path: "var/lib/dpkg/.wh..wh..opq"}},
			"1 pkg:deb/two@2 var/lib/dpkg/status.d/two"},
		{"an opaque root", []entry{{path: ".wh..wh..opq"}}, ""},
		{"a file in place of a directory", []entry{{path: "var/lib", content: "x"}}, ""},
		{"a link in place of a directory", []entry{{path: "var/lib", link: "-> lib2"}}, ""},
		{"a directory in place of a file", []entry{{path: dpkgStatusD + "/one/"}},
			"1 pkg:deb/two@2 var/lib/dpkg/status.d/two"},
		{"a file that is not a package", []entry{{path: dpkgStatusD + "/one", content: "x"}},
			"1 pkg:deb/two@2 var/lib/dpkg/status.d/two"},
		{"data of aufs", []entry{{path: ".wh..wh.plnk/var", content: "x"}}, both},
		{"twice in a layer", []entry{one, {path: one.path, content: "x"}},
			"1 pkg:deb/two@2 var/lib/dpkg/status.d/two"},
		{"a new version", []entry{{path: one.path, content: "Package: one\nVersion: 3\n"}},
			"2 pkg:deb/one@3 var/lib/dpkg/status.d/one\n" +
				"1 pkg:deb/two@2 var/lib/dpkg/status.d/two"},
		{"a hard link to a lower file",
			[]entry{{path: dpkgStatusD + "/three", link: "= " + one.path}},
			"1 pkg:deb/one@1 var/lib/dpkg/status.d/one var/lib/dpkg/status.d/three\n" +
				"1 pkg:deb/two@2 var/lib/dpkg/status.d/two"},
		{"a hard link to a file of another name",
			[]entry{{path: "x", content: "Package: x\nVersion: 1\n"},
				{path: dpkgStatusD + "/x", link: "= x"}, {path: dpkgStatusD + "/y", link: "= x"}},
			both + "\n2 pkg:deb/x@1 var/lib/dpkg/status.d/x var/lib/dpkg/status.d/y"},
		{"a hard link to nothing", []entry{{path: dpkgStatusD + "/x", link: "= missing"}}, both},
	} {
		t.Run(c.name, func(t *testing.T) {
			equal(t, lines(scanned(t, base, layerOf(t, c.upper...))), c.want)
		})
	}
}

// TestMovedDatabase checks that the packages of a database keep their layers if its files are
// arranged differently.
func TestMovedDatabase(t *testing.T) {
	d := scanned(t, layerOf(t, status(stanza("one", "1"))),
		layerOf(t, entry{path: dpkgStatusD + "/one", content: stanza("one", "1")},
			entry{path: "var/lib/dpkg/.wh.status"}))
	equal(t, lines(d), "1 pkg:deb/one@1?arch=amd64 var/lib/dpkg/status.d/one")
}

// TestNameOfSet checks that a file in the root directory does not count as the database of the same
// name.
func TestNameOfSet(t *testing.T) {
	program := entry{path: "dpkg", content: string(elfWith(t, cargoSection,
		compressed(t, crateList)))}
	d := scanned(t, layerOf(t, program), layerOf(t, status(stanza("one", "1")), program))
	equal(t, lines(d), `1 pkg:cargo/adler@1.0.2 dpkg
		1 pkg:cargo/app@0.1.0 dpkg
		2 pkg:deb/one@1?arch=amd64 var/lib/dpkg/status`)
}

func TestScanErrors(t *testing.T) {
	img := imageOf(layerOf(t))
	broken := errors.New("broken")
	img.Layers[0].Read = func(context.Context, func(io.Reader) error) error { return broken }
	if _, err := Scan(t.Context(), img); !errors.Is(err, broken) {
		t.Errorf("Scan = %v, want %v", err, broken)
	}
	whole := layerOf(t, status(stanza("one", "1")))
	if _, err := Scan(t.Context(), imageOf(whole[:len(whole)/2])); err == nil {
		t.Error("Scan accepts half a layer")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Scan(ctx, imageOf(whole)); !errors.Is(err, context.Canceled) {
		t.Errorf("Scan = %v after the end of its context", err)
	}
}

func TestDpkgStates(t *testing.T) {
	f, err := read(t, dpkgStatus, []byte(
		"Package: a\nStatus: install ok installed\nVersion: 1\nSource: src (0.9)\n\n"+
			"Package: b\nStatus: deinstall ok config-files\nVersion: 1\n\n"+
			"Package: c\nStatus: install ok half-configured\nVersion: 1\nSource: c\n\n"+
			"Package: d\nStatus: install ok not-installed\nVersion: 1\n\n"+
			"Package: e\nStatus: install ok installed\n"))
	if err != nil {
		t.Fatal(err)
	}
	if len(f.packages) != 2 || f.packages[0].Name != "a" || f.packages[1].Name != "c" ||
		f.packages[0].Source != "src" || f.packages[0].SourceVersion != "0.9" ||
		f.packages[1].Source != "" {
		t.Errorf("got %+v", f.packages)
	}
}

func TestDebLicenses(t *testing.T) {
	doc := func(name string) string { return docDir + "/" + name }
	d := scanned(t, layerOf(t, status(stanza("a", "1"), stanza("b", "1"), stanza("c", "1")),
		entry{path: doc("a/copyright"), content: "Format: x\n\nFiles: *\nLicense: Expat\n text\n\n" +
			"Files: y\nLicense: GPL-2+\n\nLicense: GPL-2+\n text\n"},
		entry{path: doc("b"), link: "-> a"},
		entry{path: doc("c/copyright"),
			content: "It is in `/usr/share/common-licenses/LGPL-2.1'.\n" +
				"And /usr/share/common-licenses/GPL-3.\n"}))
	for i, want := range []string{"[Expat GPL-2+]", "[Expat GPL-2+]", "[GPL-3 LGPL-2.1]"} {
		if got := fmt.Sprint(d.Packages[i].Licenses); got != want {
			t.Errorf("licenses of %s: %s, want %s", d.Packages[i].Name, got, want)
		}
	}
}

func FuzzParagraphs(f *testing.F) {
	f.Add([]byte(stanza("a", "1") + "\tx\n:\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		paragraphs(data, func(fields []field) {
			size := 0
			for _, f := range fields {
				size += len(f.name) + len(f.value)
			}
			if size > len(data) {
				t.Errorf("fields of %d bytes in a text of %d", size, len(data))
			}
		})
	})
}

// FuzzScan reads hostile layers.
func FuzzScan(f *testing.F) {
	f.Add(layerOf(f, status(stanza("a", "1"))), layerOf(f, entry{path: "var/.wh.lib"}))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		d, err := Scan(t.Context(), imageOf(one, two))
		if err != nil {
			return
		}
		again, err := Scan(t.Context(), imageOf(one, two))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(written(t, d.SPDX), written(t, again.SPDX)) {
			t.Error("two documents of one image differ")
		}
	})
}

// TestLimits reads files with more or longer texts than are kept.
func TestLimits(t *testing.T) {
	many := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "Package: p%d\nVersion: 1\n\n", i)
		}
		return b.String()
	}
	f, err := read(t, dpkgStatus, []byte(many(maxFilePackages+1)))
	if err == nil || len(f.packages) != maxFilePackages {
		t.Errorf("%d packages, error %v", len(f.packages), err)
	}
	f, err = read(t, dpkgStatus, []byte(stanza(strings.Repeat("é", maxString), "1")))
	if err != nil || len(f.packages) != 1 || len(f.packages[0].Name) != maxString {
		t.Errorf("a long name: %d packages, error %v", len(f.packages), err)
	}
	var files []entry
	whole := many(maxFilePackages)
	for i := range maxWeight/(512*maxFilePackages) + 1 {
		files = append(files, entry{path: fmt.Sprintf("%s/%d", dpkgStatusD, i), content: whole})
	}
	if _, err := Scan(t.Context(), imageOf(layerOf(t, files...))); !errors.Is(err, errTooMany) {
		t.Errorf("Scan of %d files: %v, want %v", len(files), err, errTooMany)
	}
	large := entry{path: dpkgStatus, content: strings.Repeat("\n", maxText+1)}
	d, err := Scan(t.Context(), imageOf(layerOf(t, large)))
	if err != nil || len(d.Warnings) != 1 || !strings.Contains(d.Warnings[0], dpkgStatus) {
		t.Errorf("a large file: %+v, error %v", d, err)
	}
}

// TestTemporaryFile reads an executable that is copied to a temporary file.
func TestTemporaryFile(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	section := append(compressed(t, crateList), make([]byte, maxMemory)...)
	d := scanned(t, layerOf(t, entry{path: "bin/x",
		content: string(elfWith(t, cargoSection, section))}))
	equal(t, lines(d), "1 pkg:cargo/adler@1.0.2 bin/x\n1 pkg:cargo/app@0.1.0 bin/x")
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("files are left: %v, error %v", left, err)
	}
}

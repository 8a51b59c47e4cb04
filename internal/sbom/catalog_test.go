package sbom

import (
	"archive/zip"
	"bytes"
	"compress/zlib"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"testing"
)

// packagesOf reads a file and returns its packages, one a line: name, version, architecture, group
// and licenses.
func packagesOf(t testing.TB, at string, data []byte) string {
	t.Helper()
	f, err := read(t, at, data)
	if err != nil {
		t.Fatalf("%s: %v", at, err)
	}
	var b strings.Builder
	for _, p := range f.packages {
		fmt.Fprintf(&b, "%s %s", p.Name, p.Version)
		for _, s := range []string{p.Arch, p.group, p.Source, p.Supplier} {
			if s != "" {
				fmt.Fprintf(&b, " %s", s)
			}
		}
		if len(p.Licenses) > 0 {
			fmt.Fprintf(&b, " %q", p.Licenses)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// TestTexts reads a description of each kind of text.
func TestTexts(t *testing.T) {
	for _, c := range []struct{ name, path, text, want string }{
		{"apk", "lib/apk/db/installed",
			"C:Q1x=\nP:busybox-binsh\nV:1.36.1-r29\nA:x86_64\nL:GPL-2.0-only\no:busybox\nm:A <a@x>\n" +
				"F:bin\nR:sh\na:0:0:777\n\nP:musl\nV:1.2.5-r0\nA:x86_64\no:musl\n\nP:no-version\n",
			"busybox-binsh 1.36.1-r29 x86_64 busybox A <a@x> [\"GPL-2.0-only\"]\nmusl 1.2.5-r0 x86_64"},
		{"apk in usr", "usr/lib/apk/db/installed", "P:a\nV:1", "a 1"},
		{"npm", "app/node_modules/@s/a/package.json",
			"\xef\xbb\xbf{\"name\": \"@s/a\", \"version\": \" 1.0.0-rc.1 \", \"license\": \"MIT\",\n" +
				"\"author\": \"A <a@x>\"}", "@s/a 1.0.0-rc.1 A <a@x> [\"MIT\"]"},
		{"npm, old licenses", "a/package.json",
			`{"name": "a", "version": "1", "licenses": [{"type": "MIT", "url": "x"}, "ISC"]}`,
			"a 1 [\"MIT\" \"ISC\"]"},
		{"npm, object", "a/package.json",
			`{"name": "a", "version": "1", "license": {"type": "BSD"}, "author": {"name": "B"}}`,
			"a 1 B [\"BSD\"]"},
		{"npm, odd values", "a/package.json",
			`{"name": "a", "version": "1", "license": [[["x"]], null, 7], "author": [1]}`, "a 1"},
		{"wheel", "usr/lib/python3/dist-packages/Six_x-1.dist-info/METADATA",
			"Metadata-Version: 2.1\nName: Six_x\nVersion: 1.16.0\nAuthor: B\nLicense: MIT\n" +
				"Classifier: License :: OSI Approved :: Apache Software License\n\nName: body\n",
			"Six_x 1.16.0 B [\"MIT\"]"},
		{"wheel, expression", "x-1.dist-info/METADATA",
			"Name: x\r\nVersion: 1\r\nLicense-Expression: MIT OR ISC\r\nLicense: ignored\r\n\r\nBody: x\r\n",
			"x 1 [\"MIT OR ISC\"]"},
		{"wheel, classifier", "x-1.dist-info/METADATA",
			"Name: x\nVersion: 1\nLicense: a\n  whole text\nClassifier: Topic :: X\n" +
				"Classifier: License :: OSI Approved :: ISC License (ISCL)\n",
			"x 1 [\"ISC License (ISCL)\"]"},
		{"egg directory", "x-1.egg-info/PKG-INFO", "Name: x\nVersion: 1\nLicense: UNKNOWN\n", "x 1"},
		{"egg file", "lib/x-1.egg-info", "Name: x\nVersion: 1\n", "x 1"},
		{"egg", "lib/x-1-py3.egg/EGG-INFO/PKG-INFO", "Name: x\nVersion: 1\n", "x 1"},
		{"gem", "var/lib/gems/3.1.0/specifications/rake-13.0.6.gemspec",
			"# -*- encoding: utf-8 -*-\n# stub: rake 13.0.6 ruby lib\n\nGem::Specification.new do |s|\n" +
				"  s.name = \"rake\".freeze\n  s.version = \"13.0.6\"\n" +
				"  s.authors = [\"Hiroshi\".freeze, 'Eric']\n  s.licenses = [\"MIT\".freeze]\n" +
				"  s.description = \"s.name = \\\"other\\\"\"\nend\n",
			"rake 13.0.6 Hiroshi, Eric [\"MIT\"]"},
		{"default gem", "usr/lib/ruby/specifications/default/json-2.gemspec",
			"# stub: json 2.6.1 ruby lib\n# stub: ext/json/extconf.rb\n", "json 2.6.1"},
		{"gem with an expression", "specifications/a.gemspec",
			"Gem::Specification.new do |s|\n s.name = %q{x}\n s.version = Gem::Version.new('2')\n" +
				" s.name = \"b\"\nend", "b 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			equal(t, packagesOf(t, c.path, []byte(c.text)), c.want)
		})
	}
}

// TestNotPackages reads files whose names are those of descriptions.
func TestNotPackages(t *testing.T) {
	for _, c := range []struct{ path, text string }{
		{"a/package.json", `{"type": "module"}`},
		{"a/package.json", `{"name": "a"}`},
		{"a/package.json", `{"name": "a b", "version": "1"}`},
		{"a/package.json", `{"name": "a/b", "version": "1"}`},
		{"a/package.json", `{"name": ["a"], "version": 1}`},
		{"a/package.json", `["a"]`},
		{"a/package.json", `{`},
		{"a/package.json", ``},
		{"a.dist-info/METADATA", "Name: a\n"},
		{"a.dist-info/METADATA", "Name: a b\nVersion: 1\n"},
		{"a.egg-info", "\x00\x01"},
		{"specifications/a.gemspec", "Gem::Specification.new do |s|\n  s.version = VERSION\nend"},
	} {
		f, err := read(t, c.path, []byte(c.text))
		if err == nil || len(f.packages) > 0 {
			t.Errorf("%s %q: %+v, error %v", c.path, c.text, f.packages, err)
		}
	}
}

// TestNames checks which files a cataloger reads.
func TestNames(t *testing.T) {
	for _, at := range []string{"status", "usr/lib/dpkg/status", dpkgStatusD + "/a.md5sums",
		dpkgStatusD + "/a/b", "a/METADATA", "a/PKG-INFO", "a.gemspec", "gems/a/a.gemspec", "a.jarx",
		"package.json5", "lib/apk/db/installed/x", "Packages", "var/lib/rpm/Name", "etc/os-release/x",
		docDir + "/copyright", docDir + "/a/b/copyright"} {
		if catalogerOf(at, []byte("PK\x03\x04")) != nil {
			t.Errorf("%s is read", at)
		}
	}
	if catalogerOf("a.jar", []byte("text")) != nil || catalogerOf("x", []byte("#!/bin/sh")) != nil {
		t.Error("a file with other content is read")
	}
}

// TestGoExecutable reads an executable with Go's information about its build in the form of Go 1.18
// and later (debug/buildinfo): a head of 32 bytes and two texts with their lengths. The second text
// is between two marks of 16 bytes.
func TestGoExecutable(t *testing.T) {
	const begin = "\x30\x77\xaf\x0c\x92\x74\x08\x02\x41\xe1\xc1\x07\xe6\xd6\x18\xe6"
	const end = "\xf9\x32\x43\x31\x86\x18\x20\x72\x00\x82\x42\x10\x41\x16\xd8\xf2"
	modules := begin + "path\tx/cmd\nmod\tx\tv1.0.0\th1:x=\ndep\ta/b\tv0.1.0\n" +
		"dep\tc\tv1.0.0\n=>\td\tv2.0.0\th1:y=\nbuild\tGOOS=linux\n" + end
	section := append(append([]byte{}, goMark...), 8, 2)
	section = append(section, make([]byte, 16)...)
	for _, s := range []string{"go1.22.3", modules} {
		section = append(binary.AppendUvarint(section, uint64(len(s))), s...)
	}
	data := elfWith(t, ".go.buildinfo", section)
	const want = "stdlib 1.22.3\nx v1.0.0\na/b v0.1.0\nd v2.0.0\n"
	equal(t, packagesOf(t, "bin/x", data), want)
	// An executable that is too large for memory is read in the same way.
	f, err := readExecutable(&content{path: "x", size: int64(len(data)),
		ReaderAt: bytes.NewReader(data)})
	if err != nil || len(f.packages) != 4 {
		t.Errorf("from a file: %v, error %v", f.packages, err)
	}
	for cut := 16; cut < len(data); cut += 7 {
		if f, err := read(t, "x", data[:cut]); err != nil || len(f.packages) > 0 {
			t.Errorf("the first %d bytes: %v, error %v", cut, f.packages, err)
		}
	}
}

// TestThisExecutable reads this test, whose version of Go the runtime also has.
func TestThisExecutable(t *testing.T) {
	name, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		t.Skip("the test was built without information about its build")
	}
	want := "stdlib " + strings.TrimPrefix(info.GoVersion, "go") + "\n" + info.Main.Path + " \n"
	for _, m := range info.Deps {
		want += m.Path + " " + m.Version + "\n"
	}
	if got := packagesOf(t, "app/test", data); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestGoPackages(t *testing.T) {
	info := &debug.BuildInfo{GoVersion: "go1.22.1 X:x",
		Main: debug.Module{Path: "m", Version: "(devel)"},
		Deps: []*debug.Module{{Path: "a", Version: "v1"},
			{Path: "b", Version: "v1", Replace: &debug.Module{Path: "c", Version: "v2"}},
			{Path: "d", Version: "v3", Replace: &debug.Module{Path: "./d"}}, nil}}
	var b strings.Builder
	for _, p := range goPackages(info) {
		fmt.Fprintf(&b, "%s %s\n", p.Name, p.Version)
	}
	equal(t, strings.ReplaceAll(b.String(), "m \n", "m -\n"),
		"stdlib 1.22.1\nm -\na v1\nc v2\nd v3")
	for path, want := range map[string]int{"x/cmd/y": 2, commandLine: 1, "": 1} {
		info := &debug.BuildInfo{GoVersion: "go1.22.1", Path: path}
		if list := goPackages(info); len(list) != want || list[len(list)-1].Name == commandLine {
			t.Errorf("packages of a program with the path %q: %+v", path, list)
		}
	}
}

// elfWith returns an ELF file with one section, which is loaded at an address.
func elfWith(t testing.TB, name string, section []byte) []byte {
	t.Helper()
	names := "\x00" + name + "\x00.shstrtab\x00"
	const headers, program, size, address = 64, 56, 64, 0x400000
	at := uint64(headers + program + 3*size)
	head := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1,
		Phoff: headers, Phentsize: program, Phnum: 1,
		Shoff: headers + program, Ehsize: headers, Shentsize: size, Shnum: 3, Shstrndx: 2}
	copy(head.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	n := uint64(len(section))
	load := elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_W), Off: at,
		Vaddr: address, Filesz: n, Memsz: n, Align: 1}
	sections := []elf.Section64{{},
		{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: at, Size: n, Addr: address,
			Flags: uint64(elf.SHF_ALLOC | elf.SHF_WRITE)},
		{Name: uint32(len(name) + 2), Type: uint32(elf.SHT_STRTAB), Off: at + n,
			Size: uint64(len(names))}}
	var b bytes.Buffer
	for _, part := range []any{head, load, sections, section, []byte(names)} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func compressed(t testing.TB, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

const crateList = `{"packages": [{"name": "adler", "version": "1.0.2", "source": "crates.io"},
{"name": "cc", "version": "1.0.9", "source": "crates.io", "kind": "build"},
{"name": "app", "version": "0.1.0", "source": "local", "dependencies": [0, 1], "root": true}]}`

func TestCargo(t *testing.T) {
	equal(t, packagesOf(t, "bin/x", elfWith(t, cargoSection, compressed(t, crateList))),
		"adler 1.0.2\napp 0.1.0")
	equal(t, packagesOf(t, "bin/x", elfWith(t, ".text", []byte(cargoSection))), "")
	for name, section := range map[string][]byte{
		"not compressed": []byte(crateList), "not JSON": compressed(t, "x"),
		"no name":   compressed(t, `{"packages": [{"version": "1"}]}`),
		"truncated": compressed(t, crateList)[:30],
		"too long":  compressed(t, strings.Repeat(" ", maxCrates+1)),
	} {
		f, err := read(t, "x", elfWith(t, cargoSection, section))
		if err == nil || len(f.packages) > 0 || !strings.Contains(err.Error(), cargoSection) {
			t.Errorf("%s: %v, error %v", name, f.packages, err)
		}
	}
}

// zipOf returns an archive of names and contents.
func zipOf(t testing.TB, files ...string) string {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		w, err := z.Create(files[i])
		if err == nil {
			_, err = w.Write([]byte(files[i+1]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestJava(t *testing.T) {
	const manifest = "META-INF/MANIFEST.MF"
	pom := func(group, artifact, version string) (string, string) {
		return "META-INF/maven/" + group + "/" + artifact + "/pom.properties", fmt.Sprintf(
			"#Generated\n=x\ngroupId = %s\r\nartifactId=%s\nversion=%s\n", group, artifact, version)
	}
	ioName, ioText := pom("commons-io", "commons-io", "2.11.0")
	langName, langText := pom("org.x", "lang", "3")
	io := zipOf(t, manifest, "Bundle-License: https://x/LICENSE.txt;d=x, \"MIT\"\n", ioName, ioText)
	for _, c := range []struct{ name, path, jar, want string }{
		{"project", "app/commons-io-2.11.0.jar", io,
			"commons-io 2.11.0 commons-io [\"https://x/LICENSE.txt\" \"MIT\"]"},
		{"two projects", "all.jar", zipOf(t, ioName, ioText, langName, langText),
			"commons-io 2.11.0 commons-io\nlang 3 org.x"},
		{"manifest", "lib/x.jar", zipOf(t, manifest, "Manifest-Version: 1.0\r\nImplementation-Ver\r\n"+
			" sion: 9\r\nX: y\r\n\r\nName: a\r\nImplementation-Version: 1\r\n"), "x -"},
		{"manifest, continued", "lib/x.jar", zipOf(t, manifest,
			"Implementation-Version: 1.2\r\n .3\r\nImplementation-Vendor: The\r\n  X\r\n"+
				"Bundle-SymbolicName: org.x;singleton=true\n"), "x 1.2.3 org.x The X"},
		{"version in the name", "lib/my-lib-1.2-beta3.jar",
			zipOf(t, manifest, "Implementation-Version: 1.2\n"), "my-lib 1.2-beta3"},
		{"no manifest", "lib/my-lib-2.jar", zipOf(t, "a.class", ""), "my-lib 2"},
		{"nothing", "lib/lib.jar", zipOf(t, "a.class", ""), ""},
		{"archives inside", "app/app.war", zipOf(t, manifest, "Implementation-Version: 7\n",
			"WEB-INF/lib/commons-io-2.11.0.jar", io, "WEB-INF/lib/", "",
			"WEB-INF/lib/ear.ear", zipOf(t, "in.jar", zipOf(t, langName, langText)),
			"x.jar", "this is not an archive"),
			"app 7\ncommons-io 2.11.0 commons-io [\"https://x/LICENSE.txt\" \"MIT\"]\nlang 3 org.x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := strings.ReplaceAll(packagesOf(t, c.path, []byte(c.jar)), " \n", " -\n")
			equal(t, got, c.want)
		})
	}
}

// TestJavaBombs reads archives that are larger or deeper than the limits.
func TestJavaBombs(t *testing.T) {
	deep := zipOf(t, "a", "")
	for range maxNested + 2 {
		deep = zipOf(t, "x.jar", deep)
	}
	var many []string
	small := zipOf(t)
	for i := range maxArchives + 1 {
		many = append(many, fmt.Sprint(i, ".jar"), small)
	}
	for name, jar := range map[string]string{
		"deep": deep, "many": zipOf(t, many...),
		"manifest": zipOf(t, "META-INF/MANIFEST.MF", strings.Repeat("a", maxManifest+1)),
		"large":    zipOf(t, "x.jar", "PK"+strings.Repeat("\x00", maxInner)),
	} {
		if _, err := read(t, "x.jar", []byte(jar)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestShortened cuts long texts.
func TestShortened(t *testing.T) {
	long := strings.Repeat("a", maxString-1)
	for _, tt := range []struct{ s, want string }{
		{"", ""}, {long + "b", long + "b"}, {long + "bc", long + "b"},
		{long + "ä", long}, {long[:maxString-3] + "€€", long[:maxString-3] + "€"},
		{long + "\x8a\x8a", long[:maxString-2]}, // it may be a character of four bytes
		{strings.Repeat("\x8a", maxString+1), strings.Repeat("\x8a", maxString-4)},
	} {
		if got := shortened(tt.s); got != tt.want {
			t.Errorf("%d bytes become %d, want %d", len(tt.s), len(got), len(tt.want))
		}
	}
}

// FuzzTexts reads hostile descriptions. A package that is found has a name and, except from a
// Java manifest, a version.
func FuzzTexts(f *testing.F) {
	paths := []string{"lib/apk/db/installed", "package.json", "a.egg-info", "specifications/a.gemspec",
		dpkgStatus, docDir + "/a/copyright", "etc/os-release", "a.dist-info/METADATA"}
	f.Add(byte(0), []byte("P:a\nV:1\n"))
	f.Add(byte(1), []byte(`{"name": "a", "version": "1", "license": [{"type": "x"}]}`))
	f.Add(byte(2), []byte("Name: a\nVersion: 1\nClassifier: License :: x\n"))
	f.Add(byte(3), []byte("# stub: a 1\n s.licenses = ['x']\n"))
	f.Add(byte(3), []byte("# stub: "+strings.Repeat("\x8a", maxString+1)+" \xff"))
	f.Add(byte(5), []byte("License: a\n /usr/share/common-licenses/GPL-2."))
	f.Fuzz(func(t *testing.T, n byte, data []byte) {
		found, _ := read(t, paths[int(n)%len(paths)], data)
		for _, p := range found.packages {
			if p.Name == "" || p.Version == "" {
				t.Errorf("package %+v", p)
			}
		}
	})
}

// FuzzJava reads hostile archives.
func FuzzJava(f *testing.F) {
	f.Add([]byte(zipOf(f, "META-INF/MANIFEST.MF", "Implementation-Version: 1\n", "a.jar",
		zipOf(f, "META-INF/maven/a/b/pom.properties", "artifactId=b\nversion=1\n"))))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &content{path: "x.jar", size: int64(len(data)), data: data,
			ReaderAt: bytes.NewReader(data)}
		found, _ := readJava(c)
		for _, p := range found.packages {
			if p.Name == "" {
				t.Errorf("package %+v", p)
			}
		}
	})
}

// FuzzExecutable reads hostile executables.
func FuzzExecutable(f *testing.F) {
	f.Add(elfWith(f, cargoSection, compressed(f, crateList)))
	f.Add(elfWith(f, ".go.buildinfo", append(append([]byte{}, goMark...), 8, 2)))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &content{path: "x", size: int64(len(data)), data: data,
			ReaderAt: bytes.NewReader(data)}
		found, err := readExecutable(c)
		if err != nil && len(found.packages) > 0 {
			t.Errorf("%v, error %v", found.packages, err)
		}
	})
}

package sbom

import (
	"bytes"
	"compress/zlib"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
)

// isExecutable reports whether a file is an ELF or PE executable or library. Packages are found in
// it if it was built by Go, or by Rust with cargo-auditable.
func isExecutable(_ string, head []byte) bool {
	return bytes.HasPrefix(head, []byte("\x7fELF")) || bytes.HasPrefix(head, []byte("MZ"))
}

// goMark begins Go's information about a build.
var goMark = []byte("\xff Go buildinf:")

func readExecutable(c *content) (findings, error) {
	if c.data != nil && !bytes.Contains(c.data, goMark) &&
		!bytes.Contains(c.data, []byte(cargoSection)) {
		return findings{}, nil
	}
	info, err := goInfo(c)
	if err != nil {
		return findings{}, err
	}
	crates, err := readCargo(c)
	if err != nil {
		return findings{}, err
	}
	var f findings
	for _, p := range append(goPackages(info), crates...) {
		if err := f.add(p); err != nil {
			return f, err
		}
	}
	return f, nil
}

// Limits for the bytes that are read of an executable for the information of one kind, together and
// at once. The readers of the standard library take memory in proportion to them: a list of modules
// that is read at once becomes twenty times as large. The longest real lists have some hundred
// kilobytes.
const (
	maxBuildInfo = 24 << 20
	maxRead      = 4 << 20
)

func limited(c *content) io.ReaderAt {
	return &limitedReaderAt{r: c, left: maxBuildInfo, most: maxRead}
}

// goInfo returns the information about the build of an executable; nil if Go did not build it.
func goInfo(c *content) (info *debug.BuildInfo, err error) {
	// The packages debug/... are not made for hostile files.
	defer func() {
		if r := recover(); r != nil {
			info, err = nil, fmt.Errorf("the executable is damaged: %v", r)
		}
	}()
	if info, err = buildinfo.Read(limited(c)); err != nil {
		return nil, nil // the error is the same for other and for damaged executables
	}
	return info, nil
}

// commandLine is the path that Go records for a program whose files were given one by one.
const commandLine = "command-line-arguments"

// goPackages returns the modules of an executable and the standard library.
func goPackages(info *debug.BuildInfo) []Package {
	if info == nil {
		return nil
	}
	var list []Package
	add := func(path, version string) {
		if path == "" {
			return
		}
		if version == "(devel)" {
			version = ""
		}
		list = append(list, Package{Type: Go, Name: path, Version: version})
	}
	version, _, _ := strings.Cut(strings.TrimPrefix(info.GoVersion, "go"), " ")
	add("stdlib", version)
	add(info.Main.Path, info.Main.Version)
	// A program that was built without modules, as Debian builds them, has only the path of its
	// package.
	if info.Main.Path == "" && info.Path != commandLine {
		add(info.Path, "")
	}
	for _, m := range info.Deps {
		if m == nil {
			continue
		}
		// A replacement without a version is a directory, whose name is not that of a module.
		if r := m.Replace; r != nil && r.Version != "" {
			m = r
		}
		add(m.Path, m.Version)
	}
	return list
}

// cargoSection is the section of an executable with the crates that it was built of
// (https://github.com/rust-secure-code/cargo-auditable/blob/master/PARSING.md).
const cargoSection = ".dep-v0"

// maxCrates limits the list of crates, in bytes of JSON. A list of empty objects takes fifty times
// as much memory. The list of a program with 2000 crates has 400 KB.
const maxCrates = 1 << 20

// crate is an element of the list of crates.
type crate struct {
	Name, Version, Source string
	Kind                  string // build: of the build only
}

func readCargo(c *content) (list []Package, err error) {
	defer func() {
		if r := recover(); r != nil {
			list, err = nil, fmt.Errorf("the executable is damaged: %v", r)
		}
	}()
	file, err := elf.NewFile(limited(c))
	if err != nil {
		return nil, nil // it is not an ELF file
	}
	section := file.Section(cargoSection)
	if section == nil {
		return nil, nil
	}
	z, err := zlib.NewReader(io.LimitReader(section.Open(), maxCrates))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", cargoSection, err)
	}
	data, err := io.ReadAll(io.LimitReader(z, maxCrates+1))
	if err == nil && len(data) > maxCrates {
		err = fmt.Errorf("it has more than %d bytes", maxCrates)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", cargoSection, err)
	}
	return crates(data)
}

// crates returns the crates of a list, without those that only the build used.
func crates(data []byte) ([]Package, error) {
	var d struct{ Packages []crate }
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, fmt.Errorf("read %s: %w", cargoSection, err)
	}
	var list []Package
	for _, c := range d.Packages {
		if c.Name == "" || c.Version == "" {
			return nil, errors.New("read " + cargoSection + ": a crate without name or version")
		}
		if c.Kind != "build" {
			list = append(list, Package{Type: Cargo, Name: c.Name, Version: c.Version})
		}
	}
	return list, nil
}

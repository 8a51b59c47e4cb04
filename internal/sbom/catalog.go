package sbom

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// Limits in bytes for the files that a cataloger reads: the description of one package, a database
// as a text, and a file that is not read into memory as a whole. The largest real ones of the first
// two kinds have some hundred kilobytes and some megabytes.
const (
	maxDescription = 4 << 20
	maxText        = 32 << 20
	maxLarge       = 1 << 30
)

// maxFilePackages limits the packages of one file.
const maxFilePackages = 100_000

// maxFields limits the fields of a paragraph.
const maxFields = 10_000

// content is the content of a file.
type content struct {
	path string
	size int64
	data []byte // valid until the cataloger returns; nil: too large for memory
	io.ReaderAt
}

// text returns the whole content. It is valid until the cataloger returns.
func (c *content) text() ([]byte, error) {
	if c.size > maxText {
		return nil, fmt.Errorf("it has %d bytes, and at most %d are read", c.size, maxText)
	}
	if c.data != nil {
		return c.data, nil
	}
	data := make([]byte, c.size)
	n, err := c.ReadAt(data, 0)
	if err == io.EOF || n == len(data) {
		err = nil
	}
	return data[:n], err
}

// findings is the result of a cataloger for a file.
type findings struct {
	packages []Package
	// licenses are those of the package that owns the file, if the file states them apart from the
	// package's description.
	licenses []string
	distro   *Distro
}

// add adds a package, if there are not too many. A text that is longer than any real one is
// shortened, since all packages of an image are kept in memory.
func (f *findings) add(p Package) error {
	if len(f.packages) == maxFilePackages {
		return fmt.Errorf("it lists more than %d packages", maxFilePackages)
	}
	for _, s := range []*string{&p.Name, &p.Version, &p.Arch, &p.Source, &p.SourceVersion,
		&p.Supplier, &p.group} {
		*s = shortened(*s)
	}
	p.Licenses = shortList(p.Licenses)
	f.packages = append(f.packages, p)
	return nil
}

// one returns the findings of a file that describes one package.
func one(p Package) (f findings, err error) {
	err = f.add(p)
	return f, err
}

// weight returns an estimate of the memory of the findings.
func (f *findings) weight() int {
	n := 256
	for _, p := range f.packages {
		n += 512 + len(p.Name) + len(p.Version) + len(p.Arch) + len(p.Source) +
			len(p.SourceVersion) + len(p.Supplier) + len(p.group)
		for _, l := range p.Licenses {
			n += 16 + len(l)
		}
	}
	for _, l := range f.licenses {
		n += 16 + len(l)
	}
	return n
}

// cataloger finds packages in files of one kind.
type cataloger struct {
	// wants reports whether the cataloger reads the regular file at a path. head has its first
	// bytes, at least headSize if the file has so many.
	wants func(at string, head []byte) bool
	// read finds the packages of the file.
	read func(c *content) (findings, error)
	// set names the database to which the files belong. The packages of all of them together are
	// compared from layer to layer. It begins with a slash, unlike a path. "": each file is
	// compared with its own earlier versions.
	set string
	// quiet is set if files of this name are often something else: errors are no warnings then.
	quiet bool
	// limit is the size of the largest file that is read; 0: maxDescription.
	limit int64
}

// headSize is the number of bytes by which a cataloger recognizes a file.
const headSize = 16

// catalogers are all catalogers. The first that wants a file gets it.
var catalogers = []cataloger{
	{wants: isOSRelease, read: readOSRelease},
	{wants: isDpkgStatus, read: readDpkgStatus, set: "/dpkg", limit: maxText},
	{wants: isCopyright, read: readCopyright, quiet: true},
	{wants: isAPK, read: readAPK, set: "/apk", limit: maxText},
	{wants: isRPM, read: readRPM, set: "/rpm", limit: maxLarge},
	{wants: isNPM, read: readNPM, quiet: true},
	{wants: isPython, read: readPython, quiet: true},
	{wants: isGem, read: readGem, quiet: true},
	{wants: isJava, read: readJava, limit: maxLarge},
	{wants: isExecutable, read: readExecutable, limit: maxLarge},
}

// catalogerOf returns the cataloger of a file, or nil.
func catalogerOf(at string, head []byte) *cataloger {
	for i := range catalogers {
		if catalogers[i].wants(at, head) {
			return &catalogers[i]
		}
	}
	return nil
}

// errNotPackage is returned for a file that is not the description of a package, although its name
// is that of one.
var errNotPackage = errors.New("not a package")

// field is a field of a text in the format of Debian's control files and of RFC 822.
type field struct{ name, value string }

// paragraphs calls do with each paragraph of a text in the format of Debian's control files: fields
// of one or more lines, and empty lines between the paragraphs.
func paragraphs(text []byte, do func(fields []field)) {
	var fields []field
	var value strings.Builder // of the last field
	endField := func() {
		if n := len(fields); n > 0 {
			fields[n-1].value = value.String()
		}
		value.Reset()
	}
	end := func() {
		if endField(); len(fields) > 0 {
			do(fields)
		}
		fields = fields[:0]
	}
	for line := range bytes.Lines(text) {
		line = bytes.TrimRight(line, " \t\r\n")
		switch {
		case len(line) == 0:
			end()
		case line[0] == ' ' || line[0] == '\t':
			if len(fields) > 0 {
				value.WriteByte('\n')
				value.Write(bytes.TrimSpace(line))
			}
		default:
			if name, rest, ok := bytes.Cut(line, []byte(":")); ok && len(fields) < maxFields {
				endField()
				fields = append(fields, field{name: string(name)})
				value.Write(bytes.TrimSpace(rest))
			}
		}
	}
	end()
}

// get returns the value of the first field with a name in any case, or "".
func get(fields []field, name string) string {
	for _, f := range fields {
		if strings.EqualFold(f.name, name) {
			return f.value
		}
	}
	return ""
}

// in reports whether a path is directly in a directory.
func in(dir, at string) bool { return path.Dir(at) == dir }

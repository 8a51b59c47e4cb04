package sbom

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// maxText limits a file that a cataloger reads into memory: a database or a description. The
// largest real ones have some megabytes.
const maxText = 64 << 20

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

// cataloger finds packages in files of one kind.
type cataloger struct {
	// wants reports whether the cataloger reads the regular file at a path. head has its first
	// bytes, at least headSize if the file has so many.
	wants func(at string, head []byte) bool
	// read finds the packages of the file.
	read func(c *content) (findings, error)
	// set names the database to which the files belong. The packages of all of them together are
	// compared from layer to layer. "": each file is compared with its own earlier versions.
	set string
	// quiet is set if files of this name are often something else: errors are no warnings then.
	quiet bool
	// large is set if a file that is too large for memory is read, too.
	large bool
}

// headSize is the number of bytes by which a cataloger recognizes a file.
const headSize = 16

// catalogers are all catalogers. The first that wants a file gets it.
var catalogers = []cataloger{
	{wants: isOSRelease, read: readOSRelease},
	{wants: isDpkgStatus, read: readDpkgStatus, set: "dpkg"},
	{wants: isCopyright, read: readCopyright, quiet: true},
	{wants: isAPK, read: readAPK, set: "apk"},
	{wants: isRPM, read: readRPM, set: "rpm", large: true},
	{wants: isNPM, read: readNPM, quiet: true},
	{wants: isPython, read: readPython, quiet: true},
	{wants: isGem, read: readGem, quiet: true},
	{wants: isJava, read: readJava, large: true},
	{wants: isExecutable, read: readExecutable, large: true},
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
			if name, rest, ok := bytes.Cut(line, []byte(":")); ok {
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

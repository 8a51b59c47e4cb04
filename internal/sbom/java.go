package sbom

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strings"
)

func isJava(at string, head []byte) bool {
	switch strings.ToLower(path.Ext(at)) {
	case ".jar", ".war", ".ear", ".par", ".sar", ".nar", ".jpi", ".hpi":
		return head == nil || bytes.HasPrefix(head, []byte("PK"))
	}
	return false
}

// Limits for an archive together with the archives inside it.
const (
	maxArchives    = 10_000    // archives inside
	maxArchiveData = 512 << 20 // bytes of archives inside and of descriptions
	maxNested      = 3         // archives in archives
	maxManifest    = 4 << 20   // bytes of a description
	maxInner       = 64 << 20  // bytes of an archive inside
	maxInnerMemory = 4 << 20   // bytes of an archive inside that is read in memory
	maxDirectory   = 24 << 20  // bytes of the lists of files of an archive and of those around it
)

// javaReader reads an archive and the archives inside it.
type javaReader struct {
	findings
	archives int
	data     int64
}

func readJava(c *content) (findings, error) {
	var r javaReader
	err := r.archive(c, c.size, c.path, 0, maxDirectory)
	return r.findings, err
}

// archive reads an archive: the descriptions that Maven adds for each project in it, or else its
// manifest, and then the archives inside it. Its list of files has at most left bytes. It is in
// memory while the archives inside are read, so that they have the rest.
func (r *javaReader) archive(in io.ReaderAt, size int64, name string, depth int,
	left int64) error {
	directory := &limitedReaderAt{r: in, left: left}
	z, err := zip.NewReader(directory, size)
	if err != nil {
		return err
	}
	left, directory.left = directory.left, math.MaxInt64
	var manifest map[string]string
	var projects []Package
	for _, f := range z.File {
		switch at := f.Name; {
		case strings.EqualFold(at, "META-INF/MANIFEST.MF"):
			text, err := r.file(f, maxManifest)
			if err != nil {
				return err
			}
			manifest = manifestFields(text)
		case strings.HasPrefix(at, "META-INF/maven/") && path.Base(at) == "pom.properties":
			text, err := r.file(f, maxManifest)
			if err != nil {
				return err
			}
			if p, ok := project(text); ok {
				projects = append(projects, p)
			}
		}
	}
	for _, p := range own(projects, manifest, name) {
		if err := r.add(p); err != nil {
			return err
		}
	}
	for _, f := range z.File {
		if f.FileInfo().IsDir() || !isJava(f.Name, nil) {
			continue
		}
		if depth == maxNested {
			return errors.New("archives are nested too deeply")
		}
		if r.archives++; r.archives > maxArchives {
			return fmt.Errorf("it contains more than %d archives", maxArchives)
		}
		if err := r.inner(f, depth+1, left); err != nil {
			return err
		}
	}
	return nil
}

// inner reads an archive inside another. A file that is not an archive is left out.
func (r *javaReader) inner(f *zip.File, depth int, left int64) error {
	z, err := r.open(f, maxInner)
	if err != nil {
		return err
	}
	defer z.Close() // it was only read
	in, size, done, err := spool(z, maxInnerMemory)
	if err != nil {
		return fmt.Errorf("%s: %w", f.Name, err)
	}
	defer done()
	err = r.archive(in, size, f.Name, depth, left)
	if err != nil && !errors.Is(err, zip.ErrFormat) {
		return fmt.Errorf("%s: %w", f.Name, err)
	}
	return nil
}

// open opens a file of an archive. A read after limit bytes returns an error.
func (r *javaReader) open(f *zip.File, limit int64) (io.ReadCloser, error) {
	z, err := f.Open()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name, err)
	}
	return &innerReader{ReadCloser: z, java: r, left: limit}, nil
}

var errInner = errors.New("it is larger than the limit for archives")

// innerReader reads a file of an archive, and counts the bytes for the limits of the file and of
// all files together.
type innerReader struct {
	io.ReadCloser
	java *javaReader
	left int64
}

func (r *innerReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.left -= int64(n)
	if r.java.data += int64(n); r.left < 0 || r.java.data > maxArchiveData {
		return n, errInner
	}
	return n, err
}

var errTooLong = errors.New("its tables are too long")

// limitedReaderAt returns an error after a number of bytes, and for a read of more bytes than most;
// 0 is no limit for one read.
type limitedReaderAt struct {
	r          io.ReaderAt
	left, most int64
}

func (l *limitedReaderAt) ReadAt(p []byte, offset int64) (int, error) {
	n := int64(len(p))
	if l.left -= n; l.left < 0 || l.most > 0 && n > l.most {
		return 0, errTooLong
	}
	return l.r.ReadAt(p, offset)
}

// file returns the content of a file of an archive.
func (r *javaReader) file(f *zip.File, limit int64) ([]byte, error) {
	z, err := r.open(f, limit)
	if err != nil {
		return nil, err
	}
	defer z.Close() // it was only read
	data, err := io.ReadAll(z)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name, err)
	}
	return data, nil
}

// own returns the packages of an archive itself. The version of a project that the manifest also
// describes is that of the project.
func own(projects []Package, manifest map[string]string, name string) []Package {
	license := manifest["Bundle-License"]
	for i := range projects {
		if len(projects) == 1 && license != "" {
			projects[i].Licenses = licensesOfBundle(license)
		}
	}
	if len(projects) > 0 {
		return projects
	}
	artifact, version := splitName(name)
	p := Package{Type: Java, Name: artifact,
		Version: firstOf(manifest, "Implementation-Version", "Bundle-Version",
			"Specification-Version"),
		Supplier: firstOf(manifest, "Implementation-Vendor", "Bundle-Vendor",
			"Specification-Vendor"),
		Licenses: licensesOfBundle(license),
		group:    groupOf(manifest)}
	if version != "" {
		p.Version = version // the name of a file has the version in Maven's form
	}
	if p.Name == "" || manifest == nil && p.Version == "" {
		return nil
	}
	return []Package{p}
}

// groupOf returns the group that a manifest names, or "".
func groupOf(manifest map[string]string) string {
	group := firstOf(manifest, "Implementation-Vendor-Id", "Automatic-Module-Name",
		"Bundle-SymbolicName")
	group, _, _ = strings.Cut(group, ";")
	if group = strings.TrimSpace(group); strings.ContainsAny(group, " /:") ||
		!strings.Contains(group, ".") {
		return ""
	}
	return group
}

func licensesOfBundle(s string) []string {
	var list []string
	for part := range strings.SplitSeq(s, ",") {
		part, _, _ = strings.Cut(part, ";") // attributes
		if part = strings.Trim(strings.TrimSpace(part), `"`); part != "" {
			list = append(list, part)
		}
	}
	return list
}

func firstOf(m map[string]string, keys ...string) string {
	for _, k := range keys {
		if v := strings.TrimSpace(m[k]); v != "" {
			return v
		}
	}
	return ""
}

// splitName splits the name of an archive, such as commons-io-2.11.0.jar, before the version: the
// first part that begins with a digit.
func splitName(name string) (artifact, version string) {
	name = strings.TrimSuffix(path.Base(name), path.Ext(name))
	for i := 0; i+1 < len(name); i++ {
		if name[i] == '-' && '0' <= name[i+1] && name[i+1] <= '9' {
			return name[:i], name[i+1:]
		}
	}
	return name, ""
}

// manifestFields returns the fields of the main section of a manifest. A line that begins with a
// space continues the one before it.
func manifestFields(text []byte) map[string]string {
	fields := map[string]string{}
	key, value := "", new(strings.Builder)
	end := func() {
		if key != "" {
			fields[key] = strings.TrimSpace(value.String())
		}
		value.Reset()
	}
	for line := range bytes.Lines(text) {
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			break
		}
		if line[0] == ' ' {
			value.Write(line[1:])
			continue
		}
		end()
		name, rest, _ := bytes.Cut(line, []byte(":"))
		key = string(name)
		value.Write(rest)
	}
	end()
	return fields
}

// project returns the package that a pom.properties describes.
func project(text []byte) (Package, bool) {
	fields := map[string]string{}
	for line := range bytes.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimSpace(string(line)), "="); ok {
			fields[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	p := Package{Type: Java, Name: fields["artifactId"], Version: fields["version"],
		group: fields["groupId"]}
	return p, p.Name != "" && p.Version != ""
}

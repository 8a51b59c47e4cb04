package imagetest

import (
	"archive/tar"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
)

// Entry is one entry of a layer.
type Entry struct {
	Path   string // below the root, without a leading or trailing slash; "." is the root
	Header *tar.Header
	Data   []byte
}

// ReadTar lists the entries of a tar.
func ReadTar(r io.Reader) ([]Entry, error) {
	var all []Entry
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", h.Name, err)
		}
		all = append(all, Entry{Path: clean(h.Name), Header: h, Data: data})
	}
}

// Kind returns dir, file, link, hardlink, char, block, fifo, whiteout or opaque.
func (e Entry) Kind() string {
	switch e.Header.Typeflag {
	case tar.TypeDir:
		return "dir"
	case tar.TypeSymlink:
		return "link"
	case tar.TypeLink:
		return "hardlink"
	case tar.TypeChar:
		return "char"
	case tar.TypeBlock:
		return "block"
	case tar.TypeFifo:
		return "fifo"
	}
	base := path.Base(e.Path)
	if base == ".wh..wh..opq" {
		return "opaque"
	}
	if strings.HasPrefix(base, ".wh.") {
		return "whiteout"
	}
	return "file"
}

// Name returns the path that the entry changes: for a whiteout the path that it hides, for an
// opaque marker its directory.
func (e Entry) Name() string {
	switch e.Kind() {
	case "whiteout":
		dir, base := path.Split(e.Path)
		return dir + strings.TrimPrefix(base, ".wh.")
	case "opaque":
		return path.Dir(e.Path)
	}
	return e.Path
}

// String returns the entry as one line:
//
//	dir usr/bin 0755
//	file etc/motd 0644 "hello\n"
//	file home/u/data 0600 1000:1000 size=70000 sha256:0a1b2c3d4e5f
//	link etc/mtab -> ../proc/self/mounts
//	hardlink b => a
//	whiteout etc/old
//	opaque var/cache
//	char dev/null 0666 1,3
//
// The owner is left out when it is 0:0; extended attributes follow as name="value".
func (e Entry) String() string {
	h := e.Header
	line := e.Kind() + " " + quote(e.Name())
	switch e.Kind() {
	case "whiteout", "opaque":
		return line
	case "hardlink":
		return line + " => " + quote(clean(h.Linkname))
	case "link":
		line += " -> " + quote(h.Linkname)
	default:
		line += fmt.Sprintf(" %04o", h.Mode&0o7777)
	}
	if h.Uid != 0 || h.Gid != 0 {
		line += fmt.Sprintf(" %d:%d", h.Uid, h.Gid)
	}
	switch e.Kind() {
	case "file":
		line += " " + content(e.Data)
	case "char", "block":
		line += fmt.Sprintf(" %d,%d", h.Devmajor, h.Devminor)
	}
	return line + xattrs(h)
}

// Lines returns entries, one a line.
func Lines(all []Entry) string {
	var b strings.Builder
	for _, e := range all {
		b.WriteString(e.String())
		b.WriteByte('\n')
	}
	return b.String()
}

func content(data []byte) string {
	if len(data) <= 60 && utf8.Valid(data) {
		return strconv.Quote(string(data))
	}
	return fmt.Sprintf("size=%d %s", len(data), digest.FromBytes(data)[:len("sha256:")+12])
}

func xattrs(h *tar.Header) string {
	var all []string
	for k, v := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
			all = append(all, " "+name+"="+strconv.Quote(v))
		}
	}
	slices.Sort(all)
	return strings.Join(all, "")
}

func quote(s string) string {
	if q := strconv.Quote(s); q != `"`+s+`"` || strings.Contains(s, " ") {
		return q
	}
	return s
}

func clean(name string) string {
	if name = strings.TrimLeft(path.Clean("/"+name), "/"); name == "" {
		return "."
	}
	return name
}

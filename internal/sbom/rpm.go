package sbom

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
)

// rpmDirs are the directories of rpm's database: of most distributions, of Fedora and openSUSE, and
// of systems with rpm-ostree.
var rpmDirs = []string{"var/lib/rpm", "usr/lib/sysimage/rpm", "usr/share/rpm"}

// isRPM reports whether a path is that of a database of rpm in one of its three formats.
func isRPM(at string, _ []byte) bool {
	switch path.Base(at) {
	case "Packages", "Packages.db", "rpmdb.sqlite":
	default:
		return false
	}
	dir := path.Dir(at)
	for _, d := range rpmDirs {
		if dir == d {
			return true
		}
	}
	return false
}

// readRPM reads a database of rpm: Berkeley DB before rpm 4.16, ndb on openSUSE, otherwise SQLite.
func readRPM(c *content) (findings, error) {
	var f findings
	each := func(header []byte) error {
		p, err := rpmPackage(header)
		// gpg-pubkey is the name of imported keys
		if err != nil || p.Name == "gpg-pubkey" {
			return err
		}
		return f.add(p)
	}
	b := &blocks{r: c, size: c.size, left: 4 * c.size}
	read := readBDB
	switch path.Base(c.path) {
	case "Packages.db":
		read = readNDB
	case "rpmdb.sqlite":
		read = readSQLite
	}
	return f, read(b, each)
}

// blocks reads parts of a database. All parts together are limited, so that links between them that
// form a loop end.
type blocks struct {
	r    io.ReaderAt
	size int64
	left int64
}

var errDatabase = errors.New("the database is damaged")

// maxPart limits what is in memory of a database at once, such as the header of a package. The
// largest real headers, of packages with many thousand files, have some megabytes.
const maxPart = 32 << 20

// at returns n bytes.
func (b *blocks) at(offset, n int64) ([]byte, error) {
	if offset < 0 || n < 0 || offset > b.size-n {
		return nil, fmt.Errorf("%w: %d bytes at %d are outside of it", errDatabase, n, offset)
	}
	if n > maxPart {
		return nil, fmt.Errorf("a package has %d bytes, and at most %d are read", n, maxPart)
	}
	if b.left -= n; b.left < 0 {
		return nil, fmt.Errorf("%w: its parts refer to each other", errDatabase)
	}
	data := make([]byte, n)
	if _, err := b.r.ReadAt(data, offset); err != nil && err != io.EOF {
		return nil, err
	}
	return data, nil
}

// The tags of a header (https://rpm-software-management.github.io/rpm/manual/format_header.html).
const (
	rpmName      = 1000
	rpmVersion   = 1001
	rpmRelease   = 1002
	rpmEpoch     = 1003
	rpmVendor    = 1011
	rpmLicense   = 1014
	rpmArch      = 1022
	rpmSourceRPM = 1044

	rpmInt32  = 4
	rpmString = 6
	rpmI18n   = 9
)

// maxTags is the limit of rpm for the tags of a header.
const maxTags = 0xffff

// rpmPackage returns the package that a header describes: the number of its tags, the size of its
// data, a list of the tags, and the data.
func rpmPackage(header []byte) (Package, error) {
	bad := fmt.Errorf("%w: a header of %d bytes is not valid", errDatabase, len(header))
	if len(header) < 8 {
		return Package{}, bad
	}
	tags, size := binary.BigEndian.Uint32(header), binary.BigEndian.Uint32(header[4:])
	if tags > maxTags || uint64(len(header)) < 8+16*uint64(tags)+uint64(size) {
		return Package{}, bad
	}
	list, data := header[8:8+16*tags], header[8+16*tags:]
	text, epoch := map[uint32]string{}, ""
	for ; len(list) > 0; list = list[16:] {
		tag, kind := binary.BigEndian.Uint32(list), binary.BigEndian.Uint32(list[4:])
		offset := binary.BigEndian.Uint32(list[8:])
		if uint64(offset) >= uint64(len(data)) {
			continue
		}
		value := data[offset:]
		switch {
		case tag == rpmEpoch && kind == rpmInt32 && len(value) >= 4:
			epoch = fmt.Sprint(binary.BigEndian.Uint32(value))
		case tag <= rpmSourceRPM && (kind == rpmString || kind == rpmI18n):
			if end := bytes.IndexByte(value, 0); isRPMText(tag) && end >= 0 {
				text[tag] = string(value[:end])
			}
		}
	}
	p := Package{Type: RPM, Name: text[rpmName], Arch: text[rpmArch], Source: text[rpmSourceRPM],
		Supplier: oneLine(text[rpmVendor]), Version: text[rpmVersion] + "-" + text[rpmRelease]}
	if p.Name == "" || text[rpmVersion] == "" {
		return Package{}, bad
	}
	if epoch != "" && epoch != "0" {
		p.Version = epoch + ":" + p.Version
	}
	if l := text[rpmLicense]; l != "" {
		p.Licenses = []string{l}
	}
	return p, nil
}

func isRPMText(tag uint32) bool {
	switch tag {
	case rpmName, rpmVersion, rpmRelease, rpmVendor, rpmLicense, rpmArch, rpmSourceRPM:
		return true
	}
	return false
}

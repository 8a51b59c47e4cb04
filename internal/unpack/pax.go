package unpack

import (
	"bytes"
	"strings"

	"github.com/layerbuild/layerbuild/internal/unpack/rawfs"
)

// paxHeader is what extended headers said about the next entry (pax(1p), "pax Header Block"). Values are subslices of
// the headers' own storage.
type paxHeader struct {
	values map[string][]byte // path, linkpath, size, uid, gid, mtime
	xattrs []rawfs.Xattr

	sparseName  []byte
	sparseMajor int64
	realSize    int64
	hasMap      bool
	segments    []segment
	half        bool // GNU.sparse.offset was read, its numbytes not yet
}

func (p *paxHeader) reset() {
	if len(p.values) > 0 || p.xattrs != nil || p.sparseName != nil || p.hasMap || p.sparseMajor != 0 {
		*p = paxHeader{}
	}
}

// parse reads records "LENGTH KEY=VALUE\n".
func (p *paxHeader) parse(b []byte) error {
	for len(b) > 0 {
		digits, _, found := bytes.Cut(b[:min(len(b), 12)], []byte(" "))
		n, err := decimal(digits)
		if err != nil || !found || n < int64(len(digits))+3 || n > int64(len(b)) || b[n-1] != '\n' {
			return bad("extended header %.40q", b)
		}
		key, value, found := bytes.Cut(b[len(digits)+1:n-1], []byte("="))
		if !found || len(key) == 0 {
			return bad("extended header %.40q", b)
		}
		if err := p.record(string(key), value); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func (p *paxHeader) record(key string, value []byte) error {
	var err error
	switch key {
	case "path", "linkpath", "size", "uid", "gid", "mtime":
		p.set(key, value)
	case "GNU.sparse.name": // the name itself is made up, so that others show what they have not understood
		p.sparseName = value
	case "GNU.sparse.major":
		p.sparseMajor, err = decimal(value)
	case "GNU.sparse.size", "GNU.sparse.realsize":
		p.realSize, err = decimal(value)
	case "GNU.sparse.numblocks":
		p.hasMap = true
	case "GNU.sparse.offset":
		var n int64
		n, err = decimal(value)
		p.segments, p.half = append(p.segments, segment{offset: n}), true
	case "GNU.sparse.numbytes":
		if !p.half {
			return bad("sparse map: a length without an offset")
		}
		p.segments[len(p.segments)-1].length, err = decimal(value)
		p.half = false
	case "GNU.sparse.map":
		err = p.sparseMap(value)
	default:
		if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
			p.xattrs = append(p.xattrs, rawfs.Xattr{Name: name, Value: value})
		}
	}
	return err
}

// set keeps a value; an empty one takes an earlier one back.
func (p *paxHeader) set(key string, value []byte) {
	if p.values == nil {
		p.values = map[string][]byte{}
	}
	p.values[key] = value
}

func (p *paxHeader) sparseMap(value []byte) error {
	p.hasMap, p.segments = true, nil
	if len(value) == 0 {
		return nil
	}
	fields := bytes.Split(value, []byte(","))
	if len(fields)%2 != 0 {
		return bad("sparse map %.40q", value)
	}
	for i := 0; i < len(fields); i += 2 {
		offset, err := decimal(fields[i])
		if err != nil {
			return err
		}
		length, err := decimal(fields[i+1])
		if err != nil {
			return err
		}
		p.segments = append(p.segments, segment{offset, length})
	}
	return nil
}

// apply puts what the extended header says over what the entry's own says.
func (p *paxHeader) apply(h *Header) error {
	for key, value := range p.values {
		if len(value) == 0 {
			continue
		}
		var err error
		var n int64
		switch key {
		case "path":
			h.Name = value
		case "linkpath":
			h.Link = value
		case "mtime":
			h.Sec, h.Nsec, err = paxTime(value)
		default:
			n, err = decimal(value)
		}
		if err != nil {
			return bad("%s %q", key, value)
		}
		switch key {
		case "size":
			if n < 0 {
				return bad("size %d", n)
			}
			h.Size, h.stored = n, n
		case "uid":
			h.UID, err = id(n)
		case "gid":
			h.GID, err = id(n)
		}
		if err != nil {
			return err
		}
	}
	if len(p.sparseName) > 0 {
		h.Name = p.sparseName
	}
	h.Xattrs = append(h.Xattrs, p.xattrs...)
	return nil
}

// paxTime reads decimal seconds with a fraction, which may be negative.
func paxTime(value []byte) (sec, nsec int64, err error) {
	whole, fraction, _ := bytes.Cut(value, []byte("."))
	if sec, err = decimal(whole); err != nil {
		return 0, 0, err
	}
	scale := int64(100_000_000)
	for _, c := range fraction {
		if c < '0' || c > '9' {
			return 0, 0, ErrFormat
		}
		nsec += int64(c-'0') * scale
		scale /= 10
	}
	if whole[0] == '-' && nsec > 0 {
		return sec - 1, 1_000_000_000 - nsec, nil
	}
	return sec, nsec, nil
}

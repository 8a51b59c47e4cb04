package unpack

import (
	"bytes"
	"strings"

	"github.com/layerbuild/layerbuild/internal/dirfd"
)

// paxHeader holds the records of extended headers about the next entry (pax(1p), "pax Header
// Block"). Values are subslices of the header's storage.
type paxHeader struct {
	values map[string][]byte // values of known keys; the last one of a repeated key
	xattrs []dirfd.Xattr
	named  map[string]int // by name: the index in xattrs
	sparse bool           // values has keys of sparse files
	list   []byte         // the map from GNU.sparse.offset and numbytes
	half   bool           // GNU.sparse.offset was read, but not yet its numbytes
}

func (p *paxHeader) reset() {
	if len(p.values) > 0 || p.xattrs != nil {
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
		if !found || len(key) == 0 || bytes.IndexByte(key, 0) >= 0 {
			return bad("extended header %.40q", b)
		}
		if err := p.record(string(key), value); err != nil {
			return err
		}
		b = b[n:]
	}
	if p.half {
		return bad("sparse map: an offset without a length")
	}
	if p.list != nil {
		p.set("GNU.sparse.map", p.list)
	}
	return nil
}

func (p *paxHeader) record(key string, value []byte) error {
	switch key {
	case "path", "linkpath", "uname", "gname":
		if bytes.IndexByte(value, 0) >= 0 {
			return bad("%s %.200q with a zero byte", key, value)
		}
		p.set(key, value)
	case "size", "uid", "gid", "mtime", "atime", "ctime":
		p.set(key, value)
	case "GNU.sparse.offset", "GNU.sparse.numbytes": // 0.0: a pair for each segment
		if p.half != (key == "GNU.sparse.numbytes") || bytes.IndexByte(value, ',') >= 0 {
			return bad("sparse map: %s %.40q", key, value)
		}
		if p.list != nil {
			p.list = append(p.list, ',')
		}
		p.list, p.half = append(p.list, value...), !p.half
		p.sparse = true
	case "GNU.sparse.name", "GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.size",
		"GNU.sparse.realsize",
		"GNU.sparse.numblocks", "GNU.sparse.map":
		p.set(key, value)
		p.sparse = p.sparse || len(value) > 0
	default:
		if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
			p.setXattr(name, value)
		}
	}
	return nil
}

// set stores the value of a key. An empty value removes an earlier one.
func (p *paxHeader) set(key string, value []byte) {
	if p.values == nil {
		p.values = map[string][]byte{}
	}
	p.values[key] = value
}

func (p *paxHeader) setXattr(name string, value []byte) {
	if i, ok := p.named[name]; ok {
		p.xattrs[i].Value = value
		return
	}
	if p.named == nil {
		p.named = map[string]int{}
	}
	p.named[name] = len(p.xattrs)
	p.xattrs = append(p.xattrs, dirfd.Xattr{Name: name, Value: value})
}

// sparseVersion returns the version of the format of a sparse file; "" if none is given.
func (p *paxHeader) sparseVersion() string {
	major, minor := p.values["GNU.sparse.major"], p.values["GNU.sparse.minor"]
	if len(major)+len(minor) == 0 {
		return ""
	}
	return string(major) + "." + string(minor)
}

// apply replaces fields of the entry's header by those of the extended header. It ignores records
// about sparse files.
func (p *paxHeader) apply(h *Header, n *numbers) error {
	for key, value := range p.values {
		if len(value) == 0 {
			continue
		}
		var err error
		switch key {
		case "path":
			h.Name = value
		case "linkpath":
			h.Link = value
		case "mtime":
			h.Sec, h.Nsec, err = paxTime(value)
		case "atime", "ctime":
			_, _, err = paxTime(value) // archive/tar refuses a header with one that is not a time
		case "size":
			if h.Size, err = decimal(value); err == nil && h.Size < 0 {
				err = ErrFormat
			}
			h.stored = h.Size
		case "uid":
			n.uid, err = decimal(value)
		case "gid":
			n.gid, err = decimal(value)
		}
		if err != nil {
			return bad("%s %.200q", key, value)
		}
	}
	h.Xattrs = append(h.Xattrs, p.xattrs...)
	return nil
}

// paxTime parses decimal seconds, which may have a fraction and may be negative.
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

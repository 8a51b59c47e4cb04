package cache

import (
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A record's file is text, one fact a line, followed by "end" and a CRC-32C of the lines above. A
// file that was truncated by a crash lacks that line, a file filled with zeros lacks the first
// line, and a file that was damaged in another way has a wrong checksum. Records of earlier
// versions have no checksum.
//
//	layerbuild-record 1
//	kind step
//	key 4ac2…
//	snapshot 81f0…
//	created 1767225600123456789
//	boot 7d6c…
//	syncs 2
//	meta.content sha256:…
//	end 1c291ca3
//
// A value that would not fit a line is quoted as in Go.
const header = "layerbuild-record 1"

func encode(e Entry) ([]byte, error) {
	b := make([]byte, 0, 512)
	line := func(name, value string) {
		b = append(append(b, name...), ' ')
		if strings.ContainsAny(value, "\n\r\x00") || strings.HasPrefix(value, `"`) {
			b = strconv.AppendQuote(b, value)
		} else {
			b = append(b, value...)
		}
		b = append(b, '\n')
	}
	b = append(append(b, header...), '\n')
	line("kind", string(e.Kind))
	line("key", e.Key)
	line("snapshot", e.Snapshot)
	line("created", strconv.FormatInt(e.Created.UnixNano(), 10))
	line("boot", e.mark.Boot)
	line("syncs", strconv.Itoa(e.mark.Syncs))
	names := make([]string, 0, len(e.facts))
	for k := range e.facts {
		if !isFactName(k) {
			return nil, fmt.Errorf("%q is not a valid name of a field", k)
		}
		names = append(names, k)
	}
	slices.Sort(names)
	for _, k := range names {
		line("meta."+k, e.facts[k])
	}
	return fmt.Appendf(b, "end %08x\n", crc32.Checksum(b, castagnoli)), nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func isFactName(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9',
			c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return s != ""
}

// decode decodes a record's file. It reports false if data is not one complete record.
func decode(data string) (Entry, bool) {
	whole := data
	first, data, ok := strings.Cut(data, "\n")
	if !ok || first != header {
		return Entry{}, false
	}
	var e Entry
	for {
		var l string
		if l, data, ok = strings.Cut(data, "\n"); !ok {
			return Entry{}, false // there is no end
		}
		if l == "end" {
			return e, data == "" && e.Kind != ""
		}
		if sum, ok := strings.CutPrefix(l, "end "); ok {
			above := whole[:len(whole)-len(data)-len(l)-1]
			good := sum == fmt.Sprintf("%08x", crc32.Checksum([]byte(above), castagnoli))
			return e, good && data == "" && e.Kind != ""
		}
		name, value, ok := strings.Cut(l, " ")
		if !ok {
			return Entry{}, false
		}
		if strings.HasPrefix(value, `"`) {
			v, err := strconv.Unquote(value)
			if err != nil {
				return Entry{}, false
			}
			value = v
		}
		var err error
		switch name {
		case "kind":
			e.Kind = Kind(value)
		case "key":
			e.Key = value
		case "snapshot":
			e.Snapshot = value
		case "created":
			var n int64
			n, err = strconv.ParseInt(value, 10, 64)
			e.Created = time.Unix(0, n)
		case "boot":
			e.mark.Boot = value
		case "syncs":
			e.mark.Syncs, err = strconv.Atoi(value)
		default:
			k, isFact := strings.CutPrefix(name, "meta.")
			if !isFact || !isFactName(k) {
				return Entry{}, false // written by a later version, or by another program
			}
			if e.facts == nil {
				e.facts = make(map[string]string, 4)
			}
			e.facts[k] = value
		}
		if err != nil {
			return Entry{}, false
		}
	}
}

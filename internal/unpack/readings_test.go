package unpack

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// Magics of formats, with their versions.
const (
	ustarMagic = "ustar\x0000"
	gnuMagic   = "ustar  \x00"
	v7Magic    = "\x00\x00\x00\x00\x00\x00\x00\x00"
)

// rawHeader is a header block that can have any bytes in any field.
type rawHeader struct {
	flag       byte
	name, link string
	magic      string // "": ustar
	size       int
	fields     map[int]string // other bytes, by offset
}

func (h rawHeader) String() string {
	b := make([]byte, block)
	put := func(at int, s string) { copy(b[at:], s) }
	put(0, h.name[:min(len(h.name), 100)])
	put(100, "0000644\x000000000\x000000000\x00")
	put(124, fmt.Sprintf("%011o\x00%011o\x00", h.size, 7))
	b[156] = h.flag
	put(157, h.link[:min(len(h.link), 100)])
	if h.magic == "" {
		h.magic = ustarMagic
	}
	put(257, h.magic)
	for _, at := range slices.Sorted(maps.Keys(h.fields)) {
		put(at, h.fields[at])
	}
	if _, ok := h.fields[148]; !ok {
		put(148, "        ")
		sum := 0
		for _, c := range b {
			sum += int(c)
		}
		put(148, fmt.Sprintf("%06o\x00 ", sum))
	}
	return string(b)
}

func padded(s string) string { return s + strings.Repeat("\x00", -len(s)&(block-1)) }

func (h rawHeader) with(content string) string {
	h.size = len(content)
	return h.String() + padded(content)
}

func rawFile(name, content string) string {
	return rawHeader{flag: TypeFile, name: name}.with(content)
}

func paxRecord(key, value string) string {
	n := len(key) + len(value) + 3
	for n != len(fmt.Sprint(n))+len(key)+len(value)+3 {
		n = len(fmt.Sprint(n)) + len(key) + len(value) + 3
	}
	return fmt.Sprintf("%d %s=%s\n", n, key, value)
}

// pax returns an extended header with records KEY, VALUE, KEY, VALUE.
func pax(flag byte, records ...string) string {
	var b strings.Builder
	for i := 0; i < len(records); i += 2 {
		b.WriteString(paxRecord(records[i], records[i+1]))
	}
	return rawHeader{flag: flag, name: "PaxHeaders/x"}.with(b.String())
}

func gnuLong(flag byte, name string) string {
	return rawHeader{flag: flag, name: "././@LongLink", magic: gnuMagic}.with(name + "\x00")
}

// oldSparseFile returns a sparse file in GNU's old format, with a segment of three bytes at 1000,
// and a map that continues for the given number of blocks.
func oldSparseFile(magic string, blocks int) string {
	fields := map[int]string{386: "00000001750\x0000000000003\x00", 483: "00000003720\x00"}
	if blocks > 0 {
		fields[482] = "\x01"
	}
	s := rawHeader{flag: 'S', name: "old", magic: magic, size: 3, fields: fields}.String()
	for i := range blocks {
		b := make([]byte, block)
		if i < blocks-1 {
			b[504] = 1
		}
		s += string(b)
	}
	return s + padded("abc")
}

// readings are streams that readers of tar interpret in different ways.
var readings = func() []reading {
	var (
		end     = strings.Repeat("\x00", 1024)
		a       = rawFile("a", "AAAA")
		inner   = rawFile("smuggled", "seen by some only")
		long    = strings.Repeat("l", 120)
		sparse1 = func(records ...string) string {
			return pax('x', append(records, "GNU.sparse.name", "sparse",
				"GNU.sparse.realsize", "2000")...) +
				rawHeader{flag: TypeFile, name: "made-up",
					size: 515}.String() + padded("1\n1000\n3\n") + padded("abc")
		}
		sparse0 = func(flag byte, name string, records ...string) string {
			return pax('x', append([]string{"GNU.sparse.size", "2000"},
				records...)...) + rawHeader{flag: flag, name: name}.with("abc")
		}
		field = func(at int, value string) string {
			return rawHeader{flag: TypeFile, name: "f", fields: map[int]string{at: value}}.String()
		}
		device = func(major, minor string) string {
			return rawHeader{flag: TypeChar, name: "c",
				fields: map[int]string{329: major, 337: minor}}.String()
		}
	)
	cases := [][3]string{ // name, stream without an end, text in the error if the stream is refused
		// Files and directories.
		{"file with slash and content", rawFile("p/", inner), "ambiguous"},
		{"file with slash", rawFile("p/", ""), "ambiguous"},
		{"file with slash in a PAX path", pax('x', "path", "p/") + rawFile("f", inner),
			"ambiguous"},
		{"file with slash in a GNU name", gnuLong('L', "p/") + rawFile("f", inner), "ambiguous"},
		{"file without slash in a PAX path", pax('x', "path", "p") + rawFile("f/", inner), ""},
		{"contiguous file", rawHeader{flag: '7', name: "f"}.with("abc"), ""},
		{"contiguous file with slash", rawHeader{flag: '7', name: "f/"}.with(inner), "ambiguous"},
		{"old file", rawHeader{name: "f", magic: v7Magic}.with("abc"), ""},
		{"old directory", rawHeader{name: "d/", magic: v7Magic}.String(), ""},
		{"old directory with size", rawHeader{name: "d/", magic: v7Magic, size: 512}.String(), ""},
		{"old directory by a PAX path", pax('x', "path", "d/") + rawHeader{name: "f"}.String(), ""},
		{"old file by a PAX path", pax('x', "path", "f") + rawHeader{name: "d/"}.with("abc"), ""},
		{"directory with size", rawHeader{flag: TypeDir, name: "d", size: 512}.String(), ""},
		{"directory with size in PAX", pax('x', "size", "512") + rawHeader{flag: TypeDir,
			name: "d"}.String(), ""},
		{"hard link with size", a + rawHeader{flag: TypeHardlink, name: "h", link: "a",
			size: 4}.String(), ""},
		{"symbolic link with size", rawHeader{flag: TypeSymlink, name: "s", link: "a",
			size: 4}.String(), ""},
		{"symbolic link with slash", rawHeader{flag: TypeSymlink, name: "s/", link: "a"}.String(),
			""},
		{"fifo with size", rawHeader{flag: TypeFifo, name: "p", size: 512}.String(), ""},
		{"device with size", rawHeader{flag: TypeChar, name: "c", size: 512}.String(), ""},
		{"empty name", rawFile("", "x"), ""},
		{"empty link", rawHeader{flag: TypeSymlink, name: "s"}.String(), ""},
		{"unknown type M", rawHeader{flag: 'M', name: "m"}.with("abc"), "unknown type"},
		{"unknown type D", rawHeader{flag: 'D', name: "m"}.with("abc"), "unknown type"},
		{"unknown type X", pax('X', "path", "p") + a, "unknown type"},
		{"volume label", rawHeader{flag: 'V', name: "label", magic: gnuMagic}.String(), ""},
		{"volume label with content", rawHeader{flag: 'V', name: "label"}.with(inner),
			"volume label"},
		{"volume label with content in PAX",
			pax('x', "size", "4") + rawHeader{flag: 'V', name: "label"}.String(), "volume label"},
		{"volume label between", pax('x', "path", "p") + gnuLong('K', "k") + rawHeader{flag: 'V',
			name: "label"}.String() + a, ""},

		// Headers before an entry.
		{"two PAX headers", pax('x', "path", "p") + pax('x', "uid", "5") + a, ""},
		{"two PAX headers with attributes", pax('x', "SCHILY.xattr.user.a", "1") + pax('x',
			"SCHILY.xattr.user.b", "2") + a, ""},
		{"two PAX headers with a map", pax('x', "GNU.sparse.map", "0,4", "GNU.sparse.numblocks",
			"1", "GNU.sparse.size", "9") + pax('x', "uid", "5") + a, ""},
		{"two GNU names", gnuLong('L', "one") + gnuLong('L', "two") + a, ""},
		{"GNU name, then an empty one", gnuLong('L', "one") + gnuLong('L', "") + a, ""},
		{"empty GNU name", gnuLong('L', "") + a, ""},
		{"empty GNU link", gnuLong('K', "") + rawHeader{flag: TypeSymlink, name: "s",
			link: "a"}.String(), ""},
		{"GNU link for a file", gnuLong('K', long) + a, ""},
		{"GNU name and PAX path", gnuLong('L', long) + pax('x', "path", "p") + a, "ambiguous"},
		{"PAX path and GNU name", pax('x', "path", "p") + gnuLong('L', long) + a, "ambiguous"},
		{"GNU name and the same PAX path", pax('x', "path", long) + gnuLong('L', long) + a, ""},
		{"GNU name and an empty PAX path", pax('x', "path", "") + gnuLong('L', long) + a, ""},
		{"GNU link and PAX linkpath", gnuLong('K', long) + pax('x', "linkpath",
			"p") + rawHeader{flag: TypeSymlink, name: "s", link: "a"}.String(), "ambiguous"},
		{"GNU name and the name of a sparse file",
			gnuLong('L', long) + sparse1("GNU.sparse.major", "1", "GNU.sparse.minor", "0"),
			"ambiguous"},
		{"GNU name with a zero byte", gnuLong('L', "one\x00two") + a, ""},
		{"global header", pax('g', "path", "g", "uid", "77", "size", "0",
			"SCHILY.xattr.user.a", "1") + a, ""},
		{"global header between", pax('x', "path", "p") + gnuLong('L', "p") + pax('g',
			"comment", "x") + a, ""},
		{"invalid global header", rawHeader{flag: 'g', name: "g"}.with("noise\n") + a,
			"extended header"},
		{"global header of two mebibytes", rawHeader{flag: 'g',
			name: "g"}.with(strings.Repeat("x", 2<<20)) + a, "2097152 bytes"},
		{"PAX header at the end", a + pax('x', "path", "p"), ""},
		{"GNU name at the end", a + gnuLong('L', "p"), ""},

		// PAX records.
		{"size in PAX", pax('x', "size", "4") + rawHeader{flag: TypeFile,
			name: "f"}.String() + padded("DATA"), ""},
		{"size in PAX smaller", pax('x', "size", "0") + rawFile("f", inner), ""},
		{"negative size in PAX", pax('x', "size", "-1") + a, "size"},
		{"size with plus in PAX", pax('x', "size", "+4") + a, ""},
		{"invalid size in PAX", pax('x', "size", "4 ") + a, "size"},
		{"path twice", pax('x', "path", "one", "path", "two") + a, ""},
		{"path deleted", pax('x', "path", "one", "path", "") + a, ""},
		{"attribute twice", pax('x', "SCHILY.xattr.user.a", "1", "SCHILY.xattr.user.a", "2") + a,
			""},
		{"empty attribute", pax('x', "SCHILY.xattr.user.a", "") + a, ""},
		{"attribute with zero bytes and =", pax('x', "SCHILY.xattr.user.a", "\x00=\x00\n") + a, ""},
		{"path with zero byte", pax('x', "path", "p\x00q") + a, "zero byte"},
		{"path with zero byte, then another",
			pax('x', "path", "p\x00q", "path", "p") + a, "zero byte"},
		{"user with zero byte", pax('x', "uname", "p\x00q") + a, "zero byte"},
		{"key with zero byte", pax('x', "pa\x00th", "p") + a, "extended header"},
		{"record without key", pax('x', "", "p") + a, "extended header"},
		{"record without =", rawHeader{flag: 'x', name: "x"}.with("8 path\n\n") + a,
			"extended header"},
		{"record with another length", rawHeader{flag: 'x', name: "x"}.with("99 path=p\n") + a,
			"extended header"},
		{"record with plus", rawHeader{flag: 'x', name: "x"}.with("+11 path=p\n") + a, ""},
		{"record with zeros", rawHeader{flag: 'x', name: "x"}.with("0012 path=p\n") + a, ""},
		{"zero bytes behind records", rawHeader{flag: 'x',
			name: "x"}.with(paxRecord("path", "p")+"\x00\x00") + a, "extended header"},
		{"invalid access time", pax('x', "atime", "noon") + a, "atime"},
		{"negative time", pax('x', "mtime", "-1.25") + a, ""},
		{"time before zero", pax('x', "mtime", "-0.5") + a, ""},
		{"time of many digits", pax('x', "mtime", "1.1234567899") + a, ""},
		{"time with a dot", pax('x', "mtime", "5.") + a, ""},
		{"character set", pax('x', "hdrcharset", "BINARY", "path", "\xff\xfe") + a, ""},
		{"owner in PAX", pax('x', "uid", "4294967294", "gid", "-2") + a, ""},
		{"owner -1 in PAX", pax('x', "uid", "-1") + a, "user or group number"},
		{"owner of 33 bits in PAX", pax('x', "gid", "8589934592") + a, "user or group number"},

		// Sparse files.
		{"sparse 0.0", sparse0(TypeFile, "f", "GNU.sparse.numblocks", "1", "GNU.sparse.offset",
			"1000", "GNU.sparse.numbytes", "3"), ""},
		{"sparse 0.0 without a length", sparse0(TypeFile, "f", "GNU.sparse.numblocks", "1",
			"GNU.sparse.offset", "1000"), "sparse"},
		{"sparse 0.0 with a comma", sparse0(TypeFile, "f", "GNU.sparse.numblocks", "1",
			"GNU.sparse.offset", "0,1", "GNU.sparse.numbytes", "3"), "sparse"},
		{"sparse 0.1", sparse0(TypeFile, "f", "GNU.sparse.name", "sparse", "GNU.sparse.numblocks",
			"1", "GNU.sparse.map", "1000,3"), ""},
		{"sparse 0.1 with versions", sparse0(TypeFile, "f", "GNU.sparse.major", "0",
			"GNU.sparse.minor", "1", "GNU.sparse.numblocks", "1", "GNU.sparse.map", "1000,3"), ""},
		{"sparse 0.1 of a file of type 0", sparse0(0, "f", "GNU.sparse.name", "sparse/",
			"GNU.sparse.numblocks", "1", "GNU.sparse.map", "1000,3"), "ambiguous"},
		{"sparse 0.1 of an old directory", sparse0(0, "d/", "GNU.sparse.name", "sparse",
			"GNU.sparse.numblocks", "1", "GNU.sparse.map", "1000,3"), "sparse"},
		{"sparse 0.1 with another number of segments",
			sparse0(TypeFile, "f", "GNU.sparse.numblocks", "2", "GNU.sparse.map", "1000,3"),
			"segments"},
		{"sparse 0.1 without the number of segments",
			sparse0(TypeFile, "f", "GNU.sparse.map", "1000,3"), "number"},
		{"sparse 0.1 with overlap", sparse0(TypeFile, "f", "GNU.sparse.numblocks", "2",
			"GNU.sparse.map", "1000,2,1001,1"), "segment"},
		{"sparse 0.1 with more stored", sparse0(TypeFile, "f", "GNU.sparse.numblocks", "1",
			"GNU.sparse.map", "1000,2"), "stored"},
		{"sparse 0.1 with an empty map", sparse0(TypeFile, "f", "GNU.sparse.numblocks", "0",
			"GNU.sparse.map", ""), "ambiguous"},
		{"sparse map of a directory", sparse0(TypeDir, "d", "GNU.sparse.numblocks", "1",
			"GNU.sparse.map", "0,3"), "sparse"},
		{"sparse 1.0", sparse1("GNU.sparse.major", "1", "GNU.sparse.minor", "0"), ""},
		{"sparse 1.0 with the size in PAX", sparse1("GNU.sparse.major", "1", "GNU.sparse.minor",
			"0", "size", "515"), ""},
		{"sparse 1.0 with two sizes", sparse1("GNU.sparse.major", "1", "GNU.sparse.minor", "0",
			"GNU.sparse.size", "1900"), "ambiguous"},
		{"sparse 1.1", sparse1("GNU.sparse.major", "1", "GNU.sparse.minor", "1"), "ambiguous"},
		{"sparse 2.0", sparse1("GNU.sparse.major", "2", "GNU.sparse.minor", "0"), "ambiguous"},
		{"sparse 1 without minor", sparse1("GNU.sparse.major", "1"), "ambiguous"},
		{"sparse name without a map", pax('x', "GNU.sparse.name", "sparse", "GNU.sparse.realsize",
			"2000") + a, "ambiguous"},
		{"sparse 1.0 with a long map", pax('x', "GNU.sparse.major", "1", "GNU.sparse.minor", "0",
			"GNU.sparse.realsize", "10") +
			rawFile("f", padded("100000\n"+strings.Repeat("0\n0\n", 100000))), ""},
		{"sparse 1.0 with a map of two mebibytes",
			pax('x', "GNU.sparse.major", "1", "GNU.sparse.minor", "0",
				"GNU.sparse.realsize", "10") +
				rawFile("f", padded("500000\n"+strings.Repeat("0\n0\n", 500000))), "1048576 bytes"},
		{"old sparse", oldSparseFile(gnuMagic, 0), ""},
		{"old sparse with blocks", oldSparseFile(gnuMagic, 3), ""},
		{"old sparse with 2047 blocks", oldSparseFile(gnuMagic, 2047), ""},
		{"old sparse with 2048 blocks", oldSparseFile(gnuMagic, 2048), "1048576 bytes"},
		{"old sparse in ustar", oldSparseFile(ustarMagic, 0), "sparse"},
		{"old sparse and PAX", pax('x', "GNU.sparse.map", "0,3", "GNU.sparse.numblocks",
			"1") + oldSparseFile(gnuMagic, 0), "ambiguous"},

		// Formats of header blocks.
		{"GNU magic with a prefix", rawHeader{flag: TypeFile, name: "f", magic: gnuMagic,
			fields: map[int]string{345: "prefix"}}.String(), ""},
		{"GNU magic with times", rawHeader{flag: TypeFile, name: "f", magic: gnuMagic,
			fields: map[int]string{345: "00000000005\x0000000000006\x00"}}.String(), ""},
		{"GNU magic with a prefix that is no ASCII",
			rawHeader{flag: TypeFile, name: "f", magic: gnuMagic,
				fields: map[int]string{345: "pr\u00e4fix"}}.String(), ""},
		{"GNU magic of another version", rawHeader{flag: TypeFile, name: "f", magic: "ustar 00",
			fields: map[int]string{345: "prefix"}}.String(), ""},
		{"ustar with a prefix", field(345, "prefix"), ""},
		{"ustar of another version with a prefix",
			rawHeader{flag: TypeFile, name: "f", magic: "ustar\x0099",
				fields: map[int]string{345: "prefix"}}.String(), ""},
		{"ustar with a zero byte in the prefix", field(345, "p\x00q"), ""},
		{"ustar with a prefix and no name", rawHeader{flag: TypeDir,
			fields: map[int]string{345: "prefix"}}.String(), ""},
		{"star with a prefix", rawHeader{flag: TypeFile, name: "f",
			fields: map[int]string{345: strings.Repeat("p", 131),
				476: "00000000005\x0000000000006\x00", 508: "tar\x00"}}.String(), ""},
		{"star with an invalid time", rawHeader{flag: TypeFile, name: "f",
			fields: map[int]string{476: "noon", 508: "tar\x00"}}.String(), "time"},
		{"V7 with a prefix", rawHeader{flag: TypeFile, name: "f", magic: v7Magic,
			fields: map[int]string{345: "prefix"}}.String(), ""},
		{"V7 with a device number", rawHeader{flag: TypeChar, name: "c", magic: v7Magic,
			fields: map[int]string{329: "0000001\x000000003\x00"}}.String(), ""},
		{"zero byte in a name", rawFile("f\x00g", "x"), ""},
		{"name of 100 bytes", rawFile(strings.Repeat("n", 100), "x"), ""},

		// Numbers.
		{"number with spaces", field(108, "   7    "), ""},
		{"number with a zero byte and more", field(108, "7\x00\x00 9   "), ""},
		{"number with a space before a zero byte", field(108, "7 \x00x    "), "owner"},
		{"number with a space inside", field(108, "7 7     "), "owner"},
		{"number with plus", field(108, "+7\x00     "), "owner"},
		{"binary number", field(108, "\x80\x00\x00\x00\x00\x01\x00\x00"), ""},
		{"negative binary number", field(108, "\xff\xff\xff\xff\xff\xff\xff\xfe"), ""},
		{"negative time", field(136, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"), ""},
		{"time of 95 bits", field(136, "\x80\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), "time"},
		{"negative mode", field(100, "\xff\xff\xff\xff\xff\xff\xff\xff"), ""},
		{"negative size", field(124, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), "size"},
		{"invalid group", field(116, "wheel"), "group"},
		{"invalid device number of a file", field(329, "disk"), "device number"},
		{"device", device("0000001\x00", "0000003\x00"), ""},
		{"device of large numbers", device("0007777\x00", "3777777\x00"), ""},
		{"device of larger numbers", device("0010000\x00", "0000003\x00"), "device number"},
		{"device of negative numbers", device("0000001\x00", "\xff\xff\xff\xff\xff\xff\xff\xff"),
			"device number"},
		{"extended header with an invalid mode",
			rawHeader{flag: 'x', name: "x",
				fields: map[int]string{100: "rw"}}.with(paxRecord("path", "p")) + a, "mode"},

		// Checksums, padding and ends.
		{"signed checksum", rawHeader{flag: TypeFile, name: "\u00e4",
			fields: map[int]string{148: signedSum("\u00e4")}}.String(), ""},
		{"binary checksum", rawHeader{flag: TypeFile, name: "f",
			fields: map[int]string{148: "\x80\x00\x00\x00\x00\x00\x0e\x0e"}}.String(), "checksum"},
		{"files behind the end", a + end + inner, ""},
		{"noise behind the end", a + end + "noise", ""},
		{"a block of zeros", a + end[:512] + inner, "block of zeros"},
		{"noise in padding", rawFile("f", "x")[:513] + strings.Repeat("n", 511) + a, ""},
	}
	var all []reading
	for _, c := range cases {
		all = append(all, reading{name: c[0],
			data: []byte(c[1] + rawFile("last", "x") + end), refused: c[2]})
	}
	return append(all,
		reading{name: "no end", data: []byte(a)},
		reading{name: "half an end", data: []byte(a + end[:512])},
		reading{name: "nothing"},
		reading{name: "part of a header", data: []byte(a + inner[:100]), refused: "EOF"},
		reading{name: "part of an end", data: []byte(a + end[:600]), refused: "EOF"},
		reading{name: "part of a padding", data: []byte(rawFile("f", "x")[:600]), refused: "EOF"},
		reading{name: "part of content", data: []byte(rawFile("f", inner)[:600]), refused: "EOF"},
	)
}()

// reading is a stream and, if it is refused, a text in the error.
type reading struct {
	name    string
	data    []byte
	refused string
}

// signedSum returns the checksum, over signed bytes, of the header of an empty file with a name.
func signedSum(name string) string {
	sum := int64(0)
	for i, c := range []byte(rawHeader{flag: TypeFile, name: name}.String()) {
		if i >= 148 && i < 156 {
			c = ' '
		}
		sum += int64(int8(c))
	}
	return fmt.Sprintf("%06o\x00 ", sum)
}

// TestOneReading reads streams that readers of tar interpret in different ways. A Reader must read
// them like archive/tar, or refuse them.
func TestOneReading(t *testing.T) {
	for _, test := range readings {
		t.Run(test.name, func(t *testing.T) {
			accepted, err := sameReading(t, test.data)
			switch {
			case accepted && test.refused != "":
				t.Errorf("accepted, want an error with %q", test.refused)
			case !accepted && test.refused == "":
				t.Errorf("refused: %v", err)
			case !accepted && !strings.Contains(err.Error(), test.refused):
				t.Errorf("refused: %v, want an error with %q", err, test.refused)
			case !accepted && !errors.Is(err, ErrFormat) && !errors.Is(err, io.ErrUnexpectedEOF):
				t.Errorf("refused: %v, want ErrFormat", err)
			}
		})
	}
}

// deliberate are the errors for streams that archive/tar reads and a Reader does not.
var deliberate = []string{
	"ambiguous", "of a sparse file", "unknown type", "user or group number", "volume label",
	"with a zero byte", "device number",
	"unexpected EOF", // padding is missing
	"negative size", `size "-`, "the map has no numbers", "segments",
	"without a length", "extended header",
}

// TestScriptedStreams reads random sequences of valid headers. It checks that the scripts make all
// the kinds of streams for which they exist.
func TestScriptedStreams(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	accepted, standard := 0, 0
	const n = 4_000
	reasons := map[string]int{}
	for range n {
		data := scriptedStream(randomScript(random))
		ok, err := sameReading(t, data)
		if t.Failed() {
			t.FailNow()
		}
		want, standardErr := readStandard(data)
		if standardErr == nil {
			standard++
		}
		if ok {
			accepted++
		} else if standardErr == nil {
			i := slices.IndexFunc(deliberate, func(s string) bool {
				return strings.Contains(err.Error(), s)
			})
			if i < 0 {
				t.Fatalf("refused: %v, archive/tar reads\n%s\nof %.200q", err, want, data)
			}
			reasons[deliberate[i]]++
		}
	}
	t.Logf("of %d streams archive/tar reads %d, Reader %d; refused: %v", n,
		standard, accepted, reasons)
	if accepted < n/20 || accepted > n*9/10 {
		t.Errorf("%d of %d streams are accepted", accepted, n)
	}
}

// script determines the content of a stream. After its end it yields zeros.
type script struct{ b []byte }

func (s *script) byte() byte {
	if len(s.b) == 0 {
		return 0
	}
	c := s.b[0]
	s.b = s.b[1:]
	return c
}

func (s *script) pick(from []string) string { return from[int(s.byte())%len(from)] }

// one returns true once in n times.
func (s *script) one(n int) bool { return int(s.byte())%n == 1 }

var (
	scriptFlags = "000000\x00\x00122345555677SSVMDXZ"
	scriptNames = []string{"f", "d/", "a/b", "", "f", "g", ".", "../x", "n\x00m", "ä",
		strings.Repeat("n", 100), strings.Repeat("n", 99) + "/"}
	scriptMagics = []string{ustarMagic, ustarMagic, gnuMagic, gnuMagic, v7Magic,
		"ustar\x0099", "ustar 00"}
	scriptNumbers = []string{"0", "00000000", "7\x00 ", " 7 ", "7 \x00x", "777777777777",
		"\x80\x00\x00\x00\x00\x00\x00\x01", "\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff\xfe",
		"-1", "x", "\x80\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}
	scriptFields = []int{100, 108, 116, 124, 136, 329, 337, 345, 357, 476, 488, 386,
		398, 410, 422, 482, 483}
	scriptKeys = []string{
		"path", "linkpath", "size", "uid", "gid", "mtime", "atime", "uname", "comment",
		"SCHILY.xattr.user.a", "SCHILY.xattr.user.b",
		"GNU.sparse.name", "GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.size",
		"GNU.sparse.realsize", "GNU.sparse.numblocks",
		"GNU.sparse.map", "GNU.sparse.offset", "GNU.sparse.numbytes",
	}
	scriptValues = []string{"", "p", "p/", "0", "1", "2", "3", "+4", "-1", "-1.5", "4.", "512",
		"515", "2000", "1000,3", "0,1,1,2", "1,", "a\x00b", "5000000000", "x=y"}
	scriptContents = []string{
		"", "", "abc", "AAAA", padded("1\n1000\n3\n") + "abc", padded("0\n"),
		padded("2\n0\n1\n1\n2\n") + "abc",
		rawFile("inner", "x"), pax('x', "path", "inner"), padded("1\n"), strings.Repeat("9", 600),
	}
	// scriptSparse has sets of records that belong together.
	scriptSparse = [][]string{
		{"GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "s",
			"GNU.sparse.realsize", "2000"},
		{"GNU.sparse.name", "s", "GNU.sparse.size", "2000", "GNU.sparse.numblocks", "1",
			"GNU.sparse.map", "1000,3"},
		{"GNU.sparse.size", "2000", "GNU.sparse.numblocks", "1", "GNU.sparse.offset", "1000",
			"GNU.sparse.numbytes", "3"},
	}
)

// scriptedStream makes a stream of headers with valid checksums, most of which are meaningful.
func scriptedStream(b []byte) []byte {
	s := &script{b}
	var out strings.Builder
	for len(s.b) > 0 && out.Len() < 32<<10 {
		switch s.byte() % 12 {
		default:
			out.WriteString(s.entry())
		case 5, 6:
			out.WriteString(s.pax('x'))
		case 7:
			out.WriteString(pax('x', scriptSparse[int(s.byte())%len(scriptSparse)]...))
			out.WriteString(rawHeader{flag: scriptFlags[int(s.byte())%10],
				name: s.pick(scriptNames)}.with(s.pick(scriptContents)))
		case 8:
			out.WriteString(s.pax('g'))
		case 9:
			out.WriteString(gnuLong("LK"[s.byte()%2], s.pick(append(scriptNames, scriptValues...))))
		case 10:
			if s.one(4) {
				out.WriteString(strings.Repeat("\x00", 512*(1+int(s.byte()%2))))
			}
		case 11:
			out.WriteString(oldSparseFile(s.pick(scriptMagics[:4]), int(s.byte()%4)))
		}
	}
	switch s.byte() % 4 {
	case 0, 1:
		out.WriteString(strings.Repeat("\x00", 1024))
	case 2:
		out.WriteString(strings.Repeat("\x00", 512))
	}
	return []byte(out.String())
}

func (s *script) entry() string {
	h := rawHeader{flag: scriptFlags[int(s.byte())%len(scriptFlags)], name: s.pick(scriptNames),
		link: s.pick(scriptNames), magic: s.pick(scriptMagics)}
	content := s.pick(scriptContents)
	if strings.IndexByte("123456V", h.flag) >= 0 && !s.one(4) {
		content = ""
	}
	h.size = len(content)
	h.fields = map[int]string{}
	if s.one(6) {
		h.fields[345] = s.pick(scriptNames)
	}
	if s.one(10) {
		h.fields[508] = "tar\x00"
	}
	for s.one(6) && len(h.fields) < 4 {
		h.fields[scriptFields[int(s.byte())%len(scriptFields)]] = s.pick(scriptNumbers)
	}
	if s.one(12) {
		h.size = int(s.byte())
	}
	return h.String() + padded(content)
}

func (s *script) pax(flag byte) string {
	var records []string
	if s.one(8) {
		records = append(records, scriptSparse[int(s.byte())%len(scriptSparse)]...)
	}
	for len(records) < 2 || s.one(2) && len(records) < 12 {
		records = append(records, s.pick(scriptKeys), s.pick(scriptValues))
	}
	return pax(flag, records...)
}

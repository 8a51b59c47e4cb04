package sbom

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

// maxGrowth is the memory that the reading of a hostile file may use beside the file.
const maxGrowth = 128 << 20

// peakOf returns the largest size of the heap while a function runs, beyond the size before.
func peakOf(run func()) uint64 {
	defer debug.SetGCPercent(debug.SetGCPercent(10)) // to measure what is in use
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	before, peak := m.HeapAlloc, m.HeapAlloc
	stop, done := make(chan bool), make(chan bool)
	go func() {
		defer close(done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapAlloc)
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	run()
	close(stop)
	<-done
	return peak - before
}

// TestMemory reads files whose content takes many times its size when it is read the simple way.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("reads hundreds of megabytes")
	}
	modules := func(line string, size int) []byte {
		list := strings.Repeat("0", 16) + "path\tx\nmod\tx\tv1\t\n" +
			strings.Repeat(line, size/len(line)) + strings.Repeat("0", 16)
		info := append([]byte(goMark), 8, 2)
		info = append(info, make([]byte, 16)...)
		for _, s := range []string{"go1.26", list} {
			info = append(binary.AppendUvarint(info, uint64(len(s))), s...)
		}
		return elfWith(t, ".go.buildinfo", info)
	}
	crates := func(list string) []byte {
		return elfWith(t, cargoSection, compressed(t, `{"packages":[`+list+`{}]}`))
	}
	const size = 160 << 20
	for name, c := range map[string]struct {
		path string
		data io.ReaderAt
		size int64
	}{
		"modules":  {path: "x", data: bytes.NewReader(modules("dep\t\t\n", maxBuildInfo-1<<20))},
		"settings": {path: "x", data: bytes.NewReader(modules("build\ta=\n", maxBuildInfo-1<<20))},
		"crates":   {path: "x", data: bytes.NewReader(crates(strings.Repeat("{},", 5<<20)))},
		"few crates": {path: "x",
			data: bytes.NewReader(crates(strings.Repeat("{},", maxCrates/3-10)))},
		"ndb, pages": {"var/lib/rpm/Packages.db", ndbHead(size/ndbPage, 0), size},
		"ndb, blob":  {"var/lib/rpm/Packages.db", ndbHead(1, size-2*ndbPage), size},
		"bdb":        {"var/lib/rpm/Packages", bdbChain(size), size},
		"jar":        {path: "x.jar", data: bytes.NewReader(nestedJar(t, 250_000, 0))},
		"jar, large": {path: "x.jar", data: bytes.NewReader(nestedJar(t, 1, maxInner-1<<20))},
	} {
		t.Run(name, func(t *testing.T) {
			if c.size == 0 {
				c.size = c.data.(*bytes.Reader).Size()
			}
			file := &content{path: c.path, size: c.size, ReaderAt: c.data}
			head := make([]byte, headSize)
			if _, err := c.data.ReadAt(head, 0); err != nil {
				t.Fatal(err)
			}
			cat := catalogerOf(c.path, head)
			if cat == nil {
				t.Fatal("no cataloger reads the file")
			}
			var err error
			if peak := peakOf(func() { _, err = cat.read(file) }); peak > maxGrowth {
				t.Errorf("the heap grew by %d MiB, error %v", peak>>20, err)
			}
		})
	}
}

// ndbHead returns a database in the format ndb with pages of slots, and one package of a size.
func ndbHead(pages uint32, size uint32) zeroes {
	b := append([]byte(ndbMagic), make([]byte, 2*ndbPage)...)[:2*ndbPage+16]
	binary.LittleEndian.PutUint32(b[12:], pages)
	if size > 0 {
		copy(b[2*ndbSlot:], ndbSlotMagic)
		binary.LittleEndian.PutUint32(b[2*ndbSlot+4:], 1)
		binary.LittleEndian.PutUint32(b[2*ndbSlot+8:], 2*ndbPage/ndbBlock)
		copy(b[2*ndbPage:], ndbBlobMagic)
		binary.LittleEndian.PutUint32(b[2*ndbPage+4:], 1)
		binary.LittleEndian.PutUint32(b[2*ndbPage+12:], size-16)
	}
	return zeroes{b}
}

// zeroes is a file that begins with some bytes and goes on with zeros.
type zeroes struct{ head []byte }

func (z zeroes) ReadAt(p []byte, offset int64) (int, error) {
	clear(p)
	if offset < int64(len(z.head)) {
		copy(p, z.head[offset:])
	}
	return len(p), nil
}

// bdbChain returns a database of Berkeley DB with one package on all of its pages.
func bdbChain(size int64) bdbPages {
	const page = 64 << 10
	b := make([]byte, 2*page)
	binary.LittleEndian.PutUint32(b[12:], bdbHashMagic)
	binary.LittleEndian.PutUint32(b[20:], page)
	binary.LittleEndian.PutUint32(b[32:], 1)
	p := b[page:]
	p[25] = bdbHash
	binary.LittleEndian.PutUint16(p[20:], 2)
	binary.LittleEndian.PutUint16(p[bdbHead:], page-4)
	binary.LittleEndian.PutUint16(p[bdbHead+2:], page-20)
	p[page-20] = bdbOffPage
	binary.LittleEndian.PutUint32(p[page-16:], 2)
	binary.LittleEndian.PutUint32(p[page-12:], uint32((size/page-2)*(page-bdbHead)))
	return bdbPages{zeroes{b}}
}

// bdbPages is a file whose pages after the first two are those of one value.
type bdbPages struct{ zeroes }

func (b bdbPages) ReadAt(p []byte, offset int64) (int, error) {
	n, err := b.zeroes.ReadAt(p, offset)
	const page = 64 << 10
	if offset >= 2*page && len(p) == page {
		binary.LittleEndian.PutUint32(p[16:], uint32(offset/page)+1)
		binary.LittleEndian.PutUint16(p[22:], page-bdbHead)
		p[25] = bdbOverflow
	}
	return n, err
}

// nestedJar returns an archive in archives, each of which has the number of empty files and a file
// of the size.
func nestedJar(t *testing.T, files, size int) []byte {
	t.Helper()
	var jar []byte
	for range maxNested + 1 {
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		add := func(name string, method uint16, data []byte) {
			w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: method})
			if err == nil {
				_, err = w.Write(data)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if jar != nil {
			add("i.jar", zip.Deflate, jar)
		}
		for range files {
			add("a", zip.Store, nil)
		}
		add("b", zip.Store, make([]byte, size))
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		jar = b.Bytes()
	}
	return jar
}

// TestLongNames reads layers whose names take more memory than their content.
func TestLongNames(t *testing.T) {
	const text = `{"name":"x","version":"1"}`
	long := strings.Repeat("a/", maxPath/2)
	d := scanned(t, layerOf(t, entry{path: long + "package.json", content: text},
		entry{path: docDir + "/x", link: "-> " + long + "x"},
		entry{path: "b/package.json", content: text}))
	equal(t, lines(d), "1 pkg:npm/x@1 b/package.json")
	deep := long[:maxPath-100]
	var files []entry
	for i := range maxWeight/(48*len(deep)/2) + 1 {
		files = append(files, entry{path: fmt.Sprint(i, "/", deep, "package.json"), content: text})
	}
	if _, err := Scan(t.Context(), imageOf(layerOf(t, files...))); !errors.Is(err, errTooMany) {
		t.Errorf("Scan of %d deep files: %v, want %v", len(files), err, errTooMany)
	}
}

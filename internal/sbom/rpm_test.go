package sbom

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const rpmSample = `
	alpha 1.2.3-1 noarch alpha-1.2.3-1.src.rpm The Vendor ["MIT"]
	beta 4:2.0~rc1-3.el9 noarch beta-2.0~rc1-3.el9.src.rpm The Vendor ["GPL-2.0-or-later AND MIT"]
	gamma-libs 0.9-7 noarch gamma-libs-0.9-7.src.rpm The Vendor ["(MIT OR Apache-2.0)"]`

// rpmHeaders returns the headers of the sample.
func rpmHeaders(t testing.TB) [][]byte {
	t.Helper()
	data := fixture(t, "rpm/rpmdb.sqlite.gz")
	var list [][]byte
	err := readSQLite(&blocks{r: bytes.NewReader(data), size: int64(len(data)),
		left: 4 * int64(len(data))}, func(header []byte) error {
		list = append(list, slices.Clone(header))
		return nil
	})
	if err != nil || len(list) != 3 {
		t.Fatalf("%d headers, error %v", len(list), err)
	}
	return list
}

// ndbOf returns a database in the format ndb.
func ndbOf(headers [][]byte) []byte {
	le := binary.LittleEndian
	head := make([]byte, 2*ndbSlot)
	copy(head, ndbMagic)
	le.PutUint32(head[12:], 1) // pages of slots
	var blobs []byte
	for i, h := range headers {
		slot, blob := make([]byte, ndbSlot), make([]byte, 16, 16+len(h))
		copy(slot, ndbSlotMagic)
		copy(blob, ndbBlobMagic)
		le.PutUint32(slot[4:], uint32(i+1))
		le.PutUint32(slot[8:], uint32(ndbPage+len(blobs))/ndbBlock)
		le.PutUint32(blob[4:], uint32(i+1))
		le.PutUint32(blob[12:], uint32(len(h)))
		blob = append(blob, h...)
		blobs = append(blobs, append(blob, make([]byte, -len(blob)&15+16)...)...)
		head = append(head, slot...)
	}
	return append(append(head, make([]byte, ndbPage-len(head))...), blobs...)
}

// TestRPM reads a database of each format. The names of the packages and their order are those that
// rpm -qa prints.
func TestRPM(t *testing.T) {
	for name, c := range map[string]struct {
		path string
		data []byte
	}{
		"sqlite":          {"var/lib/rpm/rpmdb.sqlite", fixture(t, "rpm/rpmdb.sqlite.gz")},
		"bdb":             {"var/lib/rpm/Packages", fixture(t, "rpm/Packages-512.gz")},
		"bdb, big-endian": {"var/lib/rpm/Packages", fixture(t, "rpm/Packages-4096-big-endian.gz")},
		"ndb":             {"usr/lib/sysimage/rpm/Packages.db", ndbOf(rpmHeaders(t))},
	} {
		t.Run(name, func(t *testing.T) {
			got := strings.Split(strings.TrimSuffix(packagesOf(t, c.path, c.data), "\n"), "\n")
			slices.Sort(got)
			equal(t, strings.Join(got, "\n")+"\n", rpmSample)
		})
	}
}

func TestRPMPackageURL(t *testing.T) {
	d := scanned(t,
		layerOf(t, entry{path: "etc/os-release", content: "ID=fedora\nVERSION_ID=40\n"}),
		layerOf(t, entry{path: "var/lib/rpm/rpmdb.sqlite",
			content: string(fixture(t, "rpm/rpmdb.sqlite.gz"))}),
		// the database moves and changes its format, and the packages stay
		layerOf(t, entry{path: "var/lib/.wh.rpm"}, entry{path: "usr/lib/sysimage/rpm/Packages.db",
			content: string(ndbOf(rpmHeaders(t)[:2]))}))
	const at = " usr/lib/sysimage/rpm/Packages.db"
	for i, want := range []string{"beta@2.0~rc1-3.el9?arch=noarch&distro=fedora-40&epoch=4" +
		"&upstream=beta-2.0~rc1-3.el9.src.rpm",
		"gamma-libs@0.9-7?arch=noarch&distro=fedora-40&upstream=gamma-libs-0.9-7.src.rpm"} {
		got := strings.Split(lines(d), "\n")[i]
		if want = "2 pkg:rpm/fedora/" + want + at; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// TestRPMDamaged reads databases of which a part is missing or changed.
func TestRPMDamaged(t *testing.T) {
	for at, data := range map[string][]byte{
		"var/lib/rpm/rpmdb.sqlite": fixture(t, "rpm/rpmdb.sqlite.gz"),
		"var/lib/rpm/Packages":     fixture(t, "rpm/Packages-512.gz"),
		"var/lib/rpm/Packages.db":  ndbOf(rpmHeaders(t)),
	} {
		for _, n := range []int{0, 10, 50, 80, 4000, 5000, 20000} {
			if _, err := read(t, at, data[:n]); err == nil {
				t.Errorf("%s: no error for the first %d bytes", at, n)
			}
		}
		for i := range 300 {
			changed := slices.Clone(data)
			changed[i*7919%len(changed)] ^= byte(1 << (i % 8))
			f, _ := read(t, at, changed)
			if len(f.packages) > 4 {
				t.Errorf("%s: %d packages after a change of byte %d", at, len(f.packages), i)
			}
		}
	}
}

// TestRPMLoops reads databases whose parts refer to each other in a circle.
func TestRPMLoops(t *testing.T) {
	bdb := fixture(t, "rpm/Packages-512.gz")
	for n := 1; n < len(bdb)/512; n++ {
		if page := bdb[512*n:]; page[25] == bdbOverflow {
			binary.LittleEndian.PutUint32(page[16:], uint32(n)) // the next page is the same
			binary.LittleEndian.PutUint16(page[22:], 0)         // and has no bytes
		}
	}
	sqlite := fixture(t, "rpm/rpmdb.sqlite.gz")
	root := sqlite[4096:8192]
	root[0] = sqliteInterior
	binary.BigEndian.PutUint16(root[3:], 0)
	binary.BigEndian.PutUint32(root[8:], 2)
	for at, data := range map[string][]byte{"var/lib/rpm/Packages": bdb,
		"var/lib/rpm/rpmdb.sqlite": sqlite} {
		if _, err := read(t, at, data); err == nil {
			t.Errorf("%s: no error", at)
		}
	}
}

// TestRealDatabases compares the numbers of packages in databases of distributions with those that
// rpm 4.18 -qa prints, without gpg-pubkey.
func TestRealDatabases(t *testing.T) {
	dir := os.Getenv("LAYERBUILD_RPMDB")
	if dir == "" {
		t.Skip("$LAYERBUILD_RPMDB does not name the directory pkg/testdata of the Go module " +
			"github.com/knqyf263/go-rpmdb@v0.0.0-20210911072402-73bd0ce46c49")
	}
	for name, want := range map[string]int{
		"centos5-plain": 110, "centos6-devtools": 262, "centos6-many": 325, "centos6-plain": 129,
		"centos7-devtools": 263, "centos7-httpd24": 222, "centos7-many": 395,
		"centos7-plain": 144, "centos7-python35": 342, "centos8-modularitylabel": 517,
	} {
		data, err := os.ReadFile(filepath.Join(dir, name, "Packages"))
		if err != nil {
			t.Fatal(err)
		}
		f, err := read(t, "var/lib/rpm/Packages", data)
		if err != nil || len(f.packages) != want {
			t.Errorf("%s: %d packages, want %d; error %v", name, len(f.packages), want, err)
		}
	}
}

// FuzzRPM reads hostile databases of each format.
func FuzzRPM(f *testing.F) {
	names := []string{"var/lib/rpm/Packages", "var/lib/rpm/Packages.db", "var/lib/rpm/rpmdb.sqlite"}
	f.Add(byte(0), fixture(f, "rpm/Packages-512.gz"))
	f.Add(byte(1), ndbOf(rpmHeaders(f)))
	f.Add(byte(2), fixture(f, "rpm/rpmdb.sqlite.gz"))
	f.Fuzz(func(t *testing.T, n byte, data []byte) {
		found, _ := read(t, names[int(n)%len(names)], data)
		size := 0
		for _, p := range found.packages {
			if p.Name == "" || p.Version == "" {
				t.Errorf("package %+v", p)
			}
			size += len(p.Name)
		}
		if size > 4*len(data) {
			t.Errorf("names of %d bytes in a database of %d", size, len(data))
		}
	})
}

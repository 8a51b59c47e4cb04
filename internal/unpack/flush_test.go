package unpack

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/layerbuild/layerbuild/internal/fstree"
	"github.com/layerbuild/layerbuild/internal/rounds"
)

// randomStream makes a stream in which names come several times, as different types and in any
// order.
//
// The stream has attributes only if it has whiteouts: unpacking an archive keeps the attributes of
// an existing directory, and cannot distinguish such a directory from one that was listed earlier
// in the archive.
func randomStream(rnd *rand.Rand, mode Whiteouts) string {
	whiteouts := mode != Literal
	name := func() string {
		parts := make([]string, 1+rnd.IntN(4))
		for i := range parts {
			parts[i] = string(rune('a' + rnd.IntN(3)))
		}
		return strings.Join(parts, "/")
	}
	var b strings.Builder
	for i := range 5 + rnd.IntN(40) {
		at := fmt.Sprintf("@%d", 1000+i)
		switch rnd.IntN(12) {
		case 0, 1, 2, 3, 4:
			fmt.Fprintf(&b, "dir %s %04o %s", name(),
				[]int{0o755, 0o700, 0o500, 0o2775}[rnd.IntN(4)], at)
			if whiteouts && rnd.IntN(3) == 0 {
				b.WriteString(" [user.x=1]")
			}
			b.WriteByte('\n')
		case 5:
			// In the other modes, a directory can be listed under its own name and through a link.
			// It has the attributes of one of the two entries.
			if mode != Overlay {
				continue
			}
			fmt.Fprintf(&b, "link %s %s -> %s\n", name(), at, name())
		case 6:
			fmt.Fprintf(&b, "hardlink %s => %s\n", name(), name())
		case 7, 8:
			if whiteouts {
				dir, base := filepath.Split(name())
				if rnd.IntN(3) == 0 && dir != "" {
					base = ".wh..opq"
				}
				fmt.Fprintf(&b, "file %s.wh.%s 0600\n", dir, base)
				continue
			}
			fallthrough
		default:
			fmt.Fprintf(&b, "file %s 0644 %s %d\n", name(), at, i)
		}
	}
	return b.String()
}

// TestFlush checks that a stream with more directories than are kept until the end results in the
// same tree.
func TestFlush(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: others cannot write to a directory once it has a mode without w")
	}
	modes := []Whiteouts{Literal, Delete, Overlay}
	rounds.Run(t, "unpack-flush", rounds.Options{Fixed: 60, Fresh: 20, Long: 20_000},
		func(t *testing.T, seed uint64) {
			rnd := rand.New(rand.NewPCG(seed, 0))
			o := mine(Options{Whiteouts: modes[rnd.IntN(len(modes))],
				FollowDirLinks: rnd.IntN(2) == 0})
			text := randomStream(rnd, o.Whiteouts)
			data := stream(t, text)
			unpack := func(pending int) (string, Stats, error) {
				dir := t.TempDir()
				if o.Whiteouts != Overlay {
					if err := fstree.Make(dir, "dir a 0755\ndir a/b 0755\n"+
						"file a/b/c 0600 @7 x\nfile b 0600 @7 x"); err != nil {
						t.Fatal(err)
					}
				}
				o.maxPending = pending
				stats, err := apply(t, dir, data, o)
				defer chmodAll(dir)
				if err != nil {
					return "", Stats{Entries: stats.Entries}, err
				}
				// A directory without an entry has the time when it was made. An existing directory
				// in which files were made has that time, or its previous time if its attributes
				// were set at the end.
				err = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
					if err != nil || !e.IsDir() {
						return err
					}
					if info, err := e.Info(); err == nil && info.ModTime().Unix() > 1e6 {
						return os.Chtimes(path, time.Time{}, time.Unix(0, 0))
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				tree, err := fstree.Print(dir, fstree.Show{Times: true, Xattrs: true})
				if err != nil {
					t.Fatal(err)
				}
				return tree, stats, nil
			}
			want, wantStats, wantErr := unpack(0)
			for _, pending := range []int{1, 3} {
				got, stats, err := unpack(pending)
				if err != nil && wantErr != nil {
					t.Logf("%v, %v", err, wantErr)
					continue // an earlier error is possible
				}
				if (err == nil) != (wantErr == nil) {
					t.Fatalf("pending %d: error = %v, want %v", pending, err, wantErr)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("pending %d, mode %d: -all at the end +early\n%s",
						pending, o.Whiteouts, diff)
				}
				if diff := cmp.Diff(wantStats, stats); diff != "" {
					t.Errorf("pending %d: -all at the end +early\n%s", pending, diff)
				}
			}
		})
}

// TestMaxNames checks that the memory for names that are kept to the end is limited.
func TestMaxNames(t *testing.T) {
	for _, format := range []string{"d%d/f", ".wh.f%d"} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for i := range 20 {
			w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf(format, i),
				Mode: 0o644})
		}
		w.Close()
		for limit, fails := range map[int]bool{0: false, 10_000: false, 500: true} {
			dir, err := os.Open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			o := Options{Whiteouts: OverlayUser, maxNames: limit,
				OnOwnerError: func(string, int, int, error) {}}
			_, err = Tar(t.Context(), bytes.NewReader(b.Bytes()), int(dir.Fd()), o)
			got := err != nil && strings.Contains(err.Error(), "too many whiteouts")
			if got != fails {
				t.Errorf("%s with a limit of %d: error %v", format, limit, err)
			}
		}
	}
}

// TestMaxPendingBytes checks that the memory for attributes that are kept to the end is limited. An
// attribute that every file system refuses shows when the directory gets its attributes.
func TestMaxPendingBytes(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range 300 {
		err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("d%d", i),
			PAXRecords: map[string]string{"SCHILY.xattr.user.": strings.Repeat("x", 64<<10)}})
		if err != nil {
			t.Fatal(err)
		}
	}
	b.WriteString("no header")
	set := 0
	o := Options{OnOwnerError: func(string, int, int, error) {},
		OnSkip: func(string, string, error) { set++ }}
	_, err := apply(t, t.TempDir(), b.Bytes(), o)
	if want := maxPendingBytes >> 16; err == nil || set < want || set > want+1 {
		t.Errorf("%d directories got their attributes, want %d; error %v", set, want, err)
	}
}

package executor

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/layerbuild/layerbuild/executor/copyfs"
	"github.com/layerbuild/layerbuild/executor/copyfs/copyfstest"
	"golang.org/x/sys/unix"
)

const (
	accessACL  = "system.posix_acl_access"
	defaultACL = "system.posix_acl_default"
)

// acl returns an access control list in the format of the extended attribute, with entries for the
// owner, user 7, the group, the mask and others.
func acl(owner, user, group, mask, other uint16) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, owner, 1<<32 - 1}, {2, user, 7}, {4, group, 1<<32 - 1}, {0x10, mask, 1<<32 - 1},
		{0x20, other, 1<<32 - 1}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// Access control lists are copied, and --chmod changes their mask, like chmod(1). A copy does not
// inherit the default list of the destination's directory.
func TestCopyACL(t *testing.T) {
	tests := []struct {
		name, chmod        string
		file, dir, dirNew  []byte // lists of the file and of the directory (access and default)
		inherit            bool   // the destination has a default list
		fileMode, dirMode  uint32
		wantFile, wantDir  []byte
		wantNew, wantPlain []byte
	}{
		{name: "kept", file: acl(6, 4, 0, 6, 0), dir: acl(7, 5, 0, 5, 0),
			dirNew:   acl(7, 7, 7, 7, 0),
			fileMode: 0o660, dirMode: 0o750, wantFile: acl(6, 4, 0, 6, 0),
			wantDir: acl(7, 5, 0, 5, 0), wantNew: acl(7, 7, 7, 7, 0)},
		{name: "with another mode", chmod: "640", file: acl(6, 6, 0, 6, 0), fileMode: 0o640,
			wantFile: acl(6, 6, 0, 4, 0), dirMode: 0o640},
		{name: "not inherited", inherit: true, fileMode: 0o644, dirMode: 0o755},
		{name: "kept and not inherited", inherit: true, file: acl(6, 4, 0, 6, 0), fileMode: 0o660,
			dirMode: 0o755, wantFile: acl(6, 4, 0, 6, 0)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if singleID {
				t.Skip("there is one id only")
			}
			im := newImage(t)
			im.mkdir("dest")
			src := copyfstest.Source(t, "dir d", "file d/f 0644 x", "file d/plain 0644 x")
			for name, list := range map[string]map[string][]byte{"d/f": {accessACL: tt.file},
				"d": {accessACL: tt.dir, defaultACL: tt.dirNew}} {
				for attr, value := range list {
					if value == nil {
						continue
					}
					if err := unix.Setxattr(filepath.Join(src.Name(), name), attr,
						value, 0); err != nil {
						t.Skip(err)
					}
				}
			}
			if tt.inherit {
				if err := unix.Setxattr(im.path("dest"), defaultACL,
					acl(7, 7, 7, 7, 7), 0); err != nil {
					t.Skip(err)
				}
			}
			im.mustRun(&copyfs.Copy{Dest: "/dest/", Chmod: tt.chmod,
				Sources: one(src, copyfs.Item{Path: ".", Contents: true})})
			for _, want := range []struct {
				name, attr string
				list       []byte
			}{{"f", accessACL, tt.wantFile}, {"", accessACL, tt.wantDir},
				{"", defaultACL, tt.wantNew}, {"plain", accessACL, tt.wantPlain}} {
				got := make([]byte, 200)
				n, err := unix.Getxattr(im.path("dest/d/"+want.name), want.attr, got)
				if want.list == nil && errors.Is(err, unix.ENODATA) {
					continue
				}
				if err != nil || string(got[:max(n, 0)]) != string(want.list) {
					t.Errorf("%s of d/%s: %x, %v, want %x", want.attr, want.name,
						got[:max(n, 0)], err, want.list)
				}
			}
			for name, want := range map[string]uint32{"f": tt.fileMode, "": tt.dirMode} {
				info, err := os.Stat(im.path("dest/d/" + name))
				if err != nil || uint32(info.Mode().Perm()) != want {
					t.Errorf("mode of d/%s: %v, %v, want %o", name, info.Mode(), err, want)
				}
			}
		})
	}
}

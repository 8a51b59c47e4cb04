package readers

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/internal/fstree"
	"github.com/layerbuild/layerbuild/test/lab"
)

// wasteful makes dead bytes of every kind, and live files of every kind around them.
const wasteful = dockerfile + `
USER root
RUN chmod 600 /t/keep && touch -d '2002-03-04 05:06:07' /t/xattr
RUN rm "/t/n a m e" && rm /t/sub/hard && mkdir /t/dir && echo 1 > /t/dir/1 && ln /t/dir/1 /t/one && ln -s dir /t/todir
RUN echo 2 > /t/todir/2 && rm -r /t/hidden && echo file > /t/hidden
RUN rm -r /t/dir && rm /t/hidden && mkdir /t/hidden && echo z > /t/hidden/z && rm /t/fifo /t/todir
RUN echo more >> /t/one && rm /bin/vi && rm -r /home
`

// TestPruned compares the files that umoci unpacks from an image and from the same image without
// dead bytes.
func TestPruned(t *testing.T) {
	lab.Root(t)
	lab.Need(t, "umoci")
	l := lab.New(t)
	l.Busybox()
	l.Write("ctx/Dockerfile", wasteful, "ctx/xattr", "x\n", "ctx/n a m e", "name\n")
	l.Run("build", "-t", "whole", "-o", "type=oci,tar=false,dest=whole", "ctx")
	l.Run("build", "-t", "slim", "-o", "type=oci,tar=false,dest=slim,prune-dead=true", "ctx")
	show := fstree.Show{Owners: true, Times: true, Xattrs: true, Plain: true}
	var trees [2]string
	var sizes [2]int64
	for i, name := range []string{"whole", "slim"} {
		bundle := filepath.Join(l.Dir, name+".bundle")
		lab.Output(t, "umoci", "unpack", "--image", oci(t, l, name), bundle)
		var err error
		if trees[i], err = fstree.Print(filepath.Join(bundle, "rootfs"), show); err != nil {
			t.Fatal(err)
		}
		for _, d := range l.Image(name).Manifest.Layers {
			sizes[i] += d.Size
		}
	}
	if diff := cmp.Diff(entries(trees[0]), entries(trees[1])); diff != "" {
		t.Errorf("umoci unpacks (-whole +slim):\n%s", diff)
	}
	if sizes[1] >= sizes[0] {
		t.Errorf("%d bytes without the dead bytes, %d with them", sizes[1], sizes[0])
	}
	if a, b := len(l.Image("whole").Manifest.Layers), len(l.Image("slim").Manifest.Layers); a != b {
		t.Errorf("%d layers, want %d", b, a)
	}
}

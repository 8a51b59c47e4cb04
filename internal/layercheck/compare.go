package layercheck

import (
	"fmt"
	"maps"

	"golang.org/x/sys/unix"
)

// Options restrict the comparison. The zero value compares everything that a layer can contain.
type Options struct {
	// Epoch, if not nil, is the latest time of an entry (SOURCE_DATE_EPOCH), in seconds since 1970.
	Epoch *int64
	// SkipLinked skips files that have several names in one of the trees.
	SkipLinked bool
}

// Compare returns a line for each difference between two trees: image is the parent with the layer
// applied, and step is the tree after the step. It does not compare the time of the root directory,
// which is not part of a layer.
func Compare(image, step *Tree, o Options) ([]string, error) {
	c := comparison{Options: o, image: map[*node]place{}, step: map[*node]place{}}
	err := c.directory("", image.root, step.root)
	return c.lines, err
}

// comparison walks two trees in parallel.
type comparison struct {
	Options
	lines []string
	// image and step contain, for each visited file, its first name and the other tree's node of
	// that name.
	image, step map[*node]place
}

type place struct {
	path  string
	other *node
}

func (c *comparison) differ(path, format string, args ...any) {
	c.lines = append(c.lines, fmt.Sprintf("%q: ", path)+fmt.Sprintf(format, args...))
}

func (c *comparison) directory(path string, image, step *node) error {
	name := path
	if name == "" {
		name = "."
	}
	if err := c.entry(name, image, step); err != nil {
		return err
	}
	for _, base := range names(image, step) {
		sub := base
		if path != "" {
			sub = path + "/" + base
		}
		a, b := image.children[base], step.children[base]
		switch {
		case c.skips(a) || c.skips(b):
		case a == nil:
			c.differ(sub, "the step has it (%s), the image does not", b.what())
		case b == nil:
			c.differ(sub, "the image has it (%s), the step does not", a.what())
		case a.isDir() && b.isDir():
			if err := c.directory(sub, a, b); err != nil {
				return err
			}
		default:
			c.links(sub, a, b)
			if err := c.entry(sub, a, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// links compares the sets of names of one file.
func (c *comparison) links(path string, image, step *node) {
	if first, ok := c.image[image]; ok && first.other != step {
		c.differ(path, "in the image it is one file with %q, for the step it is another",
			first.path)
	} else if !ok {
		c.image[image] = place{path, step}
	}
	if first, ok := c.step[step]; ok && first.other != image {
		c.differ(path, "for the step it is one file with %q, in the image it is another",
			first.path)
	} else if !ok {
		c.step[step] = place{path, image}
	}
}

// entry compares everything that a layer records for one name.
func (c *comparison) entry(path string, image, step *node) error {
	if image.kind() != step.kind() {
		c.differ(path, "the image has %s, the step %s", image.what(), step.what())
		return nil
	}
	if image.mode != step.mode {
		c.differ(path, "the image has mode %04o, the step %04o",
			image.mode&0o7777, step.mode&0o7777)
	}
	if image.uid != step.uid || image.gid != step.gid {
		c.differ(path, "the image has owner %d:%d, the step %d:%d", image.uid,
			image.gid, step.uid, step.gid)
	}
	if a, b := c.time(image), c.time(step); a != b && path != "." {
		c.differ(path, "the image has time %d, the step %d", a, b)
	}
	if image.link != step.link {
		c.differ(path, "the image has the link target %q, the step %q", image.link, step.link)
	}
	if image.major != step.major || image.minor != step.minor {
		c.differ(path, "the image has device %d:%d, the step %d:%d", image.major, image.minor,
			step.major, step.minor)
	}
	if !maps.Equal(image.xattrs, step.xattrs) {
		c.differ(path, "the image has attributes %q, the step %q", image.xattrs, step.xattrs)
	}
	if image.kind() != unix.S_IFREG {
		return nil
	}
	if image.size != step.size {
		c.differ(path, "the image has %d bytes, the step %d", image.size, step.size)
		return nil
	}
	same, err := sameContent(image, step)
	if err == nil && !same {
		c.differ(path, "the image has other content")
	}
	return err
}

func (c *comparison) time(n *node) int64 {
	if c.Epoch != nil {
		return min(n.sec, *c.Epoch)
	}
	return n.sec
}

func (c *comparison) skips(n *node) bool {
	return c.SkipLinked && n != nil && !n.isDir() && n.names > 1
}

// what returns the name of a file's type.
func (n *node) what() string {
	switch n.kind() {
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFREG:
		return "a file"
	case unix.S_IFLNK:
		return "a symbolic link"
	case unix.S_IFCHR:
		return "a character device"
	case unix.S_IFBLK:
		return "a block device"
	case unix.S_IFIFO:
		return "a fifo"
	}
	return fmt.Sprintf("a file of type %#o", n.kind())
}

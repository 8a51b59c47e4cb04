package sbom

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
)

// merger applies layer after layer. It keeps only the files in which packages were found, not all
// files of the image.
type merger struct {
	files map[string]*evidence // the files that exist after the layers so far, by path
	// below counts the files below each directory.
	below map[string]int
	// since has the layer in which each package of a set appeared.
	since    map[string]map[key]int
	weight   int // of files
	warnings []string
}

// evidence is a file in which a cataloger found something.
type evidence struct {
	path string
	set  string // of the packages that are compared from layer to layer
	findings
	// link is the target if the path is a symbolic link to the documentation of another package.
	link string
}

// key identifies a package within a set.
type key struct {
	kind                       Type
	group, name, version, arch string
}

func (p *Package) key() key { return key{p.Type, p.group, p.Name, p.Version, p.Arch} }

// maxWeight limits the memory of the packages of an image, as an estimate: about 400,000 packages.
// Images with the dependencies of many Node applications have some ten thousand.
const maxWeight = 256 << 20

var errTooMany = errors.New("the image lists too many packages")

// maxWarnings limits the warnings of a document.
const maxWarnings = 100

func newMerger() *merger {
	return &merger{files: map[string]*evidence{}, below: map[string]int{},
		since: map[string]map[key]int{}}
}

func (m *merger) warn(format string, args ...any) {
	if len(m.warnings) < maxWarnings {
		m.warnings = append(m.warnings, fmt.Sprintf(format, args...))
	}
}

// layer reads and applies the layer with an index.
func (m *merger) layer(ctx context.Context, index int, l Layer) error {
	s := newScan(m)
	read := l.Read
	if err := read(ctx, func(r io.Reader) error { return s.read(ctx, r) }); err != nil {
		return err
	}
	more, err := s.resolveLinks()
	if err != nil {
		return err
	}
	if more {
		err := read(ctx, func(r io.Reader) error { return s.readTargets(ctx, r) })
		if err != nil {
			return err
		}
	}
	return m.apply(index, s)
}

// apply removes the files that a layer hides or replaces, adds those that it has, and records which
// packages appeared.
func (m *merger) apply(index int, s *scan) error {
	touched := map[string]bool{}
	for at, e := range m.files {
		if s.hides(at) {
			m.remove(e)
			touched[e.set] = true
		}
	}
	for at, e := range s.found {
		if old := m.files[at]; old != nil {
			m.remove(old)
			touched[old.set] = true
		}
		m.add(e)
		touched[e.set] = true
	}
	if m.weight > maxWeight {
		return errTooMany
	}
	for set := range touched {
		m.update(index, set)
	}
	return nil
}

// update compares the packages of a set after a layer with those before it.
func (m *merger) update(index int, set string) {
	before, now := m.since[set], map[key]int{}
	add := func(e *evidence) {
		for i := range e.packages {
			k := e.packages[i].key()
			layer, ok := before[k]
			if !ok {
				layer = index
			}
			now[k] = layer
		}
	}
	if e := m.files[set]; e != nil && e.set == set {
		add(e) // a set of one file is named by its path
	} else {
		for _, e := range m.files {
			if e.set == set {
				add(e)
			}
		}
	}
	m.since[set] = now
	if len(now) == 0 {
		delete(m.since, set)
	}
}

func (m *merger) add(e *evidence) {
	m.files[e.path] = e
	m.weight += e.weight()
	for dir := path.Dir(e.path); ; dir = path.Dir(dir) {
		m.below[dir]++
		if dir == "." {
			return
		}
	}
}

func (m *merger) remove(e *evidence) {
	delete(m.files, e.path)
	m.weight -= e.weight()
	for dir := path.Dir(e.path); ; dir = path.Dir(dir) {
		if m.below[dir]--; m.below[dir] == 0 {
			delete(m.below, dir)
		}
		if dir == "." {
			return
		}
	}
}

// concerns reports whether a path is that of a file of lower layers, or of a directory above one.
func (m *merger) concerns(at string) bool { return m.files[at] != nil || m.below[at] > 0 }

// document returns the document of the files that exist after the last layer.
func (m *merger) document(image Layers) *Document {
	d := &Document{Image: image, Warnings: m.warnings}
	for _, at := range slices.Backward(osReleases) {
		if e := m.files[at]; e != nil && e.distro != nil {
			d.Distro = *e.distro
		}
	}
	index := map[string]int{} // by package URL
	for _, at := range slices.Sorted(maps.Keys(m.files)) {
		e := m.files[at]
		for _, p := range e.packages {
			place := Location{at, m.since[e.set][p.key()]}
			p.setPURL(d.Distro)
			i, ok := index[p.PURL]
			if !ok {
				i = len(d.Packages)
				index[p.PURL] = i
				p.Licenses = slices.Clone(p.Licenses)
				if p.Type == Deb {
					p.Licenses = append(p.Licenses, m.debLicenses(p.Name)...)
				}
				d.Packages = append(d.Packages, p)
			} else if have := &d.Packages[i]; true {
				have.Licenses = append(have.Licenses, p.Licenses...)
			}
			if have := &d.Packages[i]; !slices.Contains(have.Found, place) {
				have.Found = append(have.Found, place)
			}
		}
	}
	for i := range d.Packages {
		d.Packages[i].Licenses = unique(d.Packages[i].Licenses)
	}
	sortPackages(d.Packages)
	return d
}

// maxDocLinks limits the links from the documentation of one package to that of another.
const maxDocLinks = 8

// debLicenses returns the licenses of a Debian package. Its documentation may be a link to that of
// another package of the same source.
func (m *merger) debLicenses(name string) []string {
	dir := path.Join(docDir, name)
	for range maxDocLinks {
		if e := m.files[path.Join(dir, "copyright")]; e != nil {
			return e.licenses
		}
		e := m.files[dir]
		if e == nil || e.link == "" {
			return nil
		}
		if dir = path.Join(docDir, e.link); path.IsAbs(e.link) {
			dir = strings.TrimPrefix(path.Clean(e.link), "/")
		}
	}
	return nil
}

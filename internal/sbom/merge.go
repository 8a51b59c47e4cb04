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
	// since has the layer in which each package of a set of several files appeared.
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
	// layers has the layer in which each package appeared, if the set has no other file.
	layers []int
}

// alone reports whether the file is a set of its own.
func (e *evidence) alone() bool { return e.set == e.path }

// weight returns an estimate of the memory of the file with its findings, and of the directories
// above it.
func (e *evidence) weight() int {
	n := len(e.path) + len(e.link) + 48*strings.Count(e.path, "/")
	if !e.alone() {
		n += 128 * len(e.packages) // in merger.since
	}
	return n + e.findings.weight()
}

// key identifies a package within a set.
type key struct {
	kind                       Type
	group, name, version, arch string
}

func (p *Package) key() key { return key{p.Type, p.group, p.Name, p.Version, p.Arch} }

// maxWeight limits the memory of the packages of an image, as an estimate: about 100,000 packages
// that have a file each. The document takes as much again. Images with the dependencies of many
// Node applications have some ten thousand.
const maxWeight = 96 << 20

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
	removed := map[string]*evidence{} // those that are replaced
	remove := func(at string, e *evidence) {
		m.remove(e)
		if !e.alone() {
			touched[e.set] = true
		} else if s.found[at] != nil {
			removed[at] = e
		}
	}
	for at, e := range m.files {
		if s.hides(at) {
			remove(at, e)
		}
	}
	for at, e := range s.found {
		if old := m.files[at]; old != nil {
			remove(at, old)
		}
		m.add(e)
		if e.alone() {
			e.appeared(index, removed[at])
		} else {
			touched[e.set] = true
		}
	}
	if m.weight > maxWeight {
		return errTooMany
	}
	for set := range touched {
		m.update(index, set)
	}
	return nil
}

// appeared sets the layers in which the packages of a file appeared. old is the file that it
// replaces, or nil.
func (e *evidence) appeared(index int, old *evidence) {
	before := map[key]int{}
	if old != nil {
		for i := range old.packages {
			before[old.packages[i].key()] = old.layers[i]
		}
	}
	e.layers = make([]int, len(e.packages))
	for i := range e.packages {
		layer, ok := before[e.packages[i].key()]
		if !ok {
			layer = index
		}
		e.layers[i] = layer
	}
}

// update compares the packages of a set of several files after a layer with those before it.
func (m *merger) update(index int, set string) {
	before, now := m.since[set], map[key]int{}
	for _, e := range m.files {
		if e.set != set {
			continue
		}
		for i := range e.packages {
			k := e.packages[i].key()
			layer, ok := before[k]
			if !ok {
				layer = index
			}
			now[k] = layer
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
	for dir := parent(e.path); ; dir = parent(dir) {
		m.below[dir]++
		if dir == "." {
			return
		}
	}
}

func (m *merger) remove(e *evidence) {
	delete(m.files, e.path)
	m.weight -= e.weight()
	for dir := parent(e.path); ; dir = parent(dir) {
		if m.below[dir]--; m.below[dir] == 0 {
			delete(m.below, dir)
		}
		if dir == "." {
			return
		}
	}
}

// parent returns the directory of a clean relative path. Unlike path.Dir it does not read the whole
// path.
func parent(at string) string {
	if i := strings.LastIndexByte(at, '/'); i >= 0 {
		return at[:i]
	}
	return "."
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
		for i, p := range e.packages {
			place := Location{at, m.layerOf(e, i)}
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
			d.Packages[i].addPlace(place)
		}
	}
	for i := range d.Packages {
		d.Packages[i].Licenses = unique(d.Packages[i].Licenses)
	}
	sortPackages(d.Packages)
	return d
}

// addPlace adds a place. Those of the same path are at the end of the list.
func (p *Package) addPlace(place Location) {
	for _, l := range slices.Backward(p.Found) {
		if l == place {
			return
		}
		if l.Path != place.Path {
			break
		}
	}
	p.Found = append(p.Found, place)
}

// layerOf returns the layer in which a package of a file appeared.
func (m *merger) layerOf(e *evidence, i int) int {
	if e.alone() {
		return e.layers[i]
	}
	return m.since[e.set][e.packages[i].key()]
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

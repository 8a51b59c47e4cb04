package source

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"path"
	"path/filepath"
	"slices"
	"strings"

	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/pattern"
	"github.com/layerbuild/layerbuild/internal/safepath"
)

// matching is the state of one call of Match.
type matching struct {
	t *Tree
	// ctx is that of Match. It is stored because the functions that call each other for each
	// directory and file pass it on only to check it now and then.
	ctx     context.Context
	keep    bool   // owners are part of the digest
	epoch   *int64 // earlier times are part of the digest
	parents bool
	plain   bool // no pattern has wildcards
	root    bool // the attributes of a directory whose contents are matched are part of the digest
	list    bool // file contents are not part of the digest
	exclude *pattern.Matcher

	sockets []string // paths of sockets, which are left out

	out Match
	// device and inode of a file with several names, with the number of the first name
	links map[linked]uint64

	hash    hash.Hash // of all matched files
	rec     []byte    // bytes that have not been written to hash yet
	content hash.Hash // of one file
	digest  [sha256.Size]byte

	st     unix.Statx_t
	data   []byte
	text   [unix.PathMax]byte
	lists  []*dirfd.Names // one for each level of nested directories
	names  arena
	joined []byte
	one    string // the path of the current single file
	ticks  int
}

const (
	digestVersion      = "layerbuild source 1\n"
	digestVersionTimes = "layerbuild source 2 with times\n"
	recordChunk        = 32 << 10
	readChunk          = 512 << 10
)

func (t *Tree) newMatching(ctx context.Context, q Query) (*matching, error) {
	exclude, err := pattern.New(q.Exclude)
	if err != nil {
		return nil, fmt.Errorf("read --exclude: %w", err)
	}
	version := digestVersion
	if q.Epoch != nil {
		version = digestVersionTimes
	}
	return &matching{
		t: t, ctx: ctx, keep: q.KeepOwner, epoch: q.Epoch, parents: q.Parents, plain: q.Literal,
		root: q.Root, exclude: exclude,
		links: map[linked]uint64{},
		hash:  sha256.New(),
		rec:   append(make([]byte, 0, recordChunk+1024), version...),
	}, nil
}

func (m *matching) result() *Match {
	m.flush()
	m.out.Sockets = m.sockets
	m.out.Frozen = m.t.freezer.dirOf(m.out.Items)
	m.out.Digest = digest.NewDigest(digest.SHA256, m.hash)
	return &m.out
}

// pattern matches one source of the instruction.
func (m *matching) pattern(p string) error {
	if m.parents {
		return m.parentsPattern(p)
	}
	name := path.Join("/", p)[1:]
	if m.plain || !hasWildcards(name) {
		return m.literal(name)
	}
	before := len(m.out.Items)
	if err := m.wildcard(name); err != nil {
		return err
	}
	if len(m.out.Items) == before {
		m.out.Unmatched = append(m.out.Unmatched, p)
	}
	return nil
}

// hasWildcards reports whether a pattern has wildcards. A backslash escapes the next character
// and is not a wildcard.
func hasWildcards(p string) bool {
	for i := 0; i < len(p); i++ {
		switch p[i] {
		case '*', '?', '[':
			return true
		case '\\':
			i++
		}
	}
	return false
}

// literal matches a name without wildcards. Backslashes in it may be part of the name, or escape
// wildcards.
func (m *matching) literal(name string) error {
	at, err := m.t.resolve(name)
	if errors.Is(err, ErrNotFound) && !m.plain && strings.Contains(name, `\`) {
		if at2, err2 := m.t.resolve(unescape(name)); err2 == nil {
			name, at, err = unescape(name), at2, nil
		}
	}
	if err != nil {
		return err
	}
	found, err := m.item(name, at)
	if err == nil && !found {
		return m.t.missing(name, at)
	}
	return err
}

func unescape(p string) string {
	var b strings.Builder
	for i := 0; i < len(p); i++ {
		if p[i] == '\\' && i+1 < len(p) {
			i++
		}
		b.WriteByte(p[i])
	}
	return b.String()
}

// escape is the opposite of unescape.
func escape(p string) string {
	return strings.NewReplacer("*", `\*`, "?", `\?`, "[", `\[`, `\`, `\\`).Replace(p)
}

// item adds the file or directory at a place, and reports whether any file of it is selected.
func (m *matching) item(name string, at place) (bool, error) {
	if at.mode&unix.S_IFMT == unix.S_IFDIR {
		return m.directory(at.path, nil)
	}
	return m.single(name, at)
}

// directory adds the contents of a directory. An ignored directory is treated as missing unless an
// exception selects a file in it.
func (m *matching) directory(dir string, include *pattern.Matcher) (bool, error) {
	gone := m.t.ignored(dir)
	if gone && !m.t.ignore.TakesBackBelow(dir) {
		return false, nil
	}
	fd, err := safepath.NoLinks(m.t.fd(), dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return false, m.t.notThere(dir, place{path: dir}, err)
	}
	defer unix.Close(fd)
	if err := dirfd.Fstat(fd, &m.st); err != nil {
		return false, fmt.Errorf("stat %q: %w", dir, err)
	}
	if dir != "." && m.t.own.is(&m.st) {
		m.t.own.tell(dir)
		return false, nil
	}
	w := m.newWalk(dir, include)
	w.item.MtimeNs = nanos(m.st.Mtime)
	root := inherited{}
	if m.t.ignore != nil && dir != "." {
		_, root.ignore = m.t.ignore.Path(dir)
	}
	m.begin(tagContents, "")
	m.rec = m.appendTime(m.rec) // the destination gets this time
	if m.root {
		x, err := m.directorySum(fd, rootOf(dir))
		if err != nil {
			return false, err
		}
		begin := len(m.rec)
		m.rec = m.appendDirectory(m.rec, nil, x)
		w.item.Entries.add([]byte("."), m.described(nil, x.xattrs, m.rec[begin:]))
	}
	before := w.item.Entries.Len()
	if err := w.directory(fd, &root); err != nil {
		return false, err
	}
	if gone && w.item.Entries.Len() == before {
		return false, nil
	}
	m.out.Items = append(m.out.Items, w.item)
	return true, nil
}

// rootOf is the path of a directory whose contents are matched. It is used for errors.
type rootOf string

func (r rootOf) full() string { return string(r) }

// single adds one file that is not a directory, under the last part of the name by which it was
// found.
func (m *matching) single(name string, at place) (bool, error) {
	target := path.Base("/" + name)
	if m.exclude != nil {
		for _, n := range []string{target, name} {
			if excluded, _ := m.exclude.Path(n); excluded {
				return true, nil
			}
		}
	}
	dir, base := path.Split(at.path)
	fd, err := safepath.NoLinks(m.t.fd(), dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return false, m.t.notThere(name, at, err)
	}
	defer unix.Close(fd)
	cname := append([]byte(base), 0)
	if err := dirfd.Lstat(fd, cname, &m.st); err != nil {
		return false, m.t.notThere(name, at, err)
	}
	return true, m.singleAt(fd, cname, target, at.path)
}

// singleAt adds the file that m.st describes, with the name name in the directory dir.
func (m *matching) singleAt(dir int, name []byte, target, where string) error {
	m.one = where
	for range maxReplaced {
		switch m.st.Mode & unix.S_IFMT {
		case unix.S_IFSOCK:
			m.socket(m)
			return nil
		case unix.S_IFDIR, unix.S_IFLNK:
			return fmt.Errorf("read %q: %w", where, errReplaced)
		}
		at := len(m.rec)
		m.rec = appendItem(m.rec, tagItem, target)
		e, err := m.entry(dir, name, nil, m)
		if err == nil {
			m.out.Items = append(m.out.Items, Item{Path: where, Target: target,
				Entries: oneEntry(e)})
			return nil
		}
		if err != errReplaced {
			return err
		}
		m.rec = m.rec[:at]
		if err := dirfd.Lstat(dir, name, &m.st); err != nil {
			return m.t.notThere(where, place{path: where}, err)
		}
	}
	return fmt.Errorf("read %q: %w", where, errReplaced)
}

// socket records that a socket is left out: a layer cannot hold a socket.
func (m *matching) socket(at where) { m.sockets = append(m.sockets, strings.Clone(at.full())) }

// wildcard matches a name with wildcards. The part before the first wildcard is resolved like any
// other name. After it, links are followed only at the end of the path, and names that the
// wildcards match are never used as patterns.
func (m *matching) wildcard(name string) error {
	parts := strings.Split(name, "/")
	n := slices.IndexFunc(parts, hasWildcards)
	at, err := m.t.resolve(strings.Join(parts[:n], "/"))
	if errors.Is(err, ErrNotFound) || err == nil && at.mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	if err != nil {
		return err
	}
	for _, p := range parts[n:] {
		if err := pattern.Check(p); err != nil {
			return fmt.Errorf("source %q: %w", name, err)
		}
	}
	g := glob{m: m, found: m.globItem}
	return g.in(at.path, strings.Join(parts[:n], "/"), parts[n:])
}

// globItem adds a file that a wildcard matched: name is the matched path, at.path the same with
// its links resolved.
func (m *matching) globItem(name string, at place) error {
	if at.mode&unix.S_IFMT == unix.S_IFLNK {
		var err error
		at, err = m.t.resolve(at.path)
		if missing, ok := errors.AsType[*NotFoundError](err); ok && missing.Own {
			m.t.own.tell(name)
			return nil
		}
		if err != nil {
			return err
		}
	}
	_, err := m.item(name, at)
	return err
}

// glob finds the names that match a list of patterns, one for each part of the path.
type glob struct {
	m     *matching
	found func(name string, at place) error
}

// in matches parts in the directory dir. name is the matched path of dir.
func (g glob) in(dir, name string, parts []string) error {
	fd, err := safepath.NoLinks(g.m.t.fd(), dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) ||
			errors.Is(err, unix.ELOOP) {
			return nil
		}
		return fmt.Errorf("read directory %q: %w", dir, plain(err))
	}
	defer unix.Close(fd)
	if err := dirfd.Fstat(fd, &g.m.st); err != nil {
		return fmt.Errorf("stat %q: %w", dir, err)
	}
	if dir != "." && g.m.t.own.is(&g.m.st) {
		return nil
	}
	list := new(dirfd.Names)
	if err := readNames(list, fd); err != nil {
		return fmt.Errorf("read directory %q: %w", dir, err)
	}
	var above pattern.Matched
	if g.m.t.ignore != nil && dir != "." {
		_, above = g.m.t.ignore.Path(dir)
	}
	for _, e := range list.Entries {
		if ok, _ := filepath.Match(parts[0], view(list.Name(e))); !ok {
			continue
		}
		if err := g.entry(fd, list, e, dir, name, parts[1:], above); err != nil {
			return err
		}
	}
	return nil
}

func (g glob) entry(fd int, list *dirfd.Names, e dirfd.Dirent, dir, name string, rest []string,
	above pattern.Matched) error {
	m := g.m
	if err := m.tick(); err != nil {
		return err
	}
	base := list.Name(e)
	if dir == "." && m.t.own.holds(view(base)) {
		return nil
	}
	where := m.join(dir, base)
	if err := dirfd.Lstat(fd, list.CName(e), &m.st); err != nil {
		if err == unix.ENOENT {
			return nil
		}
		return fmt.Errorf("stat %q: %w", where, err)
	}
	kind := uint32(m.st.Mode) & unix.S_IFMT
	if m.t.ignore != nil {
		gone, _ := m.t.ignore.Match(where, above)
		if gone && (kind != unix.S_IFDIR || !m.t.ignore.TakesBackBelow(where)) {
			return nil
		}
	}
	switch {
	case len(rest) == 0 && g.whole(kind):
		return m.singleAt(fd, list.CName(e), where[len(where)-len(base):], where)
	case len(rest) == 0:
		return g.found(path.Join(name, string(base)), place{path: where, mode: uint32(m.st.Mode)})
	case kind == unix.S_IFDIR:
		return g.in(where, path.Join(name, string(base)), rest)
	}
	return nil
}

// join returns the path of the name base in the directory dir.
func (m *matching) join(dir string, base []byte) string {
	if dir == "." {
		return m.names.string(base)
	}
	m.joined = append(append(append(m.joined[:0], dir...), '/'), base...)
	return m.names.string(m.joined)
}

// whole reports whether a matched file can be added without another look-up.
func (g glob) whole(kind uint32) bool {
	return !g.m.parents && g.m.exclude == nil && kind != unix.S_IFDIR && kind != unix.S_IFLNK
}

// parentsPattern matches a source of --parents. The part before the pivot is a name or a pattern
// for names. The rest is a pattern for paths below, which are kept at the destination.
func (m *matching) parentsPattern(p string) error {
	base, rest, pivot := strings.Cut(p, "/./")
	if !pivot {
		base, rest = "", p
	}
	base, rest = path.Join("/", base)[1:], path.Join("/", rest)[1:]
	if m.plain {
		rest = escape(rest)
	}
	var include *pattern.Matcher
	if rest != "" {
		var err error
		if include, err = pattern.New([]string{notException(rest)}); err != nil {
			return fmt.Errorf("source %q: %w", p, err)
		}
	}
	entries := 0
	below := func(at place) error {
		if at.mode&unix.S_IFMT != unix.S_IFDIR {
			return nil
		}
		before := len(m.out.Items)
		if _, err := m.directory(at.path, include); err != nil {
			return err
		}
		for _, it := range m.out.Items[before:] {
			entries += it.Entries.Len()
		}
		return nil
	}
	if !m.plain && hasWildcards(base) {
		if err := m.parentsBases(base, below); err != nil {
			return err
		}
	} else {
		at, err := m.t.resolve(base)
		if err != nil {
			return err
		}
		if err := below(at); err != nil {
			return err
		}
	}
	if entries > 0 {
		return nil
	}
	if !m.plain && (hasWildcards(base) || hasWildcards(rest)) {
		m.out.Unmatched = append(m.out.Unmatched, p)
		return nil
	}
	return m.parentsMissing(path.Join(base, unescape(rest)))
}

// notException escapes a leading "!", which would make the pattern an exception.
func notException(p string) string {
	if p[0] == '!' {
		return `\` + p
	}
	return p
}

// parentsMissing returns an error if a name does not exist. If it exists, --exclude has excluded
// all files in it, which is not an error.
func (m *matching) parentsMissing(name string) error {
	at, err := m.t.resolve(path.Dir("/" + name)[1:])
	if err != nil {
		return err
	}
	where := path.Join(at.path, path.Base("/"+name))
	if _, _, err := m.t.lstat(where); err != nil {
		return m.t.notThere(name, place{path: where}, err)
	}
	if m.t.ignored(where) || m.exclude == nil {
		return m.t.missing(name, place{path: where})
	}
	return nil
}

func (m *matching) parentsBases(base string, found func(place) error) error {
	parts := strings.Split(base, "/")
	n := slices.IndexFunc(parts, hasWildcards)
	at, err := m.t.resolve(strings.Join(parts[:n], "/"))
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	g := glob{m: m, found: func(_ string, at place) error {
		at, err := m.t.resolve(at.path)
		if errors.Is(err, ErrNotFound) {
			return nil // a dangling link is not a directory
		}
		if err != nil {
			return err
		}
		return found(at)
	}}
	return g.in(at.path, "", parts[n:])
}

// tick returns an error if ctx has ended. It checks only once in a number of calls.
func (m *matching) tick() error {
	if m.ticks++; m.ticks%256 == 0 && m.ctx.Err() != nil {
		return context.Cause(m.ctx)
	}
	return nil
}

package source

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/giturl"
	"github.com/layerbuild/layerbuild/internal/hostfile"
	"github.com/layerbuild/layerbuild/internal/safepath"
	"github.com/layerbuild/layerbuild/internal/unpack"
)

// Context is an open build context.
type Context struct {
	// Name is the name with which the context was opened, without a password.
	Name string
	// Commit is the commit of a git repository; "" for other contexts.
	Commit string

	tree    *Tree
	dir     *os.File
	fetched *Fetched // nil for a directory of this machine
	o       Options
	modTime time.Time // the time of the commit or of the download; zero if there is none

	material *Material // of the context; nil for a context from this machine
	fileFrom *Material // of a Dockerfile from a URL

	// set if the context is a Dockerfile, or the Dockerfile was read from standard input
	dockerfile []byte
	display    string
}

// maxDockerfile is the largest size of a Dockerfile or an ignore file. A larger file was probably
// named by mistake.
const maxDockerfile = 16 << 20

// Open opens a build context: a directory, an archive, an http URL of an archive or of a
// Dockerfile, a git URL, or "-" for an archive or a Dockerfile on standard input. A context that
// is a Dockerfile has no files. The caller closes the context.
//
// Ignore files are read for directories of this machine only, as in docker build. Archives,
// downloads and repositories are used in full.
func Open(ctx context.Context, name string, o Options) (*Context, error) {
	c := &Context{Name: giturl.Redact(name), o: o}
	if err := c.open(ctx, name); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Check returns the errors of Open that can be found without fetching or reading: errors for a
// context that is invalid or missing, or is neither a directory, nor a file, nor an open pipe. The
// errors do not contain the context's name.
func Check(name string, o Options) error {
	if o.Fetched.Repository != nil {
		return nil
	}
	if name == "-" {
		return checkStdin(o)
	}
	info, err := os.Stat(name)
	if err == nil {
		_, pipe := openPipe(name, info)
		switch {
		case pipe || info.IsDir():
			return nil
		case info.Mode().IsRegular():
			return checkArchive(name)
		}
		return errNoContext
	}
	_, gitErr := giturl.Parse(name)
	switch {
	case gitErr == nil || errors.Is(gitErr, giturl.ErrNotGit) && isHTTP(name):
		return nil
	case !errors.Is(gitErr, giturl.ErrNotGit):
		return gitErr
	}
	return missing(err)
}

// CheckDockerfile returns an error if Options.Dockerfile names a missing file of this machine. It
// does not check a Dockerfile in a context from elsewhere, which must be opened first.
func CheckDockerfile(context string, o Options) error {
	if o.Dockerfile == "" || o.Dockerfile == "-" || isHTTP(o.Dockerfile) {
		return nil
	}
	if info, err := os.Stat(context); err != nil || !info.IsDir() {
		return nil
	}
	c := Context{o: o}
	info, err := os.Stat(c.hostDockerfile(context))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("no such file in the current directory or in the build context")
	case err != nil:
		return plain(err)
	case info.IsDir():
		return errors.New("a file is expected, not a directory")
	case info.Mode()&fs.ModeDevice != 0:
		return errDevice
	}
	return nil
}

// checkArchive returns an error if a regular file is no archive.
func checkArchive(name string) error {
	f, err := hostfile.Open(name, os.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return plain(err)
	}
	defer f.Close()
	head := make([]byte, 1024)
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return plain(err)
	}
	if !isArchive(head[:n]) {
		return errNoContext
	}
	return nil
}

func checkStdin(o Options) error {
	switch {
	case o.Stdin == nil:
		return errors.New("there is no standard input")
	case o.Dockerfile == "-":
		return errors.New("the build context and the Dockerfile cannot both be standard input")
	}
	return nil
}

// missing returns the reason why a context cannot be found.
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("no such directory")
	}
	return plain(err)
}

func (c *Context) open(ctx context.Context, name string) error {
	if c.o.Fetched.Repository != nil {
		return c.git(ctx, c.o.Fetched.Repository)
	}
	if name == "-" {
		if err := checkStdin(c.o); err != nil {
			return fmt.Errorf("build context -: %w", err)
		}
		return c.stream(ctx, interruptible(ctx, c.o.Stdin), "-", "standard input")
	}
	info, err := os.Stat(name)
	switch {
	case err == nil && info.IsDir():
		return c.local(name)
	case err == nil:
		return c.archive(ctx, name, info)
	}
	if u, gitErr := giturl.Parse(name); gitErr == nil {
		return c.git(ctx, u)
	} else if !errors.Is(gitErr, giturl.ErrNotGit) {
		return gitErr
	}
	if isHTTP(name) {
		return c.http(ctx, name)
	}
	return fmt.Errorf("build context %q: %w", name, missing(err))
}

func isHTTP(name string) bool {
	return strings.HasPrefix(name, "http://") || strings.HasPrefix(name, "https://")
}

// local opens a directory of this machine.
func (c *Context) local(name string) (err error) {
	if c.dir, err = hostfile.Open(name, os.O_RDONLY); err != nil {
		return fmt.Errorf("build context %q: %w", name, plain(err))
	}
	to := TreeOptions{IgnoreName: ".dockerignore", TempDir: c.o.TempDir, Own: c.o.Own,
		IndexTemp: c.o.Index.Temp}
	if !c.o.NoIgnore {
		if to.Ignore, to.IgnoreName, err = c.ignore(name); err != nil {
			return err
		}
	}
	if c.o.Index.Dir != "" {
		if to.IndexFile, err = indexFile(c.o.Index.Dir, name); err != nil {
			return err
		}
	}
	c.tree, err = NewTree(c.dir, to)
	return err
}

// indexFile returns the name of a directory's index. The name has no influence on the content of
// the index; it separates contexts, so that each index stays small.
func indexFile(dir, name string) (string, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	h := sha256.Sum256([]byte(abs))
	return filepath.Join(dir, hex.EncodeToString(h[:16])), nil
}

// ignore reads the ignore file: the Dockerfile's own, or that of the directory. dir is "" if the
// context was fetched.
func (c *Context) ignore(dir string) (lines []string, name string, err error) {
	if file := c.o.Dockerfile; file != "-" && !isHTTP(file) {
		own, b, err := c.ownIgnore(dir)
		if err == nil {
			lines, err := ReadIgnore(own, bytes.NewReader(b))
			return lines, own, err
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			return nil, "", fmt.Errorf("read %s: %w", own, plain(err))
		}
	}
	names := []string{".dockerignore"}
	if dir != "" && strings.HasPrefix(filepath.Base(c.hostDockerfile(dir)), containerfile) {
		names = []string{".containerignore", ".dockerignore"}
	}
	for _, name := range names {
		b, err := c.readInside(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, "", fmt.Errorf("read %s: %w", name, plain(err))
		}
		lines, err = ReadIgnore(name, bytes.NewReader(b))
		return lines, name, err
	}
	return nil, names[0], nil
}

// containerfile is the name of a Dockerfile that buildah and podman look for, too. As with them, a
// Containerfile has the ignore file .containerignore.
const containerfile = "Containerfile"

// ownIgnore reads the ignore file beside the Dockerfile.
func (c *Context) ownIgnore(dir string) (name string, data []byte, err error) {
	return c.beside(dir, ".dockerignore")
}

// Policy returns the name of the policy for the sources of a build that is beside the Dockerfile,
// where docker buildx looks for one; "" if there is none.
func (c *Context) Policy() string {
	if c.dockerfile != nil || c.o.Dockerfile == "-" || isHTTP(c.o.Dockerfile) {
		return ""
	}
	dir := ""
	if c.dir != nil && c.fetched == nil {
		dir = c.dir.Name()
	}
	name, _, err := c.beside(dir, ".rego")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return ""
	}
	return name
}

// beside reads the file beside the Dockerfile that has its name and a suffix.
func (c *Context) beside(dir, suffix string) (name string, data []byte, err error) {
	if dir == "" && !c.dockerfileOnHost() {
		name = cmp.Or(c.o.Dockerfile, "Dockerfile") + suffix
		data, err = c.readInside(name)
		return name, data, err
	}
	name = c.hostDockerfile(dir) + suffix
	// Only a pipe has to be waited for, and a pipe is an error here.
	data, err = c.readLocal(context.Background(), name, false)
	return name, data, err
}

// readLocal reads a Dockerfile, or a file beside it, from this machine. Links of a file in the
// context are resolved in the context, as in BuildKit: a context may be hostile, and errors and
// attestations show a Dockerfile. Links of other files are followed, because the user has named the
// file.
func (c *Context) readLocal(ctx context.Context, name string, pipe bool) ([]byte, error) {
	inside, ok := c.inside(name)
	if !ok {
		return readHostFile(ctx, name, pipe)
	}
	data, err := c.readInside(inside)
	switch {
	case pipe && errors.Is(err, errFifo):
		return readHostFile(ctx, name, pipe)
	case errors.Is(err, fs.ErrNotExist) && exists(name):
		return nil, errOutside
	}
	return data, err
}

// inside returns the name in the context of a file of this machine, and reports whether the file
// has one. A descriptor of the process has none.
func (c *Context) inside(name string) (string, bool) {
	if c.dir == nil || c.fetched != nil {
		return "", false
	}
	if _, ok := hostfile.Descriptor(name); ok {
		return "", false
	}
	dir, err := filepath.Abs(c.dir.Name())
	if err != nil {
		return "", false
	}
	if name, err = filepath.Abs(name); err != nil {
		return "", false
	}
	rel, err := filepath.Rel(dir, name)
	return rel, err == nil && filepath.IsLocal(rel)
}

// dockerfileOnHost reports whether the Dockerfile of a fetched context is a file of this machine.
func (c *Context) dockerfileOnHost() bool {
	return c.o.Fetched.AsDirectory && c.o.Dockerfile != "" && exists(c.o.Dockerfile)
}

// hostDockerfile returns the path of the Dockerfile on this machine: the path of -f, relative to
// the working directory if the file exists there, and otherwise relative to the context.
func (c *Context) hostDockerfile(dir string) string {
	name := c.o.Dockerfile
	if name == "" {
		usual := filepath.Join(dir, "Dockerfile")
		if other := filepath.Join(dir, containerfile); exists(other) && !exists(usual) &&
			!exists(filepath.Join(dir, "dockerfile")) {
			return other
		}
		return usual
	}
	if _, err := os.Stat(name); err == nil || filepath.IsAbs(name) {
		return name
	}
	if inside := filepath.Join(dir, name); exists(inside) {
		return inside
	}
	return name
}

// DockerfilePath returns the path of the Dockerfile that a context which is a directory of this
// machine has on this machine.
func DockerfilePath(dir string, o Options) string {
	c := Context{o: o}
	name := c.hostDockerfile(dir)
	if lower := filepath.Join(filepath.Dir(name), "dockerfile"); filepath.Base(name) ==
		"Dockerfile" && !exists(name) && exists(lower) {
		return lower
	}
	return name
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// openPipe returns the descriptor that a path names, and reports whether it is a pipe that the
// process has open.
func openPipe(name string, info fs.FileInfo) (fd int, ok bool) {
	if info.Mode()&fs.ModeNamedPipe == 0 {
		return 0, false
	}
	return hostfile.Descriptor(name)
}

// archive opens an archive file of this machine. A pipe that the process has open is read like
// standard input.
func (c *Context) archive(ctx context.Context, name string, info fs.FileInfo) error {
	if fd, ok := openPipe(name, info); ok {
		f, err := hostfile.Duplicate(name, fd)
		if err != nil {
			return fmt.Errorf("build context %q: %w", name, plain(err))
		}
		defer f.Close()
		return c.stream(ctx, interruptible(ctx, f), name, "build context "+name)
	}
	f, err := hostfile.Open(name, os.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return fmt.Errorf("build context %q: %w", name, plain(err))
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return errors.Join(err, fmt.Errorf("build context %q: %w", name, errNoContext))
	}
	in := bufio.NewReader(f)
	if head, _ := in.Peek(1024); !isArchive(head) {
		return fmt.Errorf("build context %q: %w", name, errNoContext)
	}
	return c.unpackFrom(ctx, in, "build context "+name)
}

// stream reads an archive or a Dockerfile from a stream.
func (c *Context) stream(ctx context.Context, r io.Reader, display, what string) error {
	in := bufio.NewReaderSize(r, 64<<10)
	head, err := in.Peek(1024)
	if err != nil && err != io.EOF {
		return fmt.Errorf("read %s: %w", what, err)
	}
	if isArchive(head) {
		return c.unpackFrom(ctx, in, what)
	}
	b, err := readLimited(in, maxDockerfile)
	if err != nil {
		return fmt.Errorf("read %s: %w", what, err)
	}
	c.dockerfile, c.display = b, display
	return c.temporary()
}

// isArchive reports whether a stream that begins with head is an archive rather than text.
func isArchive(head []byte) bool {
	return unpack.Detect(head) != unpack.None || unpack.IsTar(head)
}

// temporary makes an empty directory the context.
func (c *Context) temporary() (err error) {
	if c.fetched, err = newFetched(c.o.TempDir); err != nil {
		return err
	}
	return c.fetchedTree()
}

// fetchedTree makes the tree of a context that has been fetched.
func (c *Context) fetchedTree() (err error) {
	var to TreeOptions
	if c.o.Fetched.AsDirectory && !c.o.NoIgnore {
		if to.Ignore, to.IgnoreName, err = c.ignore(""); err != nil {
			return err
		}
	}
	c.tree, err = NewTree(c.fetched.Dir, to)
	return err
}

// unpackFrom makes the context from an archive.
func (c *Context) unpackFrom(ctx context.Context, r io.Reader, what string) error {
	tar, _, err := unpack.Decompress(r)
	if err != nil {
		return fmt.Errorf("unpack %s: %w", what, err)
	}
	defer tar.Close()
	if c.fetched, err = newFetched(c.o.TempDir); err != nil {
		return err
	}
	_, err = unpack.Tar(ctx, tar, int(c.fetched.Dir.Fd()), unpack.Options{
		// Owners from a context are not copied, and a build cannot copy files that this machine
		// cannot create.
		Owner:    &unpack.Owner{UID: os.Geteuid(), GID: os.Getegid()},
		SkipRoot: true,
		OnSkip:   func(string, string, error) {},
	})
	if err != nil {
		return fmt.Errorf("unpack %s: %w", what, err)
	}
	if err := c.fetched.enter(c.o.Fetched.Subdir); err != nil {
		return fmt.Errorf("%s: directory %q: %w", what, c.o.Fetched.Subdir, plain(err))
	}
	return c.fetchedTree()
}

// git makes the context from a repository.
func (c *Context) git(ctx context.Context, u *giturl.URL) error {
	o := c.o.Git
	if o.TempDir == nil {
		o.TempDir = c.o.TempDir
	}
	if header := c.o.Fetched.Authorization; header != "" {
		o.Authorization = func(context.Context, string) string { return header }
	}
	r, err := openRepository(ctx, u, o)
	if err != nil {
		return err
	}
	c.Commit = r.Commit
	m := r.Material()
	c.material = &m
	if c.fetched, err = r.Fetch(ctx); err != nil {
		return err
	}
	c.modTime = r.committed
	return c.fetchedTree()
}

// http makes the context from an archive or a Dockerfile at a URL.
func (c *Context) http(ctx context.Context, address string) error {
	f, err := c.download(ctx, address, &c.material, func(head []byte) int {
		if isArchive(head) {
			return 0
		}
		return maxDockerfile
	})
	if _, long := errors.AsType[longError](err); long {
		return fmt.Errorf("read %s: %w", c.Name, err)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	c.modTime = f.modTime
	file, err := os.Open(filepath.Join(f.temp, f.Items[0].Path))
	if err != nil {
		return err
	}
	defer file.Close()
	return c.stream(ctx, file, c.Name, c.Name)
}

// download downloads a file without using earlier answers of the server. It sets from to what
// identifies the file. limit is that of HTTPOptions: an endless file must not fill the disk.
func (c *Context) download(ctx context.Context, address string, from **Material,
	limit func(head []byte) int) (*Fetched, error) {
	o := c.o.HTTP
	o.Store, o.limit = nil, limit
	if o.TempDir == nil {
		o.TempDir = c.o.TempDir
	}
	d, err := HTTP(ctx, address, o)
	if err != nil {
		return nil, err
	}
	m := d.Material()
	*from = &m
	return d.Fetch(ctx)
}

// Tree returns the context's files.
func (c *Context) Tree() *Tree { return c.tree }

// IsDockerfile reports whether the context is the http URL of a Dockerfile. Then that Dockerfile is
// used, whatever the name of the Dockerfile is: BuildKit ignores the name, too.
func (c *Context) IsDockerfile() bool {
	return c.dockerfile != nil && isHTTP(c.display)
}

// ReadDockerfile returns the Dockerfile and its name for messages. The file need not be in the
// context's tree: it may be ignored, come from standard input, or be anywhere on this machine.
// The error for a missing file wraps fs.ErrNotExist.
func (c *Context) ReadDockerfile(ctx context.Context) (string, []byte, error) {
	name := c.o.Dockerfile
	switch {
	case name == "-":
		if c.o.Stdin == nil {
			return "", nil, errors.New(`the Dockerfile "-" is standard input, and there is none`)
		}
		if c.dockerfile == nil || c.IsDockerfile() {
			b, err := readLimited(interruptible(ctx, c.o.Stdin), maxDockerfile)
			if err != nil {
				return "", nil, dockerfileError("from standard input", err)
			}
			c.dockerfile, c.display = b, "-"
		}
		return "-", c.dockerfile, nil
	case isHTTP(name):
		return c.remoteDockerfile(ctx, name)
	case c.dockerfile != nil && name != "" && !c.IsDockerfile():
		return "", nil, fmt.Errorf(
			"the build context %s is a Dockerfile, and another Dockerfile is given (%s)", c.Name,
			name)
	case c.dockerfile != nil:
		return c.display, c.dockerfile, nil
	case c.fetched == nil || c.dockerfileOnHost():
		return c.localDockerfile(ctx)
	}
	return c.insideDockerfile(name)
}

func (c *Context) remoteDockerfile(ctx context.Context, address string) (string, []byte, error) {
	f, err := c.download(ctx, address, &c.fileFrom, func([]byte) int { return maxDockerfile })
	if _, long := errors.AsType[longError](err); long {
		return "", nil, dockerfileError(giturl.Redact(address), err)
	}
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	b, err := readHostFile(ctx, filepath.Join(f.temp, f.Items[0].Path), false)
	if err != nil {
		return "", nil, dockerfileError(giturl.Redact(address), err)
	}
	return giturl.Redact(address), b, nil
}

// localDockerfile reads the Dockerfile from this machine.
func (c *Context) localDockerfile(ctx context.Context) (string, []byte, error) {
	name := c.o.Dockerfile
	if c.dir != nil {
		name = c.hostDockerfile(c.dir.Name())
	}
	display := c.o.Dockerfile
	pipe := display != "" // a pipe is read only if the user names it
	if display == "" {
		display = filepath.Base(name)
	}
	b, err := c.readLocal(ctx, name, pipe)
	if errors.Is(err, fs.ErrNotExist) && filepath.Base(name) == "Dockerfile" {
		if b, err := c.readLocal(ctx, filepath.Join(filepath.Dir(name), "dockerfile"),
			false); err == nil {
			return filepath.Join(filepath.Dir(display), "dockerfile"), b, nil
		}
	}
	if err != nil {
		return "", nil, dockerfileError(name, err)
	}
	return display, b, nil
}

// insideDockerfile reads the Dockerfile from a fetched context. Its links are resolved inside
// the context.
func (c *Context) insideDockerfile(name string) (string, []byte, error) {
	if name == "" {
		display, b, err := c.insideDockerfile("Dockerfile")
		if errors.Is(err, fs.ErrNotExist) {
			if b, err := c.readInside(containerfile); err == nil {
				return containerfile, b, nil
			}
		}
		return display, b, err
	}
	b, err := c.readInside(name)
	if errors.Is(err, fs.ErrNotExist) && path.Base(name) == "Dockerfile" {
		lower := path.Join(path.Dir(name), "dockerfile")
		if b, err := c.readInside(lower); err == nil {
			return lower, b, nil
		}
	}
	if err != nil {
		return "", nil, dockerfileError(name+" in "+c.Name, err)
	}
	return name, b, nil
}

// ReadFile reads a text file of the context, whether it is ignored or not. Links are resolved in
// the context. The error for a missing file wraps fs.ErrNotExist.
func (c *Context) ReadFile(name string) ([]byte, error) { return c.readInside(name) }

// readInside reads a file in the context as if the context were the root directory.
func (c *Context) readInside(name string) ([]byte, error) {
	dir := c.dir
	if dir == nil {
		dir = c.fetched.Dir
	}
	fd, err := safepath.InRoot(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if errors.Is(err, unix.ENXIO) {
		return nil, errSocket
	}
	if err != nil {
		return nil, err
	}
	// Only a pipe has to be waited for, and a pipe is an error here.
	return readFile(context.Background(), os.NewFile(uintptr(fd), name), false, maxDockerfile)
}

// ReadHostFile reads a file of this machine of at most limit bytes. A pipe that the user names is
// read to its end.
func ReadHostFile(ctx context.Context, name string, limit int) ([]byte, error) {
	f, err := openHostFile(name)
	if err != nil {
		return nil, err
	}
	return readFile(ctx, f, true, limit)
}

// readHostFile reads a text file of this machine. pipe allows a pipe: -f <(…).
func readHostFile(ctx context.Context, name string, pipe bool) ([]byte, error) {
	f, err := openHostFile(name)
	if err != nil {
		return nil, err
	}
	return readFile(ctx, f, pipe, maxDockerfile)
}

func openHostFile(name string) (*os.File, error) {
	f, err := hostfile.Open(name, os.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK)
	if err != nil {
		if info, statErr := os.Stat(name); statErr == nil && info.Mode()&fs.ModeSocket != 0 {
			return nil, errSocket
		}
		return nil, err
	}
	return f, nil
}

var (
	errNoContext = errors.New("it is neither a directory nor an archive")

	errOutside = errors.New("it is a link that leads out of the build context, in which " +
		"links are resolved; give the name of the file with -f")

	errSocket   = errors.New("it is a socket")
	errFifo     = errors.New("it is a fifo")
	errDevice   = errors.New("it is a device")
	errSilent   = fmt.Errorf("it is a pipe, and no data was written to it for %v", pipeWait)
	errNoWriter = errors.New("it is a fifo without a writer")
)

const (
	pipeWait   = time.Minute     // how long to wait for data from a pipe
	writerWait = 2 * time.Second // how long to wait for the writer of a fifo
)

// readFile reads a text file and closes it. f was opened with O_NONBLOCK, so that a fifo is opened
// at once.
func readFile(ctx context.Context, f *os.File, pipe bool, limit int) ([]byte, error) {
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch mode := info.Mode(); {
	case mode.IsRegular():
		return readLimited(f, limit)
	case mode.IsDir():
		return nil, unix.EISDIR
	case mode&fs.ModeNamedPipe == 0:
		return nil, errDevice
	case !pipe:
		return nil, errFifo
	}
	return readPipe(ctx, f, limit)
}

// interruptible returns a reader of r that returns an error when ctx ends, even while it waits for
// data. Only a reader of a file can wait: standard input may be a terminal, or a pipe without a
// writer.
func interruptible(ctx context.Context, r io.Reader) io.Reader {
	if f, ok := r.(*os.File); ok {
		return &interruptibleFile{ctx, f}
	}
	return r
}

// interruptibleFile is the reader that interruptible returns for a file. It is used only during the
// call to which ctx belongs.
type interruptibleFile struct {
	ctx  context.Context
	file *os.File
}

// pollTime is the interval at which a reader that waits for standard input checks whether ctx
// has ended.
const pollTime = 100 * time.Millisecond

// Read reads from the file as soon as data is available.
func (r *interruptibleFile) Read(p []byte) (int, error) {
	for {
		if r.ctx.Err() != nil {
			return 0, context.Cause(r.ctx)
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(r.file.Fd()), Events: unix.POLLIN}},
			int(pollTime/time.Millisecond))
		if err != nil && err != unix.EINTR {
			return 0, os.NewSyscallError("poll", err)
		}
		if n > 0 {
			return r.file.Read(p)
		}
	}
}

// readPipe reads a pipe to its end. A fifo may have no writer yet, which read(2) reports as the
// end.
func readPipe(ctx context.Context, f *os.File, limit int) ([]byte, error) {
	var all bytes.Buffer
	start := time.Now()
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		n, err := readSome(ctx, &all, f)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case all.Len() > limit:
			return nil, longError(limit)
		case errors.Is(err, os.ErrDeadlineExceeded) && n > 0:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, errSilent
		case err == io.EOF && all.Len() == 0:
			if time.Since(start) > writerWait {
				return nil, errNoWriter
			}
			time.Sleep(10 * time.Millisecond)
		case err == io.EOF:
			return all.Bytes(), nil
		case err != nil:
			return nil, err
		}
	}
}

// readSome reads some data from a pipe. The error is os.ErrDeadlineExceeded if no more data
// arrives within pipeWait.
func readSome(ctx context.Context, all *bytes.Buffer, f *os.File) (int64, error) {
	err := f.SetReadDeadline(time.Now().Add(pipeWait))
	if errors.Is(err, os.ErrNoDeadline) {
		return readDuplicate(ctx, all, f)
	}
	if err != nil {
		return 0, err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	return io.CopyN(all, f, 64<<10)
}

// readDuplicate is like readSome for a duplicate of a descriptor. It does not set O_NONBLOCK,
// because the flag would apply to all processes that have the pipe open.
func readDuplicate(ctx context.Context, all *bytes.Buffer, f *os.File) (int64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, pipeWait, os.ErrDeadlineExceeded)
	defer cancel()
	b := make([]byte, 64<<10)
	n, err := (&interruptibleFile{ctx, f}).Read(b)
	all.Write(b[:n])
	return int64(n), err
}

// longError is returned for a file that is larger than this limit.
type longError int

func (limit longError) Error() string {
	return "it exceeds the maximum allowed size of " + limit.size()
}

func (limit longError) size() string {
	if limit < 1<<20 {
		return fmt.Sprintf("%d bytes", int(limit))
	}
	return fmt.Sprintf("%d MiB", int(limit)>>20)
}

// dockerfileError returns an error for a Dockerfile that cannot be read. The text for one that is
// too large has the words of BuildKit's, because programs that read the output of builds look for
// them.
func dockerfileError(where string, err error) error {
	if limit, ok := errors.AsType[longError](err); ok {
		return fmt.Errorf("the Dockerfile exceeds maximum allowed size of %s: %s", limit.size(),
			where)
	}
	return fmt.Errorf("read the Dockerfile %s: %w", where, plain(err))
}

func readLimited(r io.Reader, limit int) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err == nil && len(b) > limit {
		err = longError(limit)
	}
	return b, err
}

// Close closes the context and removes the files that were fetched for it.
func (c *Context) Close() error {
	var err error
	if c.tree != nil {
		err = c.tree.Close()
	}
	if c.dir != nil {
		err = errors.Join(err, c.dir.Close())
	}
	if c.fetched != nil {
		err = errors.Join(err, c.fetched.Close())
	}
	return err
}

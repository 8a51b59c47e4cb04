package executor

import (
	"encoding/binary"
	"errors"
	"io"
	"syscall"

	"github.com/layerbuild/layerbuild/executor/copyfs"
	"github.com/layerbuild/layerbuild/internal/fileentry"
	"github.com/layerbuild/layerbuild/internal/mount"
)

// A message between parent and child is its length, followed by its fields. A single method of each
// type both writes and reads it, so that the two directions cannot differ. Paths and arguments are
// bytes, which JSON strings cannot carry; encoding/gob does not keep nil and empty lists apart. For
// the files of a COPY of 25,000 this takes 17 ms, gob 30 and JSON 108.
type wire struct {
	buf     []byte // the message being written
	text    string // the unread rest of the message; strings that are read are substrings
	reading bool
	err     error
}

func reader(message []byte) *wire { return &wire{text: string(message), reading: true} }

// truncated records that the message is too short. All further fields are read as zero.
func (w *wire) truncated() {
	w.err, w.text = errWire, ""
}

var errWire = errors.New("truncated message between the program and the step's process")

func (w *wire) uint(p *uint64) {
	if !w.reading {
		w.buf = binary.AppendUvarint(w.buf, *p)
		return
	}
	*p = 0
	for i, shift := 0, 0; i < len(w.text) && i < binary.MaxVarintLen64; i, shift = i+1, shift+7 {
		b := w.text[i]
		*p |= uint64(b&0x7f) << shift
		if b < 0x80 {
			w.text = w.text[i+1:]
			return
		}
	}
	*p = 0
	w.truncated()
}

func (w *wire) int64(p *int64) {
	u := uint64(*p)<<1 ^ uint64(*p>>63)
	w.uint(&u)
	*p = int64(u>>1) ^ -int64(u&1)
}

func (w *wire) int(p *int) {
	n := int64(*p)
	w.int64(&n)
	*p = int(n)
}

func (w *wire) uint32(p *uint32) {
	n := uint64(*p)
	w.uint(&n)
	*p = uint32(n)
}

func (w *wire) bool(p *bool) {
	var n uint64
	if *p {
		n = 1
	}
	w.uint(&n)
	*p = n == 1
}

func (w *wire) string(p *string) {
	n := uint64(len(*p))
	w.uint(&n)
	if !w.reading {
		w.buf = append(w.buf, *p...)
		return
	}
	if n > uint64(len(w.text)) {
		w.truncated()
		return
	}
	*p, w.text = w.text[:n], w.text[n:]
}

func (w *wire) bytes(p *[]byte) {
	s := string(*p)
	w.string(&s)
	*p = []byte(s)
}

// list distinguishes nil from empty: copyfs.Item.Entries has different meanings for them.
func list[T any](w *wire, p *[]T, each func(*T)) {
	n := uint64(len(*p)) + 1
	if *p == nil {
		n = 0
	}
	w.uint(&n)
	if w.reading {
		*p = nil
		if n == 0 {
			return
		}
		if n-1 > uint64(len(w.text)) { // an element has at least one byte
			w.truncated()
			return
		}
		*p = make([]T, n-1)
	}
	for i := range *p {
		each(&(*p)[i])
	}
}

func (w *wire) strings(p *[]string) { list(w, p, w.string) }

func (w *wire) mounts(p *[]mount.Mount) {
	list(w, p, func(m *mount.Mount) {
		w.string(&m.Type)
		w.string(&m.Source)
		w.string(&m.Target)
		w.strings(&m.Lower)
		w.string(&m.Upper)
		w.string(&m.Work)
		w.strings(&m.Options)
	})
}

// job is a Spec as it is sent to the child: it has inherited descriptors in place of open files.
type job struct {
	spec Spec
	// resolvConf is the content of the host's /etc/resolv.conf. The parent reads it, since the
	// child may be in another network namespace.
	resolvConf []byte
	// dirs are the descriptors of the action's open directories.
	dirs []int
}

func (w *wire) job(j *job) {
	s := &j.spec
	w.mounts(&s.Root)
	w.string(&s.MountPoints)
	w.bool(&s.UserNS)
	w.bool(&s.SingleID)
	hasEpoch := s.Epoch != nil
	w.bool(&hasEpoch)
	if hasEpoch {
		if w.reading {
			s.Epoch = new(int64)
		}
		w.int64(s.Epoch)
	}
	w.bytes(&j.resolvConf)
	list(w, &j.dirs, w.int)
	var kind uint64
	switch s.Action.(type) {
	case *Process:
		kind = 1
	case *copyfs.Copy:
		kind = 2
	case *Mkdir:
		kind = 3
	}
	w.uint(&kind)
	if w.reading {
		switch kind {
		case 1:
			s.Action = &Process{}
		case 2:
			s.Action = &copyfs.Copy{}
		case 3:
			s.Action = &Mkdir{}
		default:
			w.err = errWire
			return
		}
	}
	switch a := s.Action.(type) {
	case *Process:
		w.process(a)
	case *copyfs.Copy:
		w.copy(a)
	case *Mkdir:
		w.string(&a.Path)
		w.string(&a.User)
	}
}

func (w *wire) process(p *Process) {
	w.strings(&p.Args)
	w.strings(&p.Env)
	w.string(&p.Dir)
	w.string(&p.User)
	w.string(&p.Network)
	w.bool(&p.Insecure)
	hasCaps := p.Caps != nil
	w.bool(&hasCaps)
	if hasCaps {
		if w.reading {
			p.Caps = new(CapabilitySet)
		}
		w.uint((*uint64)(p.Caps))
	}
	w.string(&p.Hostname)
	list(w, &p.ExtraHosts, func(h *Host) { w.string(&h.Name); w.string(&h.IP) })
	w.int64(&p.ShmSize)
	list(w, &p.Ulimits, func(u *Ulimit) { w.string(&u.Name); w.int64(&u.Soft); w.int64(&u.Hard) })
	list(w, &p.Groups, w.uint32)
	w.strings(&p.GroupNames)
	list(w, &p.Mounts, w.mount)
	list(w, &p.Hooks, func(h *Hook) {
		w.string(&h.Path)
		w.strings(&h.Args)
		w.strings(&h.Env)
		w.int64((*int64)(&h.Timeout))
	})
	w.bool(&p.ReadOnlyRoot)
	w.bool(&p.TTY)
	forwarded := p.forwarded || p.Signals != nil
	w.bool(&forwarded)
	if w.reading {
		p.forwarded = forwarded
	}
}

func (w *wire) mount(m *Mount) {
	w.string(&m.Target)
	w.bool(&m.ReadOnly)
	w.bool(&m.NoSuid)
	w.bool(&m.NoExec)
	var kind uint64
	switch m.Source.(type) {
	case Tree:
		kind = 1
	case Bind:
		kind = 2
	case Tmpfs:
		kind = 3
	case Data:
		kind = 4
	case Device:
		kind = 5
	}
	w.uint(&kind)
	switch kind {
	case 1:
		t, _ := m.Source.(Tree)
		w.mounts(&t.Mounts)
		w.string(&t.Path)
		w.bool(&t.Make)
		m.Source = t
	case 2:
		b, _ := m.Source.(Bind)
		w.string(&b.Source)
		w.string(&b.Path)
		w.bool(&b.Make)
		w.bool(&b.Single)
		m.Source = b
	case 3:
		t, _ := m.Source.(Tmpfs)
		w.int64(&t.Size)
		w.uint32(&t.Mode)
		m.Source = t
	case 4:
		d, _ := m.Source.(Data)
		w.bytes(&d.Data)
		w.uint32(&d.Mode)
		w.uint32(&d.UID)
		w.uint32(&d.GID)
		m.Source = d
	case 5:
		d, _ := m.Source.(Device)
		w.device(&d)
		m.Source = d
	default:
		w.err = errWire
	}
}

func (w *wire) device(d *Device) {
	w.string(&d.Host)
	w.string(&d.Type)
	w.uint32(&d.Major)
	w.uint32(&d.Minor)
	for _, p := range []**uint32{&d.Mode, &d.UID, &d.GID} {
		given := *p != nil
		if w.bool(&given); !given {
			continue
		}
		if w.reading {
			*p = new(uint32)
		}
		w.uint32(*p)
	}
	w.bool(&d.Closed)
}

func (w *wire) copy(c *copyfs.Copy) {
	w.string(&c.Dest)
	list(w, &c.Sources, func(s *copyfs.Source) {
		list(w, &s.Items, func(it *copyfs.Item) {
			w.string(&it.Path)
			w.string(&it.Target)
			w.string(&it.Name)
			w.bool(&it.Contents)
			w.int64(&it.MtimeNs)
			list(w, &it.Entries, func(e *fileentry.Entry) {
				w.string(&e.Path)
				w.int64(&e.Size)
				w.int64(&e.MtimeNs)
				w.int64(&e.CtimeNs)
				w.uint(&e.Ino)
				w.uint32(&e.Mode)
				w.bool(&e.Attrs)
				w.uint32(&e.Frozen)
			})
		})
	})
	list(w, &c.Inline, func(f *copyfs.File) {
		w.string(&f.Name)
		w.bytes(&f.Data)
		w.uint32(&f.Mode)
	})
	w.string(&c.Chown)
	w.string(&c.Chmod)
	w.bool(&c.KeepOwner)
	w.bool(&c.StandIns)
	w.bool(&c.Unpack)
	w.bool(&c.DestOnly)
}

// outcome is the child's report. A child that was killed sends none.
type outcome struct {
	result Result
	// failed is set if the step could not be run; message is the error.
	failed  bool
	message string
	// errno is the number of a system call's error that message describes; 0 if there is none.
	errno int
	// changed is the Path of a copyfs.ChangedError; "" if there was none.
	changed string
	// changedBelow is the Below of a copyfs.ChangedError.
	changedBelow bool
	// exit describes a command that failed or could not be started.
	exit ExitError
}

// childError is an error of the child: its text and the system call's error in it.
type childError struct {
	message string
	errno   syscall.Errno
}

func (e *childError) Error() string { return e.message }

// Unwrap returns the system call's error.
func (e *childError) Unwrap() error {
	if e.errno == 0 {
		return nil
	}
	return e.errno
}

func (w *wire) outcome(o *outcome) {
	w.strings(&o.result.Warnings)
	w.int(&o.result.Files.OwnersLost)
	w.string(&o.result.Files.FirstOwner)
	w.int(&o.result.Files.StandIns)
	w.string(&o.result.Files.FirstStandIn)
	w.int(&o.result.Files.AttrsLost)
	w.string(&o.result.Files.FirstAttr)
	w.strings(&o.result.Files.Warnings)
	w.dest(&o.result.Files.Dest)
	w.bool(&o.failed)
	w.string(&o.message)
	w.int(&o.errno)
	w.string(&o.changed)
	w.bool(&o.changedBelow)
	w.int(&o.exit.Code)
	w.int(&o.exit.Signal)
	w.string(&o.exit.Reason)
	w.string(&o.exit.Machine)
}

func (w *wire) dest(d **copyfs.Dest) {
	there := *d != nil
	if w.bool(&there); !there {
		return
	}
	if *d == nil {
		*d = &copyfs.Dest{}
	}
	w.string(&(*d).Path)
	w.bool(&(*d).Empty)
	w.bool(&(*d).Inherits)
	w.bool(&(*d).Chown)
	w.uint32(&(*d).UID)
	w.uint32(&(*d).GID)
}

func send(to io.Writer, fields func(*wire)) error {
	w := wire{buf: make([]byte, 8, 4096)}
	fields(&w)
	binary.LittleEndian.PutUint64(w.buf, uint64(len(w.buf)-8))
	_, err := to.Write(w.buf)
	return err
}

// maxMessage is the maximum size of a message: a COPY of ten million files needs 1 GiB.
const maxMessage = 4 << 30

func receive(from io.Reader, fields func(*wire)) error {
	var head [8]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return err
	}
	n := binary.LittleEndian.Uint64(head[:])
	if n > maxMessage {
		return errWire
	}
	message := make([]byte, n)
	if _, err := io.ReadFull(from, message); err != nil {
		return errWire
	}
	w := reader(message)
	fields(w)
	if w.err == nil && len(w.text) != 0 {
		return errWire
	}
	return w.err
}

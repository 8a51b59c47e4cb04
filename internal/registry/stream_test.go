package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// growing is a blob that a test writes to.
type growing struct {
	mu      sync.Mutex
	data    []byte
	done    bool
	err     error
	readers int
	changed chan struct{}
}

func newGrowing() *growing { return &growing{changed: make(chan struct{})} }

func (g *growing) change(do func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	do()
	close(g.changed)
	g.changed = make(chan struct{})
}

func (g *growing) write(p []byte) { g.change(func() { g.data = append(g.data, p...) }) }
func (g *growing) end(err error)  { g.change(func() { g.done, g.err = true, err }) }

func (g *growing) Result() (ocispec.Descriptor, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip,
		Digest: digest.FromBytes(g.data), Size: int64(len(g.data))}, g.done && g.err == nil
}

func (g *growing) Wait(ctx context.Context) (ocispec.Descriptor, error) {
	for {
		g.mu.Lock()
		done, err, changed := g.done, g.err, g.changed
		g.mu.Unlock()
		if done {
			d, _ := g.Result()
			return d, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ocispec.Descriptor{}, ctx.Err()
		}
	}
}

func (g *growing) Open(ctx context.Context) (io.ReadCloser, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.done && g.readers == 0 {
		return nil, os.ErrClosed
	}
	g.readers++
	return &growingReader{ctx: ctx, g: g}, nil
}

type growingReader struct {
	ctx context.Context
	g   *growing
	at  int

	closed bool
}

func (r *growingReader) Read(p []byte) (int, error) {
	for {
		r.g.mu.Lock()
		n := copy(p, r.g.data[r.at:])
		r.at += n
		done, err, changed := r.g.done, r.g.err, r.g.changed
		r.g.mu.Unlock()
		if n > 0 || err != nil {
			return n, err
		}
		if done {
			return 0, io.EOF
		}
		select {
		case <-changed:
		case <-r.ctx.Done():
			return 0, r.ctx.Err()
		}
	}
}

func (r *growingReader) Close() error {
	r.g.mu.Lock()
	defer r.g.mu.Unlock()
	if !r.closed {
		r.closed = true
		r.g.readers--
	}
	return nil
}

// TestStream sends a blob while it is written, to servers that behave in different ways, and pushes
// the blob afterwards: the server has it, sent as often as wanted.
func TestStream(t *testing.T) {
	content := make([]byte, 3_000_000)
	rand.NewChaCha8([32]byte{}).Read(content)
	refuse := func(method string, status int) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != method || !strings.Contains(r.URL.Path, "/uploads/") {
				return false
			}
			w.WriteHeader(status)
			return true
		}
	}
	// A server does not see that a client has gone while it has not read the request's body.
	var end chan struct{}
	stuck := func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPatch {
			return false
		}
		<-end
		return true
	}
	var s *server
	late := func(_ http.ResponseWriter, r *http.Request) bool {
		for r.Method == http.MethodPatch && s.count("HEAD") == 0 {
			time.Sleep(time.Millisecond) // until the client looks whether the server has the blob
		}
		return false
	}
	for _, tt := range []struct {
		name    string
		hook    func(w http.ResponseWriter, r *http.Request) bool
		has     bool // the server has the blob already
		streams string
		puts    int // with the digest; -1: any number
	}{
		{"a registry", nil, false, "", 1},
		{"no streams", refuse(http.MethodPatch, 405), false, "405", 1},
		{"no uploads at first", func() func(w http.ResponseWriter, r *http.Request) bool {
			var once sync.Once
			return func(w http.ResponseWriter, r *http.Request) (refused bool) {
				if r.Method == http.MethodPost {
					once.Do(func() { w.WriteHeader(403); refused = true })
				}
				return refused
			}
		}(), false, "403", 1},
		{"the stream gets lost", func() func(w http.ResponseWriter, r *http.Request) bool {
			var once sync.Once
			return func(w http.ResponseWriter, r *http.Request) (refused bool) {
				if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/uploads/") {
					once.Do(func() { w.WriteHeader(404); refused = true })
				}
				return refused
			}
		}(), false, "404", 2},
		{"the blob exists", late, true, "", -1}, // 0, unless the server reads it all meanwhile
		{"the blob exists, and the server reads nothing", stuck, true, "", 0},
		{"the server reads nothing", stuck, false, errNoAnswer.Error(), 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s = newServer(t, false)
			end = make(chan struct{})
			t.Cleanup(func() { close(end) })
			s.hook = tt.hook
			b := blobs{}
			d := b.add(ocispec.MediaTypeImageLayerGzip, content)
			if tt.has {
				s.blobs[d.Digest] = content
			}
			c := newClient(t, "")
			if tt.puts >= 0 {
				c.o.Idle = 50 * time.Millisecond // times 20 for an upload
			}
			p, err := c.Pusher(s.host+"/to:1", PushOptions{})
			if err != nil {
				t.Fatal(err)
			}
			g := newGrowing()
			g.write(content[:1_000_000])
			streamed := make(chan error, 1)
			go func() { streamed <- p.Stream(t.Context(), g) }()
			for s.count("POST") == 0 || tt.hook == nil && s.count("PATCH") == 0 {
				time.Sleep(time.Millisecond) // the upload begins before the blob is complete
			}
			g.write(content[1_000_000:])
			g.end(nil)
			if err := p.Blob(t.Context(), b, d); err != nil {
				t.Fatal(err)
			}
			err = <-streamed
			if tt.streams == "" && err != nil ||
				tt.streams != "" && (err == nil || !strings.Contains(err.Error(), tt.streams)) {
				t.Errorf("Stream returns %v, want %q", err, tt.streams)
			}
			if !bytes.Equal(s.blobs[d.Digest], content) {
				t.Error("the server does not have the blob")
			}
			if n := s.left(); n != 0 {
				t.Errorf("%d uploads are left", n)
			}
			if n := s.count("digest="); n != tt.puts && tt.puts >= 0 {
				t.Errorf("the blob was completed %d times, want %d: %q", n, tt.puts, s.requests())
			}
		})
	}
}

// TestStreamEnds checks that an upload ends when its blob will not be written or the context ends,
// and that the server hears of it.
func TestStreamEnds(t *testing.T) {
	failed := errors.New("the disk is full")
	for _, tt := range []struct {
		name string
		end  func(g *growing, cancel func())
		want error
	}{
		{"writing fails", func(g *growing, _ func()) { g.end(failed) }, failed},
		{"canceled", func(_ *growing, cancel func()) { cancel() }, context.Canceled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t, false)
			p, err := newClient(t, "").Pusher(s.host+"/to:1", PushOptions{})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			g := newGrowing()
			g.write(make([]byte, 100_000))
			streamed := make(chan error, 1)
			go func() { streamed <- p.Stream(ctx, g) }()
			for s.count("PATCH") == 0 {
				time.Sleep(time.Millisecond)
			}
			tt.end(g, cancel)
			if err := <-streamed; !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if n := s.left(); n != 0 {
				t.Errorf("%d uploads are left after %q", n, s.requests())
			}
		})
	}
}

// TestManyStreams pushes more blobs at once than there are slots for uploads.
func TestManyStreams(t *testing.T) {
	s := newServer(t, false)
	p, err := newClient(t, "").Pusher(s.host+"/to:1", PushOptions{Jobs: 2})
	if err != nil {
		t.Fatal(err)
	}
	b := blobs{}
	for i := range 12 {
		b.add(ocispec.MediaTypeImageLayerGzip, bytes.Repeat([]byte{byte(i)}, 100_000))
	}
	var wg sync.WaitGroup
	for id, data := range b {
		d := ocispec.Descriptor{Digest: id, Size: int64(len(data))}
		g := newGrowing()
		wg.Go(func() {
			// Some are complete before there is a slot for them.
			if err := p.Stream(t.Context(), g); err != nil && err != errComplete {
				t.Error(err)
			}
		})
		wg.Go(func() {
			g.write(data)
			g.end(nil)
		})
		wg.Go(func() {
			if _, err := g.Wait(t.Context()); err != nil {
				t.Error(err)
			}
			if err := p.Blob(t.Context(), b, d); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for d := range b {
		if _, ok := s.blobs[d]; !ok {
			t.Errorf("the server does not have %s", d)
		}
	}
}

// TestStreamTooLate checks that no upload is begun for a blob that is complete before there is a
// slot: Blob looks first whether the server has it.
func TestStreamTooLate(t *testing.T) {
	s := newServer(t, false)
	p, err := newClient(t, "").Pusher(s.host+"/to:1", PushOptions{})
	if err != nil {
		t.Fatal(err)
	}
	g := newGrowing()
	g.write([]byte("content"))
	g.end(nil)
	if err := p.Stream(t.Context(), g); !errors.Is(err, errComplete) {
		t.Errorf("error %v, want %v", err, errComplete)
	}
	if l := s.requests(); len(l) != 0 {
		t.Errorf("requests %q", l)
	}
}

// TestStreamSlowBegin checks that a blob is sent in the upload that was begun for it, although it
// was completed meanwhile.
func TestStreamSlowBegin(t *testing.T) {
	s := newServer(t, false)
	g := newGrowing()
	g.write([]byte("content"))
	s.hook = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			g.end(nil)
		}
		return false
	}
	p, err := newClient(t, "").Pusher(s.host+"/to:1", PushOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stream(t.Context(), g); err != nil {
		t.Error(err)
	}
	if s.count("digest=") != 1 || g.readers != 0 {
		t.Errorf("%d open readers after %q, want one upload", g.readers, s.requests())
	}
}

// TestTags pushes blobs to two names of one repository at once, one of them while it is written:
// each is sent once.
func TestTags(t *testing.T) {
	s := newServer(t, false)
	b := blobs{}
	content := bytes.Repeat([]byte("content"), 100_000)
	big := b.add(ocispec.MediaTypeImageLayerGzip, content)
	small := b.add(ocispec.MediaTypeImageConfig, []byte("config"))
	c := newClient(t, "")
	g := newGrowing()
	g.write(content[:100_000])
	var wg sync.WaitGroup
	for _, tag := range []string{"1", "2"} {
		p, err := c.Pusher(s.host+"/to:"+tag, PushOptions{})
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if err := p.Stream(t.Context(), g); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if _, err := g.Wait(t.Context()); err != nil {
				t.Error(err)
			}
			for _, d := range []ocispec.Descriptor{big, small} {
				if err := p.Blob(t.Context(), b, d); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for s.count("PATCH") == 0 {
		time.Sleep(time.Millisecond)
	}
	g.write(content[100_000:])
	g.end(nil)
	wg.Wait()
	if n := s.count("POST"); n != 2 {
		t.Errorf("%d uploads of two blobs: %q", n, s.requests())
	}
	for d := range b {
		if _, ok := s.blobs[d]; !ok {
			t.Errorf("the server does not have %s", d)
		}
	}
}

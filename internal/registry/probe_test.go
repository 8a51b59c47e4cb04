package registry

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
)

// breaking is a listener that closes the next connections at once.
type breaking struct {
	net.Listener
	left atomic.Int32
}

func (b *breaking) Accept() (net.Conn, error) {
	conn, err := b.Listener.Accept()
	if err == nil && b.left.Add(-1) >= 0 {
		conn.Close()
	}
	return conn, err
}

// TestProxyRefuses checks that an error names the proxy that does not connect to a registry.
func TestProxyRefuses(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no", http.StatusForbidden)
	}))
	t.Cleanup(proxy.Close)
	c := newClient(t, "")
	at, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	c.o.Proxy = http.ProxyURL(at)
	_, err = c.Head(t.Context(), "registry.example.com/a:1")
	want := "the proxy " + at.Host + " does not connect to registry.example.com:443: it answers " +
		"403 Forbidden"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v", err)
	}
}

// TestProbe checks which scheme a client uses for a server that may use plain http.
func TestProbe(t *testing.T) {
	for _, tt := range []struct {
		name   string
		secure bool
		broken int32 // connections
		want   string
	}{
		{"https", true, 0, "https"},
		{"https that breaks a connection", true, 1, "https"},
		{"http", false, 0, "http"},
		{"https that breaks all", true, 1 << 20, "http"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t, false)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			b := &breaking{Listener: l}
			b.left.Store(tt.broken)
			mine := httptest.NewUnstartedServer(s)
			mine.Config.ErrorLog = s.Config.ErrorLog
			mine.Listener.Close()
			mine.Listener = b
			if tt.secure {
				mine.StartTLS()
			} else {
				mine.Start()
			}
			t.Cleanup(mine.Close)
			h, err := newClient(t, "").host(l.Addr().String(), true)
			if err != nil {
				t.Fatal(err)
			}
			base, err := h.base(t.Context())
			if scheme, _, _ := strings.Cut(base, "://"); err != nil || scheme != tt.want {
				t.Errorf("%q, %v", base, err)
			}
			if why := h.noTLS.Load(); (why != nil) != (tt.want == "http") {
				t.Errorf("the reason for plain http is %v", why)
			}
		})
	}
}

// TestExplainPlainHTTP checks that the error of a request by plain http says why https was not
// used, unless the server is one of plain http.
func TestExplainPlainHTTP(t *testing.T) {
	refused := &net.DNSError{Err: "no such host", Name: "h"}
	for _, tt := range []struct {
		noTLS error
		want  string
	}{
		{nil, "h cannot be looked up: no such host (is this machine online?)"},
		{io.ErrUnexpectedEOF, "h cannot be looked up: no such host (is this machine online?) " +
			"(and by https: unexpected EOF)"},
		{refused, "h cannot be looked up: no such host (is this machine online?)"},
		{tls.RecordHeaderError{Msg: "x"},
			"h cannot be looked up: no such host (is this machine online?)"},
	} {
		h := &host{name: "h"}
		if tt.noTLS != nil {
			h.noTLS.Store(&tt.noTLS)
		}
		if got := explain(h, &url.Error{Err: refused}).Error(); got != tt.want {
			t.Errorf("after %v: %s", tt.noTLS, got)
		}
	}
}

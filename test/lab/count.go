package lab

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// Counter is a proxy that counts the bytes that pass through it.
type Counter struct {
	// Host is the address of the proxy, which stands for the server's.
	Host string

	sent, received atomic.Int64
}

// Count returns a proxy for a server on loopback. It ends with the test.
func Count(t testing.TB, server string) *Counter {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &Counter{Host: ln.Addr().String()}
	var wg sync.WaitGroup
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			from, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { c.pass(from, server) })
		}
	})
	return c
}

// pass connects a client to the server until one of them closes its connection.
func (c *Counter) pass(from net.Conn, server string) {
	defer from.Close()
	to, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer to.Close()
	var wg sync.WaitGroup
	copying := func(dst, src net.Conn, n *atomic.Int64) {
		wg.Go(func() {
			defer dst.Close()
			_, _ = io.Copy(counted{dst, n}, src) // the other side has the error, too
		})
	}
	copying(to, from, &c.sent)
	copying(from, to, &c.received)
	wg.Wait()
}

// counted counts what is written.
type counted struct {
	w io.Writer
	n *atomic.Int64
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// Bytes returns the bytes that clients have sent and received since the last call.
func (c *Counter) Bytes() (sent, received int64) { return c.sent.Swap(0), c.received.Swap(0) }

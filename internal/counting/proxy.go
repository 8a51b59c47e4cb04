package counting

import (
	"bytes"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// Proxy passes connections on to a server, and counts what is sent.
type Proxy struct {
	// Host is the address of the proxy, which stands for the server's.
	Host string

	server                   string
	ln                       net.Listener
	running                  sync.WaitGroup
	sent, received, requests atomic.Int64
}

// Start starts a proxy for a server on loopback.
func Start(server string) (*Proxy, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{Host: ln.Addr().String(), server: server, ln: ln}
	p.running.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			p.running.Go(func() { p.pass(conn) })
		}
	})
	return p, nil
}

// Close ends the proxy when the clients have closed their connections.
func (p *Proxy) Close() {
	p.ln.Close()
	p.running.Wait()
}

// pass connects a client to the server until one of them closes its connection.
func (p *Proxy) pass(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	defer server.Close()
	var both sync.WaitGroup
	copying := func(to, from net.Conn, count func([]byte)) {
		both.Go(func() {
			defer to.Close()
			// An error ends the connection, which both sides see.
			_, _ = io.Copy(counter{to, count}, from)
		})
	}
	copying(server, client, func(b []byte) {
		p.sent.Add(int64(len(b)))
		p.requests.Add(int64(bytes.Count(b, []byte(" HTTP/1.1\r\n"))))
	})
	copying(client, server, func(b []byte) { p.received.Add(int64(len(b))) })
	both.Wait()
}

// counter calls a function with what is written to it.
type counter struct {
	w     io.Writer
	count func([]byte)
}

// Write implements io.Writer.
func (c counter) Write(b []byte) (int, error) {
	c.count(b)
	return c.w.Write(b)
}

// Counts are the bytes that clients have sent and received, and the number of their requests.
type Counts struct{ Sent, Received, Requests int64 }

// Counts returns what was counted since the last call.
func (p *Proxy) Counts() Counts {
	return Counts{p.sent.Swap(0), p.received.Swap(0), p.requests.Swap(0)}
}

package lab

import (
	"testing"

	"github.com/layerbuild/layerbuild/internal/counting"
)

// Count returns a proxy for a server on loopback, which counts what is sent. It ends with the test.
func Count(t testing.TB, server string) *counting.Proxy {
	t.Helper()
	p, err := counting.Start(server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

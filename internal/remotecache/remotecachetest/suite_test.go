package remotecachetest_test

import (
	"testing"

	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/remotecache/remotecachetest"
)

// TestMemory checks that the store in memory passes the tests.
func TestMemory(t *testing.T) {
	var m remotecachetest.Memory
	remotecachetest.Test(t, func(_ *testing.T, on *remotecachetest.Machine) remotecache.Store {
		return m.On(on.State.Store)
	})
}

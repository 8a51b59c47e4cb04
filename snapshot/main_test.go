package snapshot_test

import (
	"os"
	"testing"

	"github.com/layerbuild/layerbuild/internal/mount/mounttest"
	"github.com/layerbuild/layerbuild/snapshot"
	"github.com/layerbuild/layerbuild/snapshot/snapshottest"
)

func TestMain(m *testing.M) { os.Exit(mounttest.Main(m)) }

// TestDrivers runs the conformance suite for every driver that works here.
func TestDrivers(t *testing.T) {
	mounttest.Need(t)
	o := snapshot.Options{UserNS: mounttest.UserNS()}
	for _, r := range snapshot.Probe(t.TempDir(), o) {
		t.Run(r.Name, func(t *testing.T) {
			if !r.OK {
				t.Skip(r.Reason)
			}
			snapshottest.Run(t, func(t *testing.T, root string) *snapshot.Store {
				t.Helper()
				s, err := snapshot.Open(t.Context(), root,
					snapshot.Options{Driver: r.Name, UserNS: o.UserNS})
				if err != nil {
					t.Fatal(err)
				}
				return s
			})
		})
	}
}

func TestDriversInUserNamespace(t *testing.T) {
	for _, kind := range []mounttest.Kind{mounttest.Range, mounttest.Single} {
		t.Run(string(kind), func(t *testing.T) { mounttest.Again(t, kind, "TestDrivers") })
	}
}

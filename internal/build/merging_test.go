package build

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/layerbuild/layerbuild/snapshot"
)

// slowChains takes a second for each chain.
type slowChains struct{ running, merged atomic.Int32 }

func (c *slowChains) MergeNeeded(id snapshot.ID) bool { return id != "short" }

func (c *slowChains) Merge(ctx context.Context, _ snapshot.ID) error {
	defer c.running.Add(-1)
	if c.running.Add(1) > 1 {
		panic("two merges run at once")
	}
	select {
	case <-time.After(time.Second):
		c.merged.Add(1)
	case <-ctx.Done():
	}
	return context.Cause(ctx)
}

// TestMerging checks that one chain is merged at a time, behind the steps, and that Close waits.
func TestMerging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chains := &slowChains{}
		m := merging{chains: chains}
		ctx, cancel := context.WithCancel(t.Context())
		m.consider(ctx, "short")
		m.consider(ctx, "long")
		m.consider(ctx, "long")
		if n := chains.merged.Load(); n != 0 {
			t.Errorf("consider has merged %d chains, want 0", n)
		}
		m.wait.Wait()
		m.consider(ctx, "long")
		m.wait.Wait()
		if n := chains.merged.Load(); n != 2 {
			t.Errorf("%d chains were merged, want 2", n)
		}
		m.consider(ctx, "long")
		cancel()
		m.wait.Wait()
		if n := chains.merged.Load(); n != 2 {
			t.Errorf("%d chains were merged after the end, want 2", n)
		}
	})
}

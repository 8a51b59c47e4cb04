package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/layerbuild/layerbuild/internal/lock"
	"github.com/layerbuild/layerbuild/internal/smallfile"
)

// syncState is what is known of one boot: how many syncs were begun in it, and the last one that ended well.
type syncState struct {
	begun, done int
}

// maxBoots bounds the file of syncs. Records of boots that fall out are no longer trusted.
const maxBoots = 256

func (c *Cache) syncFile() string { return filepath.Join(c.dir, "syncs") }

// trusted says whether what a record names is sure to be on the disk, or in memory.
func (c *Cache) trusted(boot string, syncs int) bool {
	if boot == c.boot {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// An earlier boot's state no longer changes, so one look is enough.
	if c.syncs == nil {
		var err error
		if c.syncs, err = c.readSyncs(); err != nil {
			return false
		}
	}
	// A record that was written after a sync has begun carries that sync's number and waits for the next.
	return syncs < c.syncs[boot].done
}

// readSyncs reads a line for each boot: its id, the number of syncs begun, the number of the last that was done.
func (c *Cache) readSyncs() (map[string]syncState, error) {
	states, _, err := c.readSyncsOrder()
	return states, err
}

func (c *Cache) readSyncsOrder() (map[string]syncState, []string, error) {
	data, err := smallfile.Read(c.syncFile())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	states := map[string]syncState{}
	var order []string
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) != 3 || !strings.HasSuffix(line, "\n") {
			continue // cut by a crash: that boot's records are not trusted
		}
		begun, err1 := strconv.Atoi(f[1])
		done, err2 := strconv.Atoi(f[2])
		if err1 != nil || err2 != nil {
			continue
		}
		if _, ok := states[f[0]]; !ok {
			order = append(order, f[0])
		}
		states[f[0]] = syncState{begun, done}
	}
	return states, order, nil
}

// SyncMark is a sync under way.
type SyncMark struct {
	c *Cache
	n int
}

// BeginSync is called before the file system of the state directory is synced.
func (c *Cache) BeginSync() (*SyncMark, error) {
	m := &SyncMark{c: c}
	err := c.changeSyncs(func(s *syncState) {
		s.begun++
		m.n = s.begun
	})
	if err != nil {
		return nil, fmt.Errorf("mark the cache as synced: %w", err)
	}
	return m, nil
}

// Done is called after the file system was synced: records from before BeginSync are trusted in later boots too.
func (m *SyncMark) Done() error {
	err := m.c.changeSyncs(func(s *syncState) { s.done = max(s.done, m.n) })
	if err != nil {
		return fmt.Errorf("mark the cache as synced: %w", err)
	}
	return nil
}

// changeSyncs changes the state of this boot.
func (c *Cache) changeSyncs(change func(*syncState)) error {
	held, err := lock.Acquire(context.Background(), filepath.Join(c.dir, "lock"), true)
	if err != nil {
		return err
	}
	defer held.Close()
	states, order, err := c.readSyncsOrder()
	if err != nil {
		return err
	}
	s, ok := states[c.boot]
	if !ok {
		order = append(order, c.boot)
	}
	change(&s)
	states[c.boot] = s
	if len(order) > maxBoots {
		order = order[len(order)-maxBoots:]
	}
	var b strings.Builder
	for _, boot := range order {
		fmt.Fprintf(&b, "%s %d %d\n", boot, states[boot].begun, states[boot].done)
	}
	return c.replace(c.syncFile(), []byte(b.String()))
}

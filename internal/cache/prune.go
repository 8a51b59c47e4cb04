package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// PruneOptions say which records are kept. The zero value removes only what is of no use to anybody: what cannot be
// read, and what is not trusted.
type PruneOptions struct {
	// Exists says whether there is such a snapshot. Records of snapshots that are gone are removed. nil: all exist.
	Exists func(snapshot string) bool
	// Unused removes records that were neither written nor touched for so long. Zero: no limit.
	Unused time.Duration
	// Keep removes the records that were not used for longest, until the snapshots that the others name take up no
	// more than so many bytes by Size. A negative value keeps none. Zero, or no Size: no limit.
	Keep int64
	Size func(snapshot string) int64
	// Spare keeps a record whatever the other options say, if it can be read and its snapshot exists. nil: none.
	Spare func(Entry) bool
	// DryRun removes nothing.
	DryRun bool
}

// Pruned is the outcome of Prune.
type Pruned struct {
	Records int
	// Live are the snapshots that the remaining records name. A snapshot that is neither live nor the parent of one
	// that is, nor in use by something else, can be removed.
	Live map[string]bool
}

// Prune removes records. It is for a time when no build runs: a build could be about to use a record, and would only
// lose its work, but it could also have made a snapshot that it has not recorded yet.
func (c *Cache) Prune(ctx context.Context, o PruneOptions) (Pruned, error) {
	p := Pruned{Live: map[string]bool{}}
	var keep, candidates []Entry
	drop := func(e Entry) error {
		p.Records++
		if o.DryRun {
			return nil
		}
		if err := os.RemoveAll(e.path); err != nil { // a damaged one may be a directory
			return fmt.Errorf("prune the cache: %w", err)
		}
		return nil
	}
	now := time.Now()
	for _, kind := range kinds {
		for e, err := range c.files(kind) {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return p, fmt.Errorf("prune the cache: %w", err)
			}
			gone := e.Snapshot != "" && o.Exists != nil && !o.Exists(e.Snapshot)
			switch {
			case e.Kind == "" || !e.Trusted || gone:
				err = drop(e)
			case o.Spare != nil && o.Spare(e):
				keep = append(keep, e)
			case o.Unused > 0 && now.Sub(e.Used) > o.Unused:
				err = drop(e)
			default:
				candidates = append(candidates, e)
			}
			if err != nil {
				return p, err
			}
		}
	}
	kept, dropped := leastUsed(keep, candidates, o)
	for _, e := range dropped {
		if err := drop(e); err != nil {
			return p, err
		}
	}
	for _, e := range kept {
		if e.Snapshot != "" {
			p.Live[e.Snapshot] = true
		}
	}
	return p, c.dropTemporary(o)
}

// leastUsed divides the candidates, so that what those that stay name fits o.Keep.
func leastUsed(keep, candidates []Entry, o PruneOptions) (kept, dropped []Entry) {
	if o.Keep == 0 || o.Keep > 0 && o.Size == nil {
		return append(keep, candidates...), nil
	}
	slices.SortStableFunc(candidates, func(a, b Entry) int { return b.Used.Compare(a.Used) })
	total, seen := int64(0), map[string]bool{}
	count := func(e Entry) {
		if e.Snapshot != "" && !seen[e.Snapshot] && o.Size != nil {
			seen[e.Snapshot] = true
			total += o.Size(e.Snapshot)
		}
	}
	for _, e := range keep {
		count(e)
	}
	for i, e := range candidates {
		count(e)
		if o.Keep < 0 || total > o.Keep {
			// Everything that was used longer ago goes too, even if it would fit: it may stand on this one.
			return append(keep, candidates[:i]...), candidates[i:]
		}
	}
	return append(keep, candidates...), nil
}

// dropTemporary removes what killed processes have left. An hour is far more than a record takes to write.
func (c *Cache) dropTemporary(o PruneOptions) error {
	names, err := os.ReadDir(c.tmp())
	if err != nil {
		return fmt.Errorf("prune the cache: %w", err)
	}
	for _, n := range names {
		fi, err := n.Info()
		if err != nil || o.DryRun || time.Since(fi.ModTime()) < time.Hour {
			continue
		}
		if err := os.Remove(filepath.Join(c.tmp(), n.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("prune the cache: %w", err)
		}
	}
	return nil
}

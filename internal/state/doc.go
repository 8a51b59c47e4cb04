// Package state opens, syncs and collects the state directory, which holds what is kept between builds: images, snapshots
// and the cache.
package state

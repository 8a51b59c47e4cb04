// Package state opens, syncs and collects the state directory, which contains the data that are
// kept between builds: images, snapshots and the cache.
//
// It writes only below the state directory. Its tests run as any user, with the best snapshot
// driver that works on the machine.
package state

// Package caches tests caches that several machines share (--cache) with real servers.
//
// It imports cachestore, counting, remotecache, remotecache/remotecachetest and lab. It starts
// servers on loopback, and runs the program.
//
// To run it: go test ./test/caches, as root. It needs docker-registry and nginx. Tests of
// bazel-remote and versitygw are skipped unless the programs are in PATH: scripts/cache-servers
// builds them, and make release-test runs all.
package caches

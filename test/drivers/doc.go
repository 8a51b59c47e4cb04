// Package drivers builds whole images with fuse-overlayfs, a snapshot driver that few machines use
// by default: every kind of step, kills, the end of the fuse-overlayfs process, and changes of the
// driver.
//
// It imports imagetest and lab. It runs the program, makes users and kills builds.
//
// To run it: go test ./test/drivers, as root. It needs fuse-overlayfs.
package drivers

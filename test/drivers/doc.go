// Package drivers builds whole images with fuse-overlayfs, a snapshot driver that few machines use
// by default: every kind of step, kills, the end of the fuse-overlayfs process, and changes of the
// driver. TestOutline builds on outlines of base images and on unpacked ones.
//
// It imports imagetest, rounds and lab. It runs the program, makes users and kills builds.
//
// To run it: go test ./test/drivers, as root. It needs fuse-overlayfs.
package drivers

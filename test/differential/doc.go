// Package differential compares random changes with the layers that are made from them, on every
// snapshot driver. It calls packages snapshot and diff and does not run the program.
//
// It imports diff, layercheck, mount, mount/mounttest, rounds and snapshot. It makes mounts in a
// mount namespace of its own, and btrfs on a loop device.
//
// To run it: go test ./test/differential, as root. As another user it tests the drivers that work
// in a user namespace. A failed round prints its seed, and LAYERBUILD_SEED repeats it. make faults
// runs more rounds.
package differential

// Package units prints and reads sizes.
//
// Sizes are printed with decimal units, as registries use them: k is 1000. In sizes that a user
// writes, k and kB are 1000 and KiB is 1024, and so on, except where docker and buildx define the
// size (--shm-size, --keep-storage and its variable and configuration key, the sizes of prune,
// size= of a tmpfs): there each unit is a power of 1024, as in docker.
//
// It imports no other package of the module. It has no state and does no I/O.
//
// To test it, run go test ./internal/units as any user. FuzzParse reads random sizes.
package units

// Package slurm runs a plan of layerbuild on Slurm: the jobs share one cache in a registry, and the
// image that the last one pushes has the digest of a build on one machine.
//
// It imports lab. It starts the programs of Debian's packages munge, slurmctld, slurmd and
// slurm-client, with a configuration, ports and directories of its own, and docker-registry. All of
// them end with the test.
//
// To run it: go test ./test/slurm, as root.
package slurm

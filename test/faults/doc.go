// Package faults attacks the program with hostile input, broken registries, full disks and kills.
//
// Each line of the table in docs/SECURITY.md has a test here. Long tests are shortened unless
// LAYERBUILD_FAULTS=1 is set, as make faults does.
//
// It imports imagetest, rounds and lab. It runs the program, mounts small file systems and kills
// builds. Memory and time of each command are limited.
//
// To run it: go test ./test/faults, as root.
package faults

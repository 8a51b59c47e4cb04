// Package soundness tests that the cache never changes the result of a build.
//
// TestSoundness makes random Dockerfiles and edits. TestInputs changes the inputs of each kind of
// step one at a time. After any earlier builds, and after any change of the state directory, a
// build must have the digest of the same build on a new state. TestNewest has commands whose
// results differ each time: all files that were made from the result of one command must be from
// the same run of it.
//
// It imports imagebuild, imagetest, job, rounds, source, parser and lab. It takes the fields of
// steps from the types of job, source and parser, and runs the program, a web server and git.
//
// To run it: go test ./test/soundness, as root or as a user who may make user namespaces. A failed
// round prints its seed, and LAYERBUILD_SEED repeats it. make faults runs more rounds.
//
// # Mutants
//
// testdata/mutants.txt is a table of programs that each break one rule of the cache. A record has
// the name of a mutant and the rule that it breaks, the test that has found it and, for each change
// of the source, a file, the replaced text and the new text. The rounds are those of go test. If no
// round is named, the mutant was found when the changes were in other rounds.
//
// go test checks that each mutant can be made. This builds all of them, and fails if the tests pass
// with one:
//
//	LAYERBUILD_MUTANTS=all go test -run TestMutants -timeout 0 -v ./test/soundness
//
// The table omits changes on which no result depends:
//
//   - the platform is not in the key of RUN: a command does not see it, and an image for another
//     platform has other layers
//   - whether owners are kept is not in the content key of COPY: the digest of the files has the
//     owners if they are kept
//   - the record under a definition key is not renewed after a hit under the content key: the next
//     build digests the files again
//   - an imported layer is fetched once for all snapshots: it is used on those that have the same
//     layers
package soundness

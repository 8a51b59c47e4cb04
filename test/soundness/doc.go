// Package soundness tests that the cache never changes the result of a build.
//
// TestSoundness makes random Dockerfiles and edits, TestInputs changes the inputs of each kind of step one at a time: after any
// earlier builds, and after any change of the state directory, a build has the digest of the same build on a new state.
// TestNewest has commands whose results differ each time: files that were made from one command are of one run of it.
package soundness

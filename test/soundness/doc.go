// Package soundness tests that the cache never changes the result of a build: after any earlier builds, and after any
// change of the state directory, a build has the digest of the same build on a new state.
package soundness

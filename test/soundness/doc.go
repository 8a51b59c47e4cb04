// Package soundness tests that the cache never changes the result of a build: whatever was built before, and whatever
// happened to the state directory meanwhile, a build has the digest of the same build on a new state.
package soundness

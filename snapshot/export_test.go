package snapshot

// LoopMount is for the tests outside of the package.
var LoopMount = loopMount

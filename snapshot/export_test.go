package snapshot

// LoopMount is loopMount, for the tests outside of the package.
var LoopMount = loopMount

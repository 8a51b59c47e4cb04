// Package rounds runs randomized tests round by round, each round from one seed.
//
// A run of go test executes the fixed seeds and a few fresh ones. With LAYERBUILD_FAULTS=1, which
// make faults sets, a test continues after the last seed in its ledger until it has passed the
// required number of rounds, so that hours of rounds can be spread over several runs.
// LAYERBUILD_SEED=N runs the one round of seed N.
//
// It imports no other package of the module. It writes the ledgers, and starts git to find the
// checkout and its commit. It is for tests only.
//
// To test it, run go test ./internal/rounds as any user.
package rounds

// Package rounds runs randomized tests round by round, each round from one seed.
//
// A run of go test executes the fixed seeds and a few fresh ones. With LAYERBUILD_FAULTS=1, which
// make faults sets, a test goes on from the last seed that its ledger records until it has passed
// the number of rounds asked for, so that hours of rounds can be spread over several runs.
// LAYERBUILD_SEED=N runs the one round of seed N.
//
// It imports no other package of the module. It writes the ledgers, and starts git to find the
// checkout and its commit. It is for tests only.
//
// To test it, run go test ./internal/rounds as any user.
package rounds

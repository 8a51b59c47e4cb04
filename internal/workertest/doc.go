// Package workertest does the same work concurrently in goroutines and in processes, for tests of
// files that several processes write.
//
// It imports no other package of the module. It makes no system calls, and starts the test program
// again. It is for tests only.
//
// It is tested by its users: go test ./internal/store ./internal/cache as any user.
package workertest

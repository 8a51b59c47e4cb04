// Package lab runs the program in integration tests, each on a state directory of its own, with a
// registry on loopback. It makes users, ends commands that hang, and checks that no mount is left
// behind.
//
// It imports counting, imagetest and registrytest. It makes system calls to kill processes, and
// starts the program that LAYERBUILD names, or builds one. It is for tests only.
//
// To test it, run go test ./test/lab as any user. Its users are the packages below test.
package lab

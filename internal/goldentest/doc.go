// Package goldentest compares texts with the golden files of a package's tests.
//
// It imports no other package of the module. It reads and, with the flag -update, writes files in
// the directory testdata of the package under test. It is for tests only.
//
// It is tested by its users: go test ./internal/ui ./export, as any user.
package goldentest

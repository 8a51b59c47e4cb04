// Package sorting sorts slices of structs with little machine code.
//
// The compiler makes a copy of slices.SortFunc or slices.SortStableFunc for each type of element,
// of about 9 KB with its tables. The program sorts sixteen types of short lists. The
// functions of this package share one copy and need a few more instructions for each comparison.
// Long lists, such as the names in a directory, are sorted with package slices.
//
// It imports no other package of the module. It makes no system calls and writes nothing.
//
// To test it, run go test ./internal/sorting as any user.
package sorting

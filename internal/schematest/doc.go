// Package schematest validates documents against JSON schemas. It is for tests only.
//
// It imports no other package of the module. It reads the files that it is given, and makes no
// other system calls.
//
// To test it, run go test ./internal/sarif as any user: documents with mistakes must not pass.
package schematest

// Package ci checks the examples for CI systems: each file against the schema or with the checker
// of its system, and its shell lines by running them with the program and a registry on loopback.
//
// It imports schematest and lab. It starts the program, shells, and the go command, which uses the
// network to fetch actionlint and the schemas of Kubernetes and Tekton as Go modules. It writes to
// temporary directories. The schema of GitLab is in testdata.
//
// To run it: go test ./test/ci, as root. Without the go command or the modules, the checks that
// need them are skipped.
package ci

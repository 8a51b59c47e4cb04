// Package explain has a test with a table of changes to a build. For each, the reason that the
// program prints must name exactly what was changed.
//
// It imports fstree and lab. It starts the program, and writes to temporary directories.
//
// To test it, run go test ./test/explain as root.
package explain

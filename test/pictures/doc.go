// Package pictures makes the pictures of the README from real runs of the program: SVG files of a
// terminal, and a chart of the tables in docs/BENCHMARKS.md.
//
// It imports ui, vttest and lab. It makes system calls for terminals, and starts the program.
//
// To test it, run go test ./test/pictures as root. make pictures writes docs/pictures.
package pictures

// Package bake turns the files of docker buildx bake into targets: docker-bake.hcl,
// docker-bake.json and the build sections of compose files.
//
// [Parse] reads the files, evaluates them and returns a [Config] with all targets and groups.
// [Config.Resolve] then selects targets by name, applies inheritance and the values of --set, and
// adds the targets that others use as contexts. [Definition.JSON] is the output of --print.
//
// Expressions are evaluated when something needs their value (eval.go), so that the order of
// definitions has no meaning: an attribute may use variables, functions and attributes of other
// targets. The syntax and the functions are those of package hcl (function.go); compose files are
// read with package yaml (compose.go, interpolate.go).
//
// It imports suggest. It makes no system calls, and reads no files and no environment: [Options]
// has functions for that, and for the time.
//
// To test it, run go test ./internal/bake as any user, and the fuzz targets FuzzParse, FuzzOverride
// and FuzzDotEnv. With LAYERBUILD_BUILDX=PROGRAM, TestPrintAsBuildx compares the output of --print
// with that of a buildx program.
package bake

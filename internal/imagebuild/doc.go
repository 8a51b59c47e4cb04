// Package imagebuild builds an image from a Dockerfile, from the options of the command line to the
// outputs.
//
// [Build] opens the context, parses the Dockerfile and makes a plan for each platform, all before
// anything runs (dockerfile.go). An attempt imports results for the cache, calls package build, and
// hands the results to package outputs, which makes the images (attempt.go, image.go). When a
// damaged blob is found, another attempt runs the plans again (repair.go). The function build in
// build.go has these stations one after the other. [Parts] holds the parts of a build, so that
// tests can replace them.
//
// It imports the packages that internal/arch lists. It makes no system calls, and touches files
// only by way of other packages.
//
// To test it, run go test ./internal/imagebuild as any user: the fakes of fake_test.go mount
// nothing. The tests of package build run whole builds with another fake executor, as root or as a
// user who may make user namespaces.
package imagebuild

// Package inputs turns the inputs of a build into file trees: base images, images of COPY --from
// and of mounts, and build contexts. It also checks a plan before the build, and resolves all
// images that the plan names.
//
// Each image is resolved and unpacked once in a build, and each context and snapshot is opened
// once, when it is first used.
//
// It imports cache, event, image, layers, memo, mount, secret, source, parser and snapshot. It
// makes no system calls itself. It opens mounts and directories for reading, fetches images and
// downloads by way of other packages, and runs no commands.
//
// To test it, run go test ./internal/inputs as any user; the tests that open snapshots need root,
// or a user who may make user namespaces. go test ./internal/build has builds with fake images and
// images of the store.
package inputs

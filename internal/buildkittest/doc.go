// Package buildkittest compares structs with those of BuildKit that have the same form in JSON, and
// reads its constants.
//
// The program does not import BuildKit's client: it depends on grpc. Nor do its tests, since go.mod
// would then require grpc. This package reads BuildKit's source in the module cache instead.
//
// It imports no other package of the module. It runs the go command and reads the module cache. It
// is for tests only.
//
// It is tested by its users: go test ./parser ./internal/ui ./cmd/layerbuild, as any user with a
// module cache.
package buildkittest

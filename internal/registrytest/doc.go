// Package registrytest is a registry in memory for tests. It supports pull, push, credentials, and
// faults on demand.
//
// It follows https://github.com/opencontainers/distribution-spec/blob/main/spec.md as far as
// clients use it.
//
// It imports imagetest. It listens on loopback. It is for tests only.
//
// To test it, run go test ./internal/registrytest as any user.
package registrytest

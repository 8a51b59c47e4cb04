// Package engine saves images from a docker daemon and loads images into one, over the socket of
// its API. Podman's service has the same API.
//
// It imports no other package of the module. It uses the network, which is a socket on this machine
// unless $DOCKER_HOST names another one.
//
// To test it, run go test ./internal/engine as any user; the daemon is in the test process.
// FuzzMessages reads hostile answers.
package engine

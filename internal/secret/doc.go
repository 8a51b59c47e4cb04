// Package secret holds the values that a user passes to a build and that no image may contain: the
// secrets of --secret and the ssh agents of --ssh.
//
// It imports dirfd, memo and source. It reads the files and variables that the user names, and
// listens on sockets that it connects to the user's ssh agents, or on which it is the agent for key
// files. It makes no system calls itself.
//
// To test it, run go test ./internal/secret as any user. The scripts of cmd/layerbuild and
// test/rootless test secrets in builds.
package secret

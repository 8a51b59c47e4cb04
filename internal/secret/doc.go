// Package secret keeps values that the user passes to a build and that no image may contain: those
// of --secret and the ssh agents of --ssh.
package secret

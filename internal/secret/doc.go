// Package secret keeps what the user gives to a build and no image may contain: the values of --secret and the ssh agents
// of --ssh.
package secret

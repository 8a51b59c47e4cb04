// Package cdi reads the specifications of devices that a machine has (Container Device Interface)
// and finds the devices that a RUN or the verb run requests with --device.
//
// A specification is a JSON or YAML file of a vendor. It gives each device a name,
// vendor.com/class=name, and lists what a container needs to use it: device nodes, files of the
// host, variables and groups. [Read] reads all specifications of some directories, and
// [Devices.Resolve] returns what a command gets for its requests, if a [Permission] covers them.
//
// The rules for specifications and names are those of CDI 1.1.0
// (https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md), and the forms of
// requests and permissions those of BuildKit. What layerbuild cannot do for a container, such as
// moving a network interface, is an error (edits.go).
//
// It imports suggest. It reads the directories that it is given, makes no system calls and does
// not look at device nodes; package executor makes them.
//
// To test it, run go test ./internal/cdi as any user, and the fuzz target FuzzParse.
package cdi

// Package imagetest reads images with independent code, from the bytes of a layout or archive
// alone. It also makes small images in memory, one of them from the busybox of the machine.
//
// It shares no code with the packages that write images, so that a fault there is not repeated
// here. It imports no other package of the module. It writes layouts, and starts the machine's
// busybox to list its commands. It is for tests only.
//
// To test it, run go test ./internal/imagetest as any user.
package imagetest

// Package platform reads, writes and compares the platforms of images.
//
// A platform has several spellings: linux/arm64, linux/arm64/v8 and linux/aarch64 are the same.
// Platforms are compared with Same, or in the spelling that Normalize returns.
//
// It imports no other package of the module. It does no I/O.
//
// To test it, run go test ./internal/platform as any user. FuzzPlatform reads random names.
package platform

// Package analyzetest has reports for the tests of the packages that show reports: one with every
// kind of waste, and names that try to control a terminal or a page.
//
// It imports analyze. It does no I/O.
//
// It is tested by its users: go test ./analyze/browse ./analyze/html, as any user.
package analyzetest

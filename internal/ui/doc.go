// Package ui shows the progress of a build to a person or a program.
//
// A UI receives the events of a build and renders them in one of five ways: as a live view on a
// terminal, as lines of text for logs, as JSON for programs in its own schema or in BuildKit's, or
// not at all. It also prints why a build failed, and its warnings, after the build. The output of a
// step's command is not trusted: text that this package writes to a terminal can only show visible
// characters. The exceptions are json and rawjson, whose output is exact: their readers must handle
// control characters. docs/PROGRESS.md describes both.
//
// For GitHub Actions the plain rendering can have groups, and no other line becomes a workflow
// command. WriteSummary writes a summary of a build as Markdown.
//
// It imports event, github, markdown, sorting and units. It writes to the given files and reads the
// environment.
//
// To test it, run go test ./internal/ui as any user. The terminal is a virtual one
// (internal/vttest). testdata has golden screens and logs, which -update rewrites. FuzzLines reads
// hostile output, and FuzzColors hostile values of BUILDKIT_COLORS.
package ui

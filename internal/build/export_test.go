package build

// EarlyFiles is for the tests of package build_test.
const EarlyFiles = earlyFiles

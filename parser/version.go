package parser

// SyntaxVersion is the version of the Dockerfile syntax that Parse reads: that of the image
// docker/dockerfile which BuildKit's parser belongs to.
const SyntaxVersion = "1.28.0"

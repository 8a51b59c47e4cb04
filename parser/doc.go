// Package parser turns a Dockerfile into stages of fully expanded steps.
//
// Parse reads the text, (*File).Plan chooses the stages that a target needs and puts them in order,
// and (*Stage).Steps expands the instructions of one stage with the configuration of its base.
// Expansion is lazy because an instruction may use a variable that only the base image's
// configuration holds.
//
// It imports giturl, pattern, platform, reference, sorting and suggest. It works on text and data
// only: it does not read files, use the network or need a privilege. It is the only package that
// imports BuildKit's packages.
//
// To test it, run go test ./parser as any user. testdata has Dockerfiles with their plans, which
// -update rewrites, and the results of BuildKit's linter. FuzzParse and FuzzExpand read random
// text.
//
// The words:
//
//   - stage: a FROM and the instructions after it
//   - step: one instruction, expanded; an ONBUILD trigger of the base is a
//     step too
//   - action: a step's change of the file system; most steps have none and
//     only change the image's configuration
//   - input: the files that a stage or a step uses: another stage, an image,
//     a build context, or the empty file system
//
// The language is that of BuildKit's Dockerfile frontend, whose packages do the lexing, parse
// single instructions, expand words, and define the names of the lint rules. This package
// implements scopes, triggers, named contexts, history and the logic of the rules.
package parser

// Package gotemplate executes Go templates on plain data: structs, maps, lists, texts and numbers.
//
// The language is that of text/template, whose parser it uses, without methods, nested templates
// and the functions call, html, js and urlquery. It has the functions of docker's --format: json,
// join, split, lower, upper, title, pad and truncate. text/template finds methods by their names
// when it runs, so the linker keeps every method of every type: with it the program is 2.3 MB
// larger.
//
// It imports no other package of the module. It does no I/O.
//
// To test it, run go test ./internal/gotemplate as any user. The tests compare the results with
// those of text/template. FuzzExecute executes hostile templates.
package gotemplate

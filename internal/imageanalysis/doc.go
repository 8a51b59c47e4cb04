// Package imageanalysis analyzes images of the store and removes dead bytes from them.
//
// It connects package analyze, which works on tables of layers, with the store: it finds out where
// the base of an image ends, keeps the tables of layers and the records that builds write about
// their images, and writes pruned images and indexes.
package imageanalysis

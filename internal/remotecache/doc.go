// Package remotecache exports the results of steps for other machines, and imports them.
//
// Results travel as a document of records, with the layers that they name. As an artifact of its
// own it is an OCI manifest whose configuration is the document and whose layers are the layers:
// registries and tools copy it like an image. Inline it is a field of the image's configuration.
package remotecache

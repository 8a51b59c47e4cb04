// Package export sends a finished image to an archive, a directory, a registry or the store.
//
// Parse turns the value of -o into a Spec. New checks the destinations before anything is built,
// and returns an Exporter for each Spec. The Exporter is run once, when the image is finished.
// Blobs are copied unchanged: their compression was chosen when the layers were sealed, according
// to Spec.Layers.
//
// It imports the packages that internal/arch lists. It makes no system calls itself. It writes to
// the destinations, starts the load command of a container engine, and pushes through an interface;
// the caller has the registry's client.
//
// To test it, run go test ./export as any user; tests of owners need root. Images are in
// memory, destinations in temporary directories. testdata has golden archives and metadata, which
// -update rewrites. FuzzParse reads values of -o. skopeo, umoci, podman and docker read the
// outputs where they are installed.
package export

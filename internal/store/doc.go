// Package store stores blobs and the names of images in an OCI image layout on disk.
//
// The directory is a plain layout (oci-layout, index.json, blobs/sha256), which skopeo, umoci and
// crane can read. A name is written into index.json in full: "app" is stored as
// "docker.io/library/app:latest", in both annotations that tools read
// (org.opencontainers.image.ref.name and io.containerd.image.name). A tag alone would not be
// enough: the layout contains many images, and many of them have the tag "latest". So other tools
// must be called with the full name:
//
//	skopeo copy oci:ROOT/oci:docker.io/library/app:latest docker-archive:app.tar
//	umoci unpack --image ROOT/oci:docker.io/library/app:latest bundle
//
// Names that other tools wrote into index.json are found as well. Entries that this package does
// not understand are kept.
//
// Several processes share a store. Blobs are written to tmp/ and renamed. index.json is replaced by
// rename, under a lock file. Nothing is synced: data that a crash of the machine has damaged are
// detected when they are read, because every read checks the size and the digest. A damaged blob is
// then removed, so that it is fetched or sealed again. Repair, if it is set, does so at once. A
// damaged index.json is replaced by its copy with a checksum, index.json.copy, or by its version
// before the last change, index.json.old.
//
// It imports atomicfile, lock, ocidoc, reference, smallfile and sorting. It makes no system calls
// itself, writes only in the layout's directory, and starts no processes.
//
// To test it, run go test ./internal/store as any user. skopeo and umoci read the layout where they
// are installed. FuzzIndex reads hostile indexes.
package store

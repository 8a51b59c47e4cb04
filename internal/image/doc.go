// Package image finds and imports images: it turns a name into a manifest with its configuration,
// and a manifest into snapshots.
//
// It imports the packages that internal/arch lists. It makes no system calls itself. It reads and
// writes the store, the snapshots and the cache, reads the layouts and archives to which names
// refer, and calls registries.
//
// To test it, run go test ./internal/image as any user; some tests need root. Registries and
// layouts are made by the tests. FuzzArchive reads hostile archives.
//
// # How a name is looked up
//
// An image name is looked up in the local store first: an image that was built or pulled here takes
// precedence over a registry. Next come the earlier answers of registries, so that a build can be
// repeated without a network. A registry comes last. With ResolveOptions.Pull it comes first.
//
// A name may also have a prefix for a place:
//
//	docker-image://NAME                an image name, as in --build-context
//	oci-layout://PATH[:NAME][@DIGEST]  an OCI image layout: a directory, or an archive of one
//	oci:PATH[:NAME]                    the same
//	oci-archive:PATH[:NAME]            the same
//	docker-archive:PATH[:NAME]         an archive of docker save
//	docker-daemon:NAME                 an image of a docker daemon, by its name or ID
//	docker://NAME                      an image of a registry, even if the store has the name
//
// PATH is relative to the working directory. NAME is a name in the layout, in full or only its
// tag. Without NAME the layout must hold a single image, or one with the tag latest. Archives
// may be compressed. "oci:latest" is a name on Docker Hub, as in other tools: "oci:" is followed
// by a path only if a slash or another colon comes after it.
//
// # Where blobs are stored
//
// A layer is unpacked and stored while it is downloaded: it is transferred once and written
// once. Each layer becomes a snapshot that is named by its chain ID, so images that begin with
// the same layers share snapshots. A layer whose snapshot exists is not downloaded until its
// blob is needed for an image that leaves the machine (Ensure). The layer of an imported result
// is stored and read, and unpacked only if a step needs its files (EnsureLayer, UnpackOn).
package image

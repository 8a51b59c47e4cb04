// Package layers makes the layer of a snapshot and the snapshot of a layer, each when it is first
// needed.
//
// A Sealer turns snapshots into layers in the background, while the next steps run. Lazy holds
// snapshots that are unpacked from their layers when a step runs on them or reads them. Repair
// makes the blob of a layer again from its snapshot. A Checker compares layers with the file
// systems after the steps, independently of package diff.
//
// It imports the packages that internal/arch lists. It makes no system calls itself. It reads
// snapshots through mounts that no other process sees, writes blobs, records and temporary files,
// and starts no processes.
//
// To test it, run go test ./internal/layers as any user; tests with mounts need root, or a user who
// may make user namespaces. go test ./internal/build tests it with builds, and test/state the
// repair of damaged blobs.
package layers

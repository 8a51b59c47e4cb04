// Package layers makes the layer of a snapshot and the snapshot of a layer, each when it is first
// needed.
//
// A Sealer turns snapshots into layers in the background, while the next steps run. Lazy holds
// snapshots that are unpacked from their layers when something runs on them or reads them. Repair
// makes the blob of a layer again from the snapshot that it was sealed from. A Checker compares
// layers with what the steps saw, independently of package diff.
package layers

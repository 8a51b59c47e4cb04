// Package build is the conductor: it walks the plan of a Dockerfile and asks the other rooms to do the work.
//
// A stage is walked by a goroutine of its own. For each step a key is made of the parent's key, the step as data and
// the digests of its inputs. A record under that key names a snapshot: a hit. Otherwise the step runs on top of the
// parent's snapshot and what it leaves is committed. The snapshot is handed to the sealer, and the next step begins at
// once. When the target is done its layers are awaited, config and manifest written, the names given, and the
// exporters run.
package build

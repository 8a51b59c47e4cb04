// Package build runs the plan of a Dockerfile: it schedules stages and steps, and decides which
// results are taken from the cache.
//
// Each stage runs in a goroutine of its own. For each step package job computes a key from the
// parent's key, the action and the digests of its inputs. If the cache has a record under that key,
// the record names the snapshot that is the result. Otherwise the step runs on a new snapshot over
// the parent's, which is then committed. The sealer makes layers of snapshots in the background
// while the next steps run.
//
// A [Solver] builds the plan of one platform, and an [Engine] makes the results of steps for all
// solvers of a build. Package imagebuild makes both. results.go finds earlier results, here and
// among imported records. copylayer.go and onoutline.go make layers without the usual snapshot.
//
// A step goes through these functions: Preparer.Job makes a job of it and computes the definition
// key; results.find looks for a result; Engine.perform has the job digest its inputs, which gives
// the content key, and looks again; Engine.make runs the job on a new snapshot; results.add writes
// the records. predict.go chooses the stages that a build with imported results starts.
//
// It imports the packages that internal/arch lists. It makes no system calls, and touches files
// only by way of other packages. Parts and Layers in engine.go hold the executor, the snapshots,
// the cache, the images and the sealer, so that tests can replace them.
//
// To test it, run go test ./internal/build as root, or as a user who may make user namespaces. The
// tests run whole builds of package imagebuild, in a mount namespace of their own, with the
// executor of fake_test.go. test/soundness tests that the cache never changes a result.
package build

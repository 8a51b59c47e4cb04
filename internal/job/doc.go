// Package job makes jobs of the steps of a Dockerfile: what a COPY, ADD, RUN or WORKDIR reads, the
// keys that name its result, and its work on a new snapshot.
//
// A [Preparer] checks a step and computes the definition key of its [Job], without reading files.
// [Job.Load] digests the inputs, which gives the content key. [Job.Run] performs the step by way of
// a [Worker], which calls package executor. key.go describes the keys. copy.go and run.go hold the
// two kinds of step that have inputs. directory.go tells which jobs can be performed without the
// files of their parents.
//
// Package build decides which jobs run, and when. It opens the inputs that have to be built first,
// as the [Opener].
//
// It imports the packages that internal/arch lists. It makes no system calls, and touches files
// only by way of other packages.
//
// To test it, run go test ./internal/job as any user. key_test.go lists every field that a key has.
// The tests of package build run jobs of all kinds.
package job

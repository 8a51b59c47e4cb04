// Package cluster divides the stages of a build among machines.
//
// [Divide] chooses which stages of a [Graph] get a node of their own: a build of that stage on some
// machine. Nodes share nothing but a cache of results of steps, so the division only decides how
// much is built at the same time, and never what is built: a node builds itself what the cache
// lacks. A [Plan] has the nodes with their command lines. Its methods write what an engine runs:
// each engine is one that users have already, and nothing of layerbuild runs beside the nodes.
//
// All values in the output are quoted for the place where they stand. Names that the engines
// restrict are made by nodeName. Values that are references of an engine's own language, such as
// $(X) in a Job, {{x}} in a Workflow or $(params.x) in a Pipeline, are written so that the engine
// passes them on unchanged.
//
// It imports no other package of the module. It makes no system calls, starts no processes and uses
// no network.
//
// To test it, run go test ./internal/cluster as any user. FuzzDivide checks the nodes of random
// graphs, and FuzzValues that hostile values reach the command lines of each engine unchanged.
// test/slurm runs a plan on Slurm, and test/ci compares the output for other engines with their
// schemas.
package cluster

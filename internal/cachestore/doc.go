// Package cachestore has the stores of shared caches (remotecache.Shared) that are not registries:
// servers of HTTP that Bazel's remote caches speak, buckets of S3, and the cache service of GitHub
// Actions.
//
// A store sends its requests by a registry.Client, which has the retries, time limits, proxies and
// certificates. Documents are small and are read whole. Blobs are named by their SHA-256: who reads
// a blob verifies it, since a store can be damaged or hostile.
//
// It imports hostfile, image, memo, registry, remotecache and sorting. It uses the network, and
// reads the files in which the tools of AWS keep credentials. It makes no system calls of its own.
//
// To test it, run go test ./internal/cachestore as any user. Servers run in the test process;
// ./test/caches has real ones. FuzzActionResult reads hostile documents of HTTP caches,
// FuzzListing the lists of S3, FuzzIni files of AWS's tools, FuzzParse values of --cache.
package cachestore

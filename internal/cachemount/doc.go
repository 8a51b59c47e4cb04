// Package cachemount keeps the directories of RUN --mount=type=cache.
//
// A cache mount is a directory that outlives the build:
//
//	lock       locked by the steps that use the directory, according to their sharing mode
//	id         the cache's id, for people
//	fs/        the files
//	fs.N/      newer files: files made by --no-cache while another step was using the cache
//	fill       locked by the build that makes files
//	new/       files while they are made
//
// The name of the directory is a digest of everything that distinguishes caches. NAME.1, NAME.2 and
// so on are further directories of a private cache that several steps use at once.
//
// It imports lock, memo and parser. It writes only below its directory. It holds locks while steps
// use a cache, and starts no processes.
//
// To test it, run go test ./internal/cachemount as any user.
package cachemount

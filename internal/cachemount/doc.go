// Package cachemount keeps the directories of RUN --mount=type=cache.
//
// A cache mount is a directory that outlives the build:
//
//	lock         locked by the steps that use the directory, according to their sharing mode
//	id           the cache's id, for people
//	fs/          the files
//	fs.N/        newer files: files made by --no-cache while another step was using the cache
//	fill         locked by the build that makes files
//	new/         files while they are made
//	platforms.N  the platforms of the commands that have used the files of number N (fs is 0)
//	copies.N     for each place with a copy of the files, a digest of what was copied
//
// Copies of caches are kept elsewhere for other machines (Copies, Hold): a cache without files
// begins with its copy. An archive of a copy is a layer. It may come from anyone, and Unpack treats
// it so.
//
// The name of the directory is a digest of everything that distinguishes caches. NAME.1, NAME.2 and
// so on are further directories of a private cache that several steps use at once.
//
// It imports diff, dirfd, lock, memo, sorting, unpack and parser. It writes only below its
// directory. It holds locks while steps use a cache, and starts no processes.
//
// To test it, run go test ./internal/cachemount as any user.
package cachemount

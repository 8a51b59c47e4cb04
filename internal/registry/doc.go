// Package registry is a client of image registries: it finds an image by its name, and fetches and
// pushes blobs.
//
// The server of a name and the way to connect to it come from the files that users of similar tools
// have already: containers-registries.conf(5) for mirrors, locations, insecure and blocked
// registries, the Docker configuration for credentials and credential helpers, certs.d for
// certificate authorities, and HTTP_PROXY and the like. Plain http is allowed for registries on
// loopback addresses.
//
// The files are read when a registry is first used, so a build without a registry does not read
// them.
//
// It imports atomicfile, hostfile, memo, ocidoc, ocijson, platform, reference, sorting and
// subprocess. It reads files of the user's configuration, runs credential helpers and uses the
// network. It writes the files of credentials for login and logout. It does not use the store.
//
// To test it, run go test ./internal/registry as any user. Servers run in the test process; two
// tests use docker-registry where it is installed. FuzzAuthFile, FuzzConf, FuzzChallenges and
// FuzzParseServer read hostile files, answers and names.
package registry

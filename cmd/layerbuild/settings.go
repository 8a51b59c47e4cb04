package main

import (
	"github.com/layerbuild/layerbuild/analyze"
	"github.com/layerbuild/layerbuild/parser"
)

// settings.go is the only list of the environment variables and configuration files of layerbuild.
// layerbuild(5) and docs/CONFIGURATION.md are generated from it.

// variable is an environment variable, or several with the same meaning.
type variable struct{ name, text string }

var variables = [...]variable{
	{rootVariable, "The state directory, if there is no --root."},
	{keepStorage, "The limit of the build cache, if there is no --keep-storage: a size such as " +
		"10g (10 GiB), or off."},
	{sharedCache, "The caches of --cache, if there is no --cache, separated by spaces."},
	{sharedKey, "The file of the key for --cache, if there is no --cache-key."},
	{cacheMounts, "The cache mounts of --cache-mounts, if there is no --cache-mounts: all, none, " +
		"or ids with commas between them."},
	{checkLayers, "If it is 1, a build compares each layer that it makes with the files that the " +
		"step left. A difference ends the build. The comparison makes builds slower."},
	{defaultPlatform, "The platform, if there is no --platform; for build, several separated by " +
		"commas. prune-image does not read it."},
	{parser.EpochArg, "A time in seconds since 1970. It is the time of creation of the image and " +
		"the latest time of its files, so that two builds can make the same bytes. It counts as " +
		"a build argument. sbom uses it as the time of its documents."},
	{"SSH_AUTH_SOCK",
		"The socket of the SSH agent for --ssh, and for contexts that are fetched by SSH."},
	{"DOCKER_CONFIG", "The directory of config.json, which has the credentials of docker login. " +
		"The default is ~/.docker."},
	{hostVariable, "The docker daemon of docker-daemon:NAME: unix://PATH or tcp://HOST:PORT. The " +
		"default is unix:///var/run/docker.sock."},
	{"REGISTRY_AUTH_FILE", "The file with the credentials of podman login; see " +
		"containers-auth.json(5). The default is $XDG_RUNTIME_DIR/containers/auth.json."},
	{"CONTAINERS_REGISTRIES_CONF",
		"The configuration file for registries; see containers-registries.conf(5)."},
	{"AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN",
		"The keys for a cache in S3; see --cache."},
	{"AWS_REGION, AWS_DEFAULT_REGION", "The region of a cache in S3, if its address has none. " +
		"The default is us-east-1."},
	{"AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL", "The address of the server of a cache in S3, if " +
		"the address of the cache has none. The default is that of AWS."},
	{"AWS_PROFILE", "The profile with the keys, the region and the endpoint for a cache in S3 " +
		"that other variables do not set. The default is default."},
	{"AWS_SHARED_CREDENTIALS_FILE, AWS_CONFIG_FILE", "The files with the profiles. The default " +
		"is ~/.aws/credentials and ~/.aws/config."},
	{"ACTIONS_RESULTS_URL, ACTIONS_RUNTIME_TOKEN", "The address and the token of the cache " +
		"service of GitHub Actions, for --cache gha. The runner sets them for actions only."},
	{"HTTP_PROXY, HTTPS_PROXY, NO_PROXY",
		"The proxies for registries, URLs, caches and git. The lower-case names are read too."},
	{"ALL_PROXY, GIT_SSL_CAINFO", "They are passed on to git."},
	{"SSL_CERT_FILE, SSL_CERT_DIR",
		"Certificates of certificate authorities to trust instead of the system's."},
	{"PATH", "The directories in which git, fuse-overlayfs, newuidmap, newgidmap and credential " +
		"helpers are looked for."},
	{"HOME", "The user's home directory. If it is not set, that of the user database is used."},
	{"USER",
		"The user's name in /etc/subuid and /etc/subgid, if the user database does not have one."},
	{"XDG_DATA_HOME", "The directory above the state directory of a user other than root. The " +
		"default is ~/.local/share."},
	{"XDG_CONFIG_HOME",
		"The directory above the user's configuration files. The default is ~/.config."},
	{"XDG_RUNTIME_DIR", "The directory above containers/auth.json; see $REGISTRY_AUTH_FILE."},
	{noAttestations, "It is accepted for compatibility with buildx: a build makes attestations " +
		"only with --provenance, --sbom or --attest."},
	{metadataProvenance, "How much of the provenance the file of --metadata-file has: min, max, " +
		"or disabled. The default is min, which leaves out the steps and the times."},
	{bakeFileVariable, "The files of bake, if there is no --file, separated by colons or by " +
		"$" + bakeSeparatorVariable + "."},
	{bakeSeparatorVariable, "The separator in $" + bakeFileVariable + "; the default is a colon."},
	{bakeTokenVariable + ", " + bakeHeaderVariable, "The token, or the whole Authorization " +
		"header, for the git repository of bake URL, and for contexts in it."},
	{bakeSSHVariable, "The socket of the SSH agent for the files of bake URL, or files of keys, " +
		"separated by commas; the default is $SSH_AUTH_SOCK."},
	{sourcePolicyVariable, "A file with a policy for the sources of a build. If it is set, a " +
		"build is refused unless --policy disabled=true is given, since layerbuild evaluates no " +
		"policies."},
	{defaultPolicyVariable, "If it is true, a build does not use images of docker/dockerfile, " +
		"docker/dockerfile-upstream, docker/buildkit-syft-scanner and moby/buildkit that are " +
		"named by a tag: buildx would check their signatures, and layerbuild checks none. A " +
		"digest without a tag is accepted, and the frontend of # syntax is never loaded. " +
		"--policy disabled=true overrides it."},
	{noVariables, "If it is true, variables of the HCL files of bake do not take their values " +
		"from the environment."},
	{noFileChecks, "If it is false, bake reads and writes files outside the working directory " +
		"without --allow."},
	{metadataWarnings,
		"If it is true, the file of --metadata-file has the warnings of the build."},
	{noPushVariable, "If it is true, executor does not push, and if it is false, it does, " +
		"whatever --no-push is."},
	{mirrorVariable, "A mirror of Docker Hub for executor; see --registry-mirror."},
	{mapVariable, "Mirrors of registries for executor; see --registry-map."},
	{gitMethodVariable, "If it is http, executor fetches the repository of a git:// context " +
		"without TLS."},
	{gitTokenVariable, "The user name, without a password, with which executor fetches the " +
		"repository of a git:// context. Servers take a token in its place."},
	{gitUserVariable + ", " + gitPassVariable, "The user name and the password with which " +
		"executor fetches the repository of a git:// context, if there is no $" +
		gitTokenVariable + "."},
	{builderOutput, "The directory in which executor writes a file images, which has a JSON " +
		"object with the name and the digest of each destination."},
	{"GITHUB_ACTIONS", "If it is true, a runner of GitHub Actions reads the output: findings and " +
		"errors become annotations, blocks of the log become groups, and no other line becomes " +
		"a command, except in the output of the command of run."},
	{githubVariable, "What a build does on a runner of GitHub Actions, if there is no --github: " +
		"off, all, or some of annotations, groups, summary and waste. analyze writes " +
		"annotations about its gate unless it is off."},
	{"GITHUB_STEP_SUMMARY",
		"With GITHUB_ACTIONS=true, the file to which a build appends a summary."},
	{"GITHUB_WORKSPACE", "With GITHUB_ACTIONS=true, the directory to which the paths of files in " +
		"annotations and SARIF are relative."},
	{progressVariable, "The progress display, if there is no --progress or it is auto."},
	{"BUILDKIT_COLORS", "The colors of a build, as KEY=COLOR:… with the keys run, cancel, error " +
		"and warning. A color is black, red, green, yellow, blue, magenta, cyan or white, also " +
		"with light- before it, default, or three numbers up to 255: " +
		"error=light-red:run=0,95,255."},
	{"NO_COLOR", "If it is not empty, no colors are printed, whatever $BUILDKIT_COLORS is."},
	{"TERM", "If it is dumb, no colors are printed, and the progress display is plain. The " +
		"command of run --tty gets its value."},
	{"CI",
		"If it is not empty, the progress display is plain unless --progress or " +
			"$" + progressVariable + " selects another one."},
}

// configFile is a configuration file.
type configFile struct {
	path, text string
	keys       []configKey
}

// configKey is a key of a configuration file, with an example of a value.
type configKey struct{ name, example, text string }

var settingsFiles = [...]configFile{
	{"/etc/layerbuild/config, $XDG_CONFIG_HOME/layerbuild/config",
		"Defaults of flags, for the machine and for the user. The file of " +
			"the user has precedence. A line has the form \"key = value\", and # begins a comment.",
		[]configKey{
			{"keep-storage", "10g", "The limit of the build cache, if there is neither " +
				"--keep-storage nor $" + keepStorage + ": a size in powers of 1024, or off."},
			{"cache", "registry.example.com/team/cache,ro", "The caches of --cache, separated by " +
				"spaces, if there is neither --cache nor $" + sharedCache + "."},
			{"cache-key", "/etc/layerbuild/cache.key", "The file of the key for --cache, if " +
				"there is neither --cache-key nor $" + sharedKey + "."},
			{"cache-mounts", "all", "The cache mounts of --cache-mounts, if there is neither " +
				"--cache-mounts nor $" + cacheMounts + "."},
		}},
	{analyze.ConfigFile, "The rules of the gate of analyze and of build --analyze, in YAML. It " +
		"is read from the current directory, unless --config names another file. Flags have " +
		"precedence; the patterns of accept and --accept are combined.", []configKey{
		{"fail-over", "2%",
			"As --fail-over: the size or share of dead bytes above which an image fails."},
		{"fail-on", "[debris, secrets]",
			"As --fail-on: a list of kinds of findings with which an image fails."},
		{"accept", "[/usr/share/doc/**]",
			"As --accept: a list of patterns for paths that the gate ignores."},
		{"base", "debian:13", "As --base: the base image, or scratch for none."},
	}},
}

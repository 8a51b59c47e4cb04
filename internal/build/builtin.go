package build

import "strconv"

// Build arguments that configure the builder and not the Dockerfile
// (https://docs.docker.com/reference/dockerfile/#buildkit-built-in-build-args). An argument that is no truth value is false.

// keepGitDir keeps .git in contexts from git.
func (b *builder) keepGitDir() bool { return isSet(b.opts.Args, "BUILDKIT_CONTEXT_KEEP_GIT_DIR") }

// inlineCache is short for --cache-to type=inline.
func (b *builder) inlineCache() bool { return isSet(b.opts.Args, "BUILDKIT_INLINE_CACHE") }

// cacheNamespace keeps cache mounts apart that have the same id otherwise.
func (b *builder) cacheNamespace() string { return b.opts.Args["BUILDKIT_CACHE_MOUNT_NS"] }

// hostname is that of commands; "" is the usual one.
func (b *builder) hostname() string { return b.opts.Args["BUILDKIT_SANDBOX_HOSTNAME"] }

func isSet(args map[string]string, name string) bool {
	is, err := strconv.ParseBool(args[name])
	return err == nil && is
}

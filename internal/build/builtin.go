package build

import "strconv"

// Build arguments that configure the builder and not the Dockerfile
// (https://docs.docker.com/reference/dockerfile/#buildkit-built-in-build-args). An argument that is no truth value is false.

// keepGitDir keeps .git in contexts from git.
func (b *builder) keepGitDir() bool { return b.isSet("BUILDKIT_CONTEXT_KEEP_GIT_DIR") }

// multiPlatform makes an index also of an image for one platform.
func (b *builder) multiPlatform() bool { return b.isSet("BUILDKIT_MULTI_PLATFORM") }

// inlineCache is short for --cache-to type=inline.
func (b *builder) inlineCache() bool { return b.isSet("BUILDKIT_INLINE_CACHE") }

// cacheNamespace keeps cache mounts apart that have the same id otherwise.
func (b *builder) cacheNamespace() string { return b.opts.Args["BUILDKIT_CACHE_MOUNT_NS"] }

// hostname is that of commands; "" is the usual one.
func (b *builder) hostname() string { return b.opts.Args["BUILDKIT_SANDBOX_HOSTNAME"] }

func (b *builder) isSet(arg string) bool {
	is, err := strconv.ParseBool(b.opts.Args[arg])
	return err == nil && is
}

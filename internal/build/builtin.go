package build

import "strconv"

// These build arguments configure the builder and not the Dockerfile
// (https://docs.docker.com/reference/dockerfile/#buildkit-built-in-build-args). A value that
// strconv.ParseBool does not accept is false.

// keepGitDir reports whether contexts from git keep their .git directory.
func (b *builder) keepGitDir() bool { return isSet(b.opts.Args, "BUILDKIT_CONTEXT_KEEP_GIT_DIR") }

// inlineCache reports whether the arguments ask for --cache-to type=inline.
func (b *builder) inlineCache() bool { return isSet(b.opts.Args, "BUILDKIT_INLINE_CACHE") }

// cacheNamespace returns a prefix that keeps cache mounts with equal ids apart.
func (b *builder) cacheNamespace() string { return b.opts.Args["BUILDKIT_CACHE_MOUNT_NS"] }

// hostname returns the host name that commands see; "" is the default one.
func (b *builder) hostname() string { return b.opts.Args["BUILDKIT_SANDBOX_HOSTNAME"] }

func isSet(args map[string]string, name string) bool {
	is, err := strconv.ParseBool(args[name])
	return err == nil && is
}

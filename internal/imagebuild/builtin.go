package imagebuild

import (
	"strconv"

	"github.com/layerbuild/layerbuild/internal/build"
)

// These build arguments configure the builder and not the Dockerfile
// (https://docs.docker.com/reference/dockerfile/#buildkit-built-in-build-args). A value that
// strconv.ParseBool does not accept is false.

// keepGitDir reports whether contexts from git keep their .git directory.
func (b *builder) keepGitDir() bool { return isSet(b.opts.Args, "BUILDKIT_CONTEXT_KEEP_GIT_DIR") }

// inlineCache reports whether the arguments request --cache-to type=inline.
func (b *builder) inlineCache() bool { return isSet(b.opts.Args, "BUILDKIT_INLINE_CACHE") }

// runOptions returns the options for the commands of RUN.
func (b *builder) runOptions() build.RunOptions {
	o := b.opts.Run
	o.Hostname = b.opts.Args["BUILDKIT_SANDBOX_HOSTNAME"]
	o.CacheNamespace = b.opts.Args["BUILDKIT_CACHE_MOUNT_NS"]
	return o
}

func isSet(args map[string]string, name string) bool {
	is, err := strconv.ParseBool(args[name])
	return err == nil && is
}

package imagebuild

import (
	"slices"
	"strconv"

	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/remotecache"
)

// These build arguments configure the builder and not the Dockerfile
// (https://docs.docker.com/reference/dockerfile/#buildkit-built-in-build-args). A value that
// strconv.ParseBool does not accept is false.

// keepGitDir reports whether contexts from git keep their .git directory.
func (o *Options) keepGitDir() bool { return isSet(o.Args, "BUILDKIT_CONTEXT_KEEP_GIT_DIR") }

// withInlineCache returns the options with --cache-to type=inline, if an argument requests it.
func (o Options) withInlineCache() Options {
	if isSet(o.Args, "BUILDKIT_INLINE_CACHE") {
		o.Cache.To = append(slices.Clone(o.Cache.To), remotecache.Place{Type: "inline"})
	}
	return o
}

// run returns the options for the commands of RUN.
func (o *Options) run() build.RunOptions {
	r := o.Run
	r.Hostname = o.Args["BUILDKIT_SANDBOX_HOSTNAME"]
	r.CacheNamespace = o.Args["BUILDKIT_CACHE_MOUNT_NS"]
	return r
}

func isSet(args map[string]string, name string) bool {
	is, err := strconv.ParseBool(args[name])
	return err == nil && is
}

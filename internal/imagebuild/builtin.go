package imagebuild

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/layerbuild/layerbuild/internal/job"
	"github.com/layerbuild/layerbuild/internal/remotecache"
)

// These build arguments configure the builder and not the Dockerfile
// (https://docs.docker.com/reference/dockerfile/#buildkit-built-in-build-args).
const (
	keepGitDirArg    = "BUILDKIT_CONTEXT_KEEP_GIT_DIR"
	inlineCacheArg   = "BUILDKIT_INLINE_CACHE"
	multiPlatformArg = "BUILDKIT_MULTI_PLATFORM"
	hostnameArg      = "BUILDKIT_SANDBOX_HOSTNAME"
	cacheMountArg    = "BUILDKIT_CACHE_MOUNT_NS"
)

// CheckArg returns an error if name is a build argument that configures the builder, and value is
// not one of its values. Other arguments have any value.
func CheckArg(name, value string) error {
	switch name {
	case keepGitDirArg, inlineCacheArg, multiPlatformArg:
		if _, err := strconv.ParseBool(value); err != nil && value != "" {
			return errors.New("true or false is expected")
		}
	case hostnameArg:
		return CheckHostname(value)
	}
	return nil
}

// CheckHostname returns an error for a name that a command cannot have as its host name.
func CheckHostname(name string) error {
	// The kernel's limit (__NEW_UTS_LEN). The name is also written to a line of /etc/hosts.
	if len(name) > 64 || strings.ContainsAny(name, " \t\r\n") {
		return errors.New("a host name of at most 64 bytes, without spaces, is expected")
	}
	return nil
}

// keepGitDir reports whether contexts from git keep their .git directory.
func (o *Options) keepGitDir() bool { return isSet(o.Args, keepGitDirArg) }

// withInlineCache returns the options with --cache-to type=inline, if an argument requests it.
func (o Options) withInlineCache() Options {
	if isSet(o.Args, inlineCacheArg) {
		o.Cache.To = append(slices.Clone(o.Cache.To), remotecache.Place{Type: "inline"})
	}
	return o
}

// run returns the options for the commands of RUN.
func (o *Options) run() job.RunOptions {
	r := o.Run
	r.Hostname = o.Args[hostnameArg]
	r.CacheNamespace = o.Args[cacheMountArg]
	return r
}

func isSet(args map[string]string, name string) bool {
	is, err := strconv.ParseBool(args[name])
	return err == nil && is
}

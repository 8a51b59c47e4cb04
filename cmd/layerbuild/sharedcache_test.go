package main

import (
	"strings"
	"testing"
)

// TestCachePasswords checks that no message about a value of --cache has the password in it.
func TestCachePasswords(t *testing.T) {
	for _, value := range []string{
		"https://me:hunter2@h/x?y=z", "https://me:hunter2@h/x,rw", "https://me:hunter2@h:x/",
		"https://me:%hunter2@h/", "https://me:hunter2@", "https://me:hunt@hunter2@h:x/",
		"s3://me:hunter2@bucket", "ftp://me:hunter2@h/", "https://me:hunt,hunter2@h/",
		"https://hunter2@h/x?y=z",
	} {
		for _, tt := range []struct {
			env  map[string]string
			args []string
		}{
			{nil, []string{"build", "--cache", value, "."}},
			{map[string]string{"LAYERBUILD_CACHE": value}, []string{"build", "."}},
			{nil, []string{"cache", "ls", value}},
		} {
			got := try(t, tt.env, tt.args...)
			if got.err == nil || strings.Contains(got.err.Error(), "hunter2") {
				t.Errorf("%q: %v", tt.args, got.err)
			}
		}
	}
}

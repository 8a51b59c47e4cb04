package job

import (
	"errors"
	"testing"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/parser"
)

func TestKeys(t *testing.T) {
	run := &parser.Run{Args: []string{"/bin/sh", "-c", "true"}, Env: []string{"A=1"}, Dir: "/"}
	base, err := MakeKey("scratch", "run", run)
	if err != nil {
		t.Fatal(err)
	}
	// If this golden key changes, all existing caches become useless: changing it is a decision.
	const golden = "e862ee24615c7269005b7cfa79f9d9cbdb66516cbb7945c0fe9ce9b96e56481e"
	if string(base) != golden {
		t.Errorf("key = %s, want %s", base, golden)
	}
	other := *run
	other.Env = []string{"A=2"}
	proxy := *run
	proxy.Proxy = []string{"http_proxy=http://secret"}
	for _, c := range []struct {
		name   string
		parent string
		kind   string
		action *parser.Run
		inputs []string
		same   bool
	}{
		{"the same", "scratch", "run", run, nil, true},
		{"a proxy", "scratch", "run", &proxy, nil, true},
		{"another variable", "scratch", "run", &other, nil, false},
		{"another parent", "image", "run", run, nil, false},
		{"another kind", "scratch", "mkdir", run, nil, false},
		{"an input", "scratch", "run", run, []string{"x"}, false},
	} {
		got, err := MakeKey(cache.Key(c.parent), c.kind, c.action, c.inputs...)
		if err != nil || (got == base) != c.same {
			t.Errorf("%s: key equal = %v, %v, want %v", c.name, got == base, err, c.same)
		}
	}
}

func TestCommandError(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{&executor.ExitError{Code: 3},
			`process "/bin/sh -c exit 3" did not complete successfully: exit code: 3`},
		{&executor.ExitError{Code: 137, Signal: 9},
			`process "/bin/sh -c exit 3" did not complete successfully: exit code: 137, ended by signal 9`},
		{errors.New("mount: no"), "mount: no"},
	} {
		if got := processError([]string{"/bin/sh", "-c", "exit 3"}, c.err).Error(); got != c.want {
			t.Errorf("processError(%v) = %q, want %q", c.err, got, c.want)
		}
	}
}

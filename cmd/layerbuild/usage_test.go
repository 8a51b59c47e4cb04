package main

import (
	"bytes"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// badValues are values that a flag refuses, by verb ("" for all verbs that have the flag) and flag.
// WORK stands for a directory with the files of badSetup.
var badValues = []struct {
	verb, flag string
	values     []string
}{
	{"", "root", []string{"", "WORK/file"}},
	{"", "driver", []string{
		"", "Overlay", "zfs", "aufs", "devicemapper", "vfs", "overlay2", "overlay,copy",
	}},
	{"prune-image", "base", []string{""}},
	{"build", "accept", []string{""}},
	{"", "platform", []string{"a/b/c/d", "linux/amd64/v1/x", "nonsense", "linux/",
		"/amd64", "linux amd64"}},
	{"", "format", []string{"", "nonsense", "Text", "json,text", "yaml"}},
	{"", "progress", []string{"", "nonsense", "TTY", "jsonl"}},
	{"", "network", []string{"", "bridge", "container:x", "hosts", "private", "pasta:-t,auto",
		"slirp4netns", "ns:/run/netns/x"}},
	{"", "add-host", []string{"", "name", "name:", ":1.2.3.4", "name:1.2.3", "name:other",
		"a b:1.2.3.4", "name=", "name:1.2.3.4:80", "name:[::1"}},
	{"", "tag", []string{"", "UPPER/x", "a b", "a:", "a:b:c", "-a", "a//b", "app@sha256:" + hex64,
		hex64, "a:" + strings.Repeat("t", 129)}},
	{"", "top", []string{"", "x", "-1", "0", "1.5"}},
	{"", "config", []string{"WORK/nosuch", "WORK/dir", "WORK/file"}},
	{"build", "provenance", []string{"x", "mode=x", "version=v9", "nonsense=1"}},
	{"build", "sbom", []string{"x", "generator=UPPER", "nonsense=1"}},
	{"build", "attest", []string{"", "x", "type=x", "type=sbom,disabled=maybe"}},
	{"executor", "context", []string{"", "WORK/nosuch", "dir://WORK/nosuch", "tar://", "git://",
		"tar://WORK/nosuch", "tar://WORK/context/Dockerfile", "s3://bucket/x.tar.gz",
		"gs://bucket/x.tar.gz", "https://a.blob.core.windows.net/c/x.tar.gz", "ftp://host/x",
		"git://host/r#--x"}},
	{"executor", "dockerfile", []string{"", "WORK/nosuch", "WORK/dir"}},
	{"executor", "context-sub-path", []string{"", "nosuch", "Dockerfile"}},
	{"executor", "git", []string{"", "x", "depth=x", "recurse-submodules=maybe",
		"single-branch=", "insecure-skip-tls=true", "insecure-skip-tls=maybe"}},
	{"executor", "build-arg", []string{"", "=x", "a b=c"}},
	{"executor", "custom-platform", []string{"", "nonsense", "linux/amd64,linux/arm64"}},
	{"executor", "secret", []string{"", "x", "id=x,src=WORK/nosuch"}},
	{"executor", "destination", []string{"", "UPPER/x", "a b", "a=b", "app@sha256:" + hex64}},
	{"executor", "tar-path", []string{"", "WORK/nosuch/x", "WORK/dir"}},
	{"executor", "oci-layout-path", []string{""}},
	{"executor", "label", []string{"", "=x"}},
	{"executor", "annotation", []string{"", "=x", "x"}},
	{"executor", "image-format", []string{"", "oci-dir"}},
	{"executor", "compression", []string{"", "estargz", "uncompressed"}},
	{"executor", "compression-level", []string{"", "x", "10"}},
	{"executor", "digest-file", []string{"", "WORK/dir", "WORK/file/x", "https://host/x"}},
	{"executor", "image-name-with-digest-file", []string{"", "WORK/dir", "WORK/file/x"}},
	{"executor", "image-name-tag-with-digest-file", []string{"", "WORK/dir", "WORK/file/x"}},
	{"executor", "cache-repo", []string{"", "UPPER", "a:tag"}},
	{"", "cache-ttl", []string{"", "x", "-1h", "3", "2d"}},
	{"executor", "insecure-registry", []string{"", "a/b", "https://a", "*.a"}},
	{"executor", "skip-tls-verify-registry", []string{"", "a/b", "https://a"}},
	{"executor", "registry-mirror", []string{"", "https://a", "a b"}},
	{"executor", "registry-map", []string{"", "a", "a=", "=a", "a=b;c", "a=https://b"}},
	{"executor", "registry-certificate", []string{"", "a", "a=WORK/nosuch", "a/b=WORK/file"}},
	{"executor", "registry-client-cert", []string{"", "a=WORK/file", "a=WORK/file,WORK/nosuch"}},
	{"executor", "target", nil}, // the valid values depend on the Dockerfile
	{"bake", "file", []string{"", "WORK/nosuch", "WORK/dir"}},
	{"bake", "set", []string{"", "x", "=x"}},
	{"bake", "var", []string{"", "x", "=x"}},
	{"bake", "allow", []string{"", "nonsense"}},
	{"bake", "cdi-spec-dir", []string{"", "none", "Dockerfile"}},
	{"bake", "jobs", []string{"", "x", "-1", "1.5"}},
	{"bake", "metadata-file", []string{"WORK/nosuch/meta", "WORK/dir", "WORK/file/meta"}},
	{"bake", "list", []string{"", "nonsense"}},
	{"bake", "call", []string{"", "nonsense", "describe"}},
	{"bake", "sbom", []string{""}},
	{"bake", "provenance", []string{""}},
	{"sbom", "output", []string{"", "WORK/nosuch/file", "WORK/dir", "WORK/file/x"}},
	{"analyze", "file", []string{""}},
	{"analyze", "output", []string{"WORK/nosuch/file", "WORK/dir", "WORK/file/x"}},
	{"analyze", "fail-over", []string{"x", "-1", "10%%", "-5%", "1 0"}},
	{"analyze", "fail-on", []string{"nonsense", "debris,nonsense", "Debris"}},
	{"analyze", "interactive", []string{"true", "maybe"}}, // the tests have no terminal
	{"build", "fail-over", []string{"x", "-1", "10%%"}},
	{"build", "fail-on", []string{"nonsense", "debris,nonsense"}},
	{"build", "file", []string{"WORK/nosuch", "WORK/dir"}},
	{"build", "build-arg", []string{"", "=x", "a b=c", "BUILDKIT_DOCKERFILE_CHECK=nonsense",
		"BUILDKIT_DOCKERFILE_CHECK=error=maybe", "BUILDKIT_MULTI_PLATFORM=maybe",
		"BUILDKIT_INLINE_CACHE=yes", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=2",
		"BUILDKIT_SANDBOX_HOSTNAME=a b", "BUILDKIT_SANDBOX_HOSTNAME=" + hex64 + "0",
		"SOURCE_DATE_EPOCH=1e9", "SOURCE_DATE_EPOCH=1700000000000"}},
	{"build", "output", []string{"", "type=nonsense", "dest=x", "type=oci,nonsense=1",
		"type=oci,dest=WORK/nosuch/x", "type=local", "type=local,dest=WORK/file",
		"type=tar,dest=WORK/dir", "type=oci,compression=lzma", "type=oci,compression-level=x",
		"type=oci,compression-level=99", "type=oci,dest", "type=registry",
		"type=oci,type=tar", "type=local,dest=x,compression=gzip", "type=registry,name=UPPER",
		"type=image,name=UPPER/x", "type=oci,annotation.=x", "type=docker,tar=maybe",
		"type=oci,dest=WORK/dir"}},
	{"build", "label", []string{"", "=x"}},
	{"build", "github", []string{"", "none", "annotations,", "summary,off", "x,waste"}},
	{"build", "annotation", []string{"", "x", "=x", "nonsense:a=b", "manifest:=b"}},
	{"build", "build-context", []string{"", "x", "=x", "x=", "x=WORK/nosuch",
		"x=docker-image://UPPER", "x=oci-layout://WORK/nosuch", "x=WORK/pipe", "x=-"}},
	{"build", "secret", []string{"", "x", "src=WORK/file", "id=x,src=WORK/nosuch",
		"id=x,nonsense=1", "id=,src=WORK/file", "id=x,type=nonsense,src=WORK/file",
		"id=x,src=WORK/dir", "id=x,src=WORK/big", "id=x,src"}},
	{"build", "ssh", []string{"", "=WORK/socket", "default", "x=WORK/nosuch", "x=WORK/file",
		"x=WORK/dir", "x=WORK/socket,WORK/file"}},
	{"build", "cache", []string{"", "team/cache", "localhost/UPPER", "localhost/c:tag",
		"localhost/c,rw", "type=registry,ref=localhost/c", "ftp://host/x", "https://", "https://h/x?y=z",
		"https://h/x,rw", "http://h/%zz", "s3://", "s3://b/",
		"s3://bucket/p?region=", "s3://bucket?x=y", "s3://bucket?endpoint=host",
		"s3://bucket?path-style=maybe", "gha:", "gha:a b", "gha:main,rw"}},
	{"build", "cache-key", []string{"WORK/nosuch", "WORK/dir", "WORK/file",
		"WORK/big", "WORK/pipe"}},
	{"build", "cache-mounts", []string{"", ",", "a,,b", "a,all", "none,a"}},
	{"build", "cache-mounts-limit", []string{"", "x", "-1", "0", "1q"}},
	{"build", "cache-from", []string{"", "type=nonsense", "type=registry", "type=local",
		"type=local,src=x,nonsense=1", "UPPER", "type=registry,ref=a b",
		"type=local,src=x,digest=nonsense"}},
	{"build", "cache-to", []string{"", "type=nonsense", "type=registry", "type=local",
		"type=s3,bucket=x", "type=inline,mode=max", "type=local,dest=x,mode=medium",
		"type=registry,ref=UPPER",
		"type=local,dest=x,ignore-error=maybe", "type=local,dest=WORK/file",
		"type=registry,ref=x,compression=lzma", "type=inline,oci-mediatypes=maybe"}},
	{"build", "pull", []string{"", "sometimes", "True"}},
	{"build", "build-arg-file", []string{"", "WORK/nosuch", "WORK/dir"}},
	{"build", "source-date-epoch", []string{"", "x"}},
	{"build", "timestamp", []string{"", "x", "1e9", "1700000000000"}},
	{"build", "cdi-spec-dir", []string{"", "none", "context/Dockerfile"}},
	{"build", "jobs", []string{"", "x", "-1", "1.5"}},
	{"build", "logfile", []string{"", "WORK/nosuch/log", "WORK/dir"}},
	{"login", "authfile", []string{"", "WORK/dir"}}, // the file need not exist
	{"logout", "authfile", []string{"", "WORK/dir"}},
	{"-login -logout", "authfile", []string{"", "WORK/nosuch", "WORK/dir"}},
	{"images", "filter", []string{"", "x", "nonsense=1", "dangling=maybe", "until=x", "label=",
		"reference=[", "platform=x/y/z/w"}},
	{"du", "filter", []string{"", "x", "nonsense=1", "kind=x", "id=", "kind", "until=x",
		"type=frontend", "shared=true"}},
	{"index", "annotation", []string{"", "x", "=x", "index:=x", "manifest:a=b",
		"manifest-descriptor[x]:a=b"}},
	{"index", "file", []string{""}},
	{"index", "metadata-file", []string{"WORK/nosuch/meta", "WORK/dir", "WORK/file/meta"}},
	{"inspect", "type", []string{"", "container"}},
	{"save", "output", []string{"", "WORK/nosuch/x", "WORK/dir"}},
	{"load", "input", []string{"", "WORK/nosuch", "WORK/dir"}},
	{"plan", "min-cost", []string{"", "x", "-1h", "3"}},
	{"plan", "builder-image", []string{"", "UPPER", "a b"}},
	{"plan", "source", []string{"", "x", "WORK/dir", "pvc:", "pvc:A", "pvc:x", "ftp://host/x"}},
	{"login", "username", []string{"", "a:b"}},
	{"login", "password", []string{""}},
	{"", "cert-dir", []string{"", "WORK/nosuch", "WORK/file"}},
	{"", "creds", []string{"", "me"}},
	{"copy", "src-creds", []string{"", "me"}},
	{"copy", "dest-creds", []string{"", "me"}},
	{"", "cap-add", []string{"", "nonsense", "CHOWN,", "CHOWN,x"}},
	{"", "cap-drop", []string{"", "nonsense", "CAP_"}},
	{"build", "volume", []string{"", "x:/y", "WORK/nosuch:/y", "WORK/dir:rel", "/a:/b:/c:/d",
		"WORK/dir:/x:rx", "WORK/dir:/x:U", "WORK/file:/x:O", "rel", "/only", "WORK/dir:/"}},
	{"", "shm-size", []string{"x", "-1", "64q", "1e99", "NaN", "m"}},
	{"", "ulimit", []string{"", "nofile", "nofile=", "nofile=x", "nofile=2:1", "nonsense=1",
		"=1", "nofile=-1:5", "nofile=1:2:3", "nofile=-7"}},
	{"build", "allow", []string{"nonsense", "security", "network.host,nonsense"}},
	{"build", "iidfile", []string{"WORK/nosuch/id", "WORK/dir", "WORK/file/id"}},
	{"build", "metadata-file", []string{"WORK/nosuch/meta", "WORK/dir", "WORK/file/meta"}},
	{"build", "call", []string{"", "nonsense", "describe", "check,format=yaml", "check,json"}},
	{"build", "lint", []string{"nonsense", "StageNameCasing", "all,nonsense"}},
	{"build", "analyze", []string{"", "nonsense", "JSON"}},
	{"build", "target", nil},           // the valid values depend on the Dockerfile
	{"build", "no-cache-filter", nil},  // the same
	{"analyze", "accept", nil},         // every value is a valid pattern
	{"build", "accept", []string{"x"}}, // refused without a gate
	{"analyze", "base", []string{"UPPER", "a b"}},
	{"prune-image", "base", []string{"UPPER", "a b"}},
	{"run", "env", []string{"", "=x"}},
	{"run", "env-file", []string{"", "WORK/nosuch", "WORK/dir"}},
	{"run", "volume", []string{"", "x:/y", "WORK/nosuch:/y", "WORK/dir:rel", "/a:/b:/c:/d",
		"WORK/dir:/x:rx", "WORK/dir:/x:U", "WORK/file:/x:O", "rel"}},
	{"run", "mount", []string{"", "nonsense", "type=volume,target=/x", "type=bind,target=/x",
		"type=bind,source=WORK/nosuch,target=/x", "type=tmpfs,target=x"}},
	{"run", "tmpfs", []string{"", "x", "/x:nonsense", "/x:size=x", "/x:mode=9", "/x:",
		"/x:tmpcopyup"}},
	{"run", "device", []string{"", "null", "vendor.com/class=name", "WORK/nosuch", "WORK/file",
		"WORK/dir", "/dev/null:rel", "/dev/null:/x:r", "/dev/null:/x:/y"}},
	{"run", "cdi-spec-dir", []string{"", "WORK/nosuch", "WORK/file"}},
	{"run", "gpus", []string{"", "0", "all", "driver=amd", "options=x"}},
	{"", "dns", []string{"", "name", "1.2.3", "none"}},
	{"", "dns-option", []string{"", "a b"}},
	{"", "dns-search", []string{"", "a;b"}},
	{"run", "group-add", []string{"", "a b", "a:b", "-1", "2147483648", "keep-groups"}},
	{"run", "unsetenv", []string{""}},
	{"run", "publish", []string{"", "80:81", "80:"}},
	{"run", "name", []string{""}},
	{"run", "pull", []string{"", "sometimes", "True"}},
	{"image prune", "filter", []string{"", "until", "until=x", "label=", "reference=x",
		"dangling=maybe"}},
	{"prune", "filter", []string{"", "until", "until=x", "until=-1h", "until=0s", "label=x",
		"type=x", "type=source.local", "kind=x", "mutable=maybe", "until!=1h", "inuse=true",
		"description=x", "image=app", "knd=blob", "id~=(", "mutable~=t", "until~=1h", "type~=",
		"description~=x"}},
	{"prune", "max-used-space", []string{"x", "-1", "10q", "m"}},
	{"prune", "min-free-space", []string{"x", "-1", "10q", "m"}},
	{"prune", "reserved-space", []string{"x", "-1", "10q", "m"}},
	{"run", "hostname", []string{"", "a b", hex64 + "0"}},
	{"run", "workdir", []string{"relative", "./x"}},
	{"run", "tty", []string{"true", "maybe"}}, // the tests have no terminal
	{"run", "user", nil},       // the valid values depend on the image
	{"run", "entrypoint", nil}, // the same
	{"", "unused", []string{"", "x", "3", "-1h", "72 h", "1y"}},
	{"", "keep-storage", []string{"x", "-1", "10q", "m"}},
}

const hex64 = "7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa"

// goodArgs are arguments that a verb accepts, so that only the flag is wrong.
var goodArgs = map[string][]string{
	"build": {"WORK/context"}, "plan": {"WORK/context"}, "run": {"app"}, "history": {"app"}, "inspect": {"app"},
	"tag": {"app", "other"}, "rm": {"app"},
	"image": {"ls"}, "cache": {"prune", "localhost/c"},
	"index": {"create", "app", "other"}, "copy": {"app", "other"}, "save": {"app"},
	"pull": {"app"}, "push": {"app"}, "analyze": {"app"}, "sbom": {"app"}, "diff": {"app", "other"},
	"prune-image": {"app"}, "gen-docs": {"completion", "bash"},
}

// goodFlags are flags that a verb requires.
var goodFlags = map[string][]string{"prune-image": {"--tag=new"},
	"cache":    {"--unused=24h"},
	"executor": {"--context=WORK/context", "--destination=app", "--cache"}}

// badSetup makes the files to which the values refer.
func badSetup(t *testing.T) string {
	t.Helper()
	work := t.TempDir()
	for _, dir := range []string{"dir", "context"} {
		if err := os.Mkdir(filepath.Join(work, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, size := range map[string]int{"file": 3, "context/Dockerfile": 3, "big": 1 << 20} {
		if err := os.WriteFile(filepath.Join(work, name),
			bytes.Repeat([]byte("x"), size), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"socket", "pipe"} { // a socket is neither a directory nor a file
		l, err := net.Listen("unix", filepath.Join(work, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	}
	return work
}

// outcome is the result of a command line that should be refused.
type outcome struct {
	status int
	want   int // the expected status
	text   string
	err    error
}

// try checks a command line, in an environment with these variables, and runs nothing. Standard
// input is not a terminal.
func try(t *testing.T, vars map[string]string, args ...string) outcome {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	out, err := os.CreateTemp(t.TempDir(), "stderr")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	e := &env{stdin: null, stdout: null, stderr: out,
		getenv: func(name string) string { return vars[name] }}
	c, err := parseCommand(e, args)
	if err == nil {
		return outcome{}
	}
	status, want := report(e, c.verb, usageError{err}), exitUsage
	if c.verb == "run" { // other statuses of run are the command's
		want = exitRunFailed
	}
	data, rerr := os.ReadFile(out.Name())
	if rerr != nil {
		t.Fatal(rerr)
	}
	return outcome{status, want, string(data), err}
}

// Every flag of every verb refuses its invalid values before the verb does any work. The status is
// 2 (run: 125), and one line has the flag, its value, and the help to read.
func TestBadValues(t *testing.T) {
	work := badSetup(t)
	place := func(s string) string { return strings.ReplaceAll(s, "WORK", work) }
	state := filepath.Join(work, "state")
	home := map[string]string{"HOME": work, "LAYERBUILD_ROOT": state}
	for _, v := range verbs() {
		fs := newFlagSet(v)
		v.flags(fs)
		fs.VisitAll(func(f *pflag.Flag) {
			if f.Hidden || f.Name == "help" {
				return
			}
			listed := false
			for _, bad := range badValues {
				// "-login" is for every verb but login. plan has flags of build.
				ofBuild := bad.verb == "build" && v.name == "plan"
				if bad.flag != f.Name || bad.verb != "" && bad.verb != v.name && !ofBuild &&
					bad.verb[0] != '-' || strings.Contains(bad.verb, "-"+v.name) {
					continue
				}
				listed = true
				for _, value := range bad.values {
					args := []string{v.name}
					for _, a := range goodFlags[v.name] {
						args = append(args, place(a))
					}
					args = append(args, "--"+f.Name+"="+place(value))
					for _, a := range goodArgs[v.name] {
						args = append(args, place(a))
					}
					checkRefusal(t, try(t, home, args...), f.Name, place(value), args)
				}
			}
			if f.Value.Type() == "bool" {
				listed = true
				args := append([]string{v.name, "--" + f.Name + "=maybe"}, goodArgs[v.name]...)
				checkRefusal(t, try(t, home, args...), f.Name, "maybe", args)
			}
			if !listed {
				t.Errorf("%s --%s: no bad values are listed", v.name, f.Name)
			}
		})
		args := []string{v.name}
		for _, a := range slices.Concat(goodFlags[v.name], goodArgs[v.name]) {
			args = append(args, place(a))
		}
		if got := try(t, home, args...); got.err != nil {
			t.Errorf("%q is refused: %v", args, got.err)
		}
	}
	if _, err := os.Stat(state); err == nil {
		t.Error("a state directory was made")
	}
}

func checkRefusal(t *testing.T, got outcome, flag, value string, args []string) {
	t.Helper()
	if got.err == nil {
		t.Errorf("%q is not refused", args)
		return
	}
	if got.status != got.want {
		t.Errorf("%q: status %d, want %d", args, got.status, got.want)
	}
	lines := strings.Split(strings.TrimSuffix(got.text, "\n"), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[1], "See 'layerbuild help ") {
		t.Errorf("%q: %q, want one line and where to read more", args, got.text)
	}
	// For a list, the message has only the invalid item. For a flag without a value it has no
	// value.
	if i := strings.LastIndexByte(value, ','); i >= 0 && strings.HasSuffix(value, ",nonsense") {
		value = value[i+1:]
	}
	if value == "true" {
		value = ""
	}
	if !strings.Contains(lines[0], "--"+flag) || !strings.Contains(lines[0], value) {
		t.Errorf("%q: %q, want it to name --%s and %q", args, lines[0], flag, value)
	}
	if len(lines[0]) > 400 || repeated(lines[0]) != "" {
		t.Errorf("%q: %q says %q twice", args, lines[0], repeated(lines[0]))
	}
}

// repeated returns a clause that occurs twice in a message. Clauses are separated by ": ".
func repeated(message string) string {
	seen := map[string]bool{}
	for part := range strings.SplitSeq(message, ": ") {
		if part = strings.TrimSpace(part); len(part) > 3 && seen[part] {
			return part
		}
		seen[part] = true
	}
	return ""
}

// Command lines that are wrong as a whole.
func TestBadCommandLines(t *testing.T) {
	work := badSetup(t)
	t.Chdir(work)
	vars := map[string]string{"HOME": work}
	for _, tt := range []struct{ args, want string }{
		{"ps", `unknown verb "ps"; 'layerbuild run' removes`},
		{"biuld", `unknown verb "biuld": did you mean build?`},
		{"kill x", `unknown verb "kill"; 'layerbuild run' removes`},
		{"cp", `unknown verb "cp"; see 'layerbuild copy'`},
		{"up", `unknown verb "up", and there is no such directory`},
		{"cat", `unknown verb "cat", and there is no such directory`},
		{"prun", `unknown verb "prun": did you mean prune?`},
		{"hist", `unknown verb "hist": did you mean history?`},
		{"image rmm", `unknown command "rmm": did you mean rm?`},
		{"build --plat linux/arm64 context", "unknown flag --plat: did you mean --platform?"},
		{"build --it context", "unknown flag --it\n"},
		{"nonsense", `unknown verb "nonsense", and there is no such directory`},
		{"buildx create", `unknown verb "buildx"; leave it out`},
		{"buildx build", "layerbuild build: the build context is missing"},
		{"image", "a command is expected"},
		{"image nonsense", `unknown command "nonsense"`},
		{"image prune app", "no arguments are expected: app"},
		{"image rm", "layerbuild rm: at least one image is expected"},
		{"rmi", "layerbuild rm: at least one image is expected"},
		{"copy a", "a source and a destination are expected"},
		{"copy a oci:b@sha256:" + hex64, "a destination has no digest"},
		{"copy dir:x a", "dir: layerbuild does not read"},
		{"index", "a command is expected: create or inspect"},
		{"index make a", `unknown command "make"`},
		{"index create a", "a name and at least one image are expected"},
		{"index create A b", `name "A"`},
		{"index create -t a", "at least one image is expected"},
		{"index create a -f nosuch", `--file "nosuch": no such file`},
		{"index create a -f dir", `--file "dir": is a directory`},
		{"index create a b --raw", "--raw and --format are flags of inspect"},
		{"index create a {}", `digest ""`},
		{"index inspect --tag a b", "--tag is a flag of create"},
		{"buildx imagetools", "a command is expected: create or inspect"},
		{"buildx imagetools make", `unknown command "make"`},
		{"buildx imagetools create a b", "give the name of the index with --tag, or --dry-run"},
		{"buildx imagetools create -t a", "at least one image is expected"},
		{"buildx imagetools create -t a sha256:" + hex64 + " b", "its repository is not known"},
		{"buildx imagetools create --dry-run --append b", "--append needs the name of an index"},
		{"buildx imagetools inspect A", "lowercase"},
		{"index inspect a b", "one image is expected"},
		{"du extra", "no arguments are expected: extra"},
		{"save", "at least one image is expected"},
		{"save --format oci-dir a", "give the directory with --output"},
		{"load app.tar", "give the file with --input"},
		{"login a b", "one registry is expected, not 2"},
		{"login --password-stdin", "give the user name with --username"},
		{"login -u me", "there is no terminal to ask for a password"},
		{"logout --all a", "--all: no registry is expected"},
		{"--root s ps", `unknown verb "ps"`},
		{"help nonsense", `unknown verb "nonsense"`},
		{"help build run", "one verb"},
		{"build", "the build context is missing"},
		{"-t app", "the build context is missing"},
		{"--root", "--root: DIR is expected after it"},
		{"build --iidfile", "--iidfile: FILE is expected after it"},
		{"build -t", "--tag: NAME[:TAG] is expected after it"},
		{"build --network", "--network: host, none or default is expected after it"},
		{"build --allow", "--allow: network.host, security.insecure or device is expected after it"},
		{"build --lint", "--lint: RULE is expected after it"},
		{"build context dir", "one build context is expected, not 2: context dir"},
		{"-q build context", "the verb must come before its flags: layerbuild build"},
		{"-t x images .", "the verb must come before its flags"},
		{"build nosuch", `build context "nosuch": no such directory`},
		{"./nosuch", `build context "./nosuch": no such directory`},
		{"build socket", "neither a directory nor an archive"},
		{"build context/Dockerfile", "neither a directory nor an archive"},
		{"build -f /dev/null context", `--file "/dev/null": it is a device`},
		{"build -f - -", "cannot both be standard input"},
		{"build --no-chace context", "unknown flag --no-chace: did you mean --no-cache?"},
		{"build --nonsense context", "unknown flag --nonsense"},
		{"build -X context", "unknown flag -X"},
		{"build -qX context", "unknown flag -X"},
		{"build --push context", "--push: the image to push has no name"},
		{"build --creds :secret context", "--creds: the user name is missing"},
		{"build --creds me:secret --authfile file context", "--creds and --authfile: give one"},
		{"build --timestamp 1 --build-arg SOURCE_DATE_EPOCH=2 context",
			"--build-arg has SOURCE_DATE_EPOCH=2"},
		{"build --logfile log --iidfile ./log context", "--logfile \"log\": --iidfile writes the same file"},
		{"build context --ignorefile", "--ignorefile: FILE is expected after it"},
		{"build --memory 1g --nonsense context", "unknown flag --nonsense"},
		{"build --stdin context", "build: --stdin: the standard input of commands is empty"},
		{"build -o type=tar,dest=x -o type=oci,dest=./x context",
			"another output goes to the same place"},
		{"executor", "--destination is missing; give the name to push to, or --no-push"},
		{"executor -c context --no-push --image-name-with-digest-file f",
			"--destination is missing; the files of names need one"},
		{"executor -c context --no-push --cache", "the repository is not known; give --cache-repo"},
		{"executor -c context -d app --cache true", "a boolean flag takes its value after"},
		{"executor -c context -d app extra", "no arguments are expected: extra"},
		{"executor push app.tar -d app", "layerbuild copy docker-archive:FILE docker://NAME"},
		{"executor bake file", "bake: give layerbuild bake"},
		{"executor -c context -d app --target a --target b", "--target \"b\": one target"},
		{"executor -c context -d app --digest-file f --tar-path ./f",
			"--digest-file \"f\": --tar-path writes the same file"},
		{"executor -c context -d app --bucket b", "does not read buckets"},
		{"executor -c context -d app --nonsense", "unknown flag --nonsense"},
		{"executor login a b", "login: one registry is expected, not 2"},
		{"build --pull-always --pull-never context", "--pull-never and --pull=always: give one"},
		{"build --pull=missing --pull-always context", "--pull-always and --pull=missing: give one"},
		{"build -f context/Dockerfile -f file context",
			"--file \"file\": --file is context/Dockerfile already; docker would read"},
		{"build -q --progress plain context", "--progress \"plain\": --quiet prints only"},
		{"build --network pasta context", `--network "pasta": commands get no network of their own ` +
			"that reaches other machines; give host, which is the network of this machine, or none"},
		{"build --network bridge context", "layerbuild makes no networks; give host"},
		{"run --network container:x app", "there are no other containers; give host"},
		{"run --net ns:/run/netns/x app", "give host, and start layerbuild in it: " +
			"nsenter --net=/run/netns/x layerbuild"},
		{"build --net=none --nonsense context", "unknown flag --nonsense"},
		{"bake --call subrequests.describe", "it is the same for all targets"},
		{"images a b", "one name is expected, not 2"},
		{"info extra", "no arguments are expected: extra"},
		{"version extra", "version: no arguments are expected: extra"},
		{"--version extra", "version: no arguments are expected: extra"},
		{"version --nonsense", "version: unknown flag --nonsense"},
		{"--root s version extra", "version: no arguments are expected: extra"},
		{"help version extra", "one verb"},
		{"prune --keep-storage 1g --reserved-space 2g", "are the same: give one of them"},
		{"prune --unused 1h --filter kind=blob", "--unused and --filter: give one of them"},
		{"buildx prune extra", "layerbuild prune: no arguments are expected"},
		{"builder prune --filter type=frontend", "the frontend is built in"},
		{"builder nonsense", `unknown verb "builder"`},
		{"prune extra", "no arguments are expected: extra"},
		{"run", "an image is expected"},
		{"run UPPER", "lowercase"},
		{"run -d app", "the container ends with layerbuild"},
		{"run -dit app", "the container ends with layerbuild"},
		{"run -h name", `an image is expected after --hostname "name" (-h)`},
		{"run --nonsense app", "unknown flag --nonsense"},
		{"run -m lots app", `--memory "lots": a size`},
		{"run -a console app", `--attach "console": stdin, stdout or stderr is expected`},
		{"run --cap-add nonsense app", "there is no capability \"nonsense\""},
		{"run --network none -p 80:80 app", "--network none has no ports"},
		{"history", "an image is expected"},
		{"history a b", "one image is expected, not 2"},
		{"history UPPER", "lowercase"},
		{"inspect", "at least one image is expected"},
		{"inspect a UPPER", "lowercase"},
		{"tag a", "an image and at least one name"},
		{"tag a UPPER", "lowercase"},
		{"tag a b@sha256:" + hex64, "has no digest"},
		{"tag a oci:./b:v1", `name "oci:./b:v1": it is a place and not a name; 'layerbuild copy ` +
			"IMAGE oci:./b:v1' writes"},
		{"tag a oci:dir", "'layerbuild copy IMAGE oci:./dir' writes an image there"},
		{"tag a docker://host.example/b", "'layerbuild push IMAGE host.example/b' sends"},
		{"tag a dir:./b", "skopeo copy"},
		{"tag oci:dir:v1 b", "'layerbuild copy oci:./dir:v1 NAME' copies it to the store"},
		{"push a oci:b", "'layerbuild copy IMAGE oci:./b' writes an image there"},
		{"push a docker-daemon:b", "'layerbuild copy IMAGE docker-daemon:b' writes"},
		{"push oci:./b:v1 host.example/b",
			"'layerbuild copy oci:./b:v1 docker://NAME' sends it to a registry"},
		{"push docker-archive:file", "'layerbuild copy docker-archive:./file docker://NAME'"},
		{"rm oci:./b", "rm does not remove oci:./b"},
		{"build -t oci:./b:v1 context", "'layerbuild copy IMAGE oci:./b:v1' writes"},
		{"rm", "at least one image is expected"},
		{"rm a//b", "invalid reference format"},
		{"pull", "at least one image is expected"},
		{"pull UPPER", "lowercase"},
		{"push", "an image is expected"},
		{"push a UPPER", "lowercase"},
		{"analyze", "an image is expected"},
		{"analyze a b", "one image is expected, not 2"},
		{"analyze UPPER", "lowercase"},
		{"diff a", "two images are expected, not 1"},
		{"diff a UPPER", "lowercase"},
		{"plan context dir", "one build context is expected, not 2"},
		{"plan nosuch", `build context "nosuch": no such directory`},
		{"plan --no-cache context", "unknown flag --no-cache"},
		{"plan --format slurm context", `--format "slurm": the image that the last node pushes has ` +
			"no name; give --tag"},
		{"plan --format slurm -t a.example/b context", "none is written; give --cache"},
		{"plan --format k8s -t a.example/b --cache a.example/c,ro context",
			"none is written; give --cache"},
		{"plan --format k8s -t b --cache a.example/c context",
			`--tag "b": the name of a registry is missing`},
		{"plan --format k8s -t a.example/b --cache a.example/c --secret id=x,src=file context",
			"--secret: pods have no files and variables of this machine"},
		{"plan --format argo -t a.example/b --cache a.example/c --build-context x=dir context",
			`--build-context "x=dir": pods have no directories of this machine`},
		{"plan --format tekton -t a.example/b --cache a.example/c -f file context",
			`--file "file": it is outside of the context, and the nodes have only that`},
		{"plan --format slurm -t a.example/b --cache a.example/c --creds me:x context",
			"--creds: a plan has no passwords"},
		{"plan --format slurm -t a.example/b --cache a.example/c --source pvc:x context",
			`--source "pvc:x": only argo, tekton and k8s have volume claims`},
		{"plan --format slurm -t a.example/b --cache a.example/c -f - context",
			"the nodes do not have the standard input of this process"},
		{"prune-image a", "-t NAME"},
		{"prune-image -t new", "an image is expected"},
		{"prune-image -t new --dry-run a", "--dry-run makes no image"},
	} {
		got := try(t, vars, strings.Fields(tt.args)...)
		switch {
		case got.err == nil:
			t.Errorf("%q is not refused", tt.args)
		case got.status != got.want || !strings.Contains(got.text, tt.want):
			t.Errorf("%q: status %d, %q, want status %d and %q", tt.args, got.status,
				got.text, got.want, tt.want)
		case repeated(got.text) != "":
			t.Errorf("%q: %q says %q twice", tt.args, got.text, repeated(got.text))
		}
	}
	entries, err := os.ReadDir(work)
	if err != nil || len(entries) != 6 {
		t.Errorf("the directory has %v, %v, want the six files of before", entries, err)
	}
}

// Text from the command line cannot control the terminal.
func TestMessagesArePrintable(t *testing.T) {
	work := badSetup(t)
	t.Chdir(work)
	const evil = "\x1b]0;x\x07\x1b[2J\u202e\x9b"
	vars := map[string]string{"HOME": work, defaultPlatform: ""}
	for _, args := range [][]string{
		{evil}, {"build", evil}, {"build", "--" + evil, "."}, {"build", "-\x1b", "."},
		{"build", "context", evil}, {"help", evil},
		{"run", evil}, {"run", "--network", evil, "app"}, {"tag", "app", evil},
		{"push", "app", evil}, {"images", evil}, {"history", "a", evil},
		{"build", "-t", evil, "context"}, {"build", "--build-arg", "=" + evil, "context"},
		{"build", "-o", evil + "/x/y", "-o", evil + "/x/y", "context"},
		{"build", "--secret", evil, "context"}, {"build", "--secret", "id=" + evil, "context"},
		{"build", "--iidfile", evil + "/x", "context"},
		{"build", "--platform", evil, "context"}, {"build", "--cache-to", evil, "context"},
		{"build", "-f", evil, "context"}, {"build", "--lint", evil, "context"},
		{"--root", "file", evil}, {"images", "--root", "file/" + evil, "--format", evil},
		{"prune", "--unused", evil}, {"build", "--ulimit", evil, "context"},
	} {
		got := try(t, vars, args...)
		if got.err == nil {
			t.Errorf("%q is not refused", args)
		}
		if strings.ContainsAny(got.text, "\x1b\x07\u202e") || strings.Contains(got.text, "\x9b") {
			t.Errorf("%q: %q, want no control characters", args, got.text)
		}
	}
}

// TestSurplusArguments checks that no verb ignores an argument that is not in its usage line.
func TestSurplusArguments(t *testing.T) {
	work := badSetup(t)
	t.Chdir(work)
	vars := map[string]string{"HOME": work}
	for _, v := range verbs() {
		if strings.Contains(v.args, "…") {
			continue
		}
		args, argument := []string{v.name}, "app"
		switch v.name {
		case "build":
			argument = "context"
		case "help":
			argument = "build"
		}
		for range len(strings.Fields(v.args)) + 1 {
			args = append(args, argument)
		}
		if got := try(t, vars, args...); got.err == nil {
			t.Errorf("%q is not refused", args)
		}
	}
}

// --root and --driver may stand before the verb.
func TestFindVerb(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("dir", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ args, verb, rest string }{
		{"", "help", ""},
		{"images", "images", ""},
		{"--root s images --digests", "images", "--root s --digests"},
		{"--root=s --driver copy run app --root x", "run", "--root=s --driver copy app --root x"},
		{"--root s .", "build", "--root s ."},
		{"--root s -t app .", "build", "--root s -t app ."},
		{"--root s", "build", "--root s"},
		{"--root images images", "images", "--root images"},
		{"--root s help run", "help", "run"},
		{"--root s --version", "version", ""},
		{"-t app .", "build", "-t app ."},
		{"dir", "build", "dir"},
		{"https://example.com/a.git", "build", "https://example.com/a.git"},
		{"-", "build", "-"},
		{"--help", "help", ""},
	} {
		v, rest, err := findVerb(verbs(), strings.Fields(tt.args))
		if err != nil || v.name != tt.verb || strings.Join(rest, " ") != tt.rest {
			t.Errorf("findVerb(%q) = %s, %q, %v, want %s, %q", tt.args, v.name, rest,
				err, tt.verb, tt.rest)
		}
	}
}

// Without a flag, the platform is taken from the environment, as in docker and buildx.
func TestDefaultPlatform(t *testing.T) {
	e := func(value string) *env {
		return &env{getenv: func(name string) string {
			return map[string]string{defaultPlatform: value}[name]
		}}
	}
	for _, tt := range []struct {
		env  string
		flag []string
		want string
	}{
		{"", nil, ""},
		{"linux/s390x", nil, "s390x"},
		{"linux/s390x, linux/arm64", nil, "s390x arm64"},
		{"linux/s390x", []string{"linux/amd64"}, "amd64"},
		{"nonsense", []string{"linux/amd64"}, "amd64"},
		{"local", nil, ""},
	} {
		list, err := platforms(e(tt.env), tt.flag)
		var got []string
		for _, p := range list {
			got = append(got, p.Architecture)
		}
		if err != nil || strings.Join(got, " ") != tt.want {
			t.Errorf("platforms(%q, %q) = %q, %v, want %q", tt.env, tt.flag, got, err, tt.want)
		}
	}
	if _, err := platforms(e("nonsense"), nil); err == nil ||
		!strings.Contains(err.Error(), defaultPlatform+` "nonsense"`) {
		t.Errorf("a bad %s: %v, want an error that names it", defaultPlatform, err)
	}
}

// The state of a user is found without HOME (cron, systemd units), and never in the current
// directory.
func TestHomeDir(t *testing.T) {
	for _, home := range []string{"", ".", "relative/path"} {
		e := &env{getenv: func(string) string { return home }}
		dir, err := homeDir(e, os.Getuid())
		if err == nil && !filepath.IsAbs(dir) {
			t.Errorf("HOME=%q: home %q", home, dir)
		}
		if _, err := homeDir(e, 1<<30); err == nil ||
			!strings.Contains(err.Error(), "HOME is not set") ||
			!strings.Contains(err.Error(), "--root DIR") {
			t.Errorf("HOME=%q, a user that does not exist: %v, want an error with the remedy", home,
				err)
		}
	}
	e := &env{getenv: func(name string) string {
		return map[string]string{"HOME": "/home/me"}[name]
	}}
	if dir, err := homeDir(e, 1<<30); dir != "/home/me" || err != nil {
		t.Errorf("HOME=/home/me: %q, %v", dir, err)
	}
}

// Without HOME, credentials and settings of the user are found by the user database, and none are
// read in the current directory.
func TestSetHome(t *testing.T) {
	u, err := user.LookupId(strconv.Itoa(os.Getuid()))
	if err != nil {
		t.Skip(err)
	}
	want := u.HomeDir
	if fi, err := os.Stat(want); err != nil || !fi.IsDir() {
		want = ""
	}
	e := &env{getenv: os.Getenv}
	for home, want := range map[string]string{"": want, "relative": want, "/a": "/a"} {
		t.Setenv("HOME", home)
		setHome(e)
		if got := os.Getenv("HOME"); got != want {
			t.Errorf("HOME=%q becomes %q, want %q", home, got, want)
		}
	}
}

// Files that cannot be written are refused before the build, and the check leaves no files behind.
func TestWritable(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may write everywhere")
	}
	work := badSetup(t)
	locked := filepath.Join(work, "locked")
	if err := os.Mkdir(locked, 0o555); err != nil {
		t.Fatal(err)
	}
	read := filepath.Join(work, "read")
	if err := os.WriteFile(read, []byte("x"), 0o444); err != nil {
		t.Fatal(err)
	}
	vars := map[string]string{"HOME": work}
	for _, flag := range []string{"--iidfile=" + locked + "/id", "--metadata-file=" + locked + "/m",
		"--iidfile=" + read, "-o=type=oci,dest=" + locked + "/x",
		"-o=" + locked, "-o=" + locked + "/a/b", "-o=type=tar,dest=" + read} {
		got := try(t, vars, "build", flag, filepath.Join(work, "context"))
		if got.status != exitUsage || !strings.Contains(got.text, "permission denied") {
			t.Errorf("%s: status %d, %q, want a refusal", flag, got.status, got.text)
		}
	}
	for _, flag := range []string{"--iidfile=" + work + "/id", "-o=" + work + "/a/b",
		"-o=type=oci,dest=" + work + "/x", "--iidfile=/dev/null"} {
		if got := try(t, vars, "build", flag, filepath.Join(work, "context")); got.err != nil {
			t.Errorf("%s: %v", flag, got.err)
		}
	}
	if entries, err := os.ReadDir(work); err != nil || len(entries) != 8 {
		t.Errorf("%v, %v, want the eight files of before", entries, err)
	}
}

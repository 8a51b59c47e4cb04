package main_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/layerbuild/layerbuild/internal/registrytest"
)

// failing is a command line that fails, with a Dockerfile if it is a build. B at the beginning of
// the Dockerfile stands for a base with a shell.
type failing struct {
	dockerfile string
	args       string
	line       bool // the error has a line of the Dockerfile
}

var failures = []failing{
	{"B\nCOPY nosuch /", "", true},
	{"B\nCOPY dir/nosuch file /", "", true},
	{"B\nCOPY --from=nosuch.invalid/x / /", "", true},
	{"B\nCOPY --from=REGISTRY/nosuch / /", "", true},
	{"B\nCOPY --from=127.0.0.1:1/x / /", "", true},
	{"B\nCOPY --from=REGISTRY/library/busybox /nosuch /", "", true},
	{"B\nCOPY --chmod=99 file /", "", true},
	{"B\nCOPY file /bin/busybox/", "", true},
	{"B\nCOPY a", "", true},
	{"B\nADD http://127.0.0.1:1/x /", "", true},
	{"B\nADD http://REGISTRY/nosuch /", "", true},
	{"B\nADD http://nosuch.invalid/x /", "", true},
	{"B\nADD https://127.0.0.1:1/x.git /r", "", true},
	{"B\nADD --checksum=sha256:0 http://127.0.0.1:1/x /", "", true},
	{"B\nRUN false", "", true},
	{"B\nRUN exit 3", "", true},
	{"B\nRUN [\"/nosuch\"]", "", true},
	{"B\nRUN [\"nosuch\"]", "", true},
	{"B\nRUN kill -9 $$", "", true},
	{"B\nUSER nosuch\nRUN true", "", true},
	{"B\nSHELL [\"/nosuch\"]\nRUN true", "", true},
	{"B\nWORKDIR /bin/busybox", "", true},
	{"B\nWORKDIR /bin/busybox/x", "", true},
	{"B\nRUN --mount=type=secret,id=x,required true", "", true},
	{"B\nRUN --mount=type=ssh,required true", "", true},
	{"B\nRUN --mount=type=bind,source=nosuch,target=/x true", "", true},
	{"B\nRUN --mount=type=bind,from=REGISTRY/nosuch,target=/x true", "", true},
	{"B\nRUN --mount=type=bind,from=REGISTRY/library/busybox,source=nosuch,target=/x true", "",
		true},
	{"B\nRUN --mount=type=cache true", "", true},
	{"B\nRUN --mount=type=cache,target=/x,sharing=nosuch true", "", true},
	{"B\nRUN --mount=type=nosuch true", "", true},
	{"B\nRUN --security=insecure true", "", true},
	{"B\nRUN --security=nosuch true", "", true},
	{"B\nRUN --network=host true", "--network none", true},
	{"B\nRUN --network=nosuch true", "", true},
	{"B\nSTOPSIGNAL NOSUCH", "", true},
	{"B\nEXPOSE 99999", "", true},
	{"B\nENV A", "", true},
	{"B\nCOPY ${A:?needed} /", "", true},
	{"B\nRUNN true", "", true},
	{"B\nCOPY --nosuch a b", "", true},
	{"B\nHEALTHCHECK CMD", "", true},
	{"B\nHEALTHCHECK --interval=x CMD true", "", true},
	{"B\nONBUILD FROM x", "", true},
	{"B\nCOPY <<EOF /x\nunterminated", "", true},
	{"FROM nosuch.invalid/x", "", true},
	{"FROM REGISTRY/nosuch", "", true},
	{"FROM REGISTRY/library/busybox:nosuch", "", true},
	{"FROM 127.0.0.1:1/x", "", true},
	{"FROM UPPER", "", true},
	{"FROM 0", "", true},
	{"FROM scratch AS build\nFROM biuld", "", true},
	{"FROM --platform=nosuch busybox", "", true},
	{"FROM --platform=$NOSUCH busybox", "", true},
	{"FROM ${NOSUCH}", "", true},
	{"FROM oci-layout://dir", "", true},
	{"FROM scratch AS a\nCOPY --from=b / /\nFROM scratch AS b\nCOPY --from=a / /", "", true},
	{"FROM scratch\nRUN true", "", true},
	{"FROM base", "--build-context base=oci-layout://dir", true},
	{"FROM base", "--build-context base=docker-image://REGISTRY/nosuch", true},
	{"B\nCOPY --from=files nosuch /", "--build-context files=dir", true},
	{"B\nCOPY --from=files x /", "--build-context files=http://127.0.0.1:1/x.tar", true},
	{"FROM scratch", "--target nosuch", false},
	{"FROM scratch", "--target 7", false},
	{"FROM scratch", "--build-arg SOURCE_DATE_EPOCH=x", false},
	{"# check=nosuch\nFROM scratch", "", true},
	{"# check=error=true\nFROM scratch as a", "", false},
	{"# escape=x\nFROM scratch", "", true},
	{"", "", false},
	{"# nothing", "", true},
	{"FROM scratch", "--push -t 127.0.0.1:1/x", false},
	{"FROM scratch", "--push -t nosuch.invalid/x", false},
	{"FROM scratch", "--cache-to type=registry,ref=127.0.0.1:1/x", false},
	{"FROM scratch", "-o type=oci,dest=/dev/full", false},
	{"B", "-o type=tar,dest=/dev/full", false},
	{"FROM scratch", "--iidfile /dev/full", false},
	{"FROM scratch", "--metadata-file /dev/full", false},
	{"FROM scratch", "-f http://127.0.0.1:1/x", false},
	{"FROM scratch", "-f /dev/null", false},
	{args: "build file"},
	{args: "build http://127.0.0.1:1/x"},
	{args: "build http://REGISTRY/nosuch"},
	{args: "build https://127.0.0.1:1/x.git"},
	{args: "build nosuch"},
	{args: "run REGISTRY/nosuch"},
	{args: "run 127.0.0.1:1/x"},
	{args: "run nosuch.invalid/x"},
	{args: "run app nosuch"},
	{args: "run app /nosuch"},
	{args: "run app /etc"},
	{args: "run -u nosuch app true"},
	{args: "run -w /bin/busybox app true"},
	{args: "run oci:nosuch/x"},
	{args: "pull 127.0.0.1:1/x"},
	{args: "pull REGISTRY/nosuch"},
	{args: "pull nosuch.invalid/x"},
	{args: "push app 127.0.0.1:1/x"},
	{args: "push app nosuch.invalid/x"},
	{args: "push nosuch"},
	{args: "history nosuch"},
	{args: "history oci:nosuch/x"},
	{args: "inspect nosuch"},
	{args: "inspect --platform linux/s390x app"},
	{args: "analyze REGISTRY/nosuch"},
	{args: "analyze ./file"},
	{args: "analyze docker-archive:file"},
	{args: "analyze oci:dir"},
	{args: "analyze ./dir"},
	{args: "diff app REGISTRY/nosuch"},
	{args: "sbom REGISTRY/nosuch"},
	{args: "sbom ./file"},
	{args: "tag nosuch x"},
	{args: "rm nosuch"},
	{args: "prune-image -t x REGISTRY/nosuch"},
	{args: "images --root /proc/nosuch"},
}

// Each failure gives its reason once, with the line of the Dockerfile if there is one, and always
// has the same exit status.
func TestErrorsSayThingsOnce(t *testing.T) {
	if os.Getuid() != 0 && !userns() {
		t.Skip("neither root nor user namespaces")
	}
	base, err := busybox()
	if err != nil {
		t.Skip(err)
	}
	s := newFailures(t, base)
	for _, f := range failures {
		t.Run(strings.ReplaceAll(f.dockerfile+" "+f.args, "\n", "|"),
			func(t *testing.T) { s.check(t, f) })
	}
}

// failureState has the files and images for the command lines.
type failureState struct {
	work, state, registry string
}

func newFailures(t *testing.T, base *imagetest.Made) *failureState {
	t.Helper()
	r, stop := registrytest.Start()
	t.Cleanup(stop)
	r.Add("library/busybox", "latest", base)
	dir, err := os.MkdirTemp("", "layerbuild-errors-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if os.Getuid() != 0 {
			exec.Command("unshare", "--map-root-user", "--map-auto", "rm", "-rf",
				"--one-file-system", dir).Run()
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Log("clean up:", err)
		}
	})
	s := &failureState{work: filepath.Join(dir, "work"),
		state: filepath.Join(dir, "state"), registry: r.Host}
	if err := os.MkdirAll(filepath.Join(s.work, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.work, "file"),
		[]byte("not an archive\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if status, text := s.run(t, failing{dockerfile: "B", args: "-t app"}); status != 0 {
		t.Fatalf("build the base: %s", text)
	}
	return s
}

// run runs a command line and returns its status and its standard error.
func (s *failureState) run(t *testing.T, f failing) (int, string) {
	t.Helper()
	args := strings.Fields(strings.ReplaceAll(f.args, "REGISTRY", s.registry))
	if !strings.HasPrefix(f.args, "build ") && (f.dockerfile != "" || f.args == "") {
		text := strings.ReplaceAll(f.dockerfile, "REGISTRY", s.registry)
		if rest, ok := strings.CutPrefix(text, "B"); ok {
			text = "FROM " + s.registry + "/library/busybox" + rest
		}
		if text != "" {
			text += "\n"
		}
		if err := os.WriteFile(filepath.Join(s.work, "Dockerfile"),
			[]byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(append([]string{"build"}, args...), ".")
	}
	var stderr bytes.Buffer
	cmd := exec.Command(binary, append([]string{"--root", s.state}, args...)...)
	cmd.Dir, cmd.Stderr = s.work, &stderr
	err := cmd.Run()
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), stderr.String()
}

func (s *failureState) check(t *testing.T, f failing) {
	status, text := s.run(t, f)
	if status == 0 || status < 0 {
		t.Fatalf("status %d, want a failure: %s", status, text)
	}
	message := lastMessage(text)
	if message == "" {
		t.Fatalf("no message: %s", text)
	}
	t.Log(message)
	if again := saidTwice(message); again != "" {
		t.Errorf("%q is said twice: %s", again, message)
	}
	if f.line && !regexp.MustCompile(`(?m)^Dockerfile:\d+$`).MatchString(text) {
		t.Errorf("no line of the Dockerfile is named: %s", text)
	}
	for _, word := range []string{"error: error", "%!", "<nil>"} {
		if strings.Contains(message, word) {
			t.Errorf("%q is in the message: %s", word, message)
		}
	}
}

// lastMessage returns the error at the end of the program's output.
func lastMessage(text string) string {
	i := strings.LastIndex("\n"+text, "\nerror: ")
	if i < 0 {
		i = strings.LastIndex("\n"+text, "\nlayerbuild")
	}
	if i < 0 {
		return ""
	}
	message, _, _ := strings.Cut(strings.TrimSpace(text[i:]), "\nSee 'layerbuild help")
	return message
}

// saidTwice returns a clause or a long word that occurs twice in a message. A clause ends at a
// colon. The quoted command of a failed process may occur again.
func saidTwice(message string) string {
	if strings.Contains(message, "did not complete successfully") {
		_, message, _ = strings.Cut(message, "did not complete successfully")
	}
	seen := map[string]bool{}
	for clause := range strings.SplitSeq(message, ": ") {
		if clause = strings.TrimSpace(clause); len(clause) > 3 && seen[clause] {
			return clause
		}
		seen[clause] = true
	}
	words := map[string]bool{}
	for _, word := range strings.FieldsFunc(message,
		func(r rune) bool { return strings.ContainsRune(" \n\"'(),;", r) }) {
		word = strings.TrimRight(word, ":.")
		if len(word) >= 10 && strings.ContainsAny(word, "/.:") && words[word] {
			return word
		}
		words[word] = true
	}
	return ""
}

func TestSaidTwice(t *testing.T) {
	for message, want := range map[string]string{
		"error: push a/b: push a/b: no":                            "push a/b",
		"image x.example/y: lookup x.example: no such host":        "",
		"x.example:1: lookup x.example:1 on y":                     "x.example:1",
		"read /some/file: open /some/file: permission denied":      "/some/file",
		"process \"a\" did not complete successfully: exit: \"a\"": "",
		"a: b: c": "",
	} {
		if got := saidTwice(message); got != want {
			t.Errorf("saidTwice(%q) = %q, want %q", message, got, want)
		}
	}
	if got := lastMessage("#1 x\nDockerfile:3\nerror: no\n"); got != "error: no" {
		t.Errorf("lastMessage = %q", got)
	}
}

package examples

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/test/lab"
)

// noExperiment is the exit status of an experiment that cannot run here.
const noExperiment = 77

// TestLayers runs the experiments of examples/layers as root and as an ordinary user. The output of
// each must be the one that docs/LAYERS.md shows.
func TestLayers(t *testing.T) {
	lab.Root(t)
	lab.Need(t, "unshare", "mount", "getfattr", "fincore", "tar")
	blocks := layerBlocks(t)
	dir := filepath.Join(lab.Top(), "examples/layers")
	paths, err := filepath.Glob(filepath.Join(dir, "[0-9]*.sh"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, path := range paths {
		names = append(names, filepath.Base(path))
	}
	var shown []string
	for _, b := range blocks {
		shown = append(shown, b.script)
	}
	if !slices.Equal(shown, names) {
		t.Fatalf("docs/LAYERS.md shows %q, examples/layers has %q", shown, names)
	}
	as := newLayerUser(t, dir)
	for _, b := range blocks {
		t.Run(b.script, func(t *testing.T) {
			if program := layerPrograms[b.script]; program != "" {
				lab.Need(t, program)
			}
			out, status := experiment(t, t.TempDir(), filepath.Join(dir, b.script))
			if status == noExperiment {
				t.Skip(out)
			}
			if out != b.output {
				t.Errorf("it prints\n%s\ndocs/LAYERS.md shows\n%s", out, b.output)
			}
		})
		t.Run(b.script+" as a user", func(t *testing.T) {
			out, status := as.experiment(t, b.script)
			text, err := os.ReadFile(filepath.Join(dir, b.script))
			if err != nil {
				t.Fatal(err)
			}
			switch root := strings.Contains(string(text), "\nin_root\n"); {
			case root && (status != noExperiment || !strings.Contains(out, "needs root")):
				t.Errorf("it ends with status %d, want %d:\n%s", status, noExperiment, out)
			case root:
			case status == noExperiment:
				t.Skip(out)
			default:
				// In a user namespace overlay's attributes have another prefix.
				if out = strings.ReplaceAll(out, "user.overlay.",
					"trusted.overlay."); out != b.output {
					t.Errorf("it prints\n%s\ndocs/LAYERS.md shows\n%s", out, b.output)
				}
			}
		})
	}
}

// layerPrograms has the programs that experiments need and that some machines lack.
var layerPrograms = map[string]string{"05-reflink.sh": "mkfs.btrfs", "14-d_type.sh": "mkfs.ext4"}

// layerBlock is an experiment in the document: its script and its output there.
type layerBlock struct{ script, output string }

// layerBlocks returns the fenced blocks of docs/LAYERS.md that follow the link to a script.
func layerBlocks(t *testing.T) []layerBlock {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(lab.Top(), "docs/LAYERS.md"))
	if err != nil {
		t.Fatal(err)
	}
	var blocks []layerBlock
	block := regexp.MustCompile(
		"(?ms)^\\[(\\S+)\\]\\(\\.\\./examples/layers/(\\S+)\\):\n```\n(.*?)^```$")
	for _, m := range block.FindAllStringSubmatch(string(page), -1) {
		if m[1] != m[2] {
			t.Errorf("the link of %s leads to %s", m[1], m[2])
		}
		blocks = append(blocks, layerBlock{m[1], m[3]})
	}
	if fences := strings.Count(string(page), "\n```\n"); fences != 2*len(blocks) {
		t.Errorf("docs/LAYERS.md has %d fences, %d of them of experiments", fences, 2*len(blocks))
	}
	return blocks
}

// experiment runs a command, the path of a script or a program that starts one, and returns its
// output and its exit status. The script must leave nothing in the directory tmp or in /var/tmp.
func experiment(t *testing.T, tmp string, args ...string) (string, int) {
	t.Helper()
	onDisk := func() []string {
		left, _ := filepath.Glob("/var/tmp/layers.*")
		return left
	}
	before := onDisk()
	cmd := lab.Exec(t, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	out, err := cmd.Output()
	text := string(out)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		text += string(exit.Stderr)
	} else if err != nil {
		t.Fatal(err)
	}
	status := cmd.ProcessState.ExitCode()
	if status != 0 && status != noExperiment {
		t.Errorf("exit status %d:\n%s", status, text)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	if after := onDisk(); !slices.Equal(after, before) {
		t.Errorf("left behind in /var/tmp: %q, before: %q", after, before)
	}
	return text, status
}

// layerUser runs experiments as an ordinary user.
type layerUser struct {
	name     string
	dir, tmp string // the experiments, and the user's temporary directory
	problem  string // the reason why user namespaces cannot be used; "" if they can
}

func newLayerUser(t *testing.T, from string) layerUser {
	t.Helper()
	u := layerUser{name: lab.User(t, false)}
	// Do not use t.TempDir: its directories belong to root.
	top, err := os.MkdirTemp("", "layerbuild-layers-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lab.Output(t, "rm", "-rf", "--one-file-system", top) })
	u.dir, u.tmp = filepath.Join(top, "layers"), filepath.Join(top, "tmp")
	lab.Output(t, "cp", "-r", from, u.dir)
	lab.Output(t, "mkdir", u.tmp)
	lab.Output(t, "chown", "-R", u.name+":", top)
	const try = "mount -t tmpfs tmpfs /mnt && touch /mnt/file && setfattr -n user.test /mnt/file"
	out, err := u.command(t, "unshare", "-Urm", "sh", "-c", try).CombinedOutput()
	if err != nil {
		u.problem = "needs user namespaces, and user attributes on tmpfs (Linux 6.6): " +
			string(out)
	}
	return u
}

func (u layerUser) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	return lab.Exec(t, "runuser", append([]string{"-u", u.name, "--"}, args...)...)
}

func (u layerUser) experiment(t *testing.T, script string) (string, int) {
	t.Helper()
	if u.problem != "" {
		t.Skip(u.problem)
	}
	return experiment(t, u.tmp, "runuser", "-u", u.name, "--", filepath.Join(u.dir, script))
}

package slurm

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// cluster is a Slurm with one node of four processors, and the partitions one and two. A job has
// one processor, and partition one has two of them. Jobs may run in both partitions: with
// sched/builtin Slurm 22.05 starts such a job before the jobs on which it depends have ended.
type cluster struct {
	t   *testing.T
	dir string
	env []string
}

const config = `ClusterName=layerbuild
SlurmctldHost=HOST(127.0.0.1)
SlurmctldPort=PORT1
SlurmdPort=PORT2
AuthType=auth/munge
AuthInfo=socket=DIR/munge/socket
StateSaveLocation=DIR/state
SlurmdSpoolDir=DIR/spool
SlurmUser=root
SlurmctldPidFile=DIR/slurmctld.pid
SlurmdPidFile=DIR/slurmd.pid
SlurmctldLogFile=DIR/slurmctld.log
SlurmdLogFile=DIR/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=1000,sched_interval=1,bf_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
NodeName=node NodeHostname=HOST NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=one Nodes=node Default=YES MaxCPUsPerNode=2
PartitionName=two Nodes=node
`

// start starts the daemons.
func start(t *testing.T) *cluster {
	t.Helper()
	lab.Need(t, "munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
	dir, err := os.MkdirTemp("", "layerbuild-slurm-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, name := range []string{"munge", "state", "spool", "jobs"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	host, _, _ = strings.Cut(host, ".")
	text := strings.NewReplacer("DIR", dir, "HOST", host, "PORT1", port(t), "PORT2",
		port(t)).Replace(config)
	key := make([]byte, 1024)
	rand.Read(key)
	conf := filepath.Join(dir, "slurm.conf")
	for name, data := range map[string]string{conf: text,
		filepath.Join(dir, "munge/key"): string(key)} {
		if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := &cluster{t: t, dir: dir, env: append(os.Environ(), "SLURM_CONF="+conf)}
	munge := filepath.Join(dir, "munge")
	c.daemon("munged", "--foreground", "--force", "--key-file="+munge+"/key",
		"--socket="+munge+"/socket", "--pid-file="+munge+"/pid", "--log-file="+munge+"/log",
		"--seed-file="+munge+"/seed")
	c.until("munged", func() bool {
		_, err := os.Stat(munge + "/socket")
		return err == nil
	})
	c.daemon("slurmctld", "-D")
	c.daemon("slurmd", "-D")
	c.until("slurmd", func() bool {
		out, err := c.command("sinfo", "--noheader", "--format=%T").Output()
		return err == nil && strings.HasPrefix(string(out), "idle")
	})
	t.Cleanup(func() { // jobs of a test that has failed
		c.command("scancel", "--user=root", "--signal=KILL").Run()
		c.until("squeue", func() bool {
			out, err := c.command("squeue", "--noheader").Output()
			return err != nil || len(out) == 0
		})
	})
	return c
}

// port returns a free port of the loopback address.
func port(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}

func (c *cluster) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env, cmd.Dir = c.env, c.dir
	return cmd
}

// daemon starts a program that ends with the test.
func (c *cluster) daemon(name string, args ...string) {
	c.t.Helper()
	cmd := c.command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.Create(filepath.Join(c.dir, name+".out"))
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
		defer timer.Stop()
		cmd.Wait()
	})
}

// until waits until a condition is true.
func (c *cluster) until(what string, is func() bool) {
	c.t.Helper()
	for end := time.Now().Add(3 * time.Minute); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			for _, name := range []string{"slurmctld.out", "slurmd.out", "munged.out"} {
				data, _ := os.ReadFile(filepath.Join(c.dir, name))
				c.t.Logf("%s: %s", name, data)
			}
			c.t.Fatalf("%s: timeout", what)
		}
	}
}

// dockerfile has twelve stages. Each RUN prints a line that begins with "ran".
const dockerfile = `FROM busybox AS base
RUN echo ran base && sleep 0.2 && echo base > /base
FROM base AS tools
RUN echo ran tools && sleep 0.2 && cat /base /base > /tools
FROM base AS sources
COPY source /source
RUN echo ran sources && sleep 0.2 && cat /source /base > /sources
FROM tools AS lib1
COPY --from=sources /sources /in
RUN echo ran lib1 && sleep 0.5 && cat /in /tools > /lib1
FROM tools AS lib2
COPY --from=sources /sources /in
RUN echo ran lib2 && sleep 0.5 && cat /in /in > /lib2
FROM tools AS lib3
ARG NOTE
RUN --mount=from=sources,target=/mnt echo ran lib3 && sleep 0.5 && echo "$NOTE" > /lib3
FROM tools AS lib4
COPY --from=sources /sources /in
RUN echo ran lib4 && sleep 0.5 && echo lib4 > /lib4
FROM lib1 AS app1
RUN echo ran app1 && echo app1 > /app1
FROM lib2 AS app2
COPY --from=lib3 /lib3 /
RUN echo ran app2 && cat /lib3 > /app2
FROM tools AS docs
RUN echo ran docs && sleep 0.2 && echo docs > /docs
FROM tools AS check
COPY --from=lib3 /lib3 /
COPY --from=lib4 /lib4 /
RUN echo ran check && cat /lib3 /lib4 > /check
FROM busybox
COPY --from=app1 /app1 /
COPY --from=app2 /app2 /
COPY --from=docs /docs /
COPY --from=check /check /
RUN echo ran image && cat /app1 /app2 /docs /check > /all
`

// TestPlan runs the plan of twelve stages, and with the script of the example a smaller plan as job
// arrays. Each job has a state of its own, so that the jobs share only the cache.
func TestPlan(t *testing.T) {
	lab.Root(t)
	l := lab.New(t)
	l.Busybox()
	host := lab.DockerRegistry(t)
	c := start(t)
	l.Write("Dockerfile", dockerfile, "source", "source\n")
	// A value that a shell or sbatch could take for something else.
	evil := "touch " + c.dir + "/evil"
	note := "it's $(" + evil + ") `" + evil + "` \"\n#SBATCH --hold\n;exit 1"
	l.Env = append(l.Env, "SOURCE_DATE_EPOCH=1700000000")
	l.Run("build", "-q", "-t", "local", "--build-arg=NOTE="+note, "--metadata-file=local.json", ".")
	args := []string{"--cache=" + host + "/team/cache", "-t", host + "/team/app:v1",
		"--build-arg=NOTE=" + note}
	if out := l.Run("plan", append(args, "--format=json", ".")...); !strings.Contains(out,
		`"name": "s7-app1"`) || !strings.Contains(out, `"seconds": 0.`) {
		t.Errorf("the plan has no nodes, or no times after a build:\n%s", out)
	}
	script := filepath.Join(c.dir, "plan.sh")
	if err := os.WriteFile(script, []byte(l.Run("plan", append(args, "--format=slurm", ".")...)),
		0o644); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	jobs := c.run(l, script)
	if len(jobs) != 11 {
		t.Errorf("%d jobs, want 11: only app1 needs lib1, and they have one node", len(jobs))
	}
	t.Logf("%d jobs took %.1f s", len(jobs), time.Since(began).Seconds())
	c.checkJobs(jobs)
	local, err := os.ReadFile(filepath.Join(l.Dir, "local.json"))
	if err != nil {
		t.Fatal(err)
	}
	var metadata map[string]any
	if err := json.Unmarshal(local, &metadata); err != nil {
		t.Fatal(err)
	}
	if got, want := digest(t, host), metadata["containerimage.digest"]; got != want {
		t.Errorf("the image of the cluster is %s, that of one machine %s", got, want)
	}
	if _, err := os.Stat(filepath.Join(c.dir, "evil")); err == nil {
		t.Error("a build argument was executed")
	}
	// All is in the cache now, and only the image is left to push.
	if out := l.Run("plan", append(args, "--format=slurm", ".")...); strings.Count(out,
		"sbatch --parsable") != 1 {
		t.Errorf("the plan of a build that is in the cache has more than one job:\n%s", out)
	}
	c.checkArray(l, host)
}

// checkArray runs a plan as job arrays, one for each wave.
func (c *cluster) checkArray(l *lab.Lab, host string) {
	c.t.Helper()
	l.Write("array.Dockerfile", "FROM busybox AS a\nRUN echo ran a && echo a > /a\n"+
		"FROM busybox AS b\nRUN echo ran b && echo b > /b\nFROM busybox\nCOPY --from=a /a /\n"+
		"COPY --from=b /b /\n")
	l.Write("plan.json", l.Run("plan", "--format=json",
		"--cache="+host+"/array/cache", "-t", host+"/array/app", "-f", "array.Dockerfile", "."))
	jobs := c.run(l, filepath.Join(lab.Top(), "examples/slurm/array.sh"), "plan.json")
	log := ""
	for _, job := range jobs {
		data, _ := os.ReadFile(filepath.Join(c.dir, "jobs", job+".out"))
		log += string(data)
	}
	pushed := strings.Contains(log, "push "+host+"/array/app")
	if n := len(ran.FindAllString(log, -1)); n != 2 || !pushed {
		c.t.Errorf("the arrays build something else:\n%s", log)
	}
}

// run submits a plan with a script, waits until its jobs have ended, and returns their numbers.
func (c *cluster) run(l *lab.Lab, script string, args ...string) []string {
	c.t.Helper()
	before, err := filepath.Glob(filepath.Join(c.dir, "jobs/*.out"))
	if err != nil {
		c.t.Fatal(err)
	}
	bin := filepath.Join(c.dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		c.t.Fatal(err)
	}
	wrapper := "#!/bin/sh\nLAYERBUILD_ROOT=" + c.dir + "/jobs/$SLURM_JOB_ID exec " +
		lab.Binary(c.t) + " \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, "layerbuild"), []byte(wrapper), 0o755); err != nil {
		c.t.Fatal(err)
	}
	args = slices.Concat([]string{script}, args,
		[]string{"--partition=one,two", "--output=" + c.dir + "/jobs/%j.out"})
	cmd := c.command("bash", args...)
	cmd.Dir = l.Dir
	cmd.Env = append(append(c.env, l.Env...), "PATH="+bin+":"+os.Getenv("PATH"))
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.Output()
	if err != nil {
		c.t.Fatalf("%v\n%s", err, log.Bytes())
	}
	last := strings.TrimSpace(string(out))
	c.until("job "+last, func() bool {
		out, err := c.command("squeue", "--noheader", "--states=all", "--jobs="+last,
			"--format=%T").Output()
		state := strings.TrimSpace(string(out))
		return err == nil && state != "PENDING" && state != "RUNNING" && state != "COMPLETING"
	})
	logs, err := filepath.Glob(filepath.Join(c.dir, "jobs/*.out"))
	if err != nil {
		c.t.Fatal(err)
	}
	var jobs []string
	for _, name := range logs {
		if slices.Contains(before, name) {
			continue
		}
		jobs = append(jobs, strings.TrimSuffix(filepath.Base(name), ".out"))
	}
	return jobs
}

// ran matches the output of a command of a RUN.
var ran = regexp.MustCompile(`(?m)^#\d+ [0-9.]+ ran (\w+)$`)

// checkJobs checks that all jobs have succeeded, that both partitions had some, and that each
// command has run once.
func (c *cluster) checkJobs(jobs []string) {
	c.t.Helper()
	times, partitions := map[string]int{}, map[string]int{}
	all := ""
	for _, job := range jobs {
		out, err := c.command("scontrol", "show", "job", job).Output()
		log, lerr := os.ReadFile(filepath.Join(c.dir, "jobs", job+".out"))
		if err != nil || lerr != nil || !strings.Contains(string(out), "JobState=COMPLETED") {
			c.t.Errorf("job %s: %v, %v\n%s%s", job, err, lerr, out, log)
		}
		for _, m := range regexp.MustCompile(`Partition=(\w+)`).FindAllSubmatch(out, -1) {
			partitions[string(m[1])]++
		}
		for _, m := range ran.FindAllSubmatch(log, -1) {
			times[string(m[1])]++
		}
		all += fmt.Sprintf("job %s:\n%s%s", job, out, log)
	}
	if len(partitions) != 2 {
		c.t.Errorf("jobs of the partitions: %v, want both", partitions)
	}
	commands := regexp.MustCompile(`echo ran (\w+)`).FindAllStringSubmatch(dockerfile, -1)
	for _, stage := range commands {
		if n := times[stage[1]]; n != 1 {
			c.t.Errorf("the command of %s ran %d times, want once:\n%s", stage[1], n, all)
		}
	}
}

// digest returns the digest of the image in the registry.
func digest(t *testing.T, host string) string {
	t.Helper()
	req, err := http.NewRequest("GET", "http://"+host+"/v2/team/app/manifests/v1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", res.Status, body)
	}
	return res.Header.Get("Docker-Content-Digest")
}

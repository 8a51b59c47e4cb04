package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	layerbuild     = "layerbuild"
	buildah        = "buildah"
	dockerBuildKit = "docker-buildkit"
	dockerClassic  = "docker-classic"
)

var peerNames = []string{layerbuild, buildah, dockerBuildKit, dockerClassic}

// A peer is a tool with a store of its own.
type peer struct {
	name    string
	version string
	group   *group
	dir     string // directory of the store, whose content reset removes
	env     []string

	// returns the command that builds dir/Dockerfile and names the image
	build func(dir, tag string) []string
	push  func(tag string) []string
	start func(ctx context.Context) error // starts a daemon, if the peer has one
	stop  func() error
}

// newPeer makes a peer that keeps its store in dir and its sockets in run. It returns an error if
// the peer cannot be measured.
func newPeer(name string, o options, dir, run string) (*peer, error) {
	p := &peer{name: name, dir: dir, start: func(context.Context) error { return nil },
		stop: func() error { return nil }}
	var err error
	switch name {
	case layerbuild:
		p.layerbuild(o.layerbuild, run)
	case buildah:
		err = p.buildah(run)
	case dockerBuildKit, dockerClassic:
		err = p.docker(run)
	default:
		return nil, fmt.Errorf("not one of %s", strings.Join(peerNames, ", "))
	}
	if err != nil {
		return nil, err
	}
	p.group = newGroup(name)
	if p.group.main == "" && strings.HasPrefix(name, "docker") {
		return nil, errors.New(
			"a daemon's CPU is only known with control groups, and none can be made here")
	}
	return p, nil
}

func (p *peer) layerbuild(bin, run string) {
	p.version = "the working tree"
	if out := strings.TrimSpace(output(context.Background(), "git", "-C", filepath.Dir(bin),
		"describe", "--always", "--dirty", "--abbrev=12")); out != "" {
		p.version = out
	}
	p.env = []string{"HOME=" + run}
	p.build = func(dir, tag string) []string {
		return []string{bin, "build", "--root=" + p.dir, "--progress=plain", "-t", tag, dir}
	}
	p.push = func(tag string) []string { return []string{bin, "push", "--root=" + p.dir, tag} }
}

// buildah makes a peer that runs commands with chroot isolation, which is faster than runc or crun.
func (p *peer) buildah(run string) error {
	bin, err := exec.LookPath("buildah")
	if err != nil {
		return errors.New("buildah is not installed")
	}
	if os.Getuid() != 0 {
		return errors.New("is measured as root only")
	}
	p.version = strings.TrimSpace(output(context.Background(), bin, "--version"))
	p.env = []string{"HOME=" + run}
	line := func(verb string, args ...string) []string {
		return append([]string{bin, verb, "--storage-driver=overlay", "--root=" + p.dir,
			"--runroot=" + filepath.Join(run, "buildah")}, args...)
	}
	p.build = func(dir, tag string) []string {
		return line("bud", "--layers", "--isolation=chroot", "--network=host",
			"--tls-verify=false", "-t", tag, dir)
	}
	p.push = func(tag string) []string { return line("push", "--tls-verify=false", tag) }
	return nil
}

// docker makes a peer of dockerd and a containerd that no other program uses.
func (p *peer) docker(run string) error {
	if os.Getuid() != 0 {
		return errors.New("is measured as root only")
	}
	run = filepath.Join(run, p.name)
	dockerd, err := exec.LookPath("dockerd")
	if err != nil {
		return errors.New("dockerd is not installed (Debian: docker.io)")
	}
	containerd, err := exec.LookPath("containerd")
	if err != nil {
		return errors.New("containerd is not installed")
	}
	// Use the client of Debian's dockerd: newer clients need a plugin for BuildKit.
	bin := "/usr/bin/docker"
	if _, err := os.Stat(bin); err != nil {
		return errors.New("Debian's docker client is not installed")
	}
	p.version = strings.TrimSpace(output(context.Background(), dockerd, "--version"))
	buildKit := "0"
	if p.name == dockerBuildKit {
		buildKit = "1"
	}
	socket := filepath.Join(run, "docker.sock")
	p.env = []string{"HOME=" + run, "DOCKER_CONFIG=" + run, "DOCKER_HOST=unix://" + socket,
		"DOCKER_BUILDKIT=" + buildKit, "BUILDKIT_PROGRESS=plain"}
	p.build = func(dir, tag string) []string {
		return []string{bin, "build", "--network=host", "-t", tag, dir}
	}
	p.push = func(tag string) []string { return []string{bin, "push", tag} }

	var daemons []*exec.Cmd
	p.start = func(ctx context.Context) error {
		lines, err := p.daemons(run, socket, containerd, dockerd)
		if err != nil {
			return err
		}
		for _, line := range lines {
			log, err := os.Create(filepath.Join(run, filepath.Base(line[0])+".log"))
			if err != nil {
				return err
			}
			defer log.Close()
			cmd := exec.Command(line[0], line[1:]...)
			cmd.Stdout, cmd.Stderr = log, log
			if err := p.group.start(cmd); err != nil {
				return err
			}
			daemons = append(daemons, cmd)
			if err := appears(ctx, "unix", strings.TrimPrefix(line[len(line)-1],
				"unix://")); err != nil {
				return fmt.Errorf("%s: %w\n%s", line[0], err, tail(log.Name()))
			}
		}
		return nil
	}
	p.stop = func() error {
		for _, cmd := range slices.Backward(daemons) {
			cmd.Process.Signal(syscall.SIGTERM)
			hard := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
			cmd.Wait()
			hard.Stop()
		}
		daemons = nil
		return remove(run)
	}
	return nil
}

// daemons writes the daemons' configuration and returns their command lines, each with its socket
// at the end.
func (p *peer) daemons(run, socket, containerd, dockerd string) ([][]string, error) {
	if err := os.MkdirAll(run, 0o755); err != nil {
		return nil, err
	}
	config, empty := filepath.Join(run, "containerd.toml"), filepath.Join(run, "daemon.json")
	if err := os.WriteFile(config,
		[]byte("version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n"),
		0o644); err != nil {
		return nil, err
	}
	if err := os.WriteFile(empty, []byte("{}\n"), 0o644); err != nil {
		return nil, err
	}
	address := filepath.Join(run, "containerd.sock")
	return [][]string{
		{containerd, "--config=" + config, "--root=" + filepath.Join(p.dir, "containerd"),
			"--state=" + filepath.Join(run, "containerd"),
			"--log-level=error", "--address", address},
		{dockerd, "--config-file=" + empty, "--data-root=" + filepath.Join(p.dir, "docker"),
			"--exec-root=" + filepath.Join(run, "docker"),
			"--pidfile=" + filepath.Join(run, "docker.pid"), "--containerd=" + address,
			"--iptables=false", "--bridge=none", "--storage-driver=overlay2",
			"--exec-opt=native.cgroupdriver=cgroupfs", "--cgroup-parent=" + p.group.parent(),
			"--log-level=error", "--host", "unix://" + socket},
	}, nil
}

// appears waits until a process listens on the socket.
func appears(ctx context.Context, network, address string) error {
	var d net.Dialer
	for range 600 {
		if conn, err := d.DialContext(ctx, network, address); err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return fmt.Errorf("no process listens at %s after a minute", address)
}

// reset empties the store.
func (p *peer) reset(ctx context.Context) error {
	if err := errors.Join(p.stop(), remove(p.dir)); err != nil {
		return err
	}
	if err := os.MkdirAll(p.dir, 0o711); err != nil {
		return err
	}
	return p.start(ctx)
}

func (p *peer) close() error {
	return errors.Join(p.stop(), p.group.close(), remove(p.dir))
}

package main

import (
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	layerbuild     = "layerbuild"
	buildah        = "buildah"
	dockerBuildKit = "docker-buildkit"
	dockerClassic  = "docker-classic"
	buildKit       = "buildkit"
)

var peerNames = []string{layerbuild, buildah, dockerBuildKit, dockerClassic, buildKit}

// A peer is a tool with a store of its own.
type peer struct {
	name    string
	version string
	group   *group
	dir     string // directory of the store, whose content reset removes
	env     []string

	// returns the command that builds dir/Dockerfile and names the image
	build func(dir, tag string) []string
	// like build, for an image on which others are based; nil if build does that
	base func(dir, tag string) []string
	push func(tag string) []string
	// cached returns the commands that build and push an image with a cache in a repository; nil:
	// the peer has none
	cached func(dir, tag, cache string) [][]string
	start  func(ctx context.Context) error // starts a daemon, if the peer has one
	stop   func() error
	// the measured work is done by a daemon: its CPU time is only known with control groups
	served bool
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
	case buildKit:
		err = p.buildKit(o.buildkitd, o.buildctl, run)
	default:
		return nil, fmt.Errorf("not one of %s", strings.Join(peerNames, ", "))
	}
	if err != nil {
		return nil, err
	}
	p.group = newGroup(name)
	if p.group.main == "" && p.served {
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
	p.cached = func(dir, tag, cache string) [][]string {
		return [][]string{{bin, "build", "--root=" + p.dir, "--progress=plain", "--cache=" + cache,
			"-t", tag, "--push", dir}}
	}
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
	p.cached = func(dir, tag, cache string) [][]string {
		return [][]string{line("bud", "--layers", "--isolation=chroot", "--network=host",
			"--tls-verify=false", "--cache-from="+cache, "--cache-to="+cache, "-t", tag, dir),
			p.push(tag)}
	}
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
	choice := "0"
	if p.name == dockerBuildKit {
		choice = "1"
	}
	socket := filepath.Join(run, "docker.sock")
	p.env = []string{"HOME=" + run, "DOCKER_CONFIG=" + run, "DOCKER_HOST=unix://" + socket,
		"DOCKER_BUILDKIT=" + choice, "BUILDKIT_PROGRESS=plain"}
	p.build = func(dir, tag string) []string {
		return []string{bin, "build", "--network=host", "-t", tag, dir}
	}
	p.push = func(tag string) []string { return []string{bin, "push", tag} }

	p.serve(run, func() ([][]string, error) {
		return p.daemons(run, socket, containerd, dockerd)
	})
	return nil
}

// buildKit makes a peer of a buildkitd and its client. The build leaves an image of compressed
// layers in buildkitd's store, which cannot name it. So a base image is written to an OCI layout,
// from which the builds take it by its digest, and push builds the same context again.
func (p *peer) buildKit(buildkitd, buildctl, run string) error {
	if buildkitd == "" || buildctl == "" {
		return errors.New("$BUILDKITD and $BUILDCTL do not name its programs")
	}
	if os.Getuid() != 0 {
		return errors.New("is measured as root only")
	}
	runc, err := exec.LookPath("runc")
	if err != nil {
		return errors.New("runc is not installed")
	}
	for _, bin := range []*string{&buildkitd, &buildctl} {
		if *bin, err = exec.LookPath(*bin); err != nil {
			return err
		}
		if *bin, err = filepath.Abs(*bin); err != nil {
			return err
		}
	}
	p.version = buildKitVersion(buildkitd)
	run = filepath.Join(run, p.name)
	socket, images := filepath.Join(run, "buildkitd.sock"), filepath.Join(p.dir, "images")
	p.env = []string{"HOME=" + run, "DOCKER_CONFIG=" + run}
	contexts := map[string]string{} // of the images that push may be asked for
	line := func(dir, output string) []string {
		args := []string{buildctl, "--addr=unix://" + socket, "build", "--progress=plain",
			"--frontend=dockerfile.v0", "--local=context=" + dir, "--local=dockerfile=" + dir}
		return append(append(args, layouts(images)...), "--output="+output)
	}
	p.build = func(dir, tag string) []string {
		contexts[tag] = dir
		return line(dir, "type=image,name="+tag)
	}
	p.base = func(dir, tag string) []string {
		return line(dir, "type=oci,tar=false,name="+tag+",dest="+filepath.Join(images, tag))
	}
	p.push = func(tag string) []string {
		return line(contexts[tag], "type=image,push=true,name="+tag)
	}
	p.cached = func(dir, tag, cache string) [][]string {
		return [][]string{append(line(dir, "type=image,push=true,name="+tag),
			"--import-cache=type=registry,ref="+cache,
			"--export-cache=type=registry,mode=max,ref="+cache)}
	}
	p.serve(run, func() ([][]string, error) {
		config := filepath.Join(run, "buildkitd.toml")
		if err := errors.Join(os.MkdirAll(run, 0o755), os.MkdirAll(images, 0o755)); err != nil {
			return nil, err
		}
		text := fmt.Sprintf("[worker.oci]\ndefaultCgroupParent = %q\n", p.group.parent())
		return [][]string{{buildkitd, "--config=" + config,
			"--root=" + filepath.Join(p.dir, "buildkit"),
			"--otel-socket-path=" + filepath.Join(run, "otel.sock"), "--cdi-disabled",
			"--containerd-worker=false", "--oci-worker=true", "--oci-worker-snapshotter=overlayfs",
			"--oci-worker-binary=" + runc, "--oci-worker-net=host", "--oci-worker-gc=false",
			"--addr", "unix://" + socket}}, os.WriteFile(config, []byte(text), 0o644)
	})
	return nil
}

// layouts returns the flags by which a build finds the images in dir: a directory of OCI layouts
// with their names.
func layouts(dir string) []string {
	var flags []string
	filepath.WalkDir(dir, func(path string, _ fs.DirEntry, _ error) error {
		if filepath.Base(path) != "index.json" {
			return nil
		}
		var index ocispec.Index
		raw, err := os.ReadFile(path)
		if err != nil || json.Unmarshal(raw, &index) != nil || len(index.Manifests) != 1 {
			return nil
		}
		tag, err := filepath.Rel(dir, filepath.Dir(path))
		if err != nil {
			return nil
		}
		key := fmt.Sprint("base", len(flags))
		flags = append(flags, "--oci-layout="+key+"="+filepath.Dir(path),
			fmt.Sprintf("--opt=context:%s=oci-layout://%s@%s", tag, key, index.Manifests[0].Digest))
		return nil
	})
	return flags
}

// buildKitVersion returns what a buildkitd says of itself. One that was built with a go command and
// no other tools does not know its version: then it is that of the module in it.
func buildKitVersion(buildkitd string) string {
	said := strings.TrimSpace(output(context.Background(), buildkitd, "--version"))
	info, err := buildinfo.ReadFile(buildkitd)
	if err != nil || !strings.Contains(said, "unknown") {
		return said
	}
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path == "github.com/moby/buildkit" {
			return m.Path + " " + m.Version + ", built with " + info.GoVersion
		}
	}
	return said
}

// serve makes start and stop start and stop daemons. lines prepares the directory of their sockets
// and returns their command lines, each with its socket at the end.
func (p *peer) serve(run string, lines func() ([][]string, error)) {
	p.served = true
	var running []*exec.Cmd
	p.start = func(ctx context.Context) error {
		all, err := lines()
		if err != nil {
			return err
		}
		for _, line := range all {
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
			running = append(running, cmd)
			if err := appears(ctx, "unix", strings.TrimPrefix(line[len(line)-1],
				"unix://")); err != nil {
				return fmt.Errorf("%s: %w\n%s", line[0], err, tail(log.Name()))
			}
		}
		return nil
	}
	p.stop = func() error {
		for _, cmd := range slices.Backward(running) {
			cmd.Process.Signal(syscall.SIGTERM)
			hard := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
			cmd.Wait()
			hard.Stop()
		}
		running = nil
		return remove(run)
	}
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

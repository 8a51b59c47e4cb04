package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// allWork returns all works, in the order of the report.
func allWork() []work {
	all := comparisons()
	all = append(all, limits()...)
	return append(all, curves()...)
}

const appImage = "localhost/app"

// recipe describes most works: a store with the base image, perhaps an earlier build, and the
// measured build.
type recipe struct {
	dir    string // the context
	debian bool   // the base image is Debian
	keep   bool   // the store and the earlier build are made once and kept for all runs
	warm   bool   // the same build ran before
	units  int
	edit   func(p *peer, run int) error // changes the context before each run
}

func (l *lab) recipe(ctx context.Context, r recipe) ([]contender, error) {
	name, dir := baseImage, ""
	var err error
	if r.debian {
		name = debianImage
		dir, err = l.debian(ctx)
	} else {
		dir, err = l.base()
	}
	if err != nil {
		return nil, err
	}
	images := map[string]string{name: dir}
	return l.each(func(p *peer) contender {
		return contender{
			units: r.units,
			before: func(ctx context.Context, run int) error {
				if run == 0 || !r.keep {
					if err := l.fresh(ctx, p, images); err != nil {
						return err
					}
					if r.warm {
						if err := l.do(ctx, p, p.build(r.dir, appImage)); err != nil {
							return err
						}
					}
				}
				if r.edit != nil {
					return r.edit(p, run)
				}
				return nil
			},
			commands: func() ([]*exec.Cmd, error) {
				return []*exec.Cmd{p.command(p.build(r.dir, appImage))}, nil
			},
		}
	}), nil
}

// comparisons returns the works that compare the peers.
func comparisons() []work {
	return []work{
		{name: "run-true", title: "50 × RUN true",
			what: "The cost of a step that does nothing, including the start and the end of the " +
				"tool.",
			unit: "step",
			goals: []goal{{of: layerbuild, figure: cpuPerUnit, limit: 0.004},
				{of: layerbuild, figure: wallPerUnit, limit: 0.005}}, make: runTrue},
		{name: "warm", title: "Rebuild of 10 steps, nothing changed",
			what: "COPY, WORKDIR and RUN with a context of three files.",
			goals: []goal{{of: layerbuild, figure: cpu, limit: 0.010},
				{of: layerbuild, figure: wall, limit: 0.012}}, make: warm},
		{name: "edit", title: "One file edited of 2,000",
			what: "`ADD . /src` and a cheap RUN run again; the image is named in the tool's " +
				"store.",
			goals: []goal{{of: layerbuild, figure: wall, limit: 0.25}}, make: edit},
		{name: "layer", title: "A layer of 600 MB",
			what:  "COPY of the machine's own programs and libraries.",
			goals: []goal{{of: layerbuild, figure: memory, limit: 96e6}}, make: layer},
		{name: "context-cold", title: "50,000-file context, first build",
			what: "`COPY . /src` and RUN true; files of 2 KB.", unit: "file", make: contextCold},
		{name: "context-warm", title: "50,000-file context, nothing changed",
			what: "The same build again.", unit: "file",
			goals: []goal{{of: layerbuild, figure: wall, limit: 0.25}}, make: contextWarm},
		{name: "copy", title: "COPY of 25,000 files (180 MB)",
			what: "Into a store that does not have them.", unit: "file",
			goals: []goal{{of: layerbuild, figure: cpu, limit: 2}}, make: copyFiles},
		{name: "stages", title: "Four independent stages of 2 s",
			what: "Each stage sleeps; a last stage copies a file of each. buildah runs without " +
				"--jobs.",
			goals: []goal{{of: layerbuild, figure: wall, limit: 2.1}}, make: stages},
		{name: "pull", title: "Pull of a 0.5 GB base in two layers",
			what:  "From a registry on loopback into an empty store, and one step on the image.",
			goals: []goal{{of: layerbuild, figure: wall, limit: 3}}, make: pull},
		{name: "push", title: "Push of 0.5 GB",
			what: "A COPY of 0.5 GB of programs and libraries is built and pushed to an empty " +
				"registry on loopback: some tools compress in the build, some in the push.",
			make: push},
		{name: "cached", title: "Cached build on an empty machine, pushed",
			what: "All 13 steps, with 140 MB of layers, are in a cache in a registry on " +
				"loopback, and the image is pushed to the registry: `--cache`; buildah's " +
				"`--cache-from` and `--cache-to`; BuildKit's `type=registry,mode=max`. A proxy " +
				"counts what moves.",
			make: cached(false)},
		{name: "cached-edit", title: "The same, with another file in the last COPY",
			what: "The layers below the COPY are in the cache. layerbuild reads them in the " +
				"first run only: then their outline is in the cache, too.",
			make: cached(true)},
		{name: "apt", title: "apt-get install python3 on Debian",
			what: "`apt-get update` and the installation, from the machine's package sources, " +
				"including the downloads.", make: apt},
	}
}

func runTrue(ctx context.Context, l *lab) ([]contender, error) {
	n := l.sizes.steps
	dir, err := l.dockerfile("run-true", "FROM "+baseImage, strings.Repeat("RUN true\n", n))
	if err != nil {
		return nil, err
	}
	return l.recipe(ctx, recipe{dir: dir, units: n})
}

func warm(ctx context.Context, l *lab) ([]contender, error) {
	dir, err := l.fixture("warm", func(dir string) error {
		for _, name := range []string{"a", "b", "c"} {
			if err := write(filepath.Join(dir, name), "content of "+name); err != nil {
				return err
			}
		}
		return write(filepath.Join(dir, "Dockerfile"), "FROM "+baseImage, "WORKDIR /app",
			"COPY a .", "RUN cat a > d", "COPY b .", "RUN cat b > e",
			"COPY c .", "RUN cat c > f", "WORKDIR /app/more", "RUN echo > g",
			"RUN echo > h", `CMD ["sh"]`)
	})
	if err != nil {
		return nil, err
	}
	return l.recipe(ctx, recipe{dir: dir, keep: true, warm: true})
}

func edit(ctx context.Context, l *lab) ([]contender, error) {
	dir, err := l.fixture("edit", func(dir string) error {
		if err := write(filepath.Join(dir, "Dockerfile"), "FROM "+baseImage, "ADD . /src",
			"RUN true"); err != nil {
			return err
		}
		return l.files(dir, l.sizes.editFiles, 4000)
	})
	if err != nil {
		return nil, err
	}
	return l.recipe(ctx, recipe{dir: dir, keep: true, warm: true,
		edit: func(p *peer, run int) error {
			return write(filepath.Join(dir, fileName(l.sizes.editFiles/2)),
				fmt.Sprintf("edited for %s, run %d", p.name, run))
		}})
}

// binaryContext makes a context with size bytes of programs and libraries, and a Dockerfile that
// copies them.
func (l *lab) binaryContext(size int64) (string, error) {
	return l.fixture(fmt.Sprintf("binaries-%d", size/1e6), func(dir string) error {
		if err := write(filepath.Join(dir, "Dockerfile"), "FROM "+baseImage,
			"COPY data /opt/"); err != nil {
			return err
		}
		return binaries(filepath.Join(dir, "data"), 0, size)
	})
}

func layer(ctx context.Context, l *lab) ([]contender, error) {
	dir, err := l.binaryContext(l.sizes.layerBytes)
	if err != nil {
		return nil, err
	}
	return l.recipe(ctx, recipe{dir: dir})
}

func (l *lab) manyFiles() (string, error) {
	return l.fixture("context", func(dir string) error {
		if err := write(filepath.Join(dir, "Dockerfile"), "FROM "+baseImage, "COPY . /src",
			"RUN true"); err != nil {
			return err
		}
		return l.files(dir, l.sizes.contextFiles, 2000)
	})
}

func contextCold(ctx context.Context, l *lab) ([]contender, error) {
	dir, err := l.manyFiles()
	if err != nil {
		return nil, err
	}
	return l.recipe(ctx, recipe{dir: dir, units: l.sizes.contextFiles})
}

func contextWarm(ctx context.Context, l *lab) ([]contender, error) {
	dir, err := l.manyFiles()
	if err != nil {
		return nil, err
	}
	return l.recipe(ctx, recipe{dir: dir, units: l.sizes.contextFiles, keep: true, warm: true})
}

func copyFiles(ctx context.Context, l *lab) ([]contender, error) {
	dir, err := l.fixture("copy", func(dir string) error {
		if err := write(filepath.Join(dir, "Dockerfile"), "FROM "+baseImage,
			"COPY data /data"); err != nil {
			return err
		}
		return l.files(filepath.Join(dir, "data"), l.sizes.copyFiles,
			int(l.sizes.copyBytes)/l.sizes.copyFiles)
	})
	if err != nil {
		return nil, err
	}
	return l.recipe(ctx, recipe{dir: dir, units: l.sizes.copyFiles})
}

func stages(ctx context.Context, l *lab) ([]contender, error) {
	var text, last strings.Builder
	for i := range 4 {
		fmt.Fprintf(&text, "FROM %s AS s%d\nRUN sleep %s; echo %d > /f%d\n", baseImage,
			i, l.sizes.sleep, i, i)
		fmt.Fprintf(&last, "COPY --from=s%d /f%d /\n", i, i)
	}
	dir, err := l.dockerfile("stages", text.String()+"FROM "+baseImage, last.String())
	if err != nil {
		return nil, err
	}
	return l.recipe(ctx, recipe{dir: dir})
}

// pull measures pulls from a registry of its own, to which layerbuild has pushed the base image.
func pull(ctx context.Context, l *lab) ([]contender, error) {
	from, images, err := l.fixtures()
	if err != nil {
		return nil, err
	}
	dir, err := l.fixture("pull-base", func(dir string) error {
		half := l.sizes.baseBytes / 2
		for i, name := range []string{"a", "b"} {
			if err := binaries(filepath.Join(dir, name), int64(i)*half, half); err != nil {
				return err
			}
		}
		rootfs := filepath.Join(images[baseImage], "rootfs.tar")
		if err := command(ctx, "cp", rootfs, dir); err != nil {
			return err
		}
		return write(filepath.Join(dir, "Dockerfile"), "FROM scratch",
			"ADD rootfs.tar a /", "COPY b /opt/b/")
	})
	if err != nil {
		return nil, err
	}
	r, err := l.registry(ctx)
	if err != nil {
		return nil, err
	}
	name := r.host + "/bench/base:1"
	if err := l.fresh(ctx, from, map[string]string{name: dir}); err != nil {
		return nil, err
	}
	if err := l.do(ctx, from, from.push(name)); err != nil {
		return nil, err
	}
	step, err := l.tempDir("pull")
	if err != nil {
		return nil, err
	}
	if err := write(filepath.Join(step, "Dockerfile"), "FROM "+name, "RUN true"); err != nil {
		return nil, err
	}
	return l.each(func(p *peer) contender {
		return contender{
			before: func(ctx context.Context, _ int) error { return p.reset(ctx) },
			commands: func() ([]*exec.Cmd, error) {
				return []*exec.Cmd{p.command(p.build(step, appImage))}, nil
			},
		}
	}), nil
}

// push gives each run an empty registry. Otherwise a run would not send the blobs that an earlier
// run has pushed.
func push(ctx context.Context, l *lab) ([]contender, error) {
	if _, err := exec.LookPath("docker-registry"); err != nil {
		return nil, err
	}
	base, err := l.base()
	if err != nil {
		return nil, err
	}
	dir, err := l.binaryContext(l.sizes.baseBytes)
	if err != nil {
		return nil, err
	}
	return l.each(func(p *peer) contender {
		var name string
		return contender{
			before: func(ctx context.Context, _ int) error {
				if err := l.fresh(ctx, p, map[string]string{baseImage: base}); err != nil {
					return err
				}
				r, err := l.registry(ctx)
				if err != nil {
					return err
				}
				name = r.host + "/bench/app:1"
				return nil
			},
			commands: func() ([]*exec.Cmd, error) {
				return []*exec.Cmd{p.command(p.build(dir, name)), p.command(p.push(name))}, nil
			},
		}
	}), nil
}

func apt(ctx context.Context, l *lab) ([]contender, error) {
	dir, err := l.dockerfile("apt", "FROM "+debianImage, "ENV DEBIAN_FRONTEND=noninteractive",
		"RUN apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf "+
			"/var/lib/apt/lists")
	if err != nil {
		return nil, err
	}
	return l.recipe(ctx, recipe{dir: dir, debian: true})
}

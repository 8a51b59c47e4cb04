package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// curves returns the works that show how layerbuild's time and memory grow.
func curves() []work {
	return []work{
		{name: "files-curve", title: "Files in the context",
			what: "`COPY . /src` of files of 100 bytes: first build, and again with nothing " +
				"changed.",
			unit: "file", curve: true, make: filesCurve},
		{name: "sparse-curve", title: "Size of a layer",
			what: "RUN makes a sparse file of the given size.", unit: "GiB",
			curve: true, make: sparseCurve},
		{name: "steps-curve", title: "Number of steps",
			what: "The given number of RUN true, and of RUNs that write a file. Each of the " +
				"latter adds a lower directory to the steps after it.",
			unit: "step", curve: true, make: stepsCurve},
		{name: "layers-curve", title: "Layers under a step",
			what: "One RUN that counts files, on an image with the given number of layers of one " +
				"file each.",
			unit: "layer", curve: true, make: layersCurve},
	}
}

// growing returns layerbuild's build of a context, with some images in the store before it.
func (l *lab) growing(p *peer, name string, units int, dir string,
	images map[string]string) contender {
	return contender{
		name: name, group: p.group, units: units, own: true,
		before: func(ctx context.Context, _ int) error { return l.fresh(ctx, p, images) },
		commands: func() ([]*exec.Cmd, error) {
			return []*exec.Cmd{p.command(p.build(dir, appImage))}, nil
		},
	}
}

// fixtures returns what all curves share: the builder, and the context of the base image.
func (l *lab) fixtures() (*peer, map[string]string, error) {
	p, err := l.peer(layerbuild)
	if err != nil {
		return nil, nil, err
	}
	dir, err := l.base()
	return p, map[string]string{baseImage: dir}, err
}

func filesCurve(ctx context.Context, l *lab) ([]contender, error) {
	p, images, err := l.fixtures()
	if err != nil {
		return nil, err
	}
	var all []contender
	for _, n := range l.sizes.trees {
		dir, err := l.tempDir(fmt.Sprint("files-", n))
		if err != nil {
			return nil, err
		}
		if err := write(filepath.Join(dir, "Dockerfile"), "FROM "+baseImage,
			"COPY . /src"); err != nil {
			return nil, err
		}
		if err := smallFiles(ctx, dir, n); err != nil {
			return nil, err
		}
		cold := l.growing(p, number(n)+" files, first build", n, dir, images)
		again := l.growing(p, number(n)+" files, nothing changed", n, dir, images)
		again.before = func(ctx context.Context, _ int) error {
			if err := l.fresh(ctx, p, images); err != nil {
				return err
			}
			return l.do(ctx, p, p.build(dir, appImage))
		}
		all = append(all, cold, again)
	}
	return all, nil
}

// smallFiles fills dir with n files, 1000 to a directory.
func smallFiles(ctx context.Context, dir string, n int) error {
	for i := range n {
		path := filepath.Join(dir, fmt.Sprintf("d%04d", i/1000), fmt.Sprintf("f%07d", i))
		if i%1000 == 0 {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		if err := os.WriteFile(path, fmt.Appendf(nil, "%0100d", i), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func sparseCurve(_ context.Context, l *lab) ([]contender, error) {
	p, images, err := l.fixtures()
	if err != nil {
		return nil, err
	}
	var all []contender
	for _, n := range l.sizes.sparse {
		dir, err := l.dockerfile(fmt.Sprint("sparse-", n), "FROM "+baseImage,
			fmt.Sprintf("RUN truncate -s %dG /sparse", n))
		if err != nil {
			return nil, err
		}
		all = append(all, l.growing(p, fmt.Sprintf("%d GiB", n), int(n), dir, images))
	}
	return all, nil
}

func stepsCurve(_ context.Context, l *lab) ([]contender, error) {
	p, images, err := l.fixtures()
	if err != nil {
		return nil, err
	}
	var all []contender
	for _, n := range l.sizes.stepCounts {
		dir, err := l.dockerfile(fmt.Sprint("steps-", n), "FROM "+baseImage,
			strings.Repeat("RUN true\n", n))
		if err != nil {
			return nil, err
		}
		all = append(all, l.growing(p, fmt.Sprintf("%d steps", n), n, dir, images))
		var lines []string
		for i := range n {
			lines = append(lines, fmt.Sprintf("RUN echo > /f%d", i))
		}
		dir, err = l.dockerfile(fmt.Sprint("writing-", n),
			append([]string{"FROM " + baseImage}, lines...)...)
		if err != nil {
			return nil, err
		}
		all = append(all, l.growing(p, fmt.Sprintf("%d steps that write", n), n, dir, images))
	}
	return all, nil
}

func layersCurve(_ context.Context, l *lab) ([]contender, error) {
	p, images, err := l.fixtures()
	if err != nil {
		return nil, err
	}
	const tall = "localhost/tall"
	var all []contender
	for _, n := range l.sizes.layerCounts {
		var text strings.Builder
		for i := range n {
			fmt.Fprintf(&text, "COPY file /f/%d\n", i)
		}
		below, err := l.dockerfile(fmt.Sprint("tall-", n), "FROM "+baseImage, text.String())
		if err != nil {
			return nil, err
		}
		if err := write(filepath.Join(below, "file"), "content"); err != nil {
			return nil, err
		}
		dir, err := l.dockerfile(fmt.Sprint("on-tall-", n), "FROM "+tall,
			fmt.Sprintf("RUN test $(ls /f | wc -l) -eq %d", n))
		if err != nil {
			return nil, err
		}
		c := l.growing(p, fmt.Sprintf("%d layers", n), n, dir, images)
		c.before = func(ctx context.Context, _ int) error {
			if err := l.fresh(ctx, p, images); err != nil {
				return err
			}
			return l.do(ctx, p, p.build(below, tall))
		}
		all = append(all, c)
	}
	return all, nil
}

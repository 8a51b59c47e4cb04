package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/layerbuild/layerbuild/internal/counting"
)

// cached measures builds on an empty machine whose steps are all in a cache in a registry, and that
// end in a push to the registry. Each tool has written its cache before. edited is set if the last
// COPY has another file in each run.
func cached(edited bool) func(context.Context, *lab) ([]contender, error) {
	return func(ctx context.Context, l *lab) ([]contender, error) {
		from, images, err := l.fixtures()
		if err != nil {
			return nil, err
		}
		r, err := l.registry(ctx)
		if err != nil {
			return nil, err
		}
		proxy, err := counting.Start(r.host)
		if err != nil {
			return nil, err
		}
		l.cleanup = append(l.cleanup, proxy.Close)
		base := proxy.Host + "/bench/base:1"
		if err := l.fresh(ctx, from, map[string]string{base: images[baseImage]}); err != nil {
			return nil, err
		}
		if err := l.do(ctx, from, from.push(base)); err != nil {
			return nil, err
		}
		dir, err := l.tempDir("cached")
		if err != nil {
			return nil, err
		}
		if err := binaries(filepath.Join(dir, "data"), 0, l.sizes.baseBytes/5); err != nil {
			return nil, err
		}
		lines := []string{"FROM " + base + " AS build", "COPY data /data"}
		for i := range 8 {
			lines = append(lines, fmt.Sprintf("RUN head -c %d /dev/urandom > /out%d",
				l.sizes.baseBytes/100, i))
		}
		lines = append(lines, "FROM "+base, "RUN echo app > /app", "COPY --from=build /data /data",
			"RUN echo more >> /app", "COPY last /last", "CMD [\"sh\"]")
		if err := write(filepath.Join(dir, "Dockerfile"), lines...); err != nil {
			return nil, err
		}
		if err := write(filepath.Join(dir, "last"), "first"); err != nil {
			return nil, err
		}
		all := l.each(func(p *peer) contender { return l.cachedBuild(p, proxy, dir, edited) })
		var some []contender
		for _, c := range all {
			if c.commands != nil {
				some = append(some, c)
			}
		}
		return some, nil
	}
}

// cachedBuild returns the contender of a peer. It has no commands if the peer has no such cache.
func (l *lab) cachedBuild(p *peer, proxy *counting.Proxy, dir string, edited bool) contender {
	if p.cached == nil {
		return contender{}
	}
	cache := proxy.Host + "/bench/cache-" + p.name
	tag := func(run int) string { return fmt.Sprint(proxy.Host, "/bench/", p.name, ":", run) }
	commands := func(run int) (all []*exec.Cmd) {
		for _, line := range p.cached(dir, tag(run), cache) {
			all = append(all, p.command(line))
		}
		return all
	}
	at := 0
	return contender{
		before: func(ctx context.Context, run int) error {
			if at = run + 1; run == 0 {
				err := errors.Join(p.reset(ctx), write(filepath.Join(dir, "last"), p.name))
				if err != nil {
					return err
				}
				for _, line := range p.cached(dir, tag(0), cache) {
					if err := l.do(ctx, p, line); err != nil {
						return err
					}
				}
			}
			text := p.name
			if edited {
				text = fmt.Sprintf("edited for %s, run %d", p.name, run)
			}
			err := errors.Join(p.reset(ctx), write(filepath.Join(dir, "last"), text))
			proxy.Counts()
			return err
		},
		commands: func() ([]*exec.Cmd, error) { return commands(at), nil },
		after: func(_ context.Context, s *sample, _ string) error {
			n := proxy.Counts()
			s.moved, s.requests = n.Sent+n.Received, n.Requests
			return nil
		},
	}
}

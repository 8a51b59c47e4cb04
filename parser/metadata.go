package parser

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// metadata handles the instructions that only change the configuration.
func (w *walker) metadata(c instructions.Command, step *Step) error {
	img := &w.state.img
	switch c := c.(type) {
	case *instructions.EnvCommand:
		if len(w.state.env.kv)+len(c.Env) > maxVariables {
			return errManyVariables
		}
		step.History = w.pairs("ENV", c, c.Env)
		for _, e := range c.Env {
			w.rules.secretKey("ENV", e.Key, c.Location())
			kv := e.Key + "=" + e.Value // copy only once, since a value can have 64 MiB
			w.state.env = w.state.env.setPair(e.Key, kv)
			img.Config.Env = replaceEnv(img.Config.Env, e.Key, kv)
		}
	case *instructions.LabelCommand:
		step.History = w.pairs("LABEL", c, c.Labels)
		if err := w.copying(len(img.Config.Labels) + len(c.Labels)); err != nil {
			return err
		}
		img.Config.Labels = cloneMap(img.Config.Labels)
		for _, l := range c.Labels {
			img.Config.Labels[l.Key] = l.Value
		}
	case *instructions.MaintainerCommand:
		img.Author = c.Maintainer
		step.History = "MAINTAINER " + c.Maintainer
	case *instructions.OnbuildCommand:
		img.Config.OnBuild = append(slices.Clip(img.Config.OnBuild), c.Expression)
	case *instructions.CmdCommand:
		w.once(&w.state.cmd, c)
		img.Config.Cmd = w.commandLine(c, c.ShellDependantCmdLine)
		img.Config.ArgsEscaped = true // deprecated, but BuildKit still writes it
		step.History = fmt.Sprintf("CMD %q", img.Config.Cmd)
	case *instructions.EntrypointCommand:
		w.once(&w.state.entrypoint, c)
		img.Config.Entrypoint = w.commandLine(c, c.ShellDependantCmdLine)
		if w.state.cmd == nil {
			// An inherited CMD applies only to the inherited ENTRYPOINT.
			img.Config.Cmd = nil
		}
		step.History = fmt.Sprintf("ENTRYPOINT %q", img.Config.Entrypoint)
	case *instructions.HealthCheckCommand:
		w.once(&w.state.healthcheck, c)
		h := c.Health
		img.Config.Healthcheck = &dockerspec.HealthcheckConfig{Test: h.Test,
			Interval: h.Interval, Timeout: h.Timeout,
			StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries}
		step.History = fmt.Sprintf("HEALTHCHECK %+v", *img.Config.Healthcheck)
	case *instructions.UserCommand:
		img.Config.User = c.User
		step.History = "USER " + c.User
	case *instructions.VolumeCommand:
		if err := w.copying(len(img.Config.Volumes) + len(c.Volumes)); err != nil {
			return err
		}
		img.Config.Volumes = cloneMap(img.Config.Volumes)
		for _, v := range c.Volumes {
			if v == "" {
				return errors.New("VOLUME specified can not be an empty string")
			}
			img.Config.Volumes[v] = struct{}{}
		}
		step.History = fmt.Sprintf("VOLUME %v", c.Volumes)
	case *instructions.StopSignalCommand:
		if err := checkSignal(c.Signal); err != nil {
			return err
		}
		img.Config.StopSignal = c.Signal
		step.History = "STOPSIGNAL " + c.Signal
	case *instructions.ShellCommand:
		img.Config.Shell = c.Shell
		step.History = fmt.Sprintf("SHELL %v", c.Shell)
	default:
		return fmt.Errorf("%s is not supported", strings.ToUpper(c.Name()))
	}
	return nil
}

// pairs returns the history text of an ENV or a LABEL. It copies each value once: a value can have
// 64 MiB.
func (w *walker) pairs(verb string, c instructions.Command, kvs instructions.KeyValuePairs) string {
	size := len(verb)
	for _, kv := range kvs {
		size += len(" ") + len(kv.Key) + len("=") + len(kv.Value)
	}
	var b strings.Builder
	b.Grow(size)
	b.WriteString(verb)
	for _, kv := range kvs {
		if kv.NoDelim {
			w.rules.run(&linter.RuleLegacyKeyValueFormat, c.Location(),
				linter.RuleLegacyKeyValueFormat.Format(c.Name()))
		}
		for _, part := range [...]string{" ", kv.Key, "=", kv.Value} {
			b.WriteString(part)
		}
	}
	return b.String()
}

// copying counts the entries of a set that an instruction copies in order to change them.
func (w *walker) copying(entries int) error {
	return w.plan.budget.take(w.stage.Index, copiedSets, int64(entries))
}

func cloneMap[V any](m map[string]V) map[string]V {
	if m == nil {
		return map[string]V{}
	}
	return maps.Clone(m)
}

func (w *walker) expose(c *instructions.ExposeCommand, step *Step) error {
	var ports []string
	for _, spec := range c.Ports {
		// EXPOSE is the only instruction that splits the values of variables into words.
		words, err := w.lex.word(spec, w.state.env)
		if err != nil {
			return err
		}
		for _, word := range words.Words {
			p, err := w.ports(c, word)
			if err != nil {
				return err
			}
			ports = append(ports, p...)
		}
	}
	if err := w.copying(len(w.state.img.Config.ExposedPorts) + len(ports)); err != nil {
		return err
	}
	exposed := cloneMap(w.state.img.Config.ExposedPorts)
	for _, p := range ports {
		exposed[p] = struct{}{}
	}
	w.state.img.Config.ExposedPorts = exposed
	step.History = fmt.Sprintf("EXPOSE %v", ports)
	return nil
}

// ports expands [[ip:]host:]container[-end][/proto]. Address and host port have no effect in an
// image, but other builders accept them if they are well formed.
func (w *walker) ports(c *instructions.ExposeCommand, spec string) ([]string, error) {
	parts := strings.Split(spec, ":")
	n := len(parts)
	container, host, ip := parts[n-1], "", ""
	if n > 1 {
		host = parts[n-2]
	}
	if n > 2 {
		ip = strings.Join(parts[:n-2], ":")
	}
	container, proto, _ := strings.Cut(container, "/")
	if container == "" {
		return nil, fmt.Errorf("invalid port: %q: no port specified", spec)
	}
	lower := strings.ToLower(proto)
	switch lower {
	case "":
		lower = "tcp"
	case "tcp", "udp", "sctp":
	default:
		return nil, fmt.Errorf("invalid port: %q: invalid proto: %s", spec, proto)
	}
	if proto != strings.ToLower(proto) {
		w.rules.run(&linter.RuleExposeProtoCasing, c.Location(),
			linter.RuleExposeProtoCasing.Format(spec))
	}
	if ip != "" || host != "" {
		w.rules.run(&linter.RuleExposeInvalidFormat, c.Location(),
			linter.RuleExposeInvalidFormat.Format(spec))
	}
	if bare := strings.TrimSuffix(strings.TrimPrefix(ip, "["), "]"); ip != "" &&
		net.ParseIP(bare) == nil {
		return nil, fmt.Errorf("invalid IP address: %s", ip)
	}
	start, end, err := portRange(container)
	if err != nil {
		return nil, fmt.Errorf("invalid containerPort: %s", container)
	}
	if host != "" {
		hostStart, hostEnd, err := portRange(host)
		if err != nil {
			return nil, fmt.Errorf("invalid hostPort: %s", host)
		}
		if start != end && end-start != hostEnd-hostStart {
			return nil, fmt.Errorf(
				"invalid ranges specified for container and host Ports: %s and %s", container, host)
		}
	}
	ports := make([]string, 0, end-start+1)
	for p := start; p <= end; p++ {
		ports = append(ports, strconv.Itoa(p)+"/"+lower)
	}
	return ports, nil
}

func portRange(s string) (start, end int, err error) {
	first, last, ok := strings.Cut(s, "-")
	if !ok {
		last = first
	}
	port := func(s string) int {
		n, perr := strconv.ParseInt(s, 10, 0)
		if perr != nil || n < 0 || n > 65535 {
			err = fmt.Errorf("invalid port %q", s)
		}
		return int(n)
	}
	start, end = port(first), port(last)
	if err == nil && end < start {
		err = fmt.Errorf("invalid port range: %s", s)
	}
	return start, end, err
}

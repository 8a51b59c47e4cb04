package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// machine describes the machine, one fact a line.
func (l *lab) machine(ctx context.Context) []string {
	facts := []string{
		"Date: " + time.Now().UTC().Format("2006-01-02 15:04 UTC") + "; load average before: " +
			first(readFile("/proc/loadavg")),
		fmt.Sprintf("CPU: %s, %d cores", processor(), runtime.NumCPU()),
		"Memory: " + totalMemory(),
		"Kernel: " + strings.TrimSpace(readFile("/proc/sys/kernel/osrelease")) + "; " + system(),
		statesAre + l.disk.what,
		"CPU is measured by " + l.group.how(),
	}
	for _, p := range l.peers {
		facts = append(facts, p.name+": "+p.version)
	}
	for _, tool := range [][]string{{"docker-registry", "--version"}, {"gzip", "--version"},
		{"zstd", "--version"}, {"tar", "--version"}, {"runc", "--version"}} {
		if line, _, _ := strings.Cut(output(ctx, tool[0], tool[1:]...), "\n"); line != "" {
			facts = append(facts, tool[0]+": "+strings.Trim(line, "* "))
		}
	}
	facts = append(facts, "Go: "+runtime.Version())
	for _, m := range l.missing {
		facts = append(facts, "Left out: "+m)
	}
	return facts
}

// measured returns the version of the measured program, and the time.
func (l *lab) measured() string {
	version := ""
	for _, p := range l.peers {
		if p.name == layerbuild {
			version = p.version
		}
	}
	return version + ", " + time.Now().UTC().Format("2006-01-02 15:04 UTC")
}

func readFile(name string) string {
	raw, err := os.ReadFile(name)
	if err != nil {
		return "unknown"
	}
	return string(raw)
}

func first(text string) string {
	word, _, _ := strings.Cut(text, " ")
	return word
}

// field returns the value of a key in a file of lines like "key : value".
func field(name, key string) string {
	for line := range strings.Lines(readFile(name)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func processor() string {
	if model := field("/proc/cpuinfo", "model name"); model != "" {
		return model
	}
	return runtime.GOARCH
}

func totalMemory() string {
	var kb int64
	if _, err := fmt.Sscan(field("/proc/meminfo", "MemTotal"), &kb); err != nil {
		return "unknown"
	}
	return fmt.Sprintf("%.1f GiB", float64(kb)/(1<<20))
}

func system() string {
	for line := range strings.Lines(readFile("/etc/os-release")) {
		if name, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			return strings.Trim(strings.TrimSpace(name), `"`)
		}
	}
	return "an unknown system"
}

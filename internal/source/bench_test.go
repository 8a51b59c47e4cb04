package source

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bigTree makes a tree of n small files, 50 to a directory.
func bigTree(b *testing.B, n int) string {
	b.Helper()
	dir := b.TempDir()
	data := make([]byte, 2000)
	for i := range n {
		d := filepath.Join(dir, fmt.Sprintf("package%03d", i/2500),
			fmt.Sprintf("source%02d", i/50%50))
		if i%50 == 0 {
			if err := os.MkdirAll(d, 0o755); err != nil {
				b.Fatal(err)
			}
		}
		copy(data, fmt.Sprint(i))
		if err := os.WriteFile(filepath.Join(d, fmt.Sprintf("module%05d.go", i)),
			data, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	time.Sleep(50 * time.Millisecond) // until no file is racy
	return dir
}

func benchmarkMatch(b *testing.B, n int, dir string, o func(i int) TreeOptions, q Query) {
	b.ReportAllocs()
	began := cpu(b)
	i := 0
	for b.Loop() {
		f, err := os.Open(dir)
		if err != nil {
			b.Fatal(err)
		}
		tree, err := NewTree(f, o(i))
		if err != nil {
			b.Fatal(err)
		}
		m, err := tree.Match(b.Context(), q)
		if err != nil {
			b.Fatal(err)
		}
		if m.Files == 0 {
			b.Fatal("no files")
		}
		f.Close()
		i++
	}
	b.ReportMetric(float64((cpu(b)-began).Nanoseconds())/1e3/float64(b.N)/float64(n), "cpu-µs/file")
}

// cpu returns the CPU time of this process, which can be compared even if other processes run at
// the same time.
func cpu(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchmarkWarm fills an index.
func benchmarkWarm(b *testing.B, dir, file string) {
	f, err := os.Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	tree, err := NewTree(f, TreeOptions{IndexFile: file})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := tree.Match(b.Context(), Query{Patterns: []string{"."}}); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkMatch measures COPY of 50,000 files. Cold reads each of them, warm finds all of them in
// the index of an earlier build.
func BenchmarkMatch(b *testing.B) {
	const n = 50_000
	dir := bigTree(b, n)
	index := b.TempDir()
	all := Query{Patterns: []string{"."}}
	b.Run("cold", func(b *testing.B) {
		benchmarkMatch(b, n, dir, func(int) TreeOptions { return TreeOptions{} }, all)
	})
	warm := filepath.Join(index, "warm")
	b.Run("save", func(b *testing.B) {
		benchmarkMatch(b, n, dir, func(i int) TreeOptions {
			return TreeOptions{IndexFile: filepath.Join(index, fmt.Sprint(i))}
		}, all)
	})
	benchmarkWarm(b, dir, warm)
	b.Run("warm", func(b *testing.B) {
		benchmarkMatch(b, n, dir, func(int) TreeOptions { return TreeOptions{IndexFile: warm} },
			all)
	})
	b.Run("warm-ignore", func(b *testing.B) {
		ignore := []string{".git", "node_modules", "**/*.log", "*.md", "dist", "**/.env*",
			"!**/.env.example", "build/"}
		benchmarkMatch(b, n, dir, func(int) TreeOptions {
			return TreeOptions{IndexFile: warm, Ignore: ignore}
		}, all)
	})
	b.Run("warm-wildcard", func(b *testing.B) {
		benchmarkMatch(b, n, dir, func(int) TreeOptions { return TreeOptions{IndexFile: warm} },
			Query{Patterns: []string{"*/*/*.go"}})
	})
	b.Run("warm-one", func(b *testing.B) {
		benchmarkMatch(b, 1, dir, func(int) TreeOptions { return TreeOptions{IndexFile: warm} },
			Query{Patterns: []string{"package000/source00/module00000.go"}})
	})
}

// BenchmarkSmall measures the cost of a small project's context in a rebuild: opening it, reading
// the ignore file and the Dockerfile, and matching three COPYs.
func BenchmarkSmall(b *testing.B) {
	dir := b.TempDir()
	for name, text := range map[string]string{"Dockerfile": "FROM scratch\n",
		".dockerignore": ".git\n*.md\n", "go.mod": "module m\n", "main.go": "package main\n",
		"main_test.go": "package main\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	time.Sleep(50 * time.Millisecond) // until no file is racy
	o := Options{Index: IndexPlace{Dir: b.TempDir()}}
	b.ReportAllocs()
	for b.Loop() {
		c, err := Open(b.Context(), dir, o)
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := c.ReadDockerfile(b.Context()); err != nil {
			b.Fatal(err)
		}
		for _, pattern := range []string{"go.mod", "*.go", "."} {
			if _, err := c.Tree().Match(b.Context(),
				Query{Patterns: []string{pattern}}); err != nil {
				b.Fatal(err)
			}
		}
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

package executor

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/executor/copyfs"
	"github.com/layerbuild/layerbuild/executor/copyfs/copyfstest"
	"golang.org/x/sys/unix"
)

// cpu returns the CPU time of this process and its children.
func cpu() int64 {
	var total int64
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var ru unix.Rusage
		if err := unix.Getrusage(who, &ru); err == nil {
			total += ru.Utime.Nano() + ru.Stime.Nano()
		}
	}
	return total
}

// BenchmarkRunTrue runs a command that does nothing (RUN true).
func BenchmarkRunTrue(b *testing.B) {
	im := newBusybox(b)
	for _, dir := range []string{"dev", "proc", "sys", "etc"} {
		im.mkdir(dir)
	}
	im.write("etc/hosts", "", 0o644)
	im.write("etc/resolv.conf", "", 0o644)
	s := im.spec(shell("true"))
	before := cpu()
	b.ResetTimer()
	for b.Loop() {
		if _, err := Run(context.Background(), s, io.Discard, io.Discard); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(cpu()-before)/float64(b.N)/1e6, "cpu-ms/op")
}

// BenchmarkMkdir makes a directory (WORKDIR).
func BenchmarkMkdir(b *testing.B) {
	im := newImage(b)
	s := im.spec(&Mkdir{Path: "/app"})
	before := cpu()
	for b.Loop() {
		if _, err := Run(context.Background(), s, io.Discard, io.Discard); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(cpu()-before)/float64(b.N)/1e6, "cpu-ms/op")
}

// BenchmarkCopy copies 5,000 small files in 250 directories (COPY).
func BenchmarkCopy(b *testing.B) {
	im := newImage(b)
	var entries []string
	for d := range 250 {
		for f := range 20 {
			entries = append(entries, fmt.Sprintf("file d%d/f%d 0644 %s", d, f,
				strings.Repeat("content ", 500)))
		}
	}
	src := copyfstest.Source(b, entries...)
	c := &copyfs.Copy{Dest: "/app", Sources: one(src, copyfs.Item{Path: ".", Contents: true})}
	s := im.spec(c)
	before := cpu()
	for b.Loop() {
		if _, err := Run(context.Background(), s, nil, nil); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := os.RemoveAll(im.path("app")); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(cpu()-before)/float64(b.N)/1e6, "cpu-ms/op")
	b.ReportMetric(float64(b.N)*5000/b.Elapsed().Seconds(), "files/s")
}

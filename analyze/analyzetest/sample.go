package analyzetest

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/analyze"
)

// Hostile are names that terminals and browsers would interpret if they were not escaped.
var Hostile = []string{
	"</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\"'><b>", "&amp;&#60;",
	"a\x1b[31mred\x1b[0m", "\x1b]0;title\a",
	"new\nline", "tab\there", "\x9b2J", "back\b\b\b", "del\x7f", "not\xff\xfeutf8",
	"turn\u202egnp.exe", "漢字かな", "e\u0301\u0301", "👩\u200d💻",
	"line\u2028sep", "`${1}`", "{{.}}", "<!--", "]]>", "__proto__", "constructor", "#", "?x=1",
	"%2e%2e", " ", "~", strings.Repeat("long", 60),
}

// Sample is a report of a small image with a base, a stage and all kinds of waste. Only the names
// below /srv/odd are Hostile ones.
func Sample(t testing.TB) *analyze.Report {
	t.Helper()
	in := analyze.Input{
		Image: "registry.example/team/app:1.4", Digest: "sha256:" + strings.Repeat("5f", 32),
		Platform: "linux/amd64", Dockerfile: "Dockerfile",
		Base: analyze.Base{Name: "debian:trixie-slim", Layers: 2, Source: analyze.BaseRecord},
	}
	add := func(owner analyze.Owner, line int, text string, lines ...string) {
		n := len(in.Layers)
		if len(lines) == 0 {
			n = -1
		} else {
			in.Layers = append(in.Layers, analyze.LayerInput{Digest: fmt.Sprintf("sha256:%064x",
				n+1), Compressed: 40_000, Table: table(func(w *tar.Writer) error {
				return write(w, lines)
			})})
		}
		in.Instructions = append(in.Instructions,
			analyze.Instruction{Text: text, Line: line, EndLine: line, Owner: owner, Layer: n})
	}
	var odd []string
	for i, name := range Hostile {
		odd = append(odd, fmt.Sprintf("file %d srv/odd/%s", 500+i, name))
	}
	add(analyze.BaseImage, 0, "ADD rootfs.tar.xz / # buildkit", "dir 0755 etc",
		"file 1200 etc/passwd", "file 300 etc/hosts", "dir 0755 usr", "dir 0755 usr/bin",
		"file 1200000 usr/bin/perl", "file 900000 usr/bin/bash", "file 140000 usr/bin/ls",
		"link usr/bin/perl usr/bin/perl5.40", "symlink bash usr/bin/sh",
		"file 1900000 usr/lib/libc.so.6", "file 700000 usr/lib/libcrypto.so.3",
		"file 250000 usr/share/doc/base/changelog", "file 60000 usr/share/doc/base/NEWS",
		"file 400000 var/lib/apt/lists/deb.debian.org_dists_trixie_main", "dir 01777 tmp")
	add(analyze.BaseImage, 0, `RUN /bin/sh -c rm -rf /var/lib/apt/lists/*`,
		"whiteout var/lib/apt/lists/deb.debian.org_dists_trixie_main")
	add(analyze.EarlierStage, 3, "RUN apt-get update && apt-get install -y gcc make",
		"file 3100000 usr/bin/gcc-14", "symlink gcc-14 usr/bin/gcc", "file 800000 usr/bin/make",
		"file 5200000 usr/libexec/gcc/cc1",
		"file 900000 var/lib/apt/lists/deb.debian.org_dists_trixie_main",
		"file 650000 var/cache/apt/archives/gcc-14.deb")
	add(analyze.Own, 6, "ENV APP=/srv/app")
	add(analyze.Own, 7, "COPY source.tar.gz /tmp/", "file 6400000 tmp/source.tar.gz")
	add(analyze.Own, 8, "RUN tar -C /srv -xf /tmp/source.tar.gz && make -C /srv/app",
		"dir 0755 srv", "file 2100000 srv/app/app", "file 900000 srv/app/main.o",
		"file 2300000 srv/app/data/a.bin", "file 2300000 srv/app/data/b.bin",
		"file 800 srv/app/Makefile", "file 500000 root/.cache/pip/http/1",
		"file 1700 root/.ssh/id_rsa")
	add(analyze.Own, 9, "RUN chmod -R 0755 /srv/app", "file 2100000 srv/app/app 0755",
		"file 2300000 srv/app/data/a.bin 0755", "file 900000 srv/app/main.o 0755")
	add(analyze.Own, 10,
		"RUN rm -rf /tmp/source.tar.gz /srv/app/*.o /root/.ssh && rm -rf /srv/app/data",
		"whiteout tmp/source.tar.gz", "whiteout srv/app/main.o", "whiteout root/.ssh",
		"opaque srv/app/data", "file 2300000 srv/app/data/b.bin",
		"whiteout srv/app/never-there")
	add(analyze.Own, 11, "COPY odd /srv/odd/", odd...)
	add(analyze.Own, 12, `CMD ["/srv/app/app"]`)
	return report(t, in)
}

// Large is a report of an image with a number of files in three layers. The last layer deletes
// some.
func Large(t testing.TB, files int) *analyze.Report {
	t.Helper()
	in := analyze.Input{Image: "large"}
	name := func(i int) string {
		return fmt.Sprintf("usr/lib/node_modules/package-%d/dist/%d/module-%d.js", i%97, i/97%211,
			i)
	}
	for layer := range 3 {
		in.Layers = append(in.Layers, analyze.LayerInput{Table: table(func(w *tar.Writer) error {
			for i := layer; i < files; i += 3 {
				h := &tar.Header{Name: name(i), Typeflag: tar.TypeReg,
					Size: int64(1 + i%400), Mode: 0o644}
				if layer == 2 && i%9 == 2 {
					h.Name, h.Size = strings.Replace(name(i-2), "module-", ".wh.module-", 1), 0
				}
				if err := w.WriteHeader(h); err != nil {
					return err
				}
				if _, err := io.CopyN(w, letters('x'), h.Size); err != nil {
					return err
				}
			}
			return nil
		})})
		in.Instructions = append(in.Instructions,
			analyze.Instruction{Text: fmt.Sprintf("RUN make layer-%d", layer),
				Line: layer + 2, Layer: layer})
	}
	return report(t, in)
}

func report(t testing.TB, in analyze.Input) *analyze.Report {
	t.Helper()
	r, err := analyze.Image(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// table streams a layer, since a large one would not fit into memory.
func table(fill func(*tar.Writer) error) func(context.Context) (*analyze.Table, error) {
	return func(ctx context.Context) (*analyze.Table, error) {
		out, in := io.Pipe()
		go func() {
			w := tar.NewWriter(in)
			err := fill(w)
			if err == nil {
				err = w.Close()
			}
			in.CloseWithError(err)
		}()
		defer out.Close()
		return analyze.Scan(ctx, out)
	}
}

// write makes a layer of lines: "file SIZE PATH [MODE]", "dir MODE PATH", "link TARGET PATH",
// "symlink TARGET PATH", "whiteout PATH", "opaque PATH".
func write(w *tar.Writer, lines []string) error {
	for _, l := range lines {
		kind, rest, _ := strings.Cut(l, " ")
		h := &tar.Header{Mode: 0o644, ModTime: time.Unix(1_700_000_000, 0), Format: tar.FormatPAX}
		var mode int64
		arg, path, _ := strings.Cut(rest, " ")
		switch kind {
		case "file":
			h.Typeflag, h.Name = tar.TypeReg, path
			fmt.Sscan(arg, &h.Size)
			if before, after, ok := strings.Cut(path, " 0"); ok {
				fmt.Sscanf(after, "%o", &mode)
				h.Name, h.Mode = before, mode
			}
		case "dir":
			fmt.Sscanf(arg, "%o", &mode)
			h.Typeflag, h.Name, h.Mode = tar.TypeDir, path+"/", mode
		case "link":
			h.Typeflag, h.Linkname, h.Name = tar.TypeLink, arg, path
		case "symlink":
			h.Typeflag, h.Linkname, h.Name, h.Mode = tar.TypeSymlink, arg, path, 0o777
		case "whiteout":
			i := strings.LastIndexByte(rest, '/') + 1
			h.Typeflag, h.Name = tar.TypeReg, rest[:i]+".wh."+rest[i:]
		case "opaque":
			h.Typeflag, h.Name = tar.TypeReg, rest+"/.wh..wh..opq"
		default:
			return fmt.Errorf("line %q", l)
		}
		if err := w.WriteHeader(h); err != nil {
			return fmt.Errorf("%q: %w", l, err)
		}
		if _, err := io.CopyN(w, letters(h.Name[len(h.Name)-1]), h.Size); err != nil {
			return err
		}
	}
	return nil
}

// letters reads as an endless file of one letter.
type letters byte

func (l letters) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(l)
	}
	return len(p), nil
}

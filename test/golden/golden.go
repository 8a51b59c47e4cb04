package golden

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/layerbuild/layerbuild/test/lab"
)

// Image is one image.
type Image struct {
	Name       string
	Dockerfile string
	Owners     bool // has files of other users, which a user namespace with a single id cannot make
}

// Images has all images. Their commands use the machine's busybox, of any version. None of its
// files is in an image.
var Images = []Image{
	{Name: "empty", Dockerfile: `
FROM scratch
LABEL a=b
`},
	{Name: "metadata", Owners: true, Dockerfile: `
FROM scratch
COPY a /
ENV A=1 B="two words"
ARG C=3
EXPOSE 80 53/udp
VOLUME /data
USER 7
WORKDIR /w/x
ENTRYPOINT ["/a"]
CMD b c
STOPSIGNAL 9
HEALTHCHECK --interval=3s CMD true
ONBUILD COPY . .
`},
	{Name: "copy", Dockerfile: `
FROM scratch
COPY a dir/*.txt /files/
COPY dir /dir
WORKDIR /deep/er
COPY --chmod=4711 a suid
COPY <<END here
inline
END
`},
	{Name: "chown", Owners: true, Dockerfile: `
FROM scratch
COPY --chown=1234:5678 dir /dir
`},
	{Name: "add", Owners: true, Dockerfile: `
FROM scratch
ADD archive.tar /
`},
	// Do not edit a file with a second name in a lower layer. Overlay breaks such a link when it
	// copies up (index=off), but a driver that copies does not, so that the command itself would
	// see another result.
	{Name: "run", Dockerfile: `
FROM scratch
COPY a dir /
RUN --mount=from=busybox,source=/bin,target=/bin mkdir -p m/n && echo x > m/n/x && echo z > m/n/z && ln m/n/x m/hard && ln -s n m/soft && touch -d '2001-02-03 04:05:06' m/old
RUN --mount=from=busybox,source=/bin,target=/bin rm a && rm -r sub && mkdir sub && echo new > sub/new && chmod 0700 m && echo more >> m/n/z && mkfifo -m 0644 pipe && rm m/old
`},
	{Name: "stages", Owners: true, Dockerfile: `
FROM busybox AS one
RUN mkdir -p /out/d && echo 1 > /out/d/f && chown -R 11:22 /out/d && chmod 1770 /out/d
FROM scratch AS two
COPY --from=one /out /
FROM two
COPY --from=one --chown=5:5 /out/d/f /g
`},
}

// Epoch is the SOURCE_DATE_EPOCH with which the images are built.
const Epoch = "1700000000"

// Context writes the build context into the lab.
func Context(t testing.TB, l *lab.Lab) {
	t.Helper()
	l.Busybox()
	l.Write("a", "a\n", "dir/b.txt", "b\n", "dir/c.txt",
		strings.Repeat("c", 100_000), "dir/sub/d", "")
	var archive []imagetest.Entry
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: "dir/", Mode: 0o755, Uid: 1, Gid: 2},
		{Typeflag: tar.TypeReg, Name: "dir/file", Mode: 0o640, Uid: 3, Gid: 4, Size: 5},
		{Typeflag: tar.TypeLink, Name: "hard", Linkname: "dir/file"},
		{Typeflag: tar.TypeSymlink, Name: "soft", Linkname: "dir/file", Uid: 5, Mode: 0o777},
		{Typeflag: tar.TypeFifo, Name: "pipe", Mode: 0o600},
		{Typeflag: tar.TypeReg, Name: strings.Repeat("long/", 30) + "name",
			Mode: 0o644, Uid: 60000},
	} {
		h.ModTime = time.Unix(1500000000, 0)
		archive = append(archive, imagetest.TarFile(h, "hello"[:h.Size]))
	}
	l.Write("archive.tar", string(imagetest.Tar(t, archive...)))
	for _, img := range Images {
		l.Write("Dockerfile."+img.Name, img.Dockerfile,
			"Dockerfile."+img.Name+".dockerignore", "Dockerfile*\n")
	}
	then := time.Unix(1600000000, 0)
	for _, name := range []string{"a", "archive.tar", "dir/b.txt", "dir/c.txt",
		"dir/sub/d", "dir/sub", "dir"} {
		path := filepath.Join(l.Dir, name)
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			if err := os.Chmod(path, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chtimes(path, then, then); err != nil {
			t.Fatal(err)
		}
	}
	l.Env = append(l.Env, "SOURCE_DATE_EPOCH="+Epoch)
}

// Build builds an image from scratch and returns its manifest's digest.
func Build(l *lab.Lab, img Image, flags ...string) string {
	args := append([]string{"--no-cache", "--platform=linux/amd64", "-t", img.Name, "-f",
		"Dockerfile." + img.Name}, flags...)
	l.Run("build", append(args, ".")...)
	return l.Image(img.Name).Descriptor.Digest.String()
}

// Runs is set if building the image runs commands, which are amd64 programs.
func (i Image) Runs() bool { return strings.Contains(i.Dockerfile, "RUN ") }

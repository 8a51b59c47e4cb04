package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/google/rpmpack"
)

const (
	homePage   = "https://github.com/layerbuild/layerbuild"
	maintainer = "layerbuild developers <layerbuild@users.noreply.github.com>"
	summary    = "build OCI images from Dockerfiles, without a daemon"
	about      = "layerbuild builds container images from Dockerfiles. It is one static program, " +
		"needs no daemon, and runs as root or as an ordinary user. It also shows which " +
		"instruction wastes how many bytes of an image."
)

// rpmArch has RPM's name for each architecture.
var rpmArch = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

// file is a file of a package. A directory has a name that ends in a slash.
type file struct {
	name string // without a slash at the beginning
	mode int64
	data []byte
}

// places are the directories that differ between systems.
type places struct{ zsh string }

// installed returns the files that a package installs below the root directory.
func installed(p program, docs documents, at places) ([]file, error) {
	data, err := os.ReadFile(p.path)
	if err != nil {
		return nil, err
	}
	files := []file{{"usr/bin/layerbuild", 0o755, data}}
	text := func(name, text string) { files = append(files, file{name, 0o644, []byte(text)}) }
	for _, page := range docs.man {
		section := strings.TrimPrefix(path.Ext(page.name), ".")
		text("usr/share/man/man"+section+"/"+page.name+".gz", string(compressed([]byte(page.text))))
	}
	for shell, dir := range map[string]string{"bash": "bash-completion/completions", "zsh": at.zsh,
		"fish": "fish/vendor_completions.d"} {
		text("usr/share/"+dir+"/"+docs.completions[shell].name, docs.completions[shell].text)
	}
	text("usr/share/doc/layerbuild/README.md", docs.readme)
	text("usr/share/doc/layerbuild/copyright", docs.copyright())
	text("usr/share/doc/layerbuild/changelog.gz", string(compressed([]byte(docs.changes))))
	return sorted(files), nil
}

func sorted(files []file) []file {
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.name, b.name) })
	return files
}

// compressed returns data as gzip, without a name and a time.
func compressed(data []byte) []byte {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		panic(err) // the level is valid
	}
	w.Write(data) // a buffer has no errors
	w.Close()
	return b.Bytes()
}

// withDirectories adds the directories of files, each before what is in it.
func withDirectories(files []file) []file {
	all := map[string]bool{}
	list := slices.Clone(files)
	for _, f := range files {
		for dir := path.Dir(f.name); dir != "."; dir = path.Dir(dir) {
			if !all[dir] {
				all[dir] = true
				list = append(list, file{name: dir + "/", mode: 0o755})
			}
		}
	}
	return sorted(list)
}

// tarOf returns a tar of files that belong to root. Each name begins with a prefix.
func tarOf(prefix string, files []file, at time.Time) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: prefix + f.name, Mode: f.mode,
			Size: int64(len(f.data)), ModTime: at, Uname: "root", Gname: "root",
			Format: tar.FormatGNU}
		if strings.HasSuffix(h.Name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// archiveOf returns the tar.gz of a program.
func archiveOf(p program, docs documents) ([]byte, error) {
	data, err := os.ReadFile(p.path)
	if err != nil {
		return nil, err
	}
	files := []file{{"layerbuild", 0o755, data}, {"README.md", 0o644, []byte(docs.readme)},
		{"CHANGELOG.md", 0o644, []byte(docs.changes)},
		{"COPYRIGHT", 0o644, []byte(docs.copyright())}}
	if docs.license != "" {
		files = append(files, file{"LICENSE", 0o644, []byte(docs.license)})
	}
	for _, page := range docs.man {
		files = append(files, file{"man/" + page.name, 0o644, []byte(page.text)})
	}
	for shell, c := range docs.completions {
		files = append(files, file{"completions/" + shell + "/" + c.name, 0o644, []byte(c.text)})
	}
	var below []file
	for _, f := range files {
		f.name = archiveName(p) + "/" + f.name
		below = append(below, f)
	}
	data, err = tarOf("", withDirectories(below), p.time)
	return compressed(data), err
}

// debOf returns the Debian package of a program: deb(5).
func debOf(p program, docs documents) ([]byte, error) {
	files, err := installed(p, docs, places{zsh: "zsh/vendor-completions"})
	if err != nil {
		return nil, err
	}
	var sums strings.Builder
	size := 0 // in KiB, each file and directory rounded up
	for _, f := range withDirectories(files) {
		size += max(1, (len(f.data)+1023)/1024)
		if !strings.HasSuffix(f.name, "/") {
			fmt.Fprintf(&sums, "%x  %s\n", md5.Sum(f.data), f.name)
		}
	}
	control := fmt.Sprintf("Package: layerbuild\nVersion: %s\nArchitecture: %s\nMaintainer: %s\n"+
		"Installed-Size: %d\nDepends: uidmap\nRecommends: ca-certificates, fuse-overlayfs, git\n"+
		"Suggests: openssh-client\nSection: admin\nPriority: optional\nHomepage: %s\n"+
		"Description: %s\n%s", packageVersion(p.version), p.arch, maintainer, size, homePage,
		summary, folded(about))
	var b bytes.Buffer
	b.WriteString("!<arch>\n")
	member(&b, "debian-binary", []byte("2.0\n"), p.time)
	for _, part := range []struct {
		name  string
		files []file
	}{
		{"control.tar.gz", []file{{name: "", mode: 0o755}, {"control", 0o644, []byte(control)},
			{"md5sums", 0o644, []byte(sums.String())}}},
		{"data.tar.gz", append([]file{{mode: 0o755}}, withDirectories(files)...)},
	} {
		data, err := tarOf("./", part.files, p.time)
		if err != nil {
			return nil, err
		}
		member(&b, part.name, compressed(data), p.time)
	}
	return b.Bytes(), nil
}

// folded returns a text as the lines of a long description.
func folded(text string) string {
	const width = 76
	var b strings.Builder
	line := ""
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > width {
			b.WriteString(line + "\n")
			line = ""
		}
		line += " " + word
	}
	return b.String() + line + "\n"
}

// member writes a member of an archive of ar(5).
func member(b *bytes.Buffer, name string, data []byte, at time.Time) {
	fmt.Fprintf(b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", name, at.Unix(), 0, 0, "100644", len(data))
	b.Write(data)
	if len(data)%2 == 1 {
		b.WriteByte('\n')
	}
}

// rpmOf returns the RPM package of a program.
func rpmOf(p program, docs documents) ([]byte, error) {
	files, err := installed(p, docs, places{zsh: "zsh/site-functions"})
	if err != nil {
		return nil, err
	}
	m := rpmpack.RPMMetaData{Name: "layerbuild", Version: packageVersion(p.version), Release: "1",
		Arch: rpmArch[p.arch], Summary: summary, Description: about, URL: homePage,
		Packager: maintainer, BuildHost: "localhost", BuildTime: p.time, Epoch: rpmpack.NoEpoch,
		Compressor: "xz", Licence: "see /usr/share/doc/layerbuild/copyright"}
	// A path, because distributions have different names for the package.
	for _, r := range []struct {
		to   *rpmpack.Relations
		what string
	}{{&m.Requires, "/usr/bin/newuidmap"}, {&m.Recommends, "ca-certificates"},
		{&m.Recommends, "fuse-overlayfs"}, {&m.Recommends, "/usr/bin/git"}} {
		if err := r.to.Set(r.what); err != nil {
			return nil, err
		}
	}
	pkg, err := rpmpack.NewRPM(m)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		kind := rpmpack.GenericFile
		if strings.HasPrefix(f.name, "usr/share/doc/") ||
			strings.HasPrefix(f.name, "usr/share/man/") {
			kind = rpmpack.DocFile
		}
		pkg.AddFile(rpmpack.RPMFile{Name: "/" + f.name, Body: f.data, Mode: uint(f.mode),
			Owner: "root", Group: "root", MTime: uint32(p.time.Unix()), Type: kind})
	}
	pkg.AddFile(rpmpack.RPMFile{Name: "/usr/share/doc/layerbuild", Mode: 0o40755, Owner: "root",
		Group: "root", MTime: uint32(p.time.Unix())})
	var b bytes.Buffer
	err = pkg.Write(&b)
	return b.Bytes(), err
}

package soundness

import (
	"archive/tar"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/layerbuild/layerbuild/internal/imagetest"
	"golang.org/x/sys/unix"
)

// The epochs of builds, and times of files: before all epochs, between the first and the second
// epoch, and after all epochs.
const (
	firstEpoch  = 1000000000
	secondEpoch = 1100000000
	earlyEpoch  = 900000000
	oldTime     = 850000000
	middleTime  = 1050000000
	lateTime    = 1200000000
)

// touch sets the time of a file.
func (s *site) touch(path string, seconds int64) {
	at := unix.Timespec{Sec: seconds}
	s.check(unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{at, at},
		unix.AT_SYMLINK_NOFOLLOW))
}

// populate makes the files of a subject in a directory, and removes other files. They are the same
// each time, except for their inodes and ctimes.
func (s *site) populate(dir string) {
	s.check(os.RemoveAll(dir))
	s.check(os.MkdirAll(filepath.Join(dir, "sub"), 0o755))
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"f", "g", "late", "sub/h", "sub/k1"} {
		s.write(path(name), name+"\n")
	}
	s.check(os.Link(path("sub/k1"), path("sub/k2")))
	s.check(os.Symlink("h", path("sub/l")))
	s.check(syscall.Mkfifo(path("sub/"+fifo), 0o644))
	s.give(path("sub/l"))
	s.give(path("sub/" + fifo))
	s.writeTar(path("t.tar"), 0)
	s.give(path("sub"))
	for _, name := range []string{"f", "sub/h", "sub/k1", "sub/l", "sub/" + fifo,
		"t.tar", "sub", "."} {
		s.touch(path(name), oldTime)
	}
	s.touch(path("g"), middleTime)
	s.touch(path("late"), middleTime)
}

// fileEdits change the files of populate below a directory. Each changes one property. An edit
// returns an error if the file system or the user cannot do it. Directories keep their times,
// except in edits of their times.
var fileEdits = map[string]func(s *site, dir string) error{
	"content": func(s *site, dir string) error { // only ctime shows the change
		f, err := os.OpenFile(dir+"/f", os.O_WRONLY, 0)
		s.check(err)
		_, err = f.WriteString("F")
		s.check(err)
		s.check(f.Close())
		s.touch(dir+"/f", oldTime)
		return nil
	},
	"length": func(s *site, dir string) error {
		s.write(dir+"/f", "longer\n")
		s.touch(dir+"/f", oldTime)
		return nil
	},
	"content below": func(s *site, dir string) error {
		s.write(dir+"/sub/h", "H\n")
		s.touch(dir+"/sub/h", oldTime)
		return nil
	},
	"mode":        func(_ *site, dir string) error { return os.Chmod(dir+"/f", 0o600) },
	"setuid":      func(_ *site, dir string) error { return unix.Chmod(dir+"/f", 0o4755) },
	"owner":       func(_ *site, dir string) error { return os.Lchown(dir+"/f", 7, 7) },
	"time":        func(s *site, dir string) error { s.touch(dir+"/f", oldTime+1); return nil },
	"middle time": func(s *site, dir string) error { s.touch(dir+"/g", middleTime+1); return nil },
	"late content": func(s *site, dir string) error {
		s.write(dir+"/late", "L\n")
		s.touch(dir+"/late", 1800000001)
		return nil
	},
	"late time": func(s *site, dir string) error {
		s.touch(dir+"/late", 1800000000)
		return nil
	},
	"attribute": func(_ *site, dir string) error {
		return unix.Setxattr(dir+"/f", "user.soundness", []byte("1"), 0)
	},
	"rename": func(s *site, dir string) error {
		return s.keepTime(dir, os.Rename(dir+"/f", dir+"/e"))
	},
	"add": func(s *site, dir string) error {
		s.write(dir+"/added", "")
		return s.keepTime(dir, nil)
	},
	"add late": func(s *site, dir string) error {
		s.write(dir+"/z", "z\n")
		return s.keepTime(dir, nil)
	},
	"remove": func(s *site, dir string) error {
		return s.keepTime(dir, os.Remove(dir+"/g"))
	},
	"link":         func(s *site, dir string) error { return s.relink(dir+"/sub/l", "k1") },
	"link to link": func(s *site, dir string) error { return s.relink(dir+"/sub/h", "k1") },
	"hard link":    func(s *site, dir string) error { return s.split(dir + "/sub/k2") },
	"file to dir":  func(s *site, dir string) error { return s.retype(dir+"/sub/h", "directory") },
	"file to fifo": func(s *site, dir string) error { return s.retype(dir+"/sub/h", "fifo") },
	"fifo to file": func(s *site, dir string) error { return s.retype(dir+"/sub/"+fifo, "file") },
	"fifo mode":    func(_ *site, dir string) error { return os.Chmod(dir+"/sub/"+fifo, 0o600) },
	"dir mode":     func(_ *site, dir string) error { return os.Chmod(dir+"/sub", 0o700) },
	"dir time":     func(s *site, dir string) error { s.touch(dir+"/sub", oldTime+1); return nil },
	"dir attribute": func(_ *site, dir string) error {
		return unix.Setxattr(dir+"/sub", "user.soundness", []byte("1"), 0)
	},
	"empty dir": func(s *site, dir string) error {
		return s.keepTime(dir+"/sub", os.Mkdir(dir+"/sub/empty", 0o755))
	},
	"top mode": func(_ *site, dir string) error { return os.Chmod(dir, 0o750) },
	"top time": func(s *site, dir string) error { s.touch(dir, oldTime+1); return nil },
	"top attribute": func(_ *site, dir string) error {
		return unix.Setxattr(dir, "user.soundness", []byte("1"), 0)
	},
	"archive": func(s *site, dir string) error {
		s.writeTar(dir+"/t.tar", 1)
		s.touch(dir+"/t.tar", oldTime)
		return nil
	},
	"commit": func(s *site, dir string) error { return s.commit(dir+"/r.git", 1) },
	"one of many": func(s *site, dir string) error {
		s.write(dir+"/many/57", "F")
		s.touch(dir+"/many/57", oldTime)
		return nil
	},
	"mode of many": func(_ *site, dir string) error { return os.Chmod(dir+"/many/57", 0o600) },
	"rename of many": func(s *site, dir string) error {
		return s.keepTime(dir+"/many", os.Rename(dir+"/many/57", dir+"/many/x"))
	},
}

// keepTime sets the time of a directory to the time that populate gave it, and returns err.
func (s *site) keepTime(dir string, err error) error {
	s.touch(dir, oldTime)
	return err
}

func (s *site) relink(path, to string) error {
	s.check(os.Remove(path))
	s.check(os.Symlink(to, path))
	s.give(path)
	s.touch(path, oldTime)
	return s.keepTime(filepath.Dir(path), nil)
}

// split replaces one of two names of a file by an equal file of its own.
func (s *site) split(path string) error {
	raw, err := os.ReadFile(path)
	s.check(err)
	s.check(os.Remove(path))
	s.write(path, string(raw))
	s.touch(path, oldTime)
	return s.keepTime(filepath.Dir(path), nil)
}

// retype replaces a file by one of another type. The new file can be a fifo with the name of a
// regular file: this is safe because subjects open no file below sub for writing.
func (s *site) retype(path, kind string) error {
	s.check(os.Remove(path))
	switch kind {
	case "directory":
		s.check(os.Mkdir(path, 0o755))
	case "fifo":
		s.check(syscall.Mkfifo(path, 0o644))
	default:
		s.write(path, "")
	}
	s.give(path)
	s.touch(path, oldTime)
	return s.keepTime(filepath.Dir(path), nil)
}

// populateMany makes a directory with enough files for a build to seal their layer while it copies
// them.
func (s *site) populateMany(dir string) {
	many := filepath.Join(dir, "many")
	s.check(os.Mkdir(many, 0o755))
	for i := range 120 {
		path := filepath.Join(many, fmt.Sprint(i))
		s.write(path, fmt.Sprint(i))
		s.touch(path, oldTime)
	}
	s.give(many)
	s.touch(many, oldTime)
	s.touch(dir, oldTime)
}

// populateGit makes a repository with two commits, which is served over http as plain files.
func (s *site) populateGit(dir string) {
	repo := filepath.Join(dir, "r.git")
	for _, line := range []string{
		"init -q -b main", "commit -q --allow-empty -m 1", "tag one",
		"commit -q --allow-empty -m 2", "tag two", "reset -q --hard one",
	} {
		args := append([]string{"-C", repo, "-c", "user.name=a", "-c", "user.email=a@example.com"},
			strings.Fields(line)...)
		if strings.HasPrefix(line, "commit") {
			n := line[len(line)-1:]
			s.write(filepath.Join(repo, "file"), n+"\n")
			s.git(repo, append(args[:2:2], "add", "file")...)
		} else if strings.HasPrefix(line, "init") {
			s.check(os.MkdirAll(repo, 0o755))
		}
		s.git(repo, args...)
	}
	s.check(s.commit(repo, 0))
}

// git runs git with fixed times.
func (s *site) git(_ string, args ...string) {
	// The repository may belong to the user that builds.
	cmd := exec.Command("git", append([]string{"-c", "safe.directory=*"}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_DATE=@850000000 +0000", "GIT_COMMITTER_DATE=@850000000 +0000")
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("git %q: %v\n%s", args, err, out)
	}
}

// commit makes the branch main of a repository refer to the first or the second commit.
func (s *site) commit(repo string, n int) error {
	s.git(repo, "-C", repo, "reset", "-q", "--hard", []string{"one", "two"}[n])
	s.git(repo, "-C", repo, "update-server-info")
	return nil
}

// writeTar writes the archive with number v.
func (s *site) writeTar(path string, v int) {
	var entries []imagetest.Entry
	at := time.Unix(800000000, 0)
	for _, h := range []tar.Header{
		{Name: "in/", Typeflag: tar.TypeDir, Mode: 0o750},
		{Name: "in/file", Typeflag: tar.TypeReg, Mode: 0o644 + int64(v), Size: 2},
		{Name: "in/link", Typeflag: tar.TypeLink, Linkname: "in/file"},
		{Name: "in/soft", Typeflag: tar.TypeSymlink, Linkname: fmt.Sprint(v)},
	} {
		h.ModTime = at
		data := ""
		if h.Size > 0 {
			data = fmt.Sprintln(v)
		}
		entries = append(entries, imagetest.TarFile(h, data))
	}
	s.check(os.RemoveAll(path))
	s.write(path, string(imagetest.Tar(s.t, entries...)))
}

package job

import (
	"context"

	"github.com/layerbuild/layerbuild/executor/copyfs"
	"github.com/layerbuild/layerbuild/snapshot"
)

// CopiesDirectory reports whether the job only copies the contents of one directory, on top of its
// parent. Its layer can then be written from the files of that directory: see MakeDestination.
// Before Load it returns false.
func (j *Job) CopiesDirectory() bool {
	c, ok := j.action.(*copyAction)
	return ok && !j.Link && c.match != nil && len(c.remotes) == 0 && c.copyLocal().CopiesDirectory()
}

// Copies returns the number of files and directories that a job of which CopiesDirectory reports
// true copies, and the size of the files in bytes.
func (j *Job) Copies() (entries int, size int64) {
	list := j.action.(*copyAction).match.Items[0].Entries
	for e := range list.All() {
		size += e.Size
	}
	return list.Len(), size
}

// MakeDestination makes the destination of a job of which CopiesDirectory reports true in active,
// and copies nothing. It returns the directory that is copied there, or nil if the job changes more
// than that directory's files. tell sends the messages of the job. The caller calls it, unless it
// also calls Run, which sends them too.
func (j *Job) MakeDestination(ctx context.Context, active *snapshot.Active,
	out Output) (dir *copyfs.Directory, tell func(), err error) {
	c := j.action.(*copyAction)
	act := c.copyLocal()
	dest := *act
	dest.DestOnly = true
	res, err := c.w.execute(ctx, active.Mounts(), &dest, out)
	if err != nil {
		noteChanged(c.from, err)
		return nil, nil, c.w.State.Filled(err)
	}
	ns := c.w.State.NS
	dir, ok := act.Directory(res.Files.Dest, ns.Rootless, ns.SingleID)
	if !ok {
		return nil, nil, nil
	}
	return dir, func() { c.tell(res, out) }, nil
}

// RunsOnOutline reports whether the job reads no more of its parent than an outline has (see
// package outline). An archive may have links to any files, and may replace directories. Call it
// after Load.
func (j *Job) RunsOnOutline() bool {
	switch a := j.action.(type) {
	case *copyAction:
		return !(a.unpack() && a.namesFiles()) && !a.remoteUnpack()
	case *mkdirAction:
		return true
	}
	return false
}

// NamesUser reports whether the job may name a user or group of its parent.
func (j *Job) NamesUser() bool {
	switch a := j.action.(type) {
	case *copyAction:
		return a.copy.Chown != ""
	case *mkdirAction:
		return a.mkdir.User != ""
	}
	return false
}

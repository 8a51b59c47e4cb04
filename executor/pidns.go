package executor

import (
	"context"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// runProcessOnThread runs a command in a new pid namespace. The command is a child of this program,
// and the namespace's first process is an initProcess.
func runProcessOnThread(ctx context.Context, s *Spec, p *Process, stdout,
	stderr io.Writer, r *Result) error {
	files, err := openStdio(s, stdout, stderr)
	if err != nil {
		return err
	}
	defer files.close()
	b := &sandbox{spec: s, p: p, result: r, resolvConf: resolvConf(),
		output: files.descriptors()[2]}
	c := &command{spec: s, p: p, root: -1}
	err = onThread(namespaces(p), func() error {
		err := b.openStagingAndInit()
		if err == nil {
			err = b.runInPIDNamespace(ctx, c, files)
		}
		if b.init != nil {
			b.init.end()
		}
		if cerr := b.clean(); err == nil {
			err = cerr
		}
		c.close()
		b.close()
		return err
	})
	if err == errNeedsProcess {
		return err
	}
	if oerr := files.wait(); err == nil {
		err = oerr
	}
	return err
}

// procDir is the directory of the staging tmpfs on which the first process mounts /proc.
const procDir = "proc"

func (b *sandbox) openStagingAndInit() error {
	if err := b.openStaging(); err != nil {
		return err
	}
	if err := unix.Mkdirat(b.stagingFD, procDir, 0o555); err != nil {
		return err
	}
	init, err := startInit(b.staging+"/"+procDir, b.p)
	if err != nil {
		return errNeedsProcess
	}
	b.init = init
	// From here on, new processes of this thread are in the namespace. The thread itself is not.
	if err := unix.Setns(init.fd, unix.CLONE_NEWPID); err != nil {
		return errNeedsProcess
	}
	return nil
}

func (b *sandbox) runInPIDNamespace(ctx context.Context, c *command, files *stdio) error {
	stop := context.AfterFunc(ctx, b.init.kill)
	defer stop()
	if err := b.setUpHostAndNetwork(); err != nil {
		return err
	}
	if err := c.readIDs(); err != nil {
		return err
	}
	if len(b.p.Hooks) > 0 {
		files.read()
	}
	if err := b.build(); err != nil {
		return err
	}
	if err := c.prepare(); err != nil {
		return err
	}
	pid, err := c.start(files.descriptors())
	if err != nil {
		return err
	}
	files.started()
	if b.p.Signals != nil {
		// The process must not be reaped while a signal is sent to it: another process could then
		// get its pid.
		stop := forward(b.p.Signals, pid)
		_, err := retry(func() (int, error) {
			return 0, unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		})
		stop()
		if err != nil {
			return fmt.Errorf("wait for the command: %w", err)
		}
	}
	var ws unix.WaitStatus
	if _, err := retry(func() (int, error) { return unix.Wait4(pid, &ws, 0, nil) }); err != nil {
		return fmt.Errorf("wait for the command: %w", err)
	}
	return exitError(ws)
}

// descriptors returns the descriptors of the command's standard input, output and error.
func (o *stdio) descriptors() (fds [3]int) {
	for i, f := range o.files {
		fds[i] = int(f.Fd())
	}
	return fds
}

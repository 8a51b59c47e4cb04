package browse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/layerbuild/layerbuild/analyze"
	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/ui"
	"golang.org/x/term"
)

// ErrNoTerminal is returned by Run if in or out is not a terminal that can show a full screen.
var ErrNoTerminal = errors.New("no terminal to show it on")

// The sequences of a full screen: DEC's private modes for the cursor (25), wrapping lines (7) and
// xterm's alternate screen (1049).
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	leaveScreen = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
)

// Run shows r until the user quits, for which it returns nil, or ctx ends. It always restores
// the terminal's state.
func Run(ctx context.Context, r *analyze.Report, in, out *os.File) (err error) {
	if !term.IsTerminal(int(in.Fd())) || !term.IsTerminal(int(out.Fd())) ||
		os.Getenv("TERM") == "dumb" {
		return ErrNoTerminal
	}
	size := func() (int, int) {
		w, h, err := term.GetSize(int(out.Fd()))
		if err != nil || w <= 0 || h <= 0 {
			return 80, 24
		}
		return w, h
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	keyboard, closeKeyboard := reopen(in)
	defer closeKeyboard()
	old, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return fmt.Errorf("prepare the terminal: %w", err)
	}
	defer func() { err = errors.Join(err, term.Restore(int(in.Fd()), old)) }()
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	if _, err := io.WriteString(out, enterScreen); err != nil {
		return fmt.Errorf("write to the terminal: %w", err)
	}
	defer io.WriteString(out, leaveScreen)
	s := &screen{out: out, size: size, model: newModel(r), color: ui.Color(out, nil)}
	return s.run(ctx, keyboard, resized)
}

// reopen opens the terminal of in again: a deadline on another open file does not affect other
// users of in. If the terminal cannot be opened, reopen returns in itself; a read that is no
// longer needed then remains until a key is pressed.
func reopen(in *os.File) (f *os.File, close func()) {
	f, err := os.Open(dirfd.FDPath(int(in.Fd())))
	if err != nil {
		return in, func() {}
	}
	if f.SetReadDeadline(time.Time{}) != nil {
		f.Close()
		return in, func() {}
	}
	return f, func() { f.Close() }
}

// screen shows a model.
type screen struct {
	out   io.Writer
	size  func() (width, height int)
	model *model
	color bool

	shown                   []string // the lines on the terminal
	shownWidth, shownHeight int
	buf                     []byte
}

// escapePause is the time in which the rest of a sequence after ESC must arrive.
const escapePause = 50 * time.Millisecond

// run reads keys and redraws the screen.
func (s *screen) run(ctx context.Context, keyboard *os.File, resized <-chan os.Signal) error {
	pieces := make(chan []byte)
	failed := make(chan error, 1)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			p := make([]byte, 4096)
			n, err := keyboard.Read(p)
			if n > 0 {
				select {
				case pieces <- p[:n]:
				case <-done:
					return
				}
			}
			if err != nil {
				failed <- err
				return
			}
		}
	}()
	defer func() {
		close(done)
		// Without a deadline (see reopen) nothing interrupts read(2). The goroutine then ends after
		// the next key, which it drops, or with the program.
		if keyboard.SetReadDeadline(time.Now()) == nil {
			<-ended
		}
	}()
	var in keys
	for !s.model.quit {
		if err := s.draw(); err != nil {
			return fmt.Errorf("write to the terminal: %w", err)
		}
		var late <-chan time.Time
		if len(in.rest) > 0 {
			late = time.After(escapePause)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-failed:
			if err == io.EOF {
				return nil
			}
			return fmt.Errorf("read from the terminal: %w", err)
		case <-resized:
		case <-late:
			s.keys(in.add(nil, false))
		case p := <-pieces:
			s.keys(in.add(p, true))
			// Keys that repeat faster than the screen is drawn are handled together.
			for more := true; more && !s.model.quit; {
				select {
				case p := <-pieces:
					s.keys(in.add(p, true))
				default:
					more = false
				}
			}
		}
	}
	return nil
}

func (s *screen) keys(all []key) {
	for _, k := range all {
		s.model.press(k)
	}
}

// draw writes the lines that differ from those on the terminal, in one write.
func (s *screen) draw() error {
	width, height := s.size()
	lines := s.model.picture(width, height, s.color)
	b := s.buf[:0]
	if width != s.shownWidth || height != s.shownHeight {
		b = append(b, "\x1b[2J"...)
		s.shown, s.shownWidth, s.shownHeight = make([]string, height), width, height
	}
	for i, line := range lines {
		if s.shown[i] != line {
			// The line is cleared first: after a character in the last column, the cursor is not
			// behind the text.
			b = append(fmt.Appendf(b, "\x1b[%d;1H\x1b[K", i+1), line...)
			s.shown[i] = line
		}
	}
	if s.buf = b; len(b) == 0 {
		return nil
	}
	_, err := s.out.Write(b)
	return err
}

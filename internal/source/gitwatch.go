package source

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// gitSilence is the time that git waits for a server that sends nothing.
const gitSilence = 100 * time.Second

// silentError is the cause with which git is ended when its server sends nothing.
type silentError struct{ after time.Duration }

func (e silentError) Error() string {
	return fmt.Sprintf("given up after %v, in which the server has sent nothing", e.after)
}

// isSilent reports whether an error of git.ask is that of a silent server. Another request to it
// would wait as long.
func isSilent(err error) bool {
	_, silent := errors.AsType[silentError](err)
	return silent
}

// watch calls giveUp once the programs of a session have shown no sign of life for a time. The
// function that it returns ends the watch.
//
// git has a limit of its own only for HTTP. A limit for the whole time would end slow servers, and
// one for the text on standard error those that send no progress.
func watch(session int, limit time.Duration, giveUp func()) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		const looks = 20 // per limit
		ticker := time.NewTicker(limit / looks)
		defer ticker.Stop()
		// Most commands end before the first tick, and need no look at all processes.
		var last life
		quiet := 0 // looks without a sign of life
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
			}
			now := readLife(session)
			switch {
			case now.newer(last, limit):
				last, quiet = now, 0
			case quiet+1 == looks:
				giveUp()
				return
			default:
				quiet++
			}
		}
	}()
	return func() { close(done); <-ended }
}

// life shows whether git goes on: whether its programs have read bytes, or have calculated for a
// time, as when they resolve the deltas of a pack.
//
// The bytes are those that read(2) returned, of files and of pipes and sockets. ssh does not count:
// a server can keep a connection alive and send nothing to git.
type life struct {
	programs string // the programs that run
	bytes    uint64
	ticks    uint64 // of the processor, 1/100 s
	// unlimited is set if nothing is known, or if a limit is not needed.
	unlimited bool
}

// newer reports whether l shows a sign of life since old. Without work for about 1% of the limit, a
// program has only woken up and waited again.
func (l life) newer(old life, limit time.Duration) bool {
	used := time.Duration(l.ticks-old.ticks) * 10 * time.Millisecond
	return l.unlimited || l.programs != old.programs || l.bytes != old.bytes || used > limit/100
}

// readLife returns the life of the programs of git in a session.
func readLife(session int) life {
	var l life
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		if entry.Name()[0] < '0' || entry.Name()[0] > '9' {
			continue
		}
		dir := filepath.Join("/proc", entry.Name())
		// A process that cannot be read has ended.
		stat, _ := os.ReadFile(filepath.Join(dir, "stat"))
		// The second field is the program's name in parentheses; it can have spaces.
		start, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
		if start < 0 || end < start {
			continue
		}
		program, fields := string(stat[start+1:end]), strings.Fields(string(stat[end+1:]))
		if len(fields) < 13 || fields[3] != strconv.Itoa(session) || fields[0] == "Z" ||
			!strings.HasPrefix(program, "git") {
			continue
		}
		l.programs += string(stat[:start])
		// libcurl reads with recv(2), which /proc/PID/io does not count, and obeys
		// http.lowSpeedTime. A program in state D waits for a disk.
		if strings.HasPrefix(program, "git-remote-http") || fields[0] == "D" {
			l.unlimited = true
		}
		for _, field := range fields[11:13] { // utime and stime, with those of all threads
			n, _ := strconv.ParseUint(field, 10, 64)
			l.ticks += n
		}
		io, err := os.ReadFile(filepath.Join(dir, "io"))
		value, _, ok := strings.Cut(strings.TrimPrefix(string(io), "rchar: "), "\n")
		n, parseErr := strconv.ParseUint(value, 10, 64)
		if os.IsNotExist(err) || err == nil && ok && parseErr == nil {
			l.bytes += n
			continue
		}
		if _, statErr := os.Stat(dir); statErr == nil {
			l.unlimited = true // the kernel does not count bytes
		}
	}
	if l.programs == "" {
		l.unlimited = true // there is no /proc, or git has another name
	}
	return l
}

package executor

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/layerbuild/layerbuild/executor/copyfs"
	"github.com/layerbuild/layerbuild/internal/fileentry"
	"github.com/layerbuild/layerbuild/internal/mount"
)

func fullJob(action Action) job {
	epoch := int64(-5)
	return job{
		spec: Spec{
			Root: []mount.Mount{{Type: "overlay", Source: "s", Target: "t",
				Lower: []string{"a", "b"}, Upper: "u", Work: "w", Options: []string{"volatile"}},
				{Type: "bind"}},
			Action: action, UserNS: true, SingleID: true, Epoch: &epoch,
		},
		resolvConf: []byte("nameserver 1.1.1.1\n"), dirs: []int{4, 5},
	}
}

var full = ^uint32(0)

var jobs = []job{
	fullJob(&Process{
		Args: []string{"a", ""}, Env: []string{"A=\xff\n"}, Dir: "/d", User: "u", Network: "none",
		Insecure: true, Caps: new(CapabilitySet(1 << 63)), Hostname: "h",
		ExtraHosts: []Host{{"n", "::1"}}, ShmSize: 1 << 40, Ulimits: []Ulimit{{"nofile", -1, 9}},
		Hooks:        []Hook{{"/h", []string{"h", "a"}, []string{"A=1"}, 3 * time.Second}, {Path: "/i"}},
		ReadOnlyRoot: true, TTY: true, forwarded: true, Groups: []uint32{3, 1 << 31},
		GroupNames: []string{"audio", ""},
		Mounts: []Mount{
			{Target: "/t", ReadOnly: true, Source: Tree{Mounts: []mount.Mount{{Type: "bind"}},
				Path: "p", Make: true}},
			{Target: "/b", Source: Bind{"s", "p", true, true}, NoSuid: true, NoExec: true}, {Target: "/m", Source: Tmpfs{1, 0o700}},
			{Target: "/d", Source: Data{[]byte("x"), 1, 2, 3}},
			{Target: "/v", Source: Device{"h", "c", 10, 229, new(uint32), &full, &full, true}},
			{Target: "/w", Source: Device{Host: "h"}},
		},
	}),
	fullJob(&copyfs.Copy{
		Dest: "/d/",
		Sources: []copyfs.Source{{Items: []copyfs.Item{{Path: "p", Target: "t",
			Contents: true, MtimeNs: 7,
			Entries: []fileentry.Entry{{Path: "e", Size: 1, MtimeNs: -1, CtimeNs: 2, Ino: 3,
				Mode: 4, Attrs: true, Frozen: 5}}}, {Entries: []fileentry.Entry{}},
			{Entries: nil}}}, {}},
		Inline: []copyfs.File{{Name: "n", Data: []byte("d"), Mode: 0o600}}, Chown: "a:b",
		Chmod: "u+x", KeepOwner: true,
		StandIns: true, Unpack: true, DestOnly: true,
	}),
	fullJob(&Mkdir{"/p", "u"}),
}

func TestWire(t *testing.T) {
	for _, j := range jobs {
		var buf bytes.Buffer
		if err := send(&buf, func(w *wire) { w.job(&j) }); err != nil {
			t.Fatal(err)
		}
		all := bytes.Clone(buf.Bytes())
		var got job
		if err := receive(&buf, func(w *wire) { w.job(&got) }); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(j, got, cmp.AllowUnexported(job{}, Spec{}, Process{})); diff != "" {
			t.Errorf("-sent +received\n%s", diff)
		}
		for n := range all {
			if err := receive(bytes.NewReader(all[:n]),
				func(w *wire) { w.job(new(job)) }); err == nil {
				t.Fatalf("a message cut after %d of %d bytes was taken", n, len(all))
			}
		}
	}
	o := outcome{result: Result{Files: copyfs.Result{OwnersLost: 3, FirstOwner: "f", StandIns: 4,
		FirstStandIn: "d", AttrsLost: 5, FirstAttr: "a", Warnings: []string{"w"},
		Dest: &copyfs.Dest{Path: "p", Empty: true, Inherits: true, Chown: true, UID: 7, GID: 8}},
		Warnings: []string{"v"}}, failed: true, message: "m",
		exit: ExitError{1, 2, "r", "m"}}
	var buf bytes.Buffer
	if err := send(&buf, func(w *wire) { w.outcome(&o) }); err != nil {
		t.Fatal(err)
	}
	var got outcome
	if err := receive(&buf, func(w *wire) { w.outcome(&got) }); err != nil ||
		!cmp.Equal(o, got, cmp.AllowUnexported(outcome{})) {
		t.Errorf("got %+v, %v", got, err)
	}
}

// FuzzWire checks that any message is either read or results in an error, and that the reader does
// not allocate much more memory than the message's size.
func FuzzWire(f *testing.F) {
	for _, j := range jobs {
		w := &wire{}
		w.job(&j)
		f.Add(w.buf)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		w := reader(data)
		var j job
		w.job(&j)
		if w.err != nil {
			return
		}
		again := &wire{}
		again.job(&j)
		back := reader(again.buf)
		var k job
		if back.job(&k); back.err != nil || !cmp.Equal(j, k,
			cmp.AllowUnexported(job{}, Spec{}, Process{})) {
			t.Errorf("%+v became %+v: %v", j, k, back.err)
		}
	})
}

func BenchmarkWireCopy(b *testing.B) {
	c := &copyfs.Copy{Dest: "/", Sources: []copyfs.Source{{Items: []copyfs.Item{{Path: ".",
		Contents: true}}}}}
	for range 25000 {
		it := &c.Sources[0].Items[0]
		it.Entries = append(it.Entries, fileentry.Entry{Path: "some/directory/with/a/file.go",
			Size:    12345,
			MtimeNs: 1700000000123456789, CtimeNs: 1700000000123456789,
			Ino: 1234567, Mode: 0o100644})
	}
	j := job{spec: Spec{Action: c}}
	b.ReportAllocs()
	for b.Loop() {
		w := &wire{}
		w.job(&j)
		r := reader(w.buf)
		r.job(new(job))
	}
}

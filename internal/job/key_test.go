package job

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/internal/secret"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// keyed holds all values that go into a step's key.
type keyed struct {
	run      parser.Run
	copy     parser.Copy
	mkdir    parser.Mkdir
	platform ocispec.Platform
	parent   cache.Key
	opts     RunOptions
	epoch    *int64

	from  InputName // the input of a mount and of a COPY
	files string    // the content of the context's only file
	mode  os.FileMode
}

func ptr[T any](v T) *T { return &v }

// newKeyed returns a step in which each field is set, so that changing any field has an effect.
func newKeyed() *keyed {
	return &keyed{
		run: parser.Run{
			Args: []string{"/bin/sh", "-c", "true"}, Env: []string{"A=1"},
			Proxy: []string{"http_proxy=a"}, Dir: "/", User: "1",
			Mounts: []parser.RunMount{{
				Type: parser.MountCache, ID: "c", Target: "/c", Source: "/",
				From: parser.StageInput{}, Sharing: parser.SharingShared,
				Mode: ptr(uint32(0o755)), UID: ptr(uint32(0)), GID: ptr(uint32(0)),
			}},
			Files: []parser.RunFile{{Path: "/f", Data: []byte("x"), Mode: 0o755}},
		},
		copy: parser.Copy{
			From: parser.ContextInput{}, Sources: []string{"f"},
			Inline: []parser.Inline{{Name: "i", Data: []byte("x")}}, Dest: "/d/",
			Chown: "1", Chmod: "0600",
		},
		mkdir:    parser.Mkdir{Path: "/m", User: "1"},
		platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
		parent:   "parent",
		opts: RunOptions{
			Hosts: []executor.Host{{Name: "h", IP: "10.0.0.1"}}, ShmSize: 1 << 20,
			Ulimits: []executor.Ulimit{{Name: "nofile", Soft: 1, Hard: 2}},
			Volumes: []Volume{{Source: "/s", Target: "/t"}},
		},
		epoch: ptr(int64(1000)),
		from:  InputName{Key: "stage", Result: "snapshot"},
		files: "x", mode: 0o644,
	}
}

// newInputs returns inputs whose context is a directory.
func newInputs(t *testing.T, dir string) *inputs.Inputs {
	t.Helper()
	temp := func() (string, error) { return t.TempDir(), nil }
	in := inputs.New(inputs.Options{Secrets: &secret.Store{}, TempDir: temp,
		Index: func() (source.IndexPlace, error) {
			dir, err := temp()
			return source.IndexPlace{Dir: dir}, err
		}})
	t.Cleanup(func() { in.Close() })
	if _, err := in.Main(t.Context(), dir, "", nil); err != nil {
		t.Fatal(err)
	}
	return in
}

// contextOpener opens files of the context.
type contextOpener struct {
	Opener
	in *inputs.Inputs
}

func (o contextOpener) Files(ctx context.Context, in parser.Input) (*inputs.Files, error) {
	return o.in.Files(ctx, in)
}

// newPreparer returns a Preparer whose context is a directory.
func newPreparer(t *testing.T, dir string, o RunOptions, epoch *int64) *Preparer {
	t.Helper()
	in := newInputs(t, dir)
	return &Preparer{Worker: &Worker{Epoch: epoch}, Inputs: in, Opener: contextOpener{in: in},
		Options: o}
}

// keys returns the key of the RUN, of the WORKDIR, and the content and definition keys of the COPY.
func (k *keyed) keys(t *testing.T) map[string]cache.Key {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, []byte(k.files), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, k.mode); err != nil {
		t.Fatal(err)
	}
	p := newPreparer(t, dir, k.opts, k.epoch)
	name := func(context.Context, parser.Input) (InputName, error) { return k.from, nil }
	list := map[string]cache.Key{}
	run, err := p.run(t.Context(), k.platform, k.parent, &k.run, name)
	if err != nil {
		t.Fatal(err)
	}
	list["run"] = run.DefKey + run.Key
	mkdir, err := p.mkdir(k.parent, &k.mkdir)
	if err != nil {
		t.Fatal(err)
	}
	list["mkdir"] = mkdir.Key
	local := k.copy
	copied, err := p.copy(t.Context(), k.parent, &local,
		func(context.Context, parser.Input) (InputName, error) { return InputName{}, nil })
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	if err := copied.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	list["copy"] = copied.Key
	defined, err := p.copy(t.Context(), k.parent, &k.copy, name)
	if err != nil {
		t.Fatal(err)
	}
	defer defined.Close()
	list["copy from"] = defined.DefKey
	for kind, key := range list {
		if key == "" {
			t.Fatalf("%s has no key", kind)
		}
	}
	return list
}

// keyTests lists, for each field, the steps whose keys change with the field. If the field must not
// change a key, it has the reason.
var keyTests = map[string]struct {
	change func(*keyed)
	// "run", "mkdir", "copy" (by content), "copy from" (by definition), separated by commas
	keys   string
	reason string // why a step with the field does not have it in its key
}{
	"parent": {func(k *keyed) { k.parent = "other" }, "run,mkdir,copy,copy from", ""},
	"platform": {func(k *keyed) { k.platform.Architecture = "arm64" }, "run",
		"what COPY and WORKDIR do is the same on all"},
	"epoch": {func(k *keyed) { k.epoch = ptr(int64(2000)) }, "mkdir,copy,copy from",
		"a command leaves real times; they are clamped when the layer is sealed. See TestMountHasEpoch"},
	"no epoch": {func(k *keyed) { k.epoch = nil }, "mkdir,copy,copy from", "as above"},
	"content of a file": {func(k *keyed) { k.files = "y" }, "copy",
		"a definition key has no contents"},
	"mode of a file": {func(k *keyed) { k.mode = 0o755 }, "copy",
		"a definition key has no contents"},
	"key of an input": {func(k *keyed) { k.from.Key = "other" }, "run,copy from", ""},
	"result of an input": {func(k *keyed) { k.from.Result = "other" }, "",
		"it is compared with the record's: see TestMadeFrom"},
	"Run.Args": {func(k *keyed) { k.run.Args = []string{"/bin/sh", "-c", "false"} },
		"run", ""},
	"Run.Env": {func(k *keyed) { k.run.Env = []string{"A=2"} }, "run", ""},
	"Run.Proxy": {func(k *keyed) { k.run.Proxy = []string{"http_proxy=b"} }, "",
		"how something is fetched, not what; as in BuildKit"},
	"Run.Dir":     {func(k *keyed) { k.run.Dir = "/x" }, "run", ""},
	"Run.User":    {func(k *keyed) { k.run.User = "2" }, "run", ""},
	"Run.Mounts":  {func(k *keyed) { k.run.Mounts = nil }, "run", ""},
	"Run.Network": {func(k *keyed) { k.run.Network = "none" }, "run", ""},
	"Run.Security": {func(k *keyed) {
		k.run.Security, k.opts.Insecure = "insecure", true
	}, "run", ""},
	"Run.Files": {func(k *keyed) { k.run.Files = nil }, "run", ""},
	"Run.Devices": {func(k *keyed) {
		k.run.Devices = []parser.RunDevice{{Name: "v.com/none"}}
	}, "", "the key has what the command gets: see TestDeviceKey"},
	"RunFile.Path": {func(k *keyed) { k.run.Files[0].Path = "/g" }, "run", ""},
	"RunFile.Data": {func(k *keyed) { k.run.Files[0].Data = []byte("y") }, "run", ""},
	"RunFile.Mode": {func(k *keyed) { k.run.Files[0].Mode = 0o700 }, "run", ""},
	"RunMount.Type": {func(k *keyed) { k.run.Mounts[0].Type = parser.MountBind }, "run",
		""},
	"RunMount.ID":       {func(k *keyed) { k.run.Mounts[0].ID = "d" }, "run", ""},
	"RunMount.Target":   {func(k *keyed) { k.run.Mounts[0].Target = "/d" }, "run", ""},
	"RunMount.Source":   {func(k *keyed) { k.run.Mounts[0].Source = "/s" }, "run", ""},
	"RunMount.From":     {func(k *keyed) { k.run.Mounts[0].From = nil }, "run", ""},
	"RunMount.ReadOnly": {func(k *keyed) { k.run.Mounts[0].ReadOnly = true }, "run", ""},
	"RunMount.Sharing": {func(k *keyed) { k.run.Mounts[0].Sharing = parser.SharingLocked },
		"run", ""},
	"RunMount.Mode": {func(k *keyed) { k.run.Mounts[0].Mode = ptr(uint32(0o700)) }, "run",
		""},
	"RunMount.UID":      {func(k *keyed) { k.run.Mounts[0].UID = ptr(uint32(1)) }, "run", ""},
	"RunMount.GID":      {func(k *keyed) { k.run.Mounts[0].GID = ptr(uint32(1)) }, "run", ""},
	"RunMount.Required": {func(k *keyed) { k.run.Mounts[0].Required = true }, "run", ""},
	"RunMount.Env":      {func(k *keyed) { k.run.Mounts[0].Env = "E" }, "run", ""},
	"RunMount.Size":     {func(k *keyed) { k.run.Mounts[0].Size = 1 }, "run", ""},
	"Copy.Add":          {func(k *keyed) { k.copy.Add = true }, "copy,copy from", ""},
	"Copy.From": {func(k *keyed) { k.from.Key = "other" }, "run,copy from",
		"by content it is what is found there"},
	"Copy.Sources": {func(k *keyed) { k.copy.Sources = []string{"./[f]"} }, "copy from",
		"by content it is what they find"},
	"Copy.Inline": {func(k *keyed) { k.copy.Inline = nil }, "copy,copy from", ""},
	"Inline.Name": {func(k *keyed) { k.copy.Inline[0].Name = "j" },
		"copy,copy from", ""},
	"Inline.Data": {func(k *keyed) { k.copy.Inline[0].Data = []byte("y") },
		"copy,copy from", ""},
	"Copy.Dest":  {func(k *keyed) { k.copy.Dest = "/e/" }, "copy,copy from", ""},
	"Copy.Chown": {func(k *keyed) { k.copy.Chown = "2" }, "copy,copy from", ""},
	"Copy.Chmod": {func(k *keyed) { k.copy.Chmod = "0700" }, "copy,copy from", ""},
	"Copy.Link": {func(k *keyed) { k.copy.Link, k.copy.Chmod = true, "" },
		"copy,copy from", ""},
	"Copy.Parents": {func(k *keyed) { k.copy.Parents = true }, "copy,copy from", ""},
	"Copy.KeepGitDir": {func(k *keyed) { k.copy.KeepGitDir = true }, "copy from",
		"by content it is in the key of what is fetched"},
	"Copy.Unpack": {func(k *keyed) { k.copy.Unpack = ptr(true) }, "copy,copy from", ""},
	"Copy.Exclude": {func(k *keyed) { k.copy.Exclude = []string{"x"} }, "copy from",
		"by content it is what is left"},
	"Copy.Checksum": {func(k *keyed) { k.copy.Checksum = "sha256:x" }, "copy from",
		"it is checked, and changes nothing"},
	"Mkdir.Path":         {func(k *keyed) { k.mkdir.Path = "/n" }, "mkdir", ""},
	"Mkdir.User":         {func(k *keyed) { k.mkdir.User = "2" }, "mkdir", ""},
	"RunOptions.Network": {func(k *keyed) { k.opts.Network = "none" }, "run", ""},
	"RunOptions.Hosts":   {func(k *keyed) { k.opts.Hosts = nil }, "run", ""},
	"Host.Name":          {func(k *keyed) { k.opts.Hosts[0].Name = "i" }, "run", ""},
	"Host.IP":            {func(k *keyed) { k.opts.Hosts[0].IP = "10.0.0.2" }, "run", ""},
	"RunOptions.ShmSize": {func(k *keyed) { k.opts.ShmSize = 2 << 20 }, "run", ""},
	"RunOptions.Ulimits": {func(k *keyed) { k.opts.Ulimits = nil }, "run", ""},
	"Ulimit.Name":        {func(k *keyed) { k.opts.Ulimits[0].Name = "nproc" }, "run", ""},
	"Ulimit.Soft":        {func(k *keyed) { k.opts.Ulimits[0].Soft = 2 }, "run", ""},
	"Ulimit.Hard":        {func(k *keyed) { k.opts.Ulimits[0].Hard = 3 }, "run", ""},
	"RunOptions.Insecure": {func(k *keyed) { k.opts.Insecure = true }, "",
		"it permits RUN --security=insecure, and the key has Run.Security"},
	"RunOptions.HostNetwork": {func(k *keyed) { k.opts.HostNetwork = true }, "",
		"it permits RUN --network=host, and the key has Run.Network"},
	"RunOptions.Devices": {func(k *keyed) { k.opts.Devices.Dirs = []string{"/none"} }, "",
		"the key has what the command gets: see TestDeviceKey"},
	"RunOptions.Caps":     {func(k *keyed) { k.opts.Caps = new(executor.CapabilitySet) }, "run", ""},
	"RunOptions.Volumes":  {func(k *keyed) { k.opts.Volumes = nil }, "run", ""},
	"Volume.Source":       {func(k *keyed) { k.opts.Volumes[0].Source = "/x" }, "run", ""},
	"Volume.Target":       {func(k *keyed) { k.opts.Volumes[0].Target = "/x" }, "run", ""},
	"Volume.ReadOnly":     {func(k *keyed) { k.opts.Volumes[0].ReadOnly = true }, "run", ""},
	"Volume.NoSuid":       {func(k *keyed) { k.opts.Volumes[0].NoSuid = true }, "run", ""},
	"Volume.NoExec":       {func(k *keyed) { k.opts.Volumes[0].NoExec = true }, "run", ""},
	"Volume.Overlay":      {func(k *keyed) { k.opts.Volumes[0].Overlay = true }, "run", ""},
	"RunOptions.Hostname": {func(k *keyed) { k.opts.Hostname = "x" }, "run", ""},
	"RunOptions.ResolvConf": {func(k *keyed) { k.opts.ResolvConf = []byte("x") }, "",
		"keys do not contain the host's file, either"},
	"RunOptions.CacheNamespace": {func(k *keyed) { k.opts.CacheNamespace = "x" }, "",
		"keys do not contain the contents of cache mounts"},
}

// TestKeyFields checks that each field of a step changes the keys that the table lists, and that
// each field is in the table.
func TestKeyFields(t *testing.T) {
	base := newKeyed().keys(t)
	for name, tt := range keyTests {
		t.Run(name, func(t *testing.T) {
			k := newKeyed()
			tt.change(k)
			for kind, key := range k.keys(t) {
				want := strings.Contains(","+tt.keys+",", ","+kind+",")
				if got := key != base[kind]; got != want {
					t.Errorf("the key of %s changes: %v, want %v (%s)", kind, got, want, tt.reason)
				}
			}
		})
	}
	for _, v := range []any{
		parser.Run{}, parser.RunFile{}, parser.RunMount{}, parser.Copy{}, parser.Inline{},
		parser.Mkdir{}, RunOptions{}, executor.Host{}, executor.Ulimit{},
	} {
		typ := reflect.TypeOf(v)
		for i := range typ.NumField() {
			if name := typ.Name() + "." + typ.Field(i).Name; keyTests[name].change == nil {
				t.Errorf("%s is not in the table: does a change of it change the result of a step?",
					name)
			}
		}
	}
}

// TestMadeFrom checks that a record under a definition key is used only for the snapshots from
// which it was made.
func TestMadeFrom(t *testing.T) {
	one := JoinResults([]snapshot.ID{"a", "b"})
	tests := []struct {
		name, has, recorded string
		want                bool
	}{
		{"the same", one, one, true},
		{"another", one, JoinResults([]snapshot.ID{"a", "c"}), false},
		{"not recorded", one, "", false},
		{"nothing was built", "", one, true},
		{"no stages", JoinResults(nil), "", true},
		{"one is not known", JoinResults([]snapshot.ID{"a", ""}), one, true},
	}
	for _, tt := range tests {
		j := &Job{Inputs: tt.has}
		if got := j.MadeFrom(cache.Record{Inputs: tt.recorded}); got != tt.want {
			t.Errorf("%s: madeFrom = %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestMountHasEpoch checks that a command with mounted files of a context or a stage has the epoch
// in its key, since it can copy their times.
func TestMountHasEpoch(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	key := func(epoch *int64) cache.Key {
		p := newPreparer(t, dir, RunOptions{}, epoch)
		run := &parser.Run{Mounts: []parser.RunMount{{Type: parser.MountBind, Target: "/m",
			Source: "/", From: parser.ContextInput{}}}}
		name := func(context.Context, parser.Input) (InputName, error) { return InputName{}, nil }
		j, err := p.run(t.Context(), ocispec.Platform{}, "", run, name)
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		return j.Key
	}
	if key(ptr(int64(1))) == key(ptr(int64(2))) || key(nil) == key(ptr(int64(1))) {
		t.Error("the key does not change with the epoch")
	}
}

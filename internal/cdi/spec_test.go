package cdi

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// head is the beginning of a specification in YAML. The rest is indented by two spaces below the
// edits of its only device.
const head = "cdiVersion: 1.1.0\nkind: v.com/c\ndevices:\n- name: d\n  containerEdits:\n"

// TestSpecs parses specifications that are valid and that are not.
func TestSpecs(t *testing.T) {
	full := `{"cdiVersion": "v1.1.0", "kind": "v.com/c",
	"annotations": {"a": "b", "org.mobyproject.buildkit.device.autoallow": true, "n": 7},
	"devices": [{"name": "0", "annotations": {"c": "d"}, "containerEdits": {"env": ["A=1"],
		"deviceNodes": [{"path": "/dev/x", "hostPath": "/dev/y", "type": "c", "major": 1, "minor": 5,
			"fileMode": 438, "permissions": "rw", "uid": 0, "gid": 5}],
		"mounts": [{"hostPath": "/a", "containerPath": "/b", "options": ["ro"], "type": "bind"}],
		"hooks": [{"hookName": "prestart", "path": "/h", "args": ["h"], "env": ["E=1"], "timeout": 3}],
		"netDevices": [{"hostInterfaceName": "eth0", "name": "e"}],
		"intelRdt": {"closID": "x", "schemata": ["s"], "enableMonitoring": true},
		"additionalGids": [7]}}], "containerEdits": {"env": ["B=2"]}}`
	env := func(version, kind, name string) string {
		return "cdiVersion: " + version + "\nkind: " + kind + "\ndevices:\n- name: " + name +
			"\n  containerEdits: {env: [A=1]}\n"
	}
	for _, tt := range []struct{ name, file, text, err string }{
		{"all fields", "a.json", full, ""},
		{"JSON is YAML", "a.yaml", strings.ReplaceAll(full, "\t", " "), ""},
		{"YAML", "a.yaml", head + "    deviceNodes: [{path: /dev/x, fileMode: 0660}]\n", ""},
		{"YAML with a separator", "a.yaml", "---\n" + head + "    env: [A=1]\n", ""},
		{"the first version", "a.yaml", env("0.3.0", "v/c", "d"), ""},
		{"names of one letter", "a.yaml", env("0.3.0", "v/c", "d"), ""},
		{"all characters", "a.yaml", env("0.6.0", "V.a-b_9/c.d-e_f", "0a.b-c_d:e"), ""},

		{"an empty file", "a.json", "", "the file is empty"},
		{"an empty YAML file", "a.yaml", "", "the file is empty"},
		{"null", "a.yaml", "null\n", `cdiVersion "": one of 0.3.0, `},
		{"JSON that is cut", "a.json", `{"cdiVersion": "0.6.0",` + "\n", "line 2: the text ends within a value"},
		{"a syntax error", "a.json", "{\n\"kind\": }", "line 2: invalid character '}'"},
		{"another type", "a.json", "{\n\n\"devices\": {}}",
			"line 3: devices: a value of the type []cdi.device cannot be a object"},
		{"an unknown field", "a.json", `{"version": "1"}`, `unknown field "version"`},
		{"a key twice", "a.json", `{"devices": [{"name": "d", "containerEdits": {"env": [], "env": []}}]}`,
			`the key "env" is there twice`},
		{"a key twice in YAML", "a.yaml", head + "    env: []\n    env: []\n",
			`line 7: mapping key "env" already defined`},
		{"a version before the first one", "a.yaml", env("0.2.0", "v/c", "d"), `cdiVersion "0.2.0"`},
		{"two objects", "a.json", "{} {}", "there is text after the object"},
		{"YAML in a JSON file", "a.json", "kind: x", "line 1: invalid character 'k'"},
		{"an annotation that is a list", "a.json", `{"annotations": {"a": []}}`,
			"annotation a: a string is expected"},
		{"a tab in YAML", "a.yaml", "kind:\n\tx", "line 2: found character that cannot start"},
		{"an unknown field in YAML", "a.yaml", "kind: x\nversion: 1\n",
			"line 2: field version not found"},
		{"another type in YAML", "a.yaml", "kind: x\ndevices: 3\n",
			"line 2: cannot unmarshal !!int `3`"},
		{"two documents", "a.yaml", env("0.6.0", "v/c", "d") + "---\nkind: y\n",
			"line 6: a file has one document"},

		{"no version", "a.yaml", "kind: v/c\n", `cdiVersion "": one of 0.3.0, 0.4.0, `},
		{"an unknown version", "a.yaml", env("2.0.0", "v/c", "d"), `cdiVersion "2.0.0": one of`},
		{"no class", "a.yaml", env("0.6.0", "v.com", "d"), `kind "v.com": VENDOR/CLASS`},
		{"an empty vendor", "a.yaml", env("0.6.0", "/c", "d"), `kind "/c": a vendor or class begins`},
		{"an empty class", "a.yaml", env("0.6.0", "v/", "d"), `kind "v/": a vendor or class begins`},
		{"a digit first", "a.yaml", env("0.6.0", "1v/c", "d"), `kind "1v/c": a vendor or class`},
		{"a dash last", "a.yaml", env("0.6.0", "v/c-", "d"), `kind "v/c-": a vendor or class`},
		{"two slashes", "a.yaml", env("0.6.0", "v/c/d", "d"), `kind "v/c/d": a vendor or class`},
		{"a space", "a.yaml", env("0.6.0", "v/c d", "d"), `kind "v/c d": a vendor or class`},
		{"no name", "a.yaml", env("0.6.0", "v/c", `""`), `device "": a name begins`},
		{"a colon first", "a.yaml", env("0.6.0", "v/c", `":d"`), `device ":d": a name begins`},
		{"a wildcard", "a.yaml", env("0.6.0", "v/c", `"*"`), `device "*": a name begins`},
		{"a letter of another script", "a.yaml", env("0.6.0", "v/c", "dé"), `device "dé": a name`},
		{"no devices", "a.yaml", "cdiVersion: 0.6.0\nkind: v/c\n", "there are no devices"},
		{"two devices of one name", "a.yaml", env("0.6.0", "v/c", "d") +
			"- name: d\n  containerEdits: {env: [A=1]}\n", `device "d": there are two`},
		{"no edits", "a.yaml", "cdiVersion: 0.6.0\nkind: v/c\ndevices: [{name: d}]\n",
			`device "d": containerEdits is empty`},

		{"net devices in an old version", "a.yaml", strings.Replace(head, "1.1.0", "1.0.0", 1) +
			"    netDevices: [{hostInterfaceName: a, name: b}]\n",
			"netDevices needs cdiVersion 1.1.0, and it is 1.0.0"},
		{"intelRdt in an old version", "a.yaml", strings.Replace(head, "1.1.0", "0.6.0", 1) +
			"    intelRdt: {closID: a}\n", "intelRdt needs cdiVersion 0.7.0"},
		{"schemata in an old version", "a.yaml", strings.Replace(head, "1.1.0", "1.0.0", 1) +
			"    intelRdt: {schemata: [a]}\n", "schemata or enableMonitoring of intelRdt needs"},
		{"groups in an old version", "a.yaml", env("0.6.0", "v/c", "d") +
			"containerEdits: {additionalGids: [1]}\n", "additionalGids needs cdiVersion 0.7.0"},
		{"annotations in an old version", "a.yaml", env("0.5.0", "v/c", "d") +
			"annotations: {a: b}\n", "annotations needs cdiVersion 0.6.0"},
		{"a dot in an old version", "a.yaml", env("0.5.0", "v/c.d", "d"),
			"a class with a dot needs cdiVersion 0.6.0"},
		{"a digit in an old version", "a.yaml", env("0.4.0", "v/c", `"0"`),
			"a device whose name begins with a digit needs cdiVersion 0.5.0"},
		{"a path of the host in an old version", "a.yaml", strings.Replace(head, "1.1.0", "0.4.0", 1) +
			"    deviceNodes: [{path: /a, hostPath: /b}]\n",
			"hostPath of a device node needs cdiVersion 0.5.0"},
		{"the type of a mount in an old version", "a.yaml", strings.Replace(head, "1.1.0", "0.3.0", 1) +
			"    mounts: [{hostPath: /a, containerPath: /b, type: bind}]\n",
			"type of a mount needs cdiVersion 0.4.0"},

		{"a variable without a name", "a.yaml", head + "    env: [=x]\n", `device "d": env "=x"`},
		{"a variable without a value", "a.yaml", head + "    env: [x]\n", `device "d": env "x"`},
		{"a variable of all devices", "a.yaml", env("0.6.0", "v/c", "d") +
			"containerEdits: {env: [x]}\n", `containerEdits: env "x": NAME=VALUE is expected`},
		{"a node without a path", "a.yaml", head + "    deviceNodes: [{type: c}]\n",
			`device "d": device node: path is missing`},
		{"a node with a NUL", "a.yaml", head + `    deviceNodes: [{path: "/a\0"}]`, "has no NUL"},
		{"a node that is a socket", "a.yaml", head + "    deviceNodes: [{path: /a, type: s}]\n",
			`device node /a: type "s": b, c, u or p is expected`},
		{"a negative number", "a.yaml", head + "    deviceNodes: [{path: /a, major: -1}]\n",
			"device node /a: the number -1:0 is negative"},
		{"other permissions", "a.yaml", head + "    deviceNodes: [{path: /a, permissions: rx}]\n",
			`device node /a: permissions "rx": some of r, w and m are expected`},
		{"a hook without a name", "a.yaml", head + "    hooks: [{path: /h}]\n",
			`hookName "": one of prestart, `},
		{"a hook without a path", "a.yaml", head + "    hooks: [{hookName: prestart}]\n",
			"hook prestart: path is missing"},
		{"a hook with a NUL", "a.yaml", head +
			"    hooks: [{hookName: prestart, path: /h, args: [\"\\0\"]}]\n", "hook prestart: a path "},
		{"a hook without time", "a.yaml", head +
			"    hooks: [{hookName: prestart, path: /h, timeout: 0}]\n", "timeout 0: a number of "},
		{"a hook with a bad variable", "a.yaml", head +
			"    hooks: [{hookName: prestart, path: /h, env: [x]}]\n", `hook prestart: env "x"`},
		{"a mount without a path", "a.yaml", head + "    mounts: [{hostPath: /h}]\n",
			`mount of "/h" at "": hostPath or containerPath is missing`},
		{"a mount with a NUL", "a.yaml", head + `    mounts: [{hostPath: "/\0", containerPath: /c}]`,
			"a path has no NUL"},
		{"a class of service", "a.yaml", head + "    intelRdt: {closID: ..}\n", `closID ".."`},
		{"a net device without a name", "a.yaml", head +
			"    netDevices: [{hostInterfaceName: a}]\n", `net device "a": hostInterfaceName or name`},
		{"one net device twice", "a.yaml", head + "    netDevices: [{hostInterfaceName: a, name: b}, " +
			"{hostInterfaceName: a, name: c}]\n", `net device "a" at "c": there are two`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parse(tt.file, []byte(tt.text))
			if (err == nil) != (tt.err == "") ||
				err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			if err != nil && strings.HasPrefix(err.Error(), "yaml") {
				t.Errorf("the error %q names the library", err)
			}
		})
	}
}

// TestSpecContent compares what JSON and YAML files give.
func TestSpecContent(t *testing.T) {
	mode, uid := uint32(0o660), uint32(0)
	want := &spec{Version: "1.1.0", Kind: "v.com/c", Annotations: annotations{"a": "true"},
		Devices: []device{{Name: "d", Edits: edits{Env: []string{"A=1"}, Groups: []uint32{7},
			DeviceNodes: []Node{{Path: "/dev/x", FileMode: &mode, UID: &uid}}}}}}
	for file, text := range map[string]string{
		"a.yaml": head + "    env: [A=1]\n    deviceNodes: [{path: /dev/x, fileMode: 0660, uid: 0}]\n" +
			"    additionalGids: [7]\nannotations: {a: true}\n",
		"a.json": `{"cdiVersion": "1.1.0", "kind": "v.com/c", "annotations": {"a": true},
			"devices": [{"name": "d", "containerEdits": {"env": ["A=1"], "additionalGids": [7],
			"deviceNodes": [{"path": "/dev/x", "fileMode": 432, "uid": 0}]}}]}`,
	} {
		got, err := parse(file, []byte(text))
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		want.file = file
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(spec{})); diff != "" {
			t.Errorf("%s: -want +got\n%s", file, diff)
		}
	}
}

// FuzzParse parses a text as JSON and as YAML. A specification that is valid is the same after it
// was written as JSON and read again, and each of its devices can be requested.
func FuzzParse(f *testing.F) {
	f.Add(head + "    env: [A=1]\n")
	f.Add(`{"cdiVersion": "1.1.0", "kind": "v/c", "annotations": {"a": 1.0}, "devices":
		[{"name": "d", "containerEdits": {"hooks": [{"hookName": "prestart", "path": "/h"}]}}]}`)
	f.Add("a: &a [1]\nb: *a\n<<: *a\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, name := range []string{"a.json", "a.yaml"} {
			s, err := parse(name, []byte(text))
			if err != nil {
				continue
			}
			data, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			again, err := parse("a.json", data)
			if err != nil {
				t.Fatalf("%s, written from %q: %v", data, text, err)
			}
			other, err := json.Marshal(again)
			if err != nil || string(data) != string(other) {
				t.Fatalf("%s is %s after it was read again, %v", data, other, err)
			}
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			found := Read([]string{dir})
			for _, d := range s.Devices {
				name := s.Kind + "=" + d.Name
				if got := found.find(name); len(got) != 1 || got[0] != name {
					t.Errorf("%s is %q", name, got)
				}
			}
		}
	})
}

package bake

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

// seed adds the files of the tests.
func seed(f *testing.F) {
	names, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range txtar.Parse(data).Files {
			f.Add(file.Name, file.Data)
		}
	}
	for _, text := range []string{"a=((((((", "a=\"${b}${b}\"\nb=\"${a}\"", "a=1+1+1+1",
		`{"target": {"t": {"args": {"a": "${((1))}"}}}}`, "a = 1e999999999", "a=pow(9,9999)"} {
		f.Add("docker-bake.hcl", []byte(text))
	}
}

// FuzzParse parses a file and resolves all its targets. What can be printed can be read again, with
// the same result.
func FuzzParse(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		if len(data) > 4<<10 {
			return // functions may multiply the size of values
		}
		o := Options{Now: func() time.Time { return time.Unix(0, 0) },
			DotEnv: []byte("A=1\n")}
		c, err := Parse([]File{{name, data}}, o)
		if err != nil {
			return
		}
		for _, target := range c.names() {
			def, err := c.Resolve([]string{target}, nil)
			if err != nil || len(def.Targets) == 0 {
				continue
			}
			first, err := def.JSON()
			if err != nil {
				t.Fatal(err)
			}
			again, err := Parse([]File{{"docker-bake.json", first}}, o)
			if err != nil {
				t.Fatalf("%v in the output\n%s", err, first)
			}
			if def, err = again.Resolve([]string{"default"}, nil); err != nil {
				t.Fatalf("%v in the output\n%s", err, first)
			}
			if second, _ := def.JSON(); string(second) != string(first) &&
				def.Groups[target] == nil {
				t.Fatalf("the output of the output differs: first\n%s\nsecond\n%s", first, second)
			}
		}
	})
}

// FuzzOverride parses a value of --set and applies it.
func FuzzOverride(f *testing.F) {
	for _, s := range []string{"t.args.A=1", "*.tags+=x", "t.output=type=local,dest=x",
		"t.secrets=id=a", "t.secret.a=src=b", "t.push=true", "t.load=1", "[t.x=y",
		"t.resources.memory=1", "t.ssh=a=b,c", "t.attest=type=sbom,disabled=x"} {
		f.Add(s)
	}
	c, err := Parse([]File{{"docker-bake.hcl", []byte(`target "t" { tags = ["a"] }`)}}, Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		o, ok, err := c.ParseOverride(s, func(string) (string, bool) { return "v", true })
		if err != nil || !ok {
			return
		}
		def, err := c.Resolve([]string{"t"}, []Override{o})
		if err != nil {
			return
		}
		if _, err := def.JSON(); err != nil {
			t.Error(err)
		}
		if again, err := c.Resolve([]string{"t"}, nil); err != nil ||
			len(again.Targets["t"].Tags) != 1 || again.Targets["t"].Args != nil {
			t.Errorf("%q has changed the files' target: %+v, %v", s, again.Targets["t"], err)
		}
	})
}

// FuzzDotEnv parses a file .env.
func FuzzDotEnv(f *testing.F) {
	f.Add("A=1\nexport B=\"${A} x\\n\" # c\nC='a\nb'\nD")
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := parseDotEnv([]byte(s), noEnv); err != nil {
			return
		}
	})
}

func noEnv(string) (string, bool) { return "", false }

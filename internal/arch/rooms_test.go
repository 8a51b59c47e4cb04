package arch

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
)

// A floor is a set of rooms at the same height in the plan.
type floor struct {
	name  string
	rooms []allowed
}

// allowed lists the rooms that a room imports.
type allowed struct {
	room    string
	imports string // separated by spaces
}

// floors is the plan of the module, from the ground up: each room with all rooms of the module that
// it imports. A room imports only rooms that are listed before it. The rooms of the last floor
// exist for tests. For rooms below test/, the imports of their tests count.
var floors = []floor{
	{"primitives", []allowed{
		{"executor/rawproc", ""},
		{"internal/blocks", ""},
		{"internal/cluster", ""},
		{"internal/dirfd", ""},
		{"internal/event", ""},
		{"internal/fileentry", ""},
		{"internal/github", ""},
		{"internal/giturl", ""},
		{"internal/gotemplate", ""},
		{"internal/gunzip", ""},
		{"internal/hostfile", ""},
		{"internal/lock", ""},
		{"internal/markdown", ""},
		{"internal/memo", ""},
		{"internal/ocijson", ""},
		{"internal/pattern", ""},
		{"internal/platform", ""},
		{"internal/reference", ""},
		{"internal/engine", ""},
		{"internal/imageref", "internal/reference"},
		{"internal/safepath", ""},
		{"internal/sarif", ""},
		{"internal/smallfile", ""},
		{"internal/sorting", ""},
		{"internal/subprocess", ""},
		{"internal/suggest", ""},
		{"internal/units", ""},
	}},
	{"tools", []allowed{
		{"internal/attest", "internal/ocijson internal/platform internal/reference " +
			"internal/suggest"},
		{"internal/filedata", "internal/dirfd"},
		{"executor/copyfs", "internal/dirfd internal/filedata internal/fileentry internal/safepath"},
		{"internal/atomicfile", "internal/dirfd internal/hostfile"},
		{"internal/explain", "internal/atomicfile internal/smallfile internal/sorting"},
		{"internal/layercheck", "internal/dirfd"},
		{"internal/mount", "internal/dirfd internal/safepath"},
		{"internal/ns", "internal/smallfile internal/sorting"},
		{"internal/ocidoc", "internal/ocijson"},
		{"internal/registry", "internal/atomicfile internal/hostfile internal/memo internal/ocidoc " +
			"internal/ocijson internal/platform internal/reference internal/sorting " +
			"internal/subprocess"},
		{"internal/stagedir", "internal/dirfd internal/lock"},
		{"internal/state/ledger", "internal/atomicfile internal/lock internal/smallfile"},
		{"internal/ui", "internal/event internal/github internal/markdown internal/sorting " +
			"internal/units"},
		{"internal/unpack", "internal/dirfd internal/gunzip internal/safepath"},
		{"internal/volume", "internal/smallfile"},
	}},
	{"parts", []allowed{
		{"parser", "internal/giturl internal/pattern internal/platform internal/reference " +
			"internal/sorting internal/suggest"},
		{"executor", "executor/copyfs executor/rawproc internal/dirfd internal/fileentry " +
			"internal/mount internal/platform internal/safepath internal/sorting"},
		{"executor/archive", "executor/copyfs internal/unpack"},
		{"snapshot", "internal/atomicfile internal/dirfd internal/filedata internal/lock " +
			"internal/mount internal/safepath internal/smallfile internal/state/ledger"},
		{"diff", "internal/blocks internal/dirfd internal/fileentry internal/unpack"},
		{"export", "internal/atomicfile internal/attest internal/blocks internal/event internal/hostfile internal/ocidoc " +
			"internal/ocijson internal/platform internal/reference internal/sorting internal/stagedir " +
			"internal/subprocess internal/suggest internal/unpack"},
		{"analyze", "internal/giturl internal/markdown internal/pattern internal/sarif " +
			"internal/sorting internal/units internal/unpack"},
		{"analyze/browse", "analyze internal/dirfd internal/ui internal/units"},
		{"analyze/html", "analyze internal/ui internal/units"},
		{"internal/bake", "internal/suggest"},
		{"internal/cdi", "internal/suggest"},
		{"internal/cache", "internal/atomicfile internal/smallfile internal/state/ledger"},
		{"internal/cachemount", "diff internal/dirfd internal/lock internal/memo internal/sorting " +
			"internal/unpack parser"},
		{"internal/outline", "diff internal/dirfd"},
		{"internal/sbom", "internal/unpack"},
		{"internal/source", "internal/subprocess internal/atomicfile internal/dirfd internal/fileentry " +
			"internal/giturl internal/hostfile internal/pattern internal/safepath " +
			"internal/unpack internal/volume"},
		{"internal/secret", "internal/dirfd internal/memo internal/source"},
		{"internal/store", "internal/atomicfile internal/lock internal/ocidoc " +
			"internal/reference internal/smallfile internal/sorting"},
	}},
	{"images and state", []allowed{
		{"internal/state", "executor internal/cache internal/lock internal/ns internal/ocijson " +
			"internal/smallfile internal/sorting internal/state/ledger internal/store " +
			"internal/volume snapshot"},
		{"internal/image", "diff internal/cache internal/dirfd internal/engine internal/event " +
			"internal/hostfile internal/imageref internal/memo internal/mount internal/ns internal/ocidoc internal/ocijson " +
			"internal/outline internal/platform internal/reference internal/registry " +
			"internal/store internal/unpack snapshot"},
		{"internal/container", "executor internal/event internal/image internal/state snapshot"},
		{"internal/imageanalysis", "analyze diff internal/image internal/ocidoc " +
			"internal/ocijson internal/sbom internal/state parser"},
		{"internal/layers", "diff executor/copyfs internal/blocks internal/cache internal/dirfd internal/image " +
			"internal/imageanalysis internal/layercheck internal/memo internal/mount " +
			"internal/outline internal/state internal/store internal/unpack parser snapshot"},
		{"internal/inputs", "internal/cache internal/event internal/image internal/layers " +
			"internal/memo internal/mount internal/secret internal/source parser " +
			"snapshot"},
		{"internal/provenance", "internal/attest internal/image internal/inputs " +
			"internal/platform internal/reference internal/source parser"},
		{"internal/remotecache", "export internal/cache internal/event internal/image " +
			"internal/layers internal/memo internal/ocidoc internal/ocijson internal/sorting " +
			"internal/store internal/units"},
		{"internal/cachestore", "internal/hostfile internal/image internal/memo internal/registry " +
			"internal/remotecache internal/sorting"},
		{"internal/runmount", "executor internal/cachemount internal/cdi internal/layers internal/mount " +
			"internal/secret parser snapshot"},
		{"internal/outputs", "diff export internal/attest internal/event internal/image " +
			"internal/imageanalysis internal/layers internal/ocidoc internal/platform " +
			"internal/reference internal/remotecache internal/state internal/store parser"},
	}},
	{"conductor", []allowed{
		{"internal/job", "executor executor/copyfs internal/cache internal/cachemount " +
			"internal/cdi internal/explain internal/inputs internal/mount internal/runmount internal/source internal/state parser " +
			"snapshot"},
		{"internal/build", "executor executor/copyfs internal/cache internal/event internal/explain " +
			"internal/image internal/inputs internal/job internal/layers internal/memo internal/outline " +
			"internal/remotecache internal/runmount internal/source internal/state parser snapshot"},
		{"internal/scanner", "internal/attest internal/build internal/event internal/inputs " +
			"internal/platform parser"},
		{"internal/imagebuild", "export internal/attest internal/build internal/cachemount internal/explain " +
			"internal/event internal/image internal/imageanalysis internal/inputs internal/job " +
			"internal/layers internal/memo internal/outputs internal/provenance internal/sbom " +
			"internal/reference internal/scanner snapshot " +
			"internal/remotecache internal/runmount internal/secret internal/source internal/state internal/store " +
			"internal/units parser"},
	}},
	{"program", []allowed{
		{"cmd/layerbuild", "analyze analyze/browse analyze/html executor executor/archive " +
			"export internal/atomicfile internal/attest internal/bake internal/build " +
			"internal/cachestore internal/cdi " +
			"internal/cluster internal/container internal/engine " +
			"internal/event internal/explain internal/github internal/giturl internal/gotemplate " +
			"internal/hostfile internal/image " +
			"internal/imageanalysis internal/imagebuild internal/imageref internal/layers " +
			"internal/markdown internal/memo internal/ns internal/ocidoc internal/ocijson " +
			"internal/reference internal/registry internal/remotecache internal/runmount " +
			"internal/sarif internal/sbom internal/secret " +
			"internal/source internal/state internal/store internal/suggest internal/ui internal/units parser " +
			"snapshot"},
	}},
	{"tests", []allowed{
		{"internal/arch", ""},
		{"internal/buildkittest", ""},
		{"internal/fstree", ""},
		{"internal/goldentest", ""},
		{"internal/imagetest", ""},
		{"internal/lock/locktest", ""},
		{"internal/mount/mounttest", ""},
		{"internal/counting", ""},
		{"internal/registrytest", "internal/imagetest"},
		{"internal/rounds", ""},
		{"internal/schematest", ""},
		{"internal/vttest", ""},
		{"internal/workertest", ""},
		{"executor/copyfs/copyfstest", "executor/copyfs internal/fileentry"},
		{"snapshot/snapshottest",
			"internal/fstree internal/mount internal/mount/mounttest snapshot"},
		{"internal/remotecache/remotecachetest", "internal/image internal/registry " +
			"internal/remotecache internal/state"},
		{"analyze/analyzetest", "analyze"},
		{"bench", "diff internal/counting"},
		{"test/lab", "internal/counting internal/imagetest internal/registrytest"},
		{"test/golden", "internal/imagetest test/lab"},
		{"test/caches", "internal/cachestore internal/counting internal/remotecache " +
			"internal/remotecache/remotecachetest test/lab"},
		{"test/ci", "internal/schematest test/lab"},
		{"test/explain", "internal/fstree test/lab"},
		{"test/differential", "diff internal/layercheck internal/mount internal/mount/mounttest " +
			"internal/rounds snapshot"},
		{"test/dist", ""},
		{"test/drivers", "internal/imagetest internal/rounds test/lab"},
		{"test/examples", "test/lab"},
		{"test/faults", "internal/imagetest internal/rounds test/lab"},
		{"test/live", "internal/rounds test/lab"},
		{"test/pictures", "internal/ui internal/vttest test/lab"},
		{"test/readers", "internal/fstree internal/imagetest test/lab"},
		{"test/rootless", "internal/imagetest test/golden test/lab"},
		{"test/run/report", ""},
		{"test/run", "test/run/report"},
		{"test/runverb", "test/lab"},
		{"test/sbom", "test/lab"},
		{"test/slurm", "test/lab"},
		{"test/soundness", "internal/imagebuild internal/imagetest internal/job internal/rounds " +
			"internal/source parser test/lab"},
		{"test/state", "internal/imagetest internal/rounds test/lab"},
	}},
}

// modules lists the rooms that may import each third-party module. go.mod requires no others.
var modules = map[string]string{
	"github.com/BurntSushi/toml":        "internal/registry", // containers-registries.conf
	"github.com/docker/go-units":        "internal/bake internal/units",
	"github.com/hashicorp/hcl/v2":       "internal/bake",
	"github.com/klauspost/compress":     "internal/blocks internal/imageanalysis internal/imagetest internal/unpack",
	"github.com/mattn/go-runewidth":     "internal/ui",
	"github.com/moby/buildkit":          "parser",
	"github.com/moby/docker-image-spec": "cmd/layerbuild internal/build internal/image internal/imagebuild internal/imagetest internal/inputs internal/outputs internal/provenance parser",
	// the lines of an ignore file; pattern matches them
	"github.com/moby/patternmatcher":       "internal/source",
	"github.com/opencontainers/go-digest":  anyRoom,
	"github.com/opencontainers/image-spec": anyRoom,
	"github.com/spf13/pflag":               "cmd/layerbuild",
	"github.com/ulikunitz/xz":              "internal/unpack",
	"github.com/zclconf/go-cty":            "internal/bake",                      // the values of HCL
	"go.yaml.in/yaml/v3":                   "analyze internal/bake internal/cdi", // rules, compose files, devices
	"golang.org/x/crypto":                  "internal/secret",                    // the protocol of ssh agents
	"golang.org/x/sync":                    anyRoom,
	// TestSystemCalls lists the rooms that call the kernel
	"golang.org/x/sys":  anyRoom,
	"golang.org/x/term": "analyze/browse cmd/layerbuild executor export internal/ui",

	"github.com/distribution/reference":        "", // tests of internal/reference
	"github.com/google/go-cmp":                 "internal/goldentest snapshot/snapshottest",
	"github.com/in-toto/attestation":           "", // tests of internal/attest
	"github.com/package-url/packageurl-go":     "",
	"github.com/rogpeppe/go-internal":          "",                    // the scripts of cmd/layerbuild
	"github.com/santhosh-tekuri/jsonschema/v6": "internal/schematest", // the published schemas
	"go.uber.org/goleak":                       "",
	"google.golang.org/protobuf":               "",
	"pgregory.net/rapid":                       "",
}

// anyRoom is for modules that define plain data, or functions that could be in the standard
// library.
const anyRoom = "any"

// onlyPackages limits a module to the packages that begin with a path.
var onlyPackages = map[string]string{
	"github.com/moby/buildkit": "github.com/moby/buildkit/frontend/dockerfile/",
}

// TestImports compares the imports of all rooms with floors.
func TestImports(t *testing.T) {
	want := map[string][]string{}
	for _, f := range floors {
		for _, a := range f.rooms {
			want[a.room] = strings.Fields(a.imports)
		}
	}
	got := map[string][]string{}
	for _, p := range packages(t) {
		imports := p.Imports
		if in(p.room(), "test") {
			imports = slices.Concat(imports, p.TestImports, p.XTestImports)
		}
		got[p.room()] = rooms(p.room(), imports)
	}
	for _, problem := range compare(want, got) {
		t.Error(problem)
	}
}

// rooms returns the other rooms among the imports of a room, sorted, each once.
func rooms(own string, imports []string) []string {
	var found []string
	for _, path := range imports {
		if room, ok := strings.CutPrefix(path, module); ok && room != own {
			found = append(found, room)
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// compare returns the differences between the imports that floors lists and the imports in the
// source.
func compare(want, got map[string][]string) []string {
	const table = "in floors (internal/arch/rooms_test.go)"
	var problems []string
	for _, room := range slices.Sorted(maps.Keys(got)) {
		listed, ok := want[room]
		if !ok {
			problems = append(problems, room+" is not "+table+
				": add it to the floor that it belongs to, and to docs/ARCHITECTURE.md")
			continue
		}
		for _, imp := range got[room] {
			if !slices.Contains(listed, imp) {
				problems = append(problems, room+" imports "+imp+
					", which is new: let a room above both connect them, "+
					"or add it to the line of "+room+" "+table+" and give the reason in the commit")
			}
		}
		for _, imp := range listed {
			if !slices.Contains(got[room], imp) {
				problems = append(problems, room+" does not import "+imp+
					": remove it from the line of "+room+" "+table)
			}
		}
	}
	for _, room := range slices.Sorted(maps.Keys(want)) {
		if _, ok := got[room]; !ok {
			problems = append(problems, room+" does not exist: remove it "+table)
		}
	}
	return problems
}

// TestFloors checks the table itself: no room is listed twice, and each imports only rooms that are
// listed before it.
func TestFloors(t *testing.T) {
	for _, problem := range ascending(floors) {
		t.Error(problem)
	}
}

// ascending returns the lines of the floors that are out of order.
func ascending(floors []floor) []string {
	var problems []string
	before := map[string]bool{}
	for _, f := range floors {
		for _, a := range f.rooms {
			if before[a.room] {
				problems = append(problems, a.room+" stands twice in floors")
			}
			for _, imp := range strings.Fields(a.imports) {
				if !before[imp] {
					problems = append(problems, a.room+" ("+f.name+") imports "+imp+
						", which does not stand before it in floors")
				}
			}
			before[a.room] = true
		}
	}
	return problems
}

// TestModules compares the modules that go.mod requires, and the rooms that import them, with
// modules.
func TestModules(t *testing.T) {
	list := packages(t)
	out, err := goCommand("mod", "edit", "-json")
	if err != nil {
		t.Fatal(err)
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	required := map[string]bool{}
	for _, r := range mod.Require {
		if !r.Indirect {
			required[r.Path] = true
		}
	}
	imports := map[string][]string{}
	for _, p := range list {
		imports[p.room()] = p.Imports
	}
	for _, problem := range compareModules(required, imports) {
		t.Error(problem)
	}
}

// compareModules returns the differences between modules and the source.
func compareModules(required map[string]bool, imports map[string][]string) []string {
	const table = "modules (internal/arch/rooms_test.go)"
	var problems []string
	for _, path := range slices.Sorted(maps.Keys(required)) {
		if _, ok := modules[path]; !ok {
			problems = append(problems, "go.mod requires "+path+": do without it, or add it to "+
				table+" and give the reason in the commit")
		}
	}
	for _, path := range slices.Sorted(maps.Keys(modules)) {
		if !required[path] {
			problems = append(problems, "go.mod does not require "+path+": remove it from "+table)
		}
	}
	used := map[string]bool{} // "module room"
	for _, room := range slices.Sorted(maps.Keys(imports)) {
		for _, imp := range imports[room] {
			for path, rooms := range modules {
				if imp != path && !strings.HasPrefix(imp, path+"/") {
					continue
				}
				used[path+" "+room] = true
				if rooms != anyRoom && !slices.Contains(strings.Fields(rooms), room) {
					problems = append(problems, room+" imports "+imp+
						": use the room that has it ("+rooms+"), "+
						"or add the room to "+table+" and give the reason in the commit")
				}
				if only := onlyPackages[path]; !strings.HasPrefix(imp, only) {
					problems = append(problems, room+" imports "+imp+
						": of this module use only packages below "+only)
				}
			}
		}
	}
	for _, path := range slices.Sorted(maps.Keys(modules)) {
		if modules[path] == anyRoom {
			continue
		}
		for room := range strings.FieldsSeq(modules[path]) {
			if !used[path+" "+room] {
				problems = append(problems, room+" does not import "+path+
					": remove the room from "+table)
			}
		}
	}
	return problems
}

// TestImportsFindings plants a fault for each rule of the tables.
func TestImportsFindings(t *testing.T) {
	has := func(t *testing.T, got []string, want string) {
		t.Helper()
		if len(got) != 1 || !strings.HasPrefix(got[0], want) {
			t.Errorf("got %q, want one that begins with %q", got, want)
		}
	}
	line := func(imports ...string) map[string][]string { return map[string][]string{"a": imports} }
	has(t, compare(line(), line("b")), "a imports b, which is new")
	has(t, compare(line("b"), line()), "a does not import b: remove it")
	has(t, compare(line(), nil), "a does not exist: remove it")
	has(t, compare(nil, line()), "a is not in floors")

	has(t, ascending([]floor{{"low", []allowed{{"a", "b"}}}, {"high", []allowed{{"b", ""}}}}),
		"a (low) imports b, which does not stand before it")
	has(t, ascending([]floor{{"low", []allowed{{"a", ""}, {"a", ""}}}}), "a stands twice")

	// modulesAsListed makes a go.mod and imports that agree with modules.
	modulesAsListed := func() (map[string]bool, map[string][]string) {
		required, imports := map[string]bool{}, map[string][]string{}
		for path, rooms := range modules {
			required[path] = true
			if rooms == anyRoom {
				continue
			}
			if only, ok := onlyPackages[path]; ok {
				path = only + "parser"
			}
			for room := range strings.FieldsSeq(rooms) {
				imports[room] = append(imports[room], path)
			}
		}
		return required, imports
	}
	required, imports := modulesAsListed()
	if got := compareModules(required, imports); got != nil {
		t.Fatalf("without a fault: %q", got)
	}
	imports["snapshot"] = append(imports["snapshot"], "github.com/spf13/pflag")
	has(t, compareModules(required, imports),
		"snapshot imports github.com/spf13/pflag: use the room that has it (cmd/layerbuild)")
	required, imports = modulesAsListed()
	imports["parser"] = append(imports["parser"], "github.com/moby/buildkit/client")
	has(t, compareModules(required, imports),
		"parser imports github.com/moby/buildkit/client: of this module use only")
	required, imports = modulesAsListed()
	imports["internal/registry"] = nil
	has(t, compareModules(required, imports),
		"internal/registry does not import github.com/BurntSushi/toml: remove the room")
	required, imports = modulesAsListed()
	required["example.com/new"] = true
	has(t, compareModules(required, imports), "go.mod requires example.com/new")
	required, imports = modulesAsListed()
	delete(required, "pgregory.net/rapid")
	has(t, compareModules(required, imports), "go.mod does not require pgregory.net/rapid")
}

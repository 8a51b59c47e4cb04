package source

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// paths lists the paths in a match.
func paths(m *Match) []string {
	var all []string
	for _, it := range m.Items {
		for e := range it.Entries.All() {
			all = append(all, filepath.Join(it.Path, e.Path))
		}
	}
	return all
}

func TestOwnState(t *testing.T) {
	tests := []struct {
		name     string
		own      string // the state's path in the tree
		patterns []string
		want     []string
		notice   []string
		missing  bool
	}{
		{name: "a directory", own: "d/s", patterns: []string{"."},
			want: []string{"d", "d/f", "link", "oci", "oci/x", "other"}, notice: []string{"d/s"}},
		{name: "a part of the tree that has it not", own: "d/s", patterns: []string{"oci"},
			want: []string{"oci/x"}},
		{name: "by a wildcard", own: "d", patterns: []string{"*"}, want: []string{"oci/x", "other"},
			notice: []string{"d"}},
		{name: "below a wildcard", own: "d", patterns: []string{"*/f"}},
		{name: "by its name", own: "d", patterns: []string{"d"}, missing: true},
		{name: "below its name", own: "d", patterns: []string{"d/s/x"}, missing: true},
		{name: "through a link", own: "d", patterns: []string{"link"}, missing: true},
		{name: "the tree itself", own: ".", patterns: []string{"."},
			want: []string{"d", "d/f", "d/s", "d/s/x", "link", "other"}, notice: []string{"."}},
		{name: "the tree itself, by a wildcard", own: ".", patterns: []string{"o*"},
			want: []string{"other"}},
		{name: "the tree itself, by a name", own: ".", patterns: []string{"oci/x"}, missing: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := makeTree(t, "dir d\nfile d/f F\ndir d/s\nfile d/s/x X\nlink link -> d/s\ndir oci\nfile oci/x O\nfile other\n")
			var notice []string
			tree := openTree(t, dir, TreeOptions{Own: OwnState{
				Dir: filepath.Join(dir, tt.own), Holds: func(name string) bool {
					return name == "oci"
				},
				Notice: func(p string) { notice = append(notice, p) },
			}})
			m, err := tree.Match(t.Context(), Query{Patterns: tt.patterns})
			if tt.missing {
				var missing *NotFoundError
				if !errors.As(err, &missing) || !missing.Own {
					t.Fatalf("error %v, want one that names the state", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := paths(m)
			// the target of the link is in the state, and is treated as missing
			if tt.name == "by a wildcard" {
				got = slices.DeleteFunc(got, func(p string) bool { return p == "link" })
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if !slices.Equal(notice, tt.notice) {
				t.Errorf("notices %q, want %q", notice, tt.notice)
			}
		})
	}
}

// A bind mount of the state is recognized as the state.
func TestOwnStateMounted(t *testing.T) {
	dir := makeTree(t, "file f\ndir here\n")
	state := makeTree(t, "file x X\n")
	mounted(t, "--bind", state, filepath.Join(dir, "here"))
	tree := openTree(t, dir, TreeOptions{Own: OwnState{Dir: state}})
	if got := paths(matchAll(t, tree)); !slices.Equal(got, []string{"f"}) {
		t.Errorf("got %q, want f only", got)
	}
	if err := os.WriteFile(filepath.Join(state, "y"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

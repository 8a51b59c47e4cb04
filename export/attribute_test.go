package export

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Each row of the table holds for each of its types, and an attribute without effect changes
// nothing.
func TestAttributes(t *testing.T) {
	for _, row := range Attributes() {
		if row.Why == "" || len(row.Types) == 0 {
			t.Errorf("%s has no reason or no type", row)
		}
		for _, kind := range row.Types {
			spec := fmt.Sprintf("type=%s,dest=x", kind)
			if kind == TypeImage {
				spec = "type=image"
			}
			plain, err := Parse(spec)
			if err != nil {
				t.Fatal(err)
			}
			value := row.Value
			if value == "" {
				value = "true"
			}
			with := spec + "," + row.Key + "=" + value
			got, err := Parse(with)
			switch {
			case row.Refused:
				if err == nil || !strings.Contains(err.Error(), row.String()+": "+row.Why) {
					t.Errorf("Parse(%q): error %v, want the reason %q", with, err, row.Why)
				}
			case err != nil || cmp.Diff(plain, got) != "":
				t.Errorf("Parse(%q) = %+v, %v, want %+v", with, got, err, plain)
			}
			if !row.Bool {
				continue
			}
			with = spec + "," + row.Key + "=perhaps"
			if _, err := Parse(with); err == nil ||
				!strings.Contains(err.Error(), "true or false is expected") {
				t.Errorf("Parse(%q): error %v, want one about the value", with, err)
			}
		}
		for kind := range keysOf {
			spec := fmt.Sprintf("type=%s,%s=%s", kind, row.Key, row.Value)
			if _, err := Parse(spec); !slices.Contains(row.Types, kind) && err == nil {
				t.Errorf("Parse(%q) is accepted", spec)
			}
		}
	}
	if _, err := Parse("type=local,dest=x,mode=move"); err == nil ||
		!strings.Contains(err.Error(), `mode "move": copy or delete is expected`) {
		t.Errorf("mode=move: error %v", err)
	}
}

package bake

import "testing"

// TestSetSecret changes secrets by their IDs. One that the target does not have is an error, so
// that a mistake in the ID does not leave the old source.
func TestSetSecret(t *testing.T) {
	const file = `target "default" { secret = ["id=x,src=f", "id=y,env=E"] }`
	for set, want := range map[string]string{
		"default.secret.x=g":          "",
		"default.secret.x=env=G":      "",
		"default.secret.x=id=x,src=g": "",
		"default.secret.x=id=other":   "--set default.secret: the value has another ID, other",
		"default.secret.typo=g": "--set default.secret: the target has no secret typo; add one " +
			"with default.secret+=id=typo,…",
	} {
		c := &testCase{data: map[string]string{"docker-bake.hcl": file}, sets: []string{set}}
		got := ""
		if _, err := c.print(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: error %q, want %q", set, got, want)
		}
	}
}

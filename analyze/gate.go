package analyze

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/layerbuild/layerbuild/internal/pattern"
	"github.com/layerbuild/layerbuild/internal/units"
)

// Rules are the conditions that an image must meet. The zero value accepts all images.
type Rules struct {
	// FailOver is the limit for dead bytes, without those of the base; nil: no limit.
	FailOver *Threshold
	// FailOn names what an image must not contain: "debris", "secrets", or a kind of debris.
	FailOn []string
}

// Threshold is a number of bytes, or a percentage of all bytes without the base's.
type Threshold struct {
	Bytes   int64
	Percent float64 // used if Relative is set
	// Relative selects Percent.
	Relative bool
}

// ParseThreshold parses "5MB", "512KiB", "100000" or "2%".
func ParseThreshold(s string) (*Threshold, error) {
	bad := fmt.Errorf("%q is neither a size such as 5MB nor a share such as 2%%", s)
	text := strings.ToLower(strings.TrimSpace(s))
	if part, ok := strings.CutSuffix(text, "%"); ok {
		p, err := strconv.ParseFloat(strings.TrimSpace(part), 64)
		if err != nil || !(p >= 0 && p <= 100) {
			return nil, bad
		}
		return &Threshold{Percent: p, Relative: true}, nil
	}
	n, err := units.Parse(s)
	if err != nil {
		return nil, bad
	}
	return &Threshold{Bytes: n}, nil
}

// String returns the threshold as a size or a percentage.
func (t *Threshold) String() string {
	if t.Relative {
		return strconv.FormatFloat(t.Percent, 'f', -1, 64) + "%"
	}
	return units.Size(t.Bytes)
}

// over reports whether n bytes of all exceed the threshold.
func (t *Threshold) over(n, all int64) bool {
	if t.Relative {
		return float64(n)*100 > t.Percent*float64(all)
	}
	return n > t.Bytes
}

// CheckFailOn returns an error for an invalid name for Rules.FailOn.
func CheckFailOn(name string) error {
	known := append([]string{"debris", "secrets"}, debrisNames[1:]...)
	if !slices.Contains(known, name) {
		return fmt.Errorf("%q is not one of %s", name, strings.Join(known, ", "))
	}
	return nil
}

// Check compares the image with rules and sets Gate. Bytes of the base are not counted, even if
// instructions above it made them dead, and accepted paths are not counted either.
//
// An image never passes because the end of its base was guessed: if it passes only without layers
// that belong to the base according to a guess, the gate fails, with this reason.
func (r *Report) Check(rules Rules) {
	g := r.check(rules, func(o Owner) bool { return o == BaseImage })
	if g.Passed && r.Base.Source == BaseGuess && r.Base.Layers > 0 {
		if all := r.check(rules, func(Owner) bool { return false }); !all.Passed {
			g = all
			g.BaseGuessed = true
			for i, failure := range g.Failures {
				g.Failures[i] = fmt.Sprintf("%s; the base image (the first %s) is a guess; "+
					"give --base IMAGE, or --base scratch if there is none", failure,
					nLayers(r.Base.Layers))
			}
		}
	}
	r.Gate = g
}

// nLayers returns "3 layers" or "layer".
func nLayers(n int) string {
	if n == 1 {
		return "layer"
	}
	return fmt.Sprintf("%d layers", n)
}

// check compares the image with rules, without the layers of owners for which skip returns true.
func (r *Report) check(rules Rules, skip func(Owner) bool) *Gate {
	g := &Gate{}
	for i := range r.Units {
		u := &r.Units[i]
		if skip(r.Layers[u.Layer].Owner) {
			continue
		}
		g.Of += u.Bytes
		switch {
		case u.Dead() && u.Accepted:
			g.Accepted += u.Bytes
		case u.Dead():
			g.Dead += u.Bytes
		}
	}
	if t := rules.FailOver; t != nil && t.over(g.Dead, g.Of) {
		g.Failures = append(g.Failures, fmt.Sprintf("%s (%d bytes) of %s are dead, more than %s",
			units.Size(g.Dead), g.Dead, units.Size(g.Of), t))
	}
	for _, name := range rules.FailOn {
		for _, d := range r.Debris {
			if skip(d.Owner) || d.Accepted || !d.is(name) {
				continue
			}
			what := d.Kind.Text()
			if d.Dead {
				what += ", hidden but still in a layer"
			}
			g.Failures = append(g.Failures, fmt.Sprintf("%s: %s (%s, %s)", d.Path, what,
				units.Size(d.Bytes), r.Made(d.Layer).At()))
		}
	}
	g.Passed = len(g.Failures) == 0
	return g
}

// is reports whether a name of Rules.FailOn selects d.
func (d *Debris) is(name string) bool {
	switch name {
	case "debris":
		return d.Kind != Secret
	case "secrets":
		return d.Kind == Secret
	}
	return d.Kind.String() == name
}

// acceptor matches the paths that the user accepts.
type acceptor struct {
	m *pattern.Matcher
}

// newAcceptor returns an acceptor for patterns with the syntax of a .dockerignore. The content of a
// matching directory is accepted too.
func newAcceptor(patterns []string) (acceptor, error) {
	if len(patterns) == 0 {
		return acceptor{}, nil
	}
	var list []string
	for _, p := range patterns {
		if rest, ok := strings.CutPrefix(p, "!"); ok {
			list = append(list, "!"+strings.Trim(rest, "/"))
			continue
		}
		list = append(list, strings.Trim(p, "/"))
	}
	m, err := pattern.New(list)
	if err != nil {
		return acceptor{}, fmt.Errorf("accepted paths: %w", err)
	}
	return acceptor{m}, nil
}

// mark marks the accepted units.
func (a acceptor) mark(r *Report) {
	if a.m == nil {
		return
	}
	for i := range r.Units {
		u := &r.Units[i]
		if !u.Dead() && u.Debris == NoDebris {
			continue
		}
		u.Accepted, _ = a.m.Path(strings.TrimPrefix(r.Tree.Path(r.Tree.Node(u.Node)), "/"))
	}
}

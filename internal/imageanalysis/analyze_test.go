package imageanalysis

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/analyze"
	"github.com/layerbuild/layerbuild/internal/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// imageOf returns an image with a history of one entry per line. "-" precedes an entry without a
// layer, and its time in hours follows an entry.
func imageOf(lines ...string) *image.Image {
	img := &image.Image{}
	for _, line := range lines {
		var hours int
		at := strings.LastIndex(line, " @")
		if _, err := fmt.Sscanf(line[at+2:], "%d", &hours); err != nil {
			panic(err)
		}
		text, empty := strings.CutPrefix(line[:at], "-")
		created := time.Unix(1700000000, 0).Add(time.Duration(hours) * time.Hour)
		img.Config.History = append(img.Config.History,
			ocispec.History{CreatedBy: text, EmptyLayer: empty, Created: &created})
		if !empty {
			img.Manifest.Layers = append(img.Manifest.Layers, ocispec.Descriptor{})
		}
	}
	return img
}

func TestGuess(t *testing.T) {
	for _, c := range []struct {
		name            string
		img             *image.Image
		layers, history int
	}{
		{"nothing", imageOf(), 0, 0},
		{"a base ends with its command", imageOf("ADD rootfs @0", "-CMD [\"bash\"] @0",
			"RUN mine @0", "-CMD [\"app\"] @0"), 1, 2},
		{"as docker's old builder wrote it",
			imageOf("/bin/sh -c #(nop) ADD file:1 in /  @0", "-/bin/sh -c #(nop)  CMD [\"sh\"] @0",
				"/bin/sh -c mine @0"), 1, 2},
		{"a base on a base", imageOf("ADD rootfs @0", "-CMD [\"bash\"] @0", "RUN python @5",
			"-CMD [\"python\"] @5", "COPY . . @9"), 2, 4},
		{"a command of one's own only", imageOf("COPY a / @0", "-CMD [\"a\"] @0"), 0, 0},
		{"the longest wait", imageOf("one @0", "two @2", "three @200", "four @202"), 2, 2},
		{"no wait", imageOf("one @0", "two @1"), 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			end := guess(c.img)
			if end.base.Layers != c.layers || end.history != c.history ||
				end.base.Source != analyze.BaseGuess || end.base.Note == "" {
				t.Errorf("guess = %+v, want %d layers, %d entries", end, c.layers, c.history)
			}
		})
	}
}

func TestInstructions(t *testing.T) {
	img := imageOf("ADD rootfs @0", "-CMD [\"bash\"] @0", "RUN /bin/sh -c make   it # buildkit @1",
		"-ENV A=1 @1", "COPY . /a # buildkit @1")
	// a layer without an entry in the history
	img.Manifest.Layers = append(img.Manifest.Layers, ocispec.Descriptor{})
	rec := &Record{Base: RecordedBase{Layers: 1, History: 2}, Steps: []RecordStep{
		{Text: "RUN make it", Line: 2, End: 3, Earlier: true, Stage: "first"},
		{Text: "ENV A=1", Line: 4, End: 4}, {Text: "COPY . /a", Line: 5, End: 5},
	}}
	end := ending{base: analyze.Base{Layers: 1}, history: 2}
	for _, c := range []struct {
		name string
		end  ending
		rec  *Record
		want string
	}{
		{"with a record", end, rec,
			"base 0 0 ADD rootfs|base -1 0 CMD [\"bash\"]|stage 1 2 RUN make it|own -1 4 ENV A=1|own 2 5 COPY . /a|own 3 0 (not in the history)"},
		{"without", end, nil, "base 0 0 ADD rootfs|base -1 0 CMD [\"bash\"]|own 1 0 RUN make it|own -1 0 ENV A=1|own 2 0 COPY . /a|own 3 0 (not in the history)"},
		{"a base that the history says less of",
			ending{base: analyze.Base{Layers: 2}, history: 2}, nil,
			"base 0 0 ADD rootfs|base -1 0 CMD [\"bash\"]|base 1 0 (not in the history)|own 2 0 RUN make it|own -1 0 ENV A=1|own 3 0 COPY . /a"},
		{"another base than the recorded one", ending{}, rec,
			"own 0 0 ADD rootfs|own -1 0 CMD [\"bash\"]|stage 1 2 RUN make it|own -1 4 ENV A=1|own 2 5 COPY . /a|own 3 0 (not in the history)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, i := range instructions(img, c.end, c.rec) {
				got = append(got, fmt.Sprintf("%s %d %d %s", i.Owner, i.Layer, i.Line, i.Text))
			}
			if s := strings.Join(got, "|"); s != c.want {
				t.Errorf("got  %s\nwant %s", s, c.want)
			}
		})
	}
}

func TestInstructionText(t *testing.T) {
	for in, want := range map[string]string{
		"RUN /bin/sh -c echo  hi # buildkit":       "RUN echo hi",
		"COPY a /b # buildkit":                     "COPY a /b",
		`/bin/sh -c #(nop)  CMD ["sh"]`:            `CMD ["sh"]`,
		"/bin/sh -c apt-get update":                "RUN apt-get update",
		"# debian.sh --arch 'amd64' out/ 'trixie'": "# debian.sh --arch 'amd64' out/ 'trixie'",
		"RUN |1 V=1 /bin/sh -c echo $V # buildkit": "RUN |1 V=1 /bin/sh -c echo $V",
		"": "",
	} {
		if got := instructionText(in); got != want {
			t.Errorf("instructionText(%q) = %q, want %q", in, got, want)
		}
	}
}

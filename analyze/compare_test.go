package analyze

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

func reportOf(t *testing.T, texts string, layers ...[]item) *Report {
	t.Helper()
	var packed [][]byte
	for _, items := range layers {
		packed = append(packed, pack(t, items))
	}
	in := input(0, packed...)
	for i, text := range strings.Split(texts, ",") {
		in.Instructions[i].Text = text
		in.Layers[i].DiffID = fmt.Sprintf("%x", packed[i])
	}
	r, err := Image(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestCompare(t *testing.T) {
	a := reportOf(t, "FROM,RUN a,COPY x,RUN c",
		[]item{dir("d"), file("d/same", "same"), file("d/mode", "mode"), dir("gone"),
			file("gone/1", "11"), link("gone/2", "gone/1"), symlink("s", "here")},
		[]item{file("a", "123")}, []item{file("x", "xx")}, []item{file("c", "c")})
	b := reportOf(t, "FROM,COPY y,RUN c,RUN new",
		[]item{dir("d"), file("d/same", "same"), file("d/mode", "mode").chmod(0o600),
			symlink("s", "there")},
		[]item{file("a", "12345")}, []item{file("c", "C")},
		[]item{dir("new"), file("new/n", "n"), file("new/m", "mmm")})
	c := Compare(a, b)
	var got []string
	for _, d := range c.Instructions {
		got = append(got, fmt.Sprintf("%s %d %d %d %d", d.Change, d.A, d.B, d.BytesA, d.BytesB))
	}
	want := "rebuilt 0 0 10 8|removed 1 -1 3 0|changed 2 1 2 5|rebuilt 3 2 1 1|added -1 3 0 4"
	if s := strings.Join(got, "|"); s != want {
		t.Errorf("instructions\n%s\nwant\n%s", s, want)
	}
	got = nil
	for _, d := range c.Paths {
		got = append(got, fmt.Sprintf("%s %s %d %d %d by %d", d.Change, d.Path, d.BytesA,
			d.BytesB, d.Files, d.By))
	}
	want = "added /new/ 0 4 2 by 3|changed /a 3 5 1 by 1|removed /gone/ 2 0 2 by 0|removed /x 2 0 1 by 2|metadata /d/mode 4 4 1 by 0|changed /c 1 1 1 by 2|changed /s 0 0 1 by 0"
	if s := strings.Join(got, "|"); s != want {
		t.Errorf("paths\n%s\nwant\n%s", s, want)
	}
	if same := Compare(a, a); len(same.Paths) > 0 {
		t.Errorf("an image differs from itself: %+v", same.Paths)
	}
}

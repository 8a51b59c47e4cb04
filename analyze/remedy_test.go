package analyze

import (
	"context"
	"testing"
)

// TestRemedyTexts checks remedies for images of other builders, and for Dockerfiles in which no
// edit helps. TestRemedies in cmd/layerbuild applies remedies for images of layerbuild.
func TestRemedyTexts(t *testing.T) {
	for _, c := range []struct {
		name   string
		layers [][]item
		texts  []string
		want   string
	}{
		{"a copy that changes nothing", [][]item{{file("f", "f")}, {file("f", "f").at(9)}},
			[]string{"COPY f /f", "COPY f /f"}, "leave out the COPY at line 3"},
		{"a copy that changes nothing but something else",
			[][]item{{file("app/p.json", "f")},
				{file("app/p.json", "f").at(9), file("app/main", "m")}},
			[]string{"COPY p.json /app/", "COPY app /app"},
			"add --exclude=p.json to the COPY at line 3"},
		{"a name with a space", [][]item{{file("a b", "f")}, {whiteout("a b")}},
			[]string{`COPY ["f", "/a b"]`, `RUN rm "/a b"`},
			"created at line 2, made dead at line 3: leave it out of the first, or create and remove it in one instruction"},
		{"a name that is a command", [][]item{{dir("t"), file("t/$(id)", "f"), file("t/x", "x")},
			{whiteout("t/$(id)")}}, []string{"COPY t /t", "RUN rm /t/[$]*"},
			"created at line 2, made dead at line 3: leave it out of the first, or create and remove it in one instruction"},
		{"a touch", [][]item{{file("f", "f")}, {file("f", "f").at(9)}},
			[]string{"COPY f /f", "RUN touch /f && echo"}, "leave out ‘touch /f’ at line 3"},
		{"sed", [][]item{{file("f", "f")}, {file("f", "g")}},
			[]string{"COPY f /f", "RUN sed -i s/f/g/ /f"},
			"change /f before it is copied; or copy it and change it in a stage of its own, and take the result with COPY --from"},
		{"another builder's COPY", [][]item{{file("f", "f")}, {whiteout("f")}},
			[]string{"COPY file:123 in /f", "RUN cat /f && rm /f"},
			"move the COPY at line 2 to a stage of its own: ‘FROM scratch AS copied’; use RUN --mount=type=bind,from=copied,source=/f,target=/f at line 3; leave out ‘rm /f’ at line 3"},
		{"a command that is no list", [][]item{{file("f", "f")}, {whiteout("f")}},
			[]string{"COPY f /f", "RUN if cat /f; then rm /f; fi"},
			"leave out the COPY at line 2; use RUN --mount=type=bind,source=f,target=/mnt/f at line 3; begin the RUN at line 3 with ‘mkdir -p / && cp -a /mnt/f /f &&’"},
		{"a program that removes it", [][]item{{file("f", "f")}, {whiteout("f")}},
			[]string{"COPY f /f", `RUN ["/f"]`},
			"bind it, copy it to /f and remove it there in one RUN instead of line 2 and line 3"},
		{"rm of two things", [][]item{{file("f", "f")}, {whiteout("f")}},
			[]string{"COPY f /f", "RUN rm -f /f /tmp/x"},
			"use RUN --mount=type=bind,source=f,target=/f at line 3 instead of the COPY at line 2; write ‘rm -f /tmp/x’ instead of ‘rm -f /f /tmp/x’ at line 3"},
		{"a variable", [][]item{{file("f", "f")}, {whiteout("f")}},
			[]string{"COPY $F /f", "RUN cat /f && rm /f"},
			"move the COPY at line 2 to a stage of its own: ‘FROM scratch AS copied’; use RUN --mount=type=bind,from=copied,source=/f,target=/f at line 3; leave out ‘rm /f’ at line 3"},
		{"chmod of a part", [][]item{{file("app/a", "a"), file("app/b", "b")},
			{file("app/a", "a").chmod(0o755)}}, []string{"COPY app /app", "RUN chmod +x /app/a"},
			"COPY --chmod=… --chown=… at line 2 instead of chmod or chown at line 3"},
		{"another user between", [][]item{{file("f", "f")}, {}, {whiteout("f")}},
			[]string{"RUN make /f", "USER 1", "RUN rm /f"},
			"create and remove it in one RUN: join those of line 2 and line 4, with the effect of line 3 written into the command"},
		{"two in one layer", [][]item{{file("f", "f"), file("f", "g")}}, []string{"RUN make"},
			"the layer has the path twice: the tool that made the layer should write it once"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var packed [][]byte
			for _, l := range c.layers {
				packed = append(packed, pack(t, l))
			}
			in := input(0, packed...)
			for i := range in.Instructions {
				in.Instructions[i].Text = c.texts[i]
			}
			r, err := Image(context.Background(), in)
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Findings) != 1 || r.Findings[0].Remedy != c.want {
				t.Errorf("%+v\nwant %s", r.Findings, c.want)
			}
		})
	}
}

// TestCommands checks that only lists of simple commands are parsed.
func TestCommands(t *testing.T) {
	for in, want := range map[string]int{
		"RUN a": 1, "RUN a && b; c": 3, "RUN --mount=type=tmpfs,target=/x a 'b && c'": 1,
		`RUN ["a", "b"]`: 1, `RUN ["/bin/sh", "-c", "a && b"]`: 2,
		"RUN a | b": 0, "RUN a || b": 0, "RUN (a)": 0, "RUN a $(b)": 0, "RUN a `b`": 0,
		"RUN a 'b": 0, "RUN if a; then b; fi": 0, "RUN a &": 0, "RUN <<EOF": 0,
		"RUN a &&": 0, "RUN cd /x && rm y": 0, "COPY a b": 0, `RUN a "$b"`: 0, "RUN ": 0, "RUN": 0,
	} {
		p := parseInstruction(in)
		if list, ok := p.commands(); len(list) != want && ok || ok != (want > 0) {
			t.Errorf("commands of %q: %q %v, want %d", in, list, ok, want)
		}
	}
}

// TestFetched checks which sources of ADD are not treated as copied files.
func TestFetched(t *testing.T) {
	for source, want := range map[string]bool{
		"f": false, "dir/f": false, "./d": false, "a@b": false, "a:b": false,
		"r.git": false, "vendor/r.git/": false, // directories of the context
		"https://h/f": true, "HTTP://h/f": true, "ftp://h/f": true,
		"https://h/r.git#v1:sub": true, "git://h/r": true, "ssh://git@h/r": true,
		"git@h:u/r": true, "deploy@h:u/r.git#main": true, "github.com/u/r": true,
		"https://h/r.git?unknown=1": true,
		// archives
		"a.tar": true, "a.TGZ": true, "a.tar.zst": true, "a*": true, "a.tar/f": false,
	} {
		if got := fetched(source); got != want {
			t.Errorf("fetched(%q) = %v, want %v", source, got, want)
		}
	}
}

// FuzzRemedy computes the remedies for random instructions.
func FuzzRemedy(f *testing.F) {
	for _, s := range []string{"COPY a /d/a", "COPY [\"a\"]", "RUN rm -rf /d", "RUN mv /d/a /b",
		"RUN chmod 7 /d/a", "RUN [\"\"]", "ADD", "COPY --from=x . .", "WORKDIR ..",
		"RUN busybox", "FROM x", ""} {
		f.Add(s, "RUN rm /d/a", uint8(0))
		f.Add("COPY a b* /d/", s, uint8(1))
	}
	f.Fuzz(func(t *testing.T, first, second string, kind uint8) {
		tops := [][]item{{whiteout("d/a")}, {file("d/a", "b")}, {file("d/a", "a").chmod(0o700)},
			{file("d/a", "a").at(3)}, {file("d", "x")}, {dir("d"), opaque("d")}}
		in := input(0, pack(t, []item{dir("d"), file("d/a", "a"), file("root/.netrc", "key"),
			file("var/log/x", "x"), file("copy", "a")}), pack(t, []item{file("m", "m")}),
			pack(t, tops[int(kind)%len(tops)]))
		in.Instructions[0].Text, in.Instructions[1].Text,
			in.Instructions[2].Text = first, second, second
		r, err := Image(context.Background(), in)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range r.Findings {
			if f.Remedy == "" {
				t.Errorf("no remedy for %+v", f)
			}
		}
	})
}

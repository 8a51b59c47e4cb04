package analyze

import (
	"context"
	"slices"
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
			"remove the COPY at line 2, because line 3 removes or replaces what it copies"},
		{"a name that is a command", [][]item{{dir("t"), file("t/$(id)", "f"), file("t/x", "x")},
			{whiteout("t/$(id)")}}, []string{"COPY t /t", "RUN rm /t/[$]*"},
			"copy only the files that stay after line 3: name them at line 2, or exclude that path there with --exclude=PATTERN"},
		{"a name with a space that RUNs create and remove", [][]item{{file("a b", "f")}, {}, {whiteout("a b")}},
			[]string{`RUN make`, `RUN cat /a*`, `RUN rm /a*`},
			"write the commands of line 2, line 3 and line 4 in one RUN, which creates and removes it"},
		{"instructions of another kind", [][]item{{file("f", "f")}, {whiteout("f")}},
			[]string{"", "UNKNOWN"},
			"line 2 creates it, and line 3 removes or replaces it: create, use and remove it in one RUN instead"},
		{"a touch", [][]item{{file("f", "f")}, {file("f", "f").at(9)}},
			[]string{"COPY f /f", "RUN touch /f && echo"}, "leave out ‘touch /f’ at line 3"},
		{"sed", [][]item{{file("f", "f")}, {file("f", "g")}},
			[]string{"COPY f /f", "RUN sed -i s/f/g/ /f"},
			"change /f before the build; or move the COPY at line 2 and the RUN at line 3 to a new stage with the same FROM and the name changed, and write ‘COPY --from=changed /f /f’ in their place"},
		{"another builder's COPY", [][]item{{file("f", "f")}, {whiteout("f")}},
			[]string{"COPY file:123 in /f", "RUN cat /f && rm /f"},
			"move the COPY at line 2 to a stage of its own: ‘FROM scratch AS copied’; use RUN --mount=type=bind,from=copied,source=/f,target=/f at line 3; leave out ‘rm /f’ at line 3"},
		{"a command that is no list", [][]item{{file("f", "f")}, {whiteout("f")}},
			[]string{"COPY f /f", "RUN if cat /f; then rm /f; fi"},
			"leave out the COPY at line 2; use RUN --mount=type=bind,source=f,target=/mnt/f at line 3; begin the RUN at line 3 with ‘mkdir -p / && cp -a /mnt/f /f &&’"},
		{"a program that removes it", [][]item{{file("f", "f")}, {whiteout("f")}},
			[]string{"COPY f /f", `RUN ["/f"]`},
			"copy /f in the RUN that removes it: write ‘RUN --mount=type=bind,source=f,target=/mnt/f mkdir -p / && cp -a /mnt/f /f && COMMANDS’ instead of line 3, with the commands of line 3 for COMMANDS, and do not copy it at line 2"},
		{"rm of two things", [][]item{{file("f", "f")}, {whiteout("f")}},
			[]string{"COPY f /f", "RUN rm -f /f /tmp/x"},
			"use RUN --mount=type=bind,source=f,target=/f at line 3 instead of the COPY at line 2; write ‘rm -f /tmp/x’ instead of ‘rm -f /f /tmp/x’ at line 3"},
		{"a variable", [][]item{{file("f", "f")}, {whiteout("f")}},
			[]string{"COPY $F /f", "RUN cat /f && rm /f"},
			"move the COPY at line 2 to a stage of its own: ‘FROM scratch AS copied’; use RUN --mount=type=bind,from=copied,source=/f,target=/f at line 3; leave out ‘rm /f’ at line 3"},
		{"chmod of a part", [][]item{{file("app/a", "a"), file("app/b", "b")},
			{file("app/a", "a").chmod(0o755)}}, []string{"COPY app /app", "RUN chmod +x /app/a"},
			"set the mode and the owner with --chmod=MODE --chown=USER:GROUP of the COPY at line 2, and remove the chmod and chown of /app/a at line 3"},
		{"a COPY between that changes the same file",
			[][]item{{file("f", "f")}, {symlink("g", "f")}, {file("g", "h")}, {whiteout("f")}},
			[]string{"RUN make /f", "RUN ln -s f /g", "COPY h /g", "RUN rm /f"},
			"write the commands of line 2, line 3 and line 5 in one RUN, in the place of the last; keep line 3 before the COPY at line 4, which changes the same files"},
		{"a COPY between into a directory that a RUN makes",
			[][]item{{file("f", "f"), dir("d")}, {dir("d").at(9), file("d/x", "x")},
				{whiteout("f")}},
			[]string{"RUN mkdir /d && make /f", "COPY x /d/", "RUN rm /f"},
			"write the commands of line 2 and line 4 in one RUN, in the place of the last; keep line 2 before the COPY at line 3, which changes the same files"},
		{"a COPY between into a directory that was there",
			[][]item{{dir("d")}, {file("f", "f"), dir("d").at(8), file("d/y", "y")},
				{dir("d").at(9), file("d/x", "x")}, {whiteout("f")}},
			[]string{"RUN mkdir /d", "RUN make /f >/d/y", "COPY x /d/", "RUN rm /f"},
			"join the RUNs of line 3 and line 5, so that it is removed in the layer that creates it"},
		{"commands that change their shell", [][]item{{file("f", "f")}, {file("g", "g")}, {whiteout("f")}},
			[]string{"RUN cd /src && make", "RUN set -e; A=1 make g;", "RUN cd / && rm f"},
			"write the commands of line 2, line 3 and line 4 in one RUN, in the place of the last; put those of line 2 and line 3 in parentheses, since they change the shell that runs them, or do not end as a command does"},
		{"commands that do not change their shell", [][]item{{file("f", "f")}, {file("g", "g")}, {whiteout("f")}},
			[]string{"RUN A=1 make if=x", "RUN while make g; do echo cd; done", "RUN rm f"},
			"join the RUNs of line 2, line 3 and line 4, so that it is removed in the layer that creates it"},
		{"a command to which none can be appended", [][]item{{file("f", "f")}, {file("f", "g")}},
			[]string{"RUN set -e; make /f;", "COPY f /f"},
			"end the RUN at line 2 with ‘rm -rf /f’, because line 3 replaces it"},
		{"flags and the JSON form", [][]item{{file("f", "f")}, {whiteout("f")}},
			[]string{"RUN --network=none make", `RUN ["rm", "/f"]`},
			"write the commands of line 2 and line 3 in one RUN, in the place of the last; give it the flags of line 2; write those of line 3 for the shell"},
		{"another user between", [][]item{{file("f", "f")}, {}, {whiteout("f")}},
			[]string{"RUN make /f", "USER 1", "RUN rm /f"},
			"write the commands of line 2 and line 4 in one RUN, in the place of the last; run those after line 3 as user 1, for example with su"},
		{"another directory and another shell between",
			[][]item{{file("f", "f")}, {}, {}, {}, {whiteout("f")}},
			[]string{"RUN make /f", "WORKDIR /src", `SHELL ["/bin/bash", "-c"]`, "WORKDIR a b",
				"RUN rm /f"},
			"write the commands of line 2 and line 6 in one RUN, in the place of the last; put ‘cd /src &&’ before those after line 3; run those after line 4 with its shell; put ‘cd DIR &&’ before those after line 5"},
		{"two in one layer", [][]item{{file("f", "f"), file("f", "g")}}, []string{"RUN make"},
			"the layer has the path twice: build the image with a program that writes each path once, such as layerbuild"},
		{"one file of a wildcard",
			[][]item{{file("d/a", "a"), file("d/b", "b")}, {whiteout("d/a")}},
			[]string{"COPY x* /d/", "RUN rm /d/a"},
			"copy only the files that stay after line 3: name them at line 2, or exclude /d/a there with --exclude=PATTERN"},
		{"one file of an archive that a RUN reads",
			[][]item{{file("d/a", "a"), file("d/b", "b")}, {}, {whiteout("d/a")}},
			[]string{"ADD x.tar /d/", "RUN cat /d/a", "RUN rm /d/a"},
			"copy only /d/a in a new stage before this one, ‘FROM scratch AS copied’; copy the other files at line 2; use RUN --mount=type=bind,from=copied,source=/d/a,target=/d/a at line 3"},
		{"one file of a wildcard that is copied again",
			[][]item{{file("d/a", "a"), file("d/b", "b")},
				{file("d/a", "a").at(9), file("d/c", "c")}},
			[]string{"COPY x* /d/", "COPY y* /d/"},
			"copy /d/a only at line 2: name the other files at line 3, or add --exclude=PATTERN there"},
		{"one file of a wildcard that another COPY replaces",
			[][]item{{file("d/a", "a"), file("d/b", "b")}, {file("d/a", "A")}},
			[]string{"COPY x* /d/", "COPY a /d/a"},
			"copy only the files that stay after line 3: name them at line 2, or exclude /d/a there with --exclude=PATTERN"},
		{"a COPY that replaces a file of a program", [][]item{{file("f", "f")}, {file("f", "g")}},
			[]string{`RUN ["/make"]`, "COPY g /f"},
			"end the RUN at line 2 with ‘rm -rf /f’, because line 3 replaces it"},
		{"a COPY that replaces a file after another RUN",
			[][]item{{file("f", "f")}, {}, {file("f", "g")}},
			[]string{"RUN make", "RUN cat /f", "COPY g /f"},
			"write the commands of line 2 and line 3 in one RUN that ends with ‘rm -rf /f’, because line 4 replaces it"},
		{"files of a program in a directory that has others",
			[][]item{{file("d/a", "a"), file("d/b", "b"), file("d/c", "c")},
				{file("d/a", "A"), file("d/b", "B")}},
			[]string{`RUN ["/make"]`, "COPY x /d"},
			"end the RUN at line 2 with an rm of the files that line 3 replaces, or put the COPY at line 3 before that RUN"},
		{"a file that a program writes again", [][]item{{file("f", "f")}, {file("f", "f").at(9)}},
			[]string{"COPY f /f", "RUN /program"},
			"remove the command of line 3 that writes /f again: its content stays the same"},
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

// TestAdvice checks the texts for waste of the base image and of earlier stages, and for debris.
func TestAdvice(t *testing.T) {
	for _, c := range []struct {
		name string
		base int // number of layers of the base image
		// stage is the stage of the first instruction, which is an earlier one if it is set.
		stage  string
		layers [][]item
		texts  []string
		want   string
	}{
		{name: "waste of the base image", base: 2,
			layers: [][]item{{file("f", "f")}, {whiteout("f")}},
			texts:  []string{"RUN make", "RUN rm /f"},
			want:   "the base image has this waste: name a newer or smaller image in FROM"},
		{name: "a removed file of the base image", base: 1,
			layers: [][]item{{file("f", "f")}, {whiteout("f")}},
			texts:  []string{"RUN make", "RUN rm /f"},
			want:   "line 3 hides files of the base image, which frees nothing: name a smaller image in FROM, or begin with ‘FROM scratch’ and take the files that the image needs with COPY --from=BASE"},
		{name: "an earlier stage of which nothing stays", stage: "first",
			layers: [][]item{{file("f", "f")}, {whiteout("f")}},
			texts:  []string{"RUN make", "RUN rm /f"},
			want:   "an earlier stage creates it, at line 2: write ‘FROM scratch’ instead of ‘FROM first’, and ‘COPY --from=first PATH PATH’ for each path that the image needs"},
		{name: "debris of the base image", base: 1, layers: [][]item{{file("var/log/x", "x")}},
			texts: []string{"RUN make"},
			want:  "the base image has it, and an rm here would free nothing: name an image without it in FROM"},
		{name: "debris of a COPY with a name that needs quotes",
			layers: [][]item{{file("d/a b/.git/x", "x")}}, texts: []string{"COPY . /d"},
			want: "add a pattern for it to .dockerignore, or add --exclude=PATTERN to line 2"},
		{name: "debris of a RUN with a name that needs quotes",
			layers: [][]item{{file("d/a b/.git/x", "x")}}, texts: []string{"RUN git clone"},
			want: "end line 2 with an rm of it"},
		{name: "debris of a program", layers: [][]item{{file("d/.git/x", "x")}},
			texts: []string{`RUN ["git", "clone"]`},
			want:  "end line 2 with the command ‘rm -rf /d/.git’"},
		{name: "debris of a COPY whose owner a RUN changes",
			layers: [][]item{{file("d/.git/x", "x")}, {file("d/.git/x", "x").chown(9)}},
			texts:  []string{"COPY . /d", "RUN chown -R 9 /d"},
			want:   "add ‘**/.git’ to .dockerignore"},
		{name: "debris of the base image's COPY whose owner a RUN changes", base: 1,
			layers: [][]item{{file("d/.git/x", "x")}, {file("d/.git/x", "x").chown(9)}},
			texts:  []string{"COPY . /d", "RUN chown -R 9 /d"},
			want:   "append ‘&& rm -rf /d/.git’ to the RUN at line 3"},
		{name: "debris of a COPY that a RUN replaces",
			layers: [][]item{{file("d/.git/x", "x")}, {file("d/.git/x", "y")}},
			texts:  []string{"COPY . /d", "RUN git gc"},
			want:   "append ‘&& rm -rf /d/.git’ to the RUN at line 3"},
		{name: "a visible secret", layers: [][]item{{file("root/.netrc", "x")}},
			texts: []string{"COPY netrc /root/.netrc"},
			want:  "if it is a secret: keep it out of line 2, use RUN --mount=type=secret,id=.netrc,target=/root/.netrc for the commands that read it, with --secret id=.netrc,src=FILE, and replace the secret by a new one"},
		{name: "a secret of the base image", base: 1, layers: [][]item{{file("root/.netrc", "x")}},
			texts: []string{"RUN login"},
			want:  "if it is a secret: name an image without it in FROM, and replace the secret by a new one"},
		{name: "a leaked secret of the base image", base: 2,
			layers: [][]item{{file("root/.netrc", "x")}, {whiteout("root/.netrc")}},
			texts:  []string{"RUN login", "RUN rm /root/.netrc"},
			want:   "everyone who has the image can read it: name an image without it in FROM, and replace the secret by a new one"},
		{name: "a leaked secret of a RUN",
			layers: [][]item{{file("root/.netrc", "x")}, {whiteout("root/.netrc")}},
			texts:  []string{"RUN login", "RUN rm /root/.netrc"},
			want:   "everyone who has the image can read it: keep it out of line 2, use RUN --mount=type=secret,id=.netrc,target=/root/.netrc for the commands that read it, with --secret id=.netrc,src=FILE, and replace the secret by a new one"},
		{name: "a leaked secret that nobody reads",
			layers: [][]item{{file("root/.netrc", "x")}, {whiteout("root/.netrc")}},
			texts:  []string{"COPY netrc /root/.netrc", "RUN rm /root/.netrc"},
			want:   "everyone who has the image can read it: keep it out of the COPY at line 2, and replace the secret by a new one"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var packed [][]byte
			for _, l := range c.layers {
				packed = append(packed, pack(t, l))
			}
			in := input(c.base, packed...)
			for i := range in.Instructions {
				in.Instructions[i].Text = c.texts[i]
			}
			if c.stage != "" {
				in.Instructions[0].Stage, in.Instructions[0].Owner = c.stage, EarlierStage
			}
			r, err := Image(context.Background(), in)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range r.Findings {
				got = append(got, f.Remedy)
			}
			for _, d := range r.Debris {
				got = append(got, d.Remedy)
			}
			if !slices.Contains(got, c.want) {
				t.Errorf("%q\nwant %s", got, c.want)
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

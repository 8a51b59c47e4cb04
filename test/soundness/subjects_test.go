package soundness

import (
	"maps"
	"slices"
	"strings"
)

// A subject is a step under test, in a stage of its own. Its inputs have names: {name} in its texts
// stands for the value of an input, {i} for the number of the subject in the Dockerfile, {d} for
// its directory in the context, which populate fills.
//
// Each stage begins with the image base, whose directory /o is the stage's result. It has a
// directory p to which all users can write. Every effect of the step must be visible there.
type subject struct {
	name string
	text string // the instructions
	// before are stages before that of the subject.
	before string
	// from is the base of the stage; "" for the image base.
	from string
	// bare is set if the stage has no shell. Then its whole file system is the result.
	bare bool
	// config is set if only the configuration of the image shows a change.
	config bool
	// flags are for the build, separated by spaces.
	flags string
	// vary has the values of the inputs in the texts. The first value of each is the initial one.
	// See hidden and rare.
	vary map[string][]string
	// files are the edits of the files in {d}, named are the edits of the files of the named
	// context x{i}, and web are the edits of the files that are served at {url}/{d}. See hidden and
	// rare.
	files, named, web []string
	// many and git add the files that these edits need.
	many, git bool
}

// Prefixes of values and edits.
const (
	hidden = "-hidden " // the change cannot show in the result
	// only rounds after those of go test have the change, like hidden ones
	rare = "-rare "
)

// rarely returns values with the prefix rare.
func rarely(values ...string) []string {
	var list []string
	for _, v := range values {
		list = append(list, rare+v)
	}
	return list
}

// Commands that show what a command can observe besides files. They start few programs. The network
// is identified by its interfaces or, if it has only one, by its sockets and settings.
const (
	seen = `(while read l; do echo "$l"; done </etc/hosts; ulimit -a; stat -f -c %b /dev/shm; read h </proc/sys/kernel/hostname; echo $h; id; umask; env; pwd; echo $-; ` +
		`while read a b; do [ $a != CapEff: ] || echo $b; done </proc/self/status; n=0; while read l; do n=$((n+1)); done </proc/net/dev; ` +
		`u=0; while read l; do u=1$u; done </proc/net/unix; [ $n -le 3 ] && [ $u = 10 ] || echo net; echo /proc/sys/net/core/*) >>/o/p/seen 2>&1`
	// census shows the names, modes, owners and types of files, but no times: directories that a
	// command has changed have the current time.
	census = `find /o/p ! -name census -exec stat -c '%n %a %u:%g %F %N' {} + | sort >/o/p/census`
)

// sourceStage makes the files of populate with a command, and changes them with {edit}.
const sourceStage = `FROM base AS h{i}
RUN mkdir -p /s/sub; cd /s; echo f >f; echo g >g; chown 1:1 g; echo h >sub/h; ln -s h sub/l; ln f k; touch -d @850000000 f g sub .; {edit}; true
`

// sourceEdits are the values of {edit}.
var sourceEdits = []string{"true", "echo F >f; touch -d @850000000 f", "chmod 600 f", "chown 2:2 g",
	"ln -sfn ../f sub/l", "mv g e", "rm g", "mkdir x",
	"touch -d @850000001 f", "rm k; cp -p f k", "chmod 700 sub", "rm sub/h; mkdir sub/h",
	"rm sub/h; mkfifo -m 644 sub/h", "touch -d @850000001 sub",
	// A device whose record in the digest differs only in the type from that of a hard link to the
	// first file.
	"rm k; mknod -m 644 k c 1 0; touch -d @850000000 k ."}

// Groups of edits of files.
var (
	allEdits = []string{"content", "length", "content below", "mode", "setuid", "time", "attribute",
		"rename", "add", "remove", "link", "link to link",
		"hard link", "file to dir", "file to fifo", "fifo to file", "fifo mode", "dir mode",
		"dir time", "dir attribute", "empty dir",
		hidden + "late time", hidden + "owner", hidden + "middle time"}
	someEdits = []string{"content", "mode", "attribute", "rename", "link"}
)

// imageFlag makes the named context b{i} of a base image.
const imageFlag = "--build-context=b{i}=oci-layout://{images}/{image}"

// mounted returns edits of files for a mount. Busybox does not show extended attributes.
func mounted(edits ...string) []string {
	var list []string
	for _, e := range edits {
		if strings.HasSuffix(e, "attribute") {
			e = hidden + e
		}
		list = append(list, e)
	}
	return list
}

// copyFlags are flags of COPY and ADD.
var (
	copyFlags = []string{"", "--chown=1000:100 ", rare + "--chown=1 ", rare + "--chown=nobody ",
		"--chmod=0640 ", rare + "--chmod=u+x,o-r ", "--link "}
	fewFlags = []string{"", rare + "--chown=1000:100 ", "--chmod=0640 ", rare + "--link "}
)

// subjects have, together, each input of each kind of step.
var subjects = []*subject{
	{name: "run", text: "ARG A={arg}\nARG UNUSED={unused}\nARG B{i}\nENV E={env}\nSHELL {shell}\nUSER {user}\nRUN {flags}echo {word} $A $E $B{i} >/o/p/out; " + seen,
		flags: "--build-arg=B{i}={buildarg} --allow=security.insecure",
		vary: map[string][]string{"arg": {"1", "2"}, "unused": {"1", rare + "2"}, "env": {"1", "2"},
			"buildarg": {"1", "2"}, "word": {"one", "two"},
			"shell": {`["/bin/sh", "-c"]`, `["/bin/sh", "-f", "-c"]`},
			"user":  {"root", "1000:100", rare + "1000:101", rare + "nobody"},
			"flags": {"", "--network=none ", "--security=insecure "}}},
	{name: "run exec", text: `RUN ["touch", "/o/p/{word}"]`,
		vary: map[string][]string{"word": {"one", rare + "two"}}},
	{name: "run heredoc", text: "RUN <<EOF\necho {word} >/o/p/out\nEOF",
		vary: map[string][]string{"word": {"one", rare + "two"}}},
	{name: "run script", text: "RUN <<{tag}\n#!/bin/sh {option}\necho {word} $- $0 >/o/p/out\n{tag}",
		vary: map[string][]string{"word": {"one", rare + "two"}, "option": {"-f", "-e"},
			"tag": {"EOF", rare + "END"}}},
	{name: "workdir", text: "USER {user}\nWORKDIR {path}\nUSER root",
		vary: map[string][]string{"user": {"root", "1000:100"}, "path": {"/o/p/n/o", "/o/p/n"}}},

	{name: "from image", from: "b{i}", flags: imageFlag,
		text: "RUN cp /o/p/img /o/p/out; echo $I $- >/o/p/shell; id >/o/p/id; pwd >/o/p/pwd",
		vary: map[string][]string{
			"image": {"base", "content", "env", "dir", "user", rare + "shell", rare + "trigger"}}},
	{name: "copy from image", text: "COPY --from=b{i} /o/p/img /o/p/out", flags: imageFlag,
		vary: map[string][]string{"image": {"base", "content", hidden + "env"}}},
	{name: "mount an image", text: "RUN --mount=from=b{i},source=/o/p,target=/m cp -a /m/img /o/p/out", flags: imageFlag,
		vary: map[string][]string{"image": {"base", "content", hidden + "env"}}},
	{name: "from stage", before: sourceStage, from: "h{i}", text: "RUN cp -a /s /o/p/s",
		vary: map[string][]string{"edit": sourceEdits[:2]}},
	{name: "from another stage",
		before: "FROM base AS h{i}\nRUN echo 1 >/o/p/out\nFROM base AS g{i}\nRUN echo 2 >/o/p/out\n", from: "{stage}",
		text: "RUN cp /o/p/out /o/p/copy", vary: map[string][]string{"stage": {"h{i}", "g{i}"}}},
	{name: "from context", from: "x{i}", bare: true,
		named: append(rarely(hidden+"middle time", "dir time", "hard link", "mode", "attribute",
			"rename", "link"), "content", hidden+"top time")},

	{name: "copy", text: "COPY {flags}{src} {dest}",
		files: append([]string{"top time"}, allEdits...), vary: map[string][]string{
			"flags": append(copyFlags, "--parents ", "--exclude=g ", rare+"--exclude=sub/h ",
				hidden+"--exclude=nothing "),
			"src": {"{d}", "{d}/sub"}, "dest": {"/o/p/new", "/o/p/to", rare + "/o/p/link"},
			"ignore": {"", "{d}/g", rare + "{d}/sub", rare + "{d}/*\n!{d}/f"}}},
	{name: "copy over a link", text: "COPY {flags}{d}/sub /o/p/link/",
		vary: map[string][]string{"flags": {"--link ", ""}}},
	{name: "copy a file", text: "COPY {flags}{d}/{name} {dest}",
		files: rarely("content", "mode", "time", "attribute"), vary: map[string][]string{
			"flags": fewFlags, "name": {"f", "g", rare + "sub/l"},
			"dest": {"/o/p/to/", "/o/p/one"}}},
	{name: "copy by pattern", text: "COPY {d}/{pattern} /o/p/new/",
		files: append(rarely("remove", hidden+"add late", "content"), "rename"),
		vary:  map[string][]string{"pattern": {"[a-g]*", hidden + "[f-g]*", "f*"}}},
	{name: "copy several", text: "COPY {d}/f {second} /o/p/new/", files: rarely(someEdits[:3]...),
		vary: map[string][]string{"second": {"{d}/g", "{d}/sub"}}},
	{name: "copy heredoc", text: "COPY {flags}<<{name} {dest}\n{word}\n{name}",
		vary: map[string][]string{
			"flags": fewFlags, "name": {"here", "there"}, "word": {"one", "two"},
			"dest": {"/o/p/new/", "/o/p/to/"}}},
	{name: "copy many", text: "COPY {d}/many /o/p/many", many: true,
		files: append(rarely("mode of many", "rename of many"), "one of many")},
	{name: "copy named", text: "COPY --from=x{i} {src} /o/p/new/",
		named: append(rarely(someEdits[1:]...), "content"),
		vary:  map[string][]string{"src": {".", rare + "sub"}}},
	{name: "copy stage", before: sourceStage, text: "COPY {flags}--from=h{i} {src} {dest}",
		vary: map[string][]string{
			"flags": append(copyFlags, "--parents ", "--exclude=g "),
			"src":   {"/s", "/s/sub", "/s/f"},
			"dest":  {"/o/p/new/", "/o/p/to/"}, "edit": sourceEdits}},
	{name: "copy a stage of files", before: "FROM scratch AS h{i}\nCOPY {d} /s/\n",
		text: "COPY --from=h{i} /s /o/p/s", files: append(rarely("hard link", "dir attribute",
			"mode", "rename", "link"), "content", "attribute")},

	{name: "add archive", text: "{verb} {flags}{d}/t.tar {dest}", files: []string{"archive"},
		vary: map[string][]string{
			"verb": {"ADD", "COPY"}, "flags": {"", rare + "--chown=1000:100 ",
				hidden + "--chmod=0640 ",
				rare + "--link ", "--unpack=false "}, "dest": {"/o/p/new/", rare + "/o/p/to/"}}},
	{name: "add url", text: "ADD {flags}{url}/{d}/{name} {dest}",
		web: []string{"length", "time", hidden + "mode"}, vary: map[string][]string{
			"name": {"f", "g"}, "dest": {"/o/p/new/", rare + "/o/p/to/"},
			"flags": append([]string{"",
				hidden + "--checksum={sum} "}, fewFlags[1:]...)}},
	{name: "add url without a tag", text: "ADD {url}/{d}/late /o/p/",
		web: []string{"late content", hidden + "late time"}},
	{name: "add url without a time", text: "ADD {url}/{d}/sub/h /o/p/",
		web: []string{"content below"}},
	{name: "add url of an archive", text: "ADD {flags}{url}/{d}/t.tar /o/p/",
		web: []string{"archive"}, vary: map[string][]string{"flags": {"", "--unpack=true "}}},
	// An index of git has the times and inodes of the files.
	{name: "add git", before: "FROM base AS h{i}\nADD {flags}{url}/{d}/r.git/.git{ref} /g/r\n",
		text: "COPY --from=h{i} --exclude=r/.git/index /g /o/p/", git: true,
		web: []string{"commit"}, vary: map[string][]string{
			"flags": {"", rare + "--keep-git-dir=true "}, "ref": {"#main", rare + "#two"}}},

	{name: "mount", text: "RUN --mount=target=/m{n},source={src}{option} cp -a /m* /o/p/; stat -c '%a %u:%g' /m* >/o/p/stat; (echo w >/m1/w && echo writable >/o/p/w) 2>&1; true",
		files: append(mounted("content", "mode", "rename", "link", "top mode"),
			rarely(mounted("top attribute", "attribute", "time", "hard link", "file to fifo",
				"dir mode", "dir time", "empty dir", hidden+"late time")...)...),
		vary: map[string][]string{"n": {"1", "2"}, "src": {"{d}", "{d}/sub", "{d}/f"},
			"option": {"", ",rw"}, "ignore": {"", "{d}/g"}}},
	{name: "mount named", text: "RUN --mount=from=x{i},target=/m,source={src} cp -a /m /o/p/m",
		named: append(rarely(mounted(someEdits[1:]...)...), "content"),
		vary:  map[string][]string{"src": {"/", rare + "/sub"}}},
	{name: "mount a stage", before: sourceStage,
		text: "RUN --mount=from=h{i},target=/m,source={src} cp -a /m /o/p/m",
		vary: map[string][]string{"src": {"/s", "/s/sub"},
			"edit": append(sourceEdits[:2:2], rarely(sourceEdits[2:6]...)...)}},
	{name: "mount another stage",
		before: "FROM base AS h{i}\nRUN echo 1 >/o/p/out\nFROM base AS g{i}\nRUN echo 2 >/o/p/out\n",
		text:   "RUN --mount=from={stage},source=/o/p,target=/m cp /m/out /o/p/out",
		vary:   map[string][]string{"stage": {"h{i}", "g{i}"}}},
	{name: "cache", text: "RUN --mount=type=cache,id=c{id}{i},target=/c{n}{option} stat -c '%n %a %u:%g' /c* >/o/p/stat; ls /c* >/o/p/ls; " +
		"(echo w >/c1/w && echo writable >/o/p/w; rm -f /c1/w) 2>&1; true",
		vary: map[string][]string{"id": {"c", hidden + "d"}, "n": {"1", "2"},
			"option": {"", ",mode=0700", ",uid=5", rare + ",gid=6", ",ro",
				hidden + ",sharing=locked",
				hidden + ",sharing=private"}}},
	{name: "cache with files",
		text: "RUN --mount=type=cache,id=f{i},target=/c,from=x{i},source={src}{option} cp -a /c/. /o/p/c; stat -c '%a %u:%g' /c >/o/p/stat",
		named: append(rarely(mounted(hidden+"top mode", "dir mode", "mode", "attribute", "rename",
			"link")...), "content"), vary: map[string][]string{
			"src": {"/", "/sub"}, "option": {"", rare + ",mode=0700",
				rare + ",uid=5", rare + ",gid=6"}}},
	{name: "cache with a stage", before: sourceStage,
		text: "RUN --mount=type=cache,id=s{i},target=/c,from=h{i},source=/s cp -a /c/. /o/p/c",
		vary: map[string][]string{"edit": sourceEdits[:2]}},
	{name: "tmpfs", text: "RUN --mount=type=tmpfs,target=/y{n}{size} df -k /y* | tail -1 | tr -s ' ' | cut -d' ' -f2,6 >/o/p/size",
		vary: map[string][]string{"n": {"1", "2"}, "size": {"", ",size=1m", rare + ",size=2m"}}},
	{name: "secret", flags: "--secret=id=s,src={secret}",
		text: "RUN --mount=type=secret,id=s{option} stat -c '%n %a %u:%g' /run/secrets/* >/o/p/stat; env >/o/p/env; true",
		vary: map[string][]string{"option": {"", ",mode=0440", rare + ",uid=7", rare + ",gid=8",
			",target=/run/secrets/t", ",env=SECRET", hidden + ",required=true"}}},
	{name: "ssh", flags: "--ssh=default={socket}",
		text: "RUN --mount=type=ssh{option} echo $SSH_AUTH_SOCK >/o/p/out; stat -c '%n %a %u:%g' $SSH_AUTH_SOCK >/o/p/stat",
		vary: map[string][]string{"option": {"", ",mode=0666", rare + ",uid=7", rare + ",gid=8",
			rare + ",target=/run/agent", hidden + ",required=true"}}},

	{name: "parent of run", text: "RUN {word}\nRUN cp /o/p/par* /o/p/copy; true", vary: parents},
	{name: "parent of copy", text: "RUN {word}\nCOPY {d}/f /o/p/", vary: parents},
	{name: "parent of copy --link", text: "RUN {word}\nCOPY --link {d}/f /o/p/", vary: parents},
	{name: "parent of copy heredoc", text: "RUN {word}\nCOPY <<EOF /o/p/\nhere\nEOF",
		vary: parents},
	{name: "parent of copy --from", before: sourceStage,
		text: "RUN {word}\nCOPY --from=h{i} /s/f /o/p/",
		vary: map[string][]string{"edit": sourceEdits[:1], "word": parents["word"]}},
	{name: "parent of workdir", text: "RUN {word}\nWORKDIR /o/p/n", vary: parents},
	{name: "parent of mount", text: "RUN {word}\nRUN --mount=source={d},target=/m cp /m/f /o/p/f",
		vary: parents},
	{name: "parent of passwd",
		text: "RUN sed -i s/65534/{id}/ /etc/passwd\nCOPY --chown=nobody {d}/f /o/p/",
		vary: map[string][]string{"id": {"65534", "65533"}}},
	{name: "parent of a stage", before: "FROM base AS h{i}\nRUN {word}\nRUN true\n",
		text: "COPY --from=h{i} /o/p /o/p/copy", vary: parents},

	{name: "configuration", config: true,
		text: "ENV E={env}\nLABEL l={label}\nCMD [\"{cmd}\"]\nENTRYPOINT [\"{entrypoint}\"]\nEXPOSE {port}\nVOLUME {volume}\n" +
			"STOPSIGNAL {signal}\nHEALTHCHECK CMD {health}\nONBUILD RUN echo {onbuild}\nMAINTAINER {maintainer}\nSHELL [\"/bin/{shell}\", \"-c\"]\nARG A={arg}\nUSER {user}",
		vary: map[string][]string{"env": {"1", "2"}, "label": {"1", "2"}, "cmd": {"1", "2"},
			"entrypoint": {"1", rare + "2"}, "port": {"1", rare + "2"},
			"volume": {"/v", rare + "/w"}, "signal": {"9", rare + "10"},
			"health": {"true", rare + "false"}, "onbuild": {"1", "2"},
			"maintainer": {"a", rare + "b"},
			"shell":      {"sh", rare + "ash"}, "arg": {"1", "2"}, "user": {"1", "2"}}},
}

// parents are commands before the step under test. The first of each changes nothing.
var parents = map[string][]string{"word": {"true", "echo 1 >/o/p/parent",
	rare + "echo 2 >/o/p/parent"}}

// A change is a new value of one input of a subject.
type change struct {
	of     *subject
	input  string // name of the input; or files, named or web
	value  string // value of the input; or the name of the edit
	hidden bool   // the change cannot show in the result
	rare   bool
}

func newChange(of *subject, input, value string) change {
	c := change{of: of, input: input}
	value, c.rare = strings.CutPrefix(value, rare)
	c.value, c.hidden = strings.CutPrefix(value, hidden)
	c.rare = c.rare || c.hidden
	return c
}

func (c change) String() string {
	if c.of == nil {
		return "nothing"
	}
	return c.of.name + ": " + c.input + ": " + c.value
}

// expand replaces the names of inputs in a text by their values, and then the fixed names.
func expand(text string, values, fixed map[string]string) string {
	for _, set := range []map[string]string{values, fixed} {
		var pairs []string
		for name, value := range set {
			pairs = append(pairs, "{"+name+"}", value)
		}
		text = strings.NewReplacer(pairs...).Replace(text)
	}
	return text
}

// changes lists all changes of a subject.
func (s *subject) changes() []change {
	var list []change
	for _, input := range slices.Sorted(maps.Keys(s.vary)) {
		for _, value := range s.vary[input][1:] {
			list = append(list, newChange(s, input, value))
		}
	}
	for input, edits := range map[string][]string{"files": s.files,
		"named": s.named, "web": s.web} {
		for _, edit := range edits {
			list = append(list, newChange(s, input, edit))
		}
	}
	slices.SortStableFunc(list, func(a, b change) int {
		return strings.Compare(a.String(), b.String())
	})
	return list
}

// global are the flags and the environment of a build, which all steps share. The first value of
// each is the usual one.
var global = map[string][]string{
	"epoch":      {"1000000000", "1100000000", "900000000"},
	"host":       {"", "--add-host=one:10.0.0.1", "--add-host=one:10.0.0.2"},
	"network":    {"", "--network=none"},
	"ulimit":     {"", "--ulimit=nofile=100", "--ulimit=nofile=100:200"},
	"shm":        {"", "--shm-size=1m"},
	"name":       {"", "--build-arg=BUILDKIT_SANDBOX_HOSTNAME=other"},
	"caches":     {"", "--build-arg=BUILDKIT_CACHE_MOUNT_NS=other"},
	"label":      {"", "--label=l=1"},
	"annotation": {"", "--annotation=a=1"},
	"output":     {"", "zstd", "tar"},
	"umask":      {"", "077"},
	"zone":       {"", "Asia/Tokyo"},
}

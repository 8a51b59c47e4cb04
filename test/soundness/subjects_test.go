package soundness

import (
	"maps"
	"slices"
	"strings"
)

// A subject is a step under test, in a stage of its own. Its inputs have names: {name} in its texts stands for the value of an
// input, {i} for the number of the subject in the Dockerfile, {d} for its directory in the context, which populate fills.
//
// Each stage begins with the image base, whose directory /p is the stage's result. Whatever the step does is to show there.
type subject struct {
	name string
	text string // the instructions
	// before are stages before that of the subject.
	before string
	// from is what the stage begins with; "" for the image base.
	from string
	// bare is set where the stage has no shell. Then its result is all of it.
	bare bool
	// config is set where only the configuration of the image shows a change.
	config bool
	// flags are for the build, separated by spaces.
	flags string
	// vary has the values of the inputs in the texts. The first is that before a change. A value that begins with "-hidden "
	// cannot show in the result.
	vary map[string][]string
	// files are the edits of the files in {d}, named those of the files of the named context x{i}, web those of the files that
	// are served at {url}/{d}. With "-hidden " in front they cannot show in the result.
	files, named, web []string
	// many and git add what these edits need.
	many, git bool
}

const hidden = "-hidden "

// Commands that show what a command sees besides files. What a network is shows in the interfaces, and where there is only one
// in the sockets and settings.
const (
	seen = `(cat /etc/hosts; ulimit -a; df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2; hostname; id; umask; env | sort; pwd; echo $-; ` +
		`grep CapEff /proc/self/status; [ $(wc -l </proc/net/dev) -gt 3 ] || [ $(wc -l </proc/net/unix) -gt 1 ] && echo net; ls /proc/sys/net/core) >>/p/seen 2>&1`
	// census shows the names, modes, owners and types of files, but no times: those of directories that a command has changed
	// are the present one.
	census = `find /p ! -name census -exec stat -c '%n %a %u:%g %F %N' {} + | sort >/p/census`
)

// sourceStage makes files as populate does, by a command, and changes them by {edit}.
const sourceStage = `FROM base AS h{i}
RUN mkdir -p /s/sub; cd /s; echo f >f; echo g >g; chown 1:1 g; echo h >sub/h; ln -s h sub/l; ln f k; touch -d @850000000 f g sub .; {edit}; true
`

// sourceEdits are the values of {edit}.
var sourceEdits = []string{"true", "echo F >f; touch -d @850000000 f", "chmod 600 f", "chown 2:2 g", "ln -sfn ../f sub/l", "mv g e", "rm g", "mkdir x",
	"touch -d @850000001 f", "rm k; cp -p f k", "chmod 700 sub", "rm sub/h; mkdir sub/h", "rm sub/h; mkfifo sub/h", "touch -d @850000001 sub"}

// Groups of edits of files.
var (
	allEdits = []string{"content", "length", "content below", "mode", "setuid", "time", "attribute", "rename", "add", "remove", "link", "link to link",
		"hard link", "file to dir", "file to fifo", "fifo to file", "fifo mode", "dir mode", "dir time", "dir attribute", "empty dir",
		hidden + "late time", hidden + "owner", hidden + "middle time"}
	someEdits = []string{"content", "mode", "attribute", "rename", "link"}
)

// imageFlag makes the named context b{i} of a base image.
const imageFlag = "--build-context=b{i}=oci-layout://{images}/{image}"

// mounted returns edits of files that a command sees: busybox does not show extended attributes.
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
	copyFlags = []string{"", "--chown=1000:100 ", "--chown=1 ", "--chown=nobody ", "--chmod=0640 ", "--chmod=u+x,o-r ", "--link "}
	fewFlags  = []string{"", "--chown=1000:100 ", "--chmod=0640 ", "--link "}
)

// subjects have, taken together, each input of each kind of step.
var subjects = []*subject{
	{name: "run", text: "ARG A={arg}\nARG UNUSED={unused}\nARG B{i}\nENV E={env}\nSHELL {shell}\nUSER {user}\nRUN {flags}echo {word} $A $E $B{i} >/p/out; " + seen,
		flags: "--build-arg=B{i}={buildarg} --allow=security.insecure",
		vary: map[string][]string{"arg": {"1", "2"}, "unused": {"1", "2"}, "env": {"1", "2"}, "buildarg": {"1", "2"}, "word": {"one", "two"},
			"shell": {`["/bin/sh", "-c"]`, `["/bin/sh", "-f", "-c"]`}, "user": {"root", "1000:100", "1000:101", "nobody"},
			"flags": {"", "--network=none ", "--security=insecure "}}},
	{name: "run exec", text: `RUN ["touch", "/p/{word}"]`, vary: map[string][]string{"word": {"one", "two"}}},
	{name: "run heredoc", text: "RUN <<EOF\necho {word} >/p/out\nEOF", vary: map[string][]string{"word": {"one", "two"}}},
	{name: "run script", text: "RUN <<{tag}\n#!/bin/sh {option}\necho {word} $- $0 >/p/out\n{tag}",
		vary: map[string][]string{"word": {"one", "two"}, "option": {"-f", "-e"}, "tag": {"EOF", "END"}}},
	{name: "workdir", text: "USER {user}\nWORKDIR {path}\nUSER root",
		vary: map[string][]string{"user": {"root", "1000:100"}, "path": {"/p/n/o", "/p/n"}}},

	{name: "from image", from: "b{i}", flags: imageFlag, text: "RUN cp /p/img /p/out; echo $I; " + seen, vary: map[string][]string{
		"image": {"base", "content", "env", "dir", "user", "shell", "trigger"}}},
	{name: "copy from image", text: "COPY --from=b{i} /p/img /p/out", flags: imageFlag, vary: map[string][]string{"image": {"base", "content", hidden + "env"}}},
	{name: "mount an image", text: "RUN --mount=from=b{i},source=/p,target=/m cp -a /m/img /p/out", flags: imageFlag,
		vary: map[string][]string{"image": {"base", "content", hidden + "env"}}},
	{name: "from stage", before: sourceStage, from: "h{i}", text: "RUN cp -a /s /p/s", vary: map[string][]string{"edit": sourceEdits[:2]}},
	{name: "from another stage", before: "FROM base AS h{i}\nRUN echo 1 >/p/out\nFROM base AS g{i}\nRUN echo 2 >/p/out\n", from: "{stage}",
		text: "RUN cp /p/out /p/copy", vary: map[string][]string{"stage": {"h{i}", "g{i}"}}},
	{name: "from context", from: "x{i}", bare: true, named: append([]string{"top time", "dir time", "hard link", hidden + "middle time"}, someEdits...)},

	{name: "copy", text: "COPY {flags}{src} {dest}", files: append([]string{"top time"}, allEdits...), vary: map[string][]string{
		"flags": append(copyFlags, "--parents ", "--exclude=g ", "--exclude=sub/h ", hidden+"--exclude=nothing "),
		"src":   {"{d}", "{d}/sub"}, "dest": {"/p/to", hidden + "/p/link", "/p/new"}, "ignore": {"", "{d}/g", "{d}/sub", "{d}/*\n!{d}/f"}}},
	{name: "copy over a link", text: "COPY {flags}{d}/sub /p/link/", vary: map[string][]string{"flags": {"--link ", ""}}},
	{name: "copy a file", text: "COPY {flags}{d}/{name} {dest}", files: []string{"content", "mode", "time", "attribute"}, vary: map[string][]string{
		"flags": fewFlags, "name": {"f", "g", "sub/l"}, "dest": {"/p/to/", "/p/one"}}},
	{name: "copy by pattern", text: "COPY {d}/{pattern} /p/new/", files: []string{"rename", "remove", hidden + "add late", "content"},
		vary: map[string][]string{"pattern": {"[a-g]*", hidden + "[f-g]*", "f*"}}},
	{name: "copy several", text: "COPY {d}/f {second} /p/new/", files: someEdits[:3], vary: map[string][]string{"second": {"{d}/g", "{d}/sub"}}},
	{name: "copy heredoc", text: "COPY {flags}<<{name} {dest}\n{word}\n{name}", vary: map[string][]string{
		"flags": fewFlags, "name": {"here", "there"}, "word": {"one", "two"}, "dest": {"/p/to/", "/p/new/"}}},
	{name: "copy many", text: "COPY {d}/many /p/many", many: true, files: []string{"one of many", "mode of many", "rename of many"}},
	{name: "copy named", text: "COPY --from=x{i} {src} /p/new/", named: someEdits, vary: map[string][]string{"src": {".", "sub"}}},
	{name: "copy stage", before: sourceStage, text: "COPY {flags}--from=h{i} {src} {dest}", vary: map[string][]string{
		"flags": append(copyFlags, "--parents ", "--exclude=g "), "src": {"/s", "/s/sub", "/s/f"}, "dest": {"/p/to/", "/p/new/"}, "edit": sourceEdits}},
	{name: "copy a stage of files", before: "FROM scratch AS h{i}\nCOPY {d} /s/\n", text: "COPY --from=h{i} /s /p/s", files: append([]string{"hard link", "dir attribute"}, someEdits...)},

	{name: "add archive", text: "{verb} {flags}{d}/t.tar {dest}", files: []string{"archive"}, vary: map[string][]string{
		"verb": {"ADD", "COPY"}, "flags": {"", "--chown=1000:100 ", hidden + "--chmod=0640 ", "--link ", "--unpack=false "}, "dest": {"/p/to/", "/p/new/"}}},
	{name: "add url", text: "ADD {flags}{url}/{d}/{name} {dest}", web: []string{"length", "time", hidden + "mode"}, vary: map[string][]string{
		"name": {"f", "g"}, "dest": {"/p/to/", "/p/new/"}, "flags": append([]string{"",
			hidden + "--checksum={sum} "}, fewFlags[1:]...)}},
	{name: "add url without a tag", text: "ADD {url}/{d}/late /p/", web: []string{"late content", hidden + "late time"}},
	{name: "add url without a time", text: "ADD {url}/{d}/sub/h /p/", web: []string{"content below"}},
	{name: "add url of an archive", text: "ADD {flags}{url}/{d}/t.tar /p/", web: []string{"archive"}, vary: map[string][]string{"flags": {"", "--unpack=true "}}},
	// An index of git has the times and inodes of the files.
	{name: "add git", before: "FROM base AS h{i}\nADD {flags}{url}/{d}/r.git/.git{ref} /g/r\n", text: "COPY --from=h{i} --exclude=r/.git/index /g /p/", git: true, web: []string{"commit"}, vary: map[string][]string{
		"flags": {"", "--keep-git-dir=true "}, "ref": {"#main", "#two"}}},

	{name: "mount", text: "RUN --mount=target=/m{n},source={src}{option} cp -a /m* /p/; stat -c '%a %u:%g' /m* >/p/stat; (echo w >/m1/w && echo writable >/p/w) 2>&1; true",
		files: mounted("top mode", "top attribute", "content", "mode", "attribute", "time", "rename", "link", "hard link", "file to fifo", "dir mode",
			"dir time", "empty dir", hidden+"late time"), vary: map[string][]string{"n": {"1", "2"}, "src": {"{d}", "{d}/sub", "{d}/f"},
			"option": {"", ",rw"}, "ignore": {"", "{d}/g"}}},
	{name: "mount named", text: "RUN --mount=from=x{i},target=/m,source={src} cp -a /m /p/m", named: mounted(someEdits...), vary: map[string][]string{"src": {"/", "/sub"}}},
	{name: "mount a stage", before: sourceStage, text: "RUN --mount=from=h{i},target=/m,source={src} cp -a /m /p/m",
		vary: map[string][]string{"src": {"/s", "/s/sub"}, "edit": sourceEdits[:6]}},
	{name: "mount another stage", before: "FROM base AS h{i}\nRUN echo 1 >/p/out\nFROM base AS g{i}\nRUN echo 2 >/p/out\n",
		text: "RUN --mount=from={stage},source=/p,target=/m cp /m/out /p/out", vary: map[string][]string{"stage": {"h{i}", "g{i}"}}},
	{name: "cache", text: "RUN --mount=type=cache,id=c{id}{i},target=/c{n}{option} stat -c '%n %a %u:%g' /c* >/p/stat; ls /c* >/p/ls; " +
		"(echo w >/c1/w && echo writable >/p/w; rm -f /c1/w) 2>&1; true", vary: map[string][]string{"id": {"c", hidden + "d"}, "n": {"1", "2"},
		"option": {"", ",mode=0700", ",uid=5", ",gid=6", ",ro", hidden + ",sharing=locked", hidden + ",sharing=private"}}},
	{name: "cache with files", text: "RUN --mount=type=cache,id=f{i},target=/c,from=x{i},source={src}{option} cp -a /c/. /p/c; stat -c '%a %u:%g' /c >/p/stat",
		named: mounted(append([]string{hidden + "top mode", "dir mode"}, someEdits...)...), vary: map[string][]string{"src": {"/", "/sub"}, "option": {"", ",mode=0700", ",uid=5", ",gid=6"}}},
	{name: "cache with a stage", before: sourceStage, text: "RUN --mount=type=cache,id=s{i},target=/c,from=h{i},source=/s cp -a /c/. /p/c",
		vary: map[string][]string{"edit": sourceEdits[:3]}},
	{name: "tmpfs", text: "RUN --mount=type=tmpfs,target=/y{n}{size} df -k /y* | tail -1 | tr -s ' ' | cut -d' ' -f2,6 >/p/size",
		vary: map[string][]string{"n": {"1", "2"}, "size": {"", ",size=1m", ",size=2m"}}},
	{name: "secret", flags: "--secret=id=s,src={secret}", text: "RUN --mount=type=secret,id=s{option} stat -c '%n %a %u:%g' /run/secrets/* >/p/stat; env >/p/env; true",
		vary: map[string][]string{"option": {"", ",mode=0440", ",uid=7", ",gid=8", ",target=/run/secrets/t", ",env=SECRET", hidden + ",required=true"}}},
	{name: "ssh", flags: "--ssh=default={socket}", text: "RUN --mount=type=ssh{option} echo $SSH_AUTH_SOCK >/p/out; stat -c '%n %a %u:%g' $SSH_AUTH_SOCK >/p/stat",
		vary: map[string][]string{"option": {"", ",mode=0666", ",uid=7", ",gid=8", ",target=/run/agent", hidden + ",required=true"}}},

	{name: "parent of run", text: "RUN {word}\nRUN cp /p/par* /p/copy; true", vary: parents},
	{name: "parent of copy", text: "RUN {word}\nCOPY {d}/f /p/", vary: parents},
	{name: "parent of copy --link", text: "RUN {word}\nCOPY --link {d}/f /p/", vary: parents},
	{name: "parent of copy heredoc", text: "RUN {word}\nCOPY <<EOF /p/\nhere\nEOF", vary: parents},
	{name: "parent of copy --from", before: sourceStage, text: "RUN {word}\nCOPY --from=h{i} /s/f /p/",
		vary: map[string][]string{"edit": sourceEdits[:1], "word": parents["word"]}},
	{name: "parent of workdir", text: "RUN {word}\nWORKDIR /p/n", vary: parents},
	{name: "parent of mount", text: "RUN {word}\nRUN --mount=source={d},target=/m cp /m/f /p/f", vary: parents},
	{name: "parent of passwd", text: "RUN sed -i s/65534/{id}/ /etc/passwd\nCOPY --chown=nobody {d}/f /p/", vary: map[string][]string{"id": {"65534", "65533"}}},
	{name: "parent of a stage", before: "FROM base AS h{i}\nRUN {word}\nRUN true\n", text: "COPY --from=h{i} /p /p/copy", vary: parents},

	{name: "configuration", config: true, text: "ENV E={env}\nLABEL l={label}\nCMD [\"{cmd}\"]\nENTRYPOINT [\"{entrypoint}\"]\nEXPOSE {port}\nVOLUME {volume}\n" +
		"STOPSIGNAL {signal}\nHEALTHCHECK CMD {health}\nONBUILD RUN echo {onbuild}\nMAINTAINER {maintainer}\nSHELL [\"/bin/{shell}\", \"-c\"]\nARG A={arg}\nUSER {user}",
		vary: map[string][]string{"env": {"1", "2"}, "label": {"1", "2"}, "cmd": {"1", "2"}, "entrypoint": {"1", "2"}, "port": {"1", "2"},
			"volume": {"/v", "/w"}, "signal": {"9", "10"}, "health": {"true", "false"}, "onbuild": {"1", "2"}, "maintainer": {"a", "b"},
			"shell": {"sh", "ash"}, "arg": {"1", "2"}, "user": {"1", "2"}}},
}

// parents are commands before the step under test, of which the first changes nothing.
var parents = map[string][]string{"word": {"true", "echo 1 >/p/parent", "echo 2 >/p/parent"}}

// A change is one input of a subject with another value than before.
type change struct {
	of     *subject
	input  string // its name; or files, named or web
	value  string // its value; or the name of the edit
	hidden bool   // it cannot show in the result
}

func newChange(of *subject, input, value string) change {
	value, is := strings.CutPrefix(value, hidden)
	return change{of, input, value, is}
}

func (c change) String() string {
	if c.of == nil {
		return "nothing"
	}
	return c.of.name + ": " + c.input + ": " + c.value
}

// expand puts the values of inputs, and then what is the same for all, into a text.
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
	for input, edits := range map[string][]string{"files": s.files, "named": s.named, "web": s.web} {
		for _, edit := range edits {
			list = append(list, newChange(s, input, edit))
		}
	}
	slices.SortStableFunc(list, func(a, b change) int { return strings.Compare(a.String(), b.String()) })
	return list
}

// global are the flags and the environment of a build, which all steps have in common. The first value of each is the usual one.
var global = map[string][]string{
	"epoch":      {"1000000000", "1100000000", "900000000"},
	"host":       {"", "--add-host=one:10.0.0.1", "--add-host=one:10.0.0.2", "--add-host=two:10.0.0.1"},
	"network":    {"", "--network=none"},
	"ulimit":     {"", "--ulimit=nofile=100", "--ulimit=nofile=100:200", "--ulimit=nproc=1000"},
	"shm":        {"", "--shm-size=1m", "--shm-size=2m"},
	"name":       {"", "--build-arg=BUILDKIT_SANDBOX_HOSTNAME=other"},
	"caches":     {"", "--build-arg=BUILDKIT_CACHE_MOUNT_NS=other"},
	"label":      {"", "--label=l=1"},
	"annotation": {"", "--annotation=a=1"},
	"output":     {"", "zstd", "tar"},
	"umask":      {"", "077", "000"},
	"zone":       {"", "Asia/Tokyo"},
}

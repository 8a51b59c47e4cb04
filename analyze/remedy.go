package analyze

import (
	"fmt"
	"path"
	"strings"
)

// verbOf is an instruction's first word, also where a history written by BuildKit or by docker has it.
func verbOf(text string) string {
	text = strings.TrimSpace(text)
	if rest, ok := strings.CutPrefix(text, "/bin/sh -c "); ok {
		rest = strings.TrimSpace(rest)
		if after, ok := strings.CutPrefix(rest, "#(nop)"); ok {
			text = strings.TrimSpace(after)
		} else {
			return "RUN"
		}
	}
	if strings.HasPrefix(text, "|") { // docker's old builder: the number of arguments, and they
		return "RUN"
	}
	word, _, _ := strings.Cut(text, " ")
	return strings.ToUpper(word)
}

// operands are what COPY and ADD copy from, without flags and destination.
func operands(text string) (sources []string) {
	fields := strings.Fields(text)
	if len(fields) == 0 {
		return nil
	}
	for _, f := range fields[1:] {
		f = strings.Trim(f, `[],"`)
		if f != "" && !strings.HasPrefix(f, "--") && f != "#" && f != "buildkit" {
			sources = append(sources, f)
		}
	}
	if len(sources) > 1 {
		return sources[:len(sources)-1]
	}
	return nil
}

// At names an instruction for a sentence: "line 4", or its beginning where lines are not known.
func (i *Instruction) At() string {
	if i.Line > 0 {
		if i.EndLine > i.Line {
			return fmt.Sprintf("lines %d-%d", i.Line, i.EndLine)
		}
		return fmt.Sprintf("line %d", i.Line)
	}
	return "‘" + shorten(i.Text, 40) + "’"
}

func shorten(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// Made is the instruction that made a layer.
func (r *Report) Made(layer int) *Instruction { return &r.Instructions[r.Layers[layer].Instruction] }

// remedy says what to change, as concretely as it can be known.
func (r *Report) remedy(f *Finding) string {
	made, gone := r.Made(f.Creator), r.Made(f.Killer)
	if f.Owner == BaseImage {
		if f.Creator == f.Killer || r.Layers[f.Killer].Owner == BaseImage {
			return "the base image's own waste: a smaller or newer base"
		}
		return fmt.Sprintf("%s cannot free what the base has: take a smaller base, or copy what is needed into one", gone.At())
	}
	copied := verbOf(made.Text) == "COPY" || verbOf(made.Text) == "ADD"
	ran := verbOf(gone.Text) == "RUN"
	switch {
	case f.Creator == f.Killer:
		return "the layer has it twice: whatever made the layer should write it once"
	case f.Reason == RewrittenMetadata && copied && ran:
		return fmt.Sprintf("COPY --chmod=… --chown=… at %s instead of chmod or chown at %s", made.At(), gone.At())
	case f.Reason == RewrittenMetadata:
		return fmt.Sprintf("set mode and owner where it is made: move the chmod or chown of %s to %s", gone.At(), made.At())
	case f.Reason == RewrittenTime:
		return fmt.Sprintf("%s changes nothing but the time: leave it out", gone.At())
	case f.Reason == RewrittenSame:
		return fmt.Sprintf("%s writes again what %s has made: leave out one of the two", gone.At(), made.At())
	}
	if m := cacheMount(f.Path); m != "" && verbOf(made.Text) == "RUN" {
		return fmt.Sprintf("RUN --mount=type=cache,target=%s at %s", m, made.At())
	}
	switch {
	case r.Layers[f.Creator].Owner == EarlierStage:
		return fmt.Sprintf("made in an earlier stage, at %s: COPY --from what is needed instead of FROM that stage", made.At())
	case copied && ran && f.Reason == Overwritten:
		return fmt.Sprintf("change %s before it is copied, or bind it into %s (RUN --mount=type=bind) and write the result only", f.Path, gone.At())
	case copied && ran:
		source, from := bindSource(made.Text, f.Path)
		return fmt.Sprintf("use RUN --mount=type=bind,%ssource=%s,target=%s at %s instead of the %s at %s",
			from, source, strings.TrimSuffix(f.Path, "/"), r.user(f).At(), verbOf(made.Text), made.At())
	case copied:
		return fmt.Sprintf("%s replaces it: leave it out of %s (COPY --exclude, .dockerignore)", gone.At(), made.At())
	case verbOf(made.Text) == "RUN" && ran:
		return fmt.Sprintf("join the RUNs of %s and %s, so that it is removed in the layer that makes it", made.At(), gone.At())
	}
	return fmt.Sprintf("made at %s, gone at %s: make it and remove it in one instruction", made.At(), gone.At())
}

// user is the RUN that seems to need a file: the first after it was made whose text names it, or that which removes it.
func (r *Report) user(f *Finding) *Instruction {
	for i := r.Layers[f.Creator].Instruction + 1; i <= r.Layers[f.Killer].Instruction; i++ {
		if ins := &r.Instructions[i]; verbOf(ins.Text) == "RUN" && strings.Contains(ins.Text, path.Base(f.Path)) {
			return ins
		}
	}
	return r.Made(f.Killer)
}

// bindSource is what a bind mount has to show at a path that a COPY made.
func bindSource(text, file string) (source, from string) {
	for field := range strings.FieldsSeq(text) {
		if stage, ok := strings.CutPrefix(field, "--from="); ok {
			from = "from=" + stage + ","
		}
	}
	sources := operands(text)
	base := path.Base(file)
	for _, s := range sources {
		if path.Base(s) == base {
			return s, from
		}
	}
	if len(sources) == 1 && !strings.ContainsAny(sources[0], "*?[") && !strings.HasPrefix(sources[0], "file:") && !strings.HasPrefix(sources[0], "dir:") {
		return sources[0], from
	}
	return strings.Trim(base, "/"), from
}

// cacheMount is the directory to mount a cache at, for files that belong into one.
func cacheMount(file string) string {
	for p := strings.TrimSuffix(file, "/"); p != "/" && p != "."; p = path.Dir(p) {
		switch kind := debrisDir(path.Base(p), func() string { return p }); kind {
		case PackageLists, LanguageCache:
			return p
		}
	}
	return ""
}

func (r *Report) debrisRemedy(d *Debris) string {
	made := r.Made(d.Layer)
	if d.Owner == BaseImage && d.Kind != Secret {
		return "the base image has it: a rm here would hide it and free nothing"
	}
	switch d.Kind {
	case Secret:
		if d.Dead {
			return fmt.Sprintf("whoever has the image can read it: use RUN --mount=type=secret instead of %s, and change the secret", made.At())
		}
		return "if it is a secret: RUN --mount=type=secret, and nothing of it in the image"
	case PackageLists, LanguageCache:
		if m := cacheMount(d.Path); m != "" && verbOf(made.Text) == "RUN" {
			return fmt.Sprintf("RUN --mount=type=cache,target=%s at %s", m, made.At())
		}
		return fmt.Sprintf("remove it in %s itself", made.At())
	case VersionControl:
		return "put it into .dockerignore"
	case Logs:
		return fmt.Sprintf("remove it at the end of %s", made.At())
	case Bytecode:
		return fmt.Sprintf("ENV PYTHONDONTWRITEBYTECODE=1 before %s, if the start may take longer", made.At())
	}
	return fmt.Sprintf("remove it at the end of %s", made.At())
}

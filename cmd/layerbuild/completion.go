package main

import (
	"fmt"
	"strings"
)

// shells are the shells for which there are completions.
var shells = [...]struct {
	name   string
	script func([]verbCompletion) string
}{
	{"bash", bashCompletion}, {"zsh", zshCompletion}, {"fish", fishCompletion},
}

// completion is a kind of words that complete a value or an argument.
type completion int

const (
	completeNothing completion = iota
	completeWords              // a fixed set of values
	completeVerbs
	completeFiles
	completeDirs
	completeImages
	completeImagesOrFiles
	completeTargets // of bake
)

// verbCompletion is a verb with the kinds of words that complete its arguments and its flags.
type verbCompletion struct {
	verb
	arguments completion
	onlyFirst bool // the other arguments belong to a command
	flags     []flagCompletion
}

// flagCompletion is a flag with the kind of words that complete its value.
type flagCompletion struct {
	flagInfo
	value completion
}

// completionsOf returns the completions of verbs.
func completionsOf(all []verb) []verbCompletion {
	list := make([]verbCompletion, 0, len(all))
	for _, v := range all {
		c := verbCompletion{verb: v, onlyFirst: v.name == "run"}
		switch name, rest, _ := strings.Cut(v.args, "|"); {
		case v.args == "CONTEXT", v.args == "[CONTEXT]":
			c.arguments = completeDirs
		case v.words != nil:
			c.arguments = completeWords
		case v.args == "[VERB]":
			c.arguments = completeVerbs
		case v.args == "[TARGET…]":
			c.arguments = completeTargets
		case name == "IMAGE" && rest != "":
			c.arguments = completeImagesOrFiles
		case strings.HasPrefix(name, "IMAGE"):
			c.arguments = completeImages
		}
		for _, g := range flagsOf(v) {
			for _, f := range g.flags {
				c.flags = append(c.flags, flagCompletion{f, f.completion()})
			}
		}
		list = append(list, c)
	}
	return list
}

// completion returns the kind of words that complete the value of a flag.
func (f flagInfo) completion() completion {
	if len(f.values) > 0 {
		return completeWords
	}
	switch f.placeholder {
	case "FILE", "SPEC":
		return completeFiles
	case "DIR":
		return completeDirs
	case "IMAGE":
		return completeImages
	}
	return completeNothing
}

// isList reports whether the value has items separated by commas.
func (f flagInfo) isList() bool { return strings.HasSuffix(f.placeholder, ",…") }

// takesWord reports whether the word after the flag is its value.
func (f flagInfo) takesWord() bool { return f.placeholder != "" && !f.optional }

// bashActions are the values of the variable action in the script for bash.
var bashActions = [...]string{"nothing", "words", "verbs", "files", "dirs", "images",
	"images files", "targets"}

// bashCompletion returns the script for bash. It does not need the package bash-completion.
func bashCompletion(all []verbCompletion) string {
	var b strings.Builder
	b.WriteString(
		"# bash completion for layerbuild, made by 'layerbuild gen-docs completion bash'\n\n")
	b.WriteString("_layerbuild_verbs='" + verbNames(all) + "'\n\n")
	b.WriteString(`# _layerbuild_verb sets flags, and action, values and first for the arguments, of the verb $1.
_layerbuild_verb() {
	first=
	case $1 in
`)
	for _, v := range all {
		var flags []string
		for _, f := range v.flags {
			flags = append(flags, "--"+f.name)
		}
		first := ""
		if v.onlyFirst {
			first = " first=1"
		}
		values := ""
		if v.words != nil {
			values = " values='" + strings.Join(v.words, " ") + "'"
		}
		fmt.Fprintf(&b, "\t%s) action='%s'%s%s flags='%s' ;;\n", v.name,
			bashActions[v.arguments], values, first, strings.Join(flags, " "))
	}
	b.WriteString(`	esac
}

# _layerbuild_flag sets action, values and list for the flag $2 of the verb $1. It returns 1 if the
# next word is not the value of the flag; after "=", it is called with "=" as $3.
_layerbuild_flag() {
	values= list= action=nothing
	case $1$2$3 in
`)
	for _, v := range all {
		for _, f := range v.flags {
			if f.placeholder == "" {
				continue
			}
			pattern := v.name + "--" + f.name
			if f.optional {
				pattern += "="
			} else {
				pattern += "|" + pattern + "="
				if f.short != "" {
					pattern += "|" + v.name + "-" + f.short
				}
			}
			fmt.Fprintf(&b, "\t%s) action='%s'", pattern, bashActions[f.value])
			if len(f.values) > 0 {
				fmt.Fprintf(&b, " values='%s'", strings.Join(f.values, " "))
			}
			if f.isList() {
				b.WriteString(" list=1")
			}
			b.WriteString(" ;;\n")
		}
	}
	b.WriteString(bashEngine)
	return b.String()
}

const bashEngine = `	*) return 1 ;;
	esac
}

# _layerbuild_images prints the names of the images in the store.
_layerbuild_images() {
	layerbuild images 2>/dev/null | while IFS=' ' read -r name _; do
		case $name in NAME | '<none>') ;; *) printf '%s\n' "$name" ;; esac
	done
}

# _layerbuild_targets prints the names of the targets of bake files.
_layerbuild_targets() {
	layerbuild bake --list targets 2>/dev/null | while IFS=$' \t' read -r name _; do
		case $name in TARGET) ;; *) printf '%s\n' "$name" ;; esac
	done
}

_layerbuild() {
	# The words before the cursor. COMP_WORDS is not used: it has words that are split at = and :.
	local line=${COMP_LINE:0:COMP_POINT} words cur verb= flag= flags= first= action=nothing values= list= arguments=0 i word
	read -r -a words <<<"$line"
	case $line in *[[:space:]]) words+=('') ;; esac
	cur=${words[${#words[@]} - 1]}
	for ((i = 1; i < ${#words[@]} - 1; i++)); do
		word=${words[i]}
		if [[ $flag ]]; then
			flag= # the word is its value
			continue
		fi
		if [[ $verb == run && $arguments -gt 0 ]]; then
			return # the command in the container
		fi
		case $word in
		--root | --driver) flag=$word ;;
		--root=* | --driver=*) ;;
		-?*)
			verb=${verb:-build}
			if _layerbuild_flag "$verb" "$word" ''; then flag=$word; fi
			;;
		*)
			if [[ ! $verb && " $_layerbuild_verbs " == *" $word "* ]]; then
				verb=$word
			else
				verb=${verb:-build} arguments=$((arguments + 1))
			fi
			;;
		esac
	done

	COMPREPLY=()
	local prefix= candidates=()
	if [[ $flag ]]; then
		_layerbuild_flag "${verb:-build}" "$flag" ''
	elif [[ $cur == --*=* ]]; then
		flag=${cur%%=*} prefix=${cur%%=*}=
		_layerbuild_flag "${verb:-build}" "$flag" = || return
	else
		_layerbuild_verb "${verb:-build}"
		if [[ $first && $arguments -gt 0 ]]; then
			return
		elif [[ $cur == -* ]]; then
			action=words values=$flags
		elif [[ ! $verb ]]; then
			candidates=($(compgen -W "$_layerbuild_verbs" -- "$cur"))
		fi
	fi
	local value=${cur#"$prefix"}
	if [[ $list && $value == *,* ]]; then
		prefix=$prefix${value%,*}, value=${value##*,}
	fi
	local IFS=$'\n'
	case " $action " in *' words '*) candidates+=($(IFS=$' \t\n' compgen -W "$values" -- "$value")) ;; esac
	case " $action " in *' verbs '*) candidates+=($(IFS=$' \t\n' compgen -W "$_layerbuild_verbs" -- "$value")) ;; esac
	case " $action " in *' images '*) candidates+=($(compgen -W "$(_layerbuild_images)" -- "$value")) ;; esac
	case " $action " in *' targets '*) candidates+=($(compgen -W "$(_layerbuild_targets)" -- "$value")) ;; esac
	case " $action " in *' files '*) candidates+=($(compgen -f -- "$value")) ;; esac
	case " $action " in *' dirs '*) candidates+=($(compgen -d -- "$value")) ;; esac
	case " $action " in *' files '* | *' dirs '*) compopt -o filenames 2>/dev/null ;; esac

	# Bash replaces only what is after the last = or : of the word.
	local kept=
	if [[ $COMP_WORDBREAKS == *=* && $cur == *=* ]]; then kept=${cur%"${cur##*=}"}; fi
	if [[ $COMP_WORDBREAKS == *:* && ${cur#"$kept"} == *:* ]]; then kept=${cur%"${cur##*:}"}; fi
	for word in "${candidates[@]}"; do
		word=$prefix$word
		COMPREPLY+=("${word#"$kept"}")
	done
}

complete -F _layerbuild layerbuild
`

// verbNames returns the verbs that complete the first word.
func verbNames(all []verbCompletion) string {
	var names []string
	for _, v := range all {
		names = append(names, v.name)
	}
	return strings.Join(names, " ")
}

// zshActions are the actions of _arguments for zsh.
var zshActions = [...]string{" ", "", "_layerbuild_verbs", "_files", "_files -/",
	"_layerbuild_images", "_layerbuild_images_or_files", "_layerbuild_targets"}

// zshCompletion returns the script for zsh.
func zshCompletion(all []verbCompletion) string {
	var b strings.Builder
	b.WriteString(`#compdef layerbuild
# zsh completion for layerbuild, made by 'layerbuild gen-docs completion zsh'

_layerbuild_images() {
	local -a names
	names=(${${(f)"$(layerbuild images 2>/dev/null)"}%% *})
	names=(${names:#(NAME|<none>)})
	compadd -a names
}

_layerbuild_targets() {
	local -a names
	names=(${${(f)"$(layerbuild bake --list targets 2>/dev/null)"}%%[[:space:]]*})
	names=(${names:#TARGET})
	compadd -a names
}

_layerbuild_verbs() {
	_describe -t verbs verb verbs # the variable of _layerbuild
}

_layerbuild_images_or_files() {
	_layerbuild_images
	_files
}

`)
	for _, v := range all {
		fmt.Fprintf(&b, "_layerbuild_verb_%s() {\n\t_arguments -s", v.name)
		for _, f := range v.flags {
			names := []string{"--" + f.name}
			if f.short != "" {
				names = append(names, "-"+f.short)
			}
			for _, name := range names {
				b.WriteString(" \\\n\t\t" + zshQuote(zshFlag(f, name, names)))
			}
		}
		switch {
		case v.onlyFirst:
			b.WriteString(" \\\n\t\t" + zshQuote("1:"+v.args[:5]+":"+zshActions[v.arguments]) +
				" \\\n\t\t'*::COMMAND: '")
		case v.words != nil:
			b.WriteString(" \\\n\t\t" + zshQuote("1:"+zshText(v.args)+":("+
				strings.Join(v.words, " ")+")") + " \\\n\t\t'*::ARG: '")
		case v.args != "":
			b.WriteString(" \\\n\t\t" + zshQuote("*:"+zshText(v.args)+":"+zshActions[v.arguments]))
		}
		b.WriteString("\n}\n\n")
	}
	b.WriteString("_layerbuild() {\n\tlocal -a verbs\n\tverbs=(\n")
	for _, v := range all {
		b.WriteString("\t\t" + zshQuote(v.name+":"+v.summary) + "\n")
	}
	b.WriteString(`	)
	local verb=build
	integer i=2
	while ((i < CURRENT)); do # --root and --driver may stand before the verb
		case $words[i] in
		--root | --driver) ((i += 2)) ;;
		--root=* | --driver=*) ((i++)) ;;
		*) break ;;
		esac
	done
	if ((i == CURRENT)) && [[ $words[i] != -* ]]; then
		_layerbuild_verbs
	elif ((i < CURRENT && ${verbs[(I)$words[i]:*]})); then
		verb=$words[i]
		words[i]=()
		((CURRENT--))
	fi
	_layerbuild_verb_$verb
}

if [[ $funcstack[1] == _layerbuild ]]; then
	_layerbuild "$@"
else
	compdef _layerbuild layerbuild
fi
`)
	return b.String()
}

// zshFlag returns the specification of a flag for _arguments.
func zshFlag(f flagCompletion, name string, names []string) string {
	spec := ""
	switch {
	case strings.HasSuffix(f.text, "(repeatable)") || f.isList():
		spec = "*"
	case len(names) > 1:
		spec = "(" + strings.Join(names, " ") + ")"
	}
	spec += name
	switch {
	case f.optional && f.placeholder != "":
		spec += "=-"
	case f.placeholder != "" && strings.HasPrefix(name, "--"):
		spec += "="
	case f.placeholder != "":
		spec += "+"
	}
	spec += "[" + zshText(f.text) + "]"
	if f.placeholder == "" {
		return spec
	}
	action := zshActions[f.value]
	if f.value == completeWords {
		action = "(" + strings.Join(f.values, " ") + ")"
		if f.isList() {
			action = "_values -s , value " + strings.Join(f.values, " ")
		}
	}
	if f.optional {
		spec += ":"
	}
	return spec + ":" + zshText(f.placeholder) + ":" + action
}

// zshText escapes text in a specification.
func zshText(s string) string {
	return strings.NewReplacer(`\`, `\\`, ":", `\:`, "[", `\[`, "]", `\]`).Replace(s)
}

func zshQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// fishActions are the arguments of complete for fish. Without -F there are no files.
var fishActions = [...]string{
	" -f", " -f", " -f", " -F", " -f -a '(__fish_complete_directories)'",
	" -f -a '(__layerbuild_images)'",
	" -F -a '(__layerbuild_images)'", " -f -a '(__layerbuild_targets)'",
}

// fishCompletion returns the script for fish.
func fishCompletion(all []verbCompletion) string {
	var b strings.Builder
	b.WriteString(`# fish completion for layerbuild, made by 'layerbuild gen-docs completion fish'

# __layerbuild_is succeeds if the verb of the command line is $argv[1]. Without a verb it is build; for
# the verb "" it succeeds if there may still be one.
function __layerbuild_is
    set -l words (commandline -opc)
    set -e words[1]
    while set -q words[1]
        switch $words[1]
            case --root --driver
                set -e words[1]
            case '--root=*' '--driver=*'
            case '*'
                break
        end
        set -e words[1]
    end
    if not set -q words[1]
        test "$argv[1]" = '' -o "$argv[1]" = build
    else if contains -- $words[1] ` + verbNames(all) + `
        test "$argv[1]" = $words[1]
    else
        test "$argv[1]" = build
    end
end

function __layerbuild_images
    layerbuild images 2>/dev/null | string match -rv '^(NAME|<none>) ' | string replace -r ' .*' ''
end

function __layerbuild_targets
    layerbuild bake --list targets 2>/dev/null | string replace -r '\\s.*' '' | string match -v TARGET
end

complete -c layerbuild -f
`)
	line := func(verb, rest string) {
		fmt.Fprintf(&b, "complete -c layerbuild -n \"__layerbuild_is '%s'\"%s\n", verb, rest)
	}
	for _, v := range all {
		line("", " -a "+v.name+" -d "+fishQuote(v.summary))
	}
	for _, v := range all {
		switch v.arguments {
		case completeNothing:
		case completeWords:
			line(v.name, " -f -a "+fishQuote(strings.Join(v.words, " ")))
		case completeVerbs:
			for _, word := range all {
				line(v.name, " -a "+word.name+" -d "+fishQuote(word.summary))
			}
		default:
			line(v.name, fishActions[v.arguments])
		}
		for _, f := range v.flags {
			spec := " -l " + f.name
			if f.short != "" {
				spec = " -s " + f.short + spec
			}
			if f.placeholder != "" {
				if f.takesWord() {
					spec += " -r"
				}
				spec += fishActions[f.value]
			}
			if f.value == completeWords {
				spec += " -a " + fishQuote(strings.Join(f.values, " "))
			}
			line(v.name, spec+" -d "+fishQuote(f.text))
		}
	}
	return b.String()
}

func fishQuote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'"
}

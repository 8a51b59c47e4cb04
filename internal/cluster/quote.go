package cluster

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// maxName limits the names of nodes, and maxSuffix the platforms after them. The name of a Job of
// Kubernetes has up to 63 bytes: "layerbuild-", an ID of eight digits, a dash, the name of the
// node, a dash and the platform.
const (
	maxName   = 28
	maxSuffix = 14
)

// nodeName returns the name of the node of a stage. It is a name as in RFC 1123: small letters,
// digits and dashes, with a letter or a digit at both ends.
func nodeName(index int, stage string) string {
	return cut(fmt.Sprintf("s%d-%s", index, Label(stage)), maxName)
}

// Label returns a text as a part of a name as in RFC 1123. Different texts may have the same label.
func Label(s string) string {
	var b strings.Builder
	for _, c := range []byte(strings.ToLower(s)) {
		switch {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
			b.WriteByte(c)
		case b.Len() > 0:
			b.WriteByte('-')
		}
	}
	return strings.TrimRight(b.String(), "-")
}

// cut returns the beginning of a name that is at most n bytes long.
func cut(name string, n int) string {
	return strings.Trim(name[:min(len(name), n)], "-")
}

// ShellLine returns a command line for a POSIX shell.
func ShellLine(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = shellWord(w)
	}
	return strings.Join(quoted, " ")
}

func shellWord(s string) string {
	plain := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			strings.ContainsRune("@%+=:,./-_", c)
	}
	if s != "" && strings.IndexFunc(s, func(c rune) bool { return !plain(c) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// text returns a YAML scalar in double quotes. The escapes of Go are among those of YAML; the
// string must be UTF-8, since \xff in YAML is a character.
func text(s string) string { return strconv.QuoteToASCII(s) }

// comment returns a text as one line of a comment.
func comment(s string) string {
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return '?'
		}
		return c
	}, s)
}

// asArgument writes a word as an argument of a container of Kubernetes, which replaces $(NAME) and
// takes $$ as a dollar sign.
func asArgument(s string) string { return strings.ReplaceAll(s, "$", "$$") }

// The variables LAYERBUILD_BRACE and LAYERBUILD_DOLLAR of containers have the characters with which
// references of an engine begin. Kubernetes inserts their values after the engine has replaced its
// references.

// asWorkflowArgument is like asArgument, for Argo, which also replaces {{NAME}}.
func asWorkflowArgument(s string) string {
	return strings.ReplaceAll(asArgument(s), "{{", "{$(LAYERBUILD_BRACE)")
}

// asPipelineArgument is like asArgument, for Tekton, which replaces $(params.NAME) and the like and
// knows no $$ in them.
func asPipelineArgument(s string) string {
	return strings.ReplaceAll(s, "$", "$(LAYERBUILD_DOLLAR)")
}

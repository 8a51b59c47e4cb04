package sbom

import (
	"net/url"
	"slices"
	"strings"
)

// setPURL sets the package URL of a package
// (https://github.com/package-url/purl-spec). The names of Go modules keep their case, contrary to
// the specification: the case is part of the name, and readers that ignore it can still do so.
func (p *Package) setPURL(d Distro) {
	namespace, name := p.group, p.Name
	var qualifiers []string
	add := func(key, value string) {
		if value != "" {
			qualifiers = append(qualifiers, key+"="+escape(value))
		}
	}
	switch p.Type {
	case Deb, APK, RPM:
		namespace = strings.ToLower(d.ID)
		if p.Type != RPM {
			name = strings.ToLower(name)
		}
		add("arch", p.Arch)
		if d.ID != "" {
			distro := d.ID
			if d.Version != "" {
				distro += "-" + d.Version
			}
			add("distro", distro)
		}
		p.addSource(add)
	case Go:
		if i := strings.LastIndexByte(name, '/'); i >= 0 {
			namespace, name = name[:i], name[i+1:]
		}
	case NPM:
		if scope, rest, ok := strings.Cut(name, "/"); ok {
			namespace, name = scope, rest
		}
	case Python:
		name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
	}
	p.PURL = joinPURL(string(p.Type), namespace, name, p.version(add), qualifiers)
}

// addSource adds the qualifier upstream, which names the source package and is read by scanners of
// vulnerabilities.
func (p *Package) addSource(add func(key, value string)) {
	switch {
	case p.Source != "" && p.SourceVersion != "":
		add("upstream", p.Source+"@"+p.SourceVersion)
	case p.SourceVersion != "":
		add("upstream", p.Name+"@"+p.SourceVersion)
	default:
		add("upstream", p.Source)
	}
}

// version returns the version for the package URL. The epoch of an rpm is a qualifier there.
func (p *Package) version(add func(key, value string)) string {
	if p.Type != RPM {
		return p.Version
	}
	epoch, version, ok := strings.Cut(p.Version, ":")
	if !ok {
		return p.Version
	}
	add("epoch", epoch)
	return version
}

func joinPURL(kind, namespace, name, version string, qualifiers []string) string {
	var b strings.Builder
	b.WriteString("pkg:" + kind)
	for part := range strings.SplitSeq(namespace, "/") {
		if part != "" {
			b.WriteString("/" + escape(part))
		}
	}
	b.WriteString("/" + escape(name))
	if version != "" {
		b.WriteString("@" + escape(version))
	}
	slices.Sort(qualifiers)
	for i, q := range qualifiers {
		b.WriteByte("?&"[min(i, 1)])
		b.WriteString(q)
	}
	return b.String()
}

// escape encodes a part of a package URL: all but letters, digits, ".-_~" and the colon.
func escape(s string) string {
	s = strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
	return strings.ReplaceAll(s, "%3A", ":")
}

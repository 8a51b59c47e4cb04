package bake

import (
	"maps"
	"slices"
	"strconv"
)

// Target describes one build. The names of the JSON form are those of the attributes in the files.
type Target struct {
	Name        string `json:"-"`
	Description string `json:"description,omitempty"`

	Inherits         []string           `json:"inherits,omitempty"`
	Annotations      []string           `json:"annotations,omitempty"`
	Attest           []Entry            `json:"attest,omitempty"`
	Context          *string            `json:"context,omitempty"`
	Contexts         map[string]string  `json:"contexts,omitempty"`
	Dockerfile       *string            `json:"dockerfile,omitempty"`
	DockerfileInline *string            `json:"dockerfile-inline,omitempty"`
	Args             map[string]*string `json:"args,omitempty"`
	Labels           map[string]*string `json:"labels,omitempty"`
	Tags             []string           `json:"tags,omitempty"`
	CacheFrom        []Entry            `json:"cache-from,omitempty"`
	CacheTo          []Entry            `json:"cache-to,omitempty"`
	Target           *string            `json:"target,omitempty"`
	Secrets          []Entry            `json:"secret,omitempty"`
	SSH              []SSH              `json:"ssh,omitempty"`
	Platforms        []string           `json:"platforms,omitempty"`
	Outputs          []Entry            `json:"output,omitempty"`
	Pull             *bool              `json:"pull,omitempty"`
	NoCache          *bool              `json:"no-cache,omitempty"`
	Network          *string            `json:"network,omitempty"`
	NoCacheFilter    []string           `json:"no-cache-filter,omitempty"`
	ShmSize          *string            `json:"shm-size,omitempty"`
	Ulimits          []string           `json:"ulimits,omitempty"`
	Resources        *Resources         `json:"resources,omitempty"`
	Call             *string            `json:"call,omitempty"`
	Entitlements     []string           `json:"entitlements,omitempty"`
	ExtraHosts       map[string]*string `json:"extra-hosts,omitempty"`
	Policy           []Policy           `json:"policy,omitempty"`

	// Linked is set for a target that is built only because others have it as a context.
	Linked bool `json:"-"`

	// InCwd is set for a context that begins with cwd://, which Context does not have: it is a
	// directory of this machine if the file is elsewhere.
	InCwd bool `json:"-"`

	// file is the file that defines the target, and line the line; 0 if it is not known.
	file string
	line int
}

// Policy is a policy for the sources of a build.
type Policy Entry

// String returns the policy in the form of --policy.
func (p Policy) String() string { return Entry(p).String() }

// Resources are limits for the commands of RUN.
type Resources struct {
	Memory     *string `json:"memory,omitempty"`
	MemorySwap *string `json:"memory-swap,omitempty"`
	CPUShares  *int64  `json:"cpu-shares,omitempty"`
	CPUPeriod  *int64  `json:"cpu-period,omitempty"`
	CPUQuota   *int64  `json:"cpu-quota,omitempty"`
	CPUSetCPUs *string `json:"cpuset-cpus,omitempty"`
	CPUSetMems *string `json:"cpuset-mems,omitempty"`
}

// Group is a name for several targets and groups.
type Group struct {
	Name        string   `json:"-"`
	Description string   `json:"description,omitempty"`
	Targets     []string `json:"targets"`
}

// List returns the limits as NAME=VALUE.
func (r *Resources) List() []string {
	if r == nil {
		return nil
	}
	var list []string
	for _, limit := range []struct {
		name string
		text *string
		n    *int64
	}{
		{"memory", r.Memory, nil}, {"memory-swap", r.MemorySwap, nil},
		{"cpu-shares", nil, r.CPUShares}, {"cpu-period", nil, r.CPUPeriod},
		{"cpu-quota", nil, r.CPUQuota}, {"cpuset-cpus", r.CPUSetCPUs, nil},
		{"cpuset-mems", r.CPUSetMems, nil},
	} {
		if limit.text != nil {
			list = append(list, limit.name+"="+*limit.text)
		}
		if limit.n != nil {
			list = append(list, limit.name+"="+strconv.FormatInt(*limit.n, 10))
		}
	}
	return list
}

// override sets *old to value if value is not nil.
func override[T any](old **T, value *T) {
	if value != nil {
		*old = value
	}
}

// overrideList sets *old to a copy of list if list is not nil.
func overrideList[T any](old *[]T, list []T) {
	if list != nil {
		*old = slices.Clone(list)
	}
}

// appendTo appends list to *old, in memory of its own.
func appendTo[T any](old *[]T, list []T) {
	if list != nil {
		*old = slices.Concat(*old, list)
	}
}

// overrideKeys sets the keys of *old that values has with a value.
func overrideKeys(old *map[string]*string, values map[string]*string) {
	for key, value := range values {
		if value == nil {
			continue
		}
		if *old == nil {
			*old = map[string]*string{}
		}
		(*old)[key] = value
	}
}

// merge changes t as other, which is defined later or inherits from t, says.
func (t *Target) merge(other *Target) {
	override(&t.Context, other.Context)
	override(&t.Dockerfile, other.Dockerfile)
	override(&t.DockerfileInline, other.DockerfileInline)
	override(&t.Target, other.Target)
	override(&t.Call, other.Call)
	override(&t.Pull, other.Pull)
	override(&t.NoCache, other.NoCache)
	override(&t.Network, other.Network)
	override(&t.ShmSize, other.ShmSize)
	if other.Description != "" {
		t.Description = other.Description
	}
	overrideKeys(&t.Args, other.Args)
	overrideKeys(&t.Labels, other.Labels)
	overrideKeys(&t.ExtraHosts, other.ExtraHosts)
	if len(other.Contexts) > 0 {
		merged := maps.Clone(t.Contexts)
		if merged == nil {
			merged = map[string]string{}
		}
		maps.Copy(merged, other.Contexts)
		t.Contexts = merged
	}
	overrideList(&t.Tags, other.Tags)
	overrideList(&t.Platforms, other.Platforms)
	overrideList(&t.CacheTo, other.CacheTo)
	overrideList(&t.Outputs, other.Outputs)
	appendTo(&t.Annotations, other.Annotations)
	appendTo(&t.Attest, other.Attest)
	appendTo(&t.Secrets, other.Secrets)
	appendTo(&t.SSH, other.SSH)
	appendTo(&t.CacheFrom, other.CacheFrom)
	appendTo(&t.NoCacheFilter, other.NoCacheFilter)
	appendTo(&t.Ulimits, other.Ulimits)
	appendTo(&t.Entitlements, other.Entitlements)
	appendTo(&t.Policy, other.Policy)
	appendTo(&t.Inherits, other.Inherits)
	t.Resources = t.Resources.merge(other.Resources)
}

// merge returns r with the limits of other in place of its own.
func (r *Resources) merge(other *Resources) *Resources {
	if other == nil {
		return r
	}
	out := Resources{}
	if r != nil {
		out = *r
	}
	override(&out.Memory, other.Memory)
	override(&out.MemorySwap, other.MemorySwap)
	override(&out.CPUShares, other.CPUShares)
	override(&out.CPUPeriod, other.CPUPeriod)
	override(&out.CPUQuota, other.CPUQuota)
	override(&out.CPUSetCPUs, other.CPUSetCPUs)
	override(&out.CPUSetMems, other.CPUSetMems)
	return &out
}

// normalize removes values that occur again, and empty ones.
func (t *Target) normalize() {
	for _, list := range []*[]string{&t.Annotations, &t.Tags, &t.Platforms, &t.NoCacheFilter,
		&t.Ulimits} {
		*list = uniqueStrings(*list)
	}
	t.Attest = uniqueEntries("attest", t.Attest)
	t.Secrets = uniqueEntries("secret", t.Secrets)
	t.SSH = uniqueSSH(t.SSH)
	t.CacheFrom = uniqueEntries("cache-from", t.CacheFrom)
	t.CacheTo = uniqueEntries("cache-to", t.CacheTo)
	t.Outputs = uniqueEntries("output", t.Outputs)
	if t.Network != nil && *t.Network == "host" {
		t.Entitlements = append(t.Entitlements, "network.host")
	}
	t.Entitlements = uniqueStrings(t.Entitlements)
	maps.DeleteFunc(t.Contexts, func(_, where string) bool { return where == "" })
}

// clone returns a copy of which the maps can be changed.
func (t *Target) clone() *Target {
	out := *t
	out.Args, out.Labels = maps.Clone(t.Args), maps.Clone(t.Labels)
	out.ExtraHosts, out.Contexts = maps.Clone(t.ExtraHosts), maps.Clone(t.Contexts)
	return &out
}

package main

import "testing"

// TestResolvConf compares the files for flags of run on a machine with one of each line.
func TestResolvConf(t *testing.T) {
	const host = "# comment\nnameserver 10.0.0.1\nsearch corp.example\noptions ndots:2\n" +
		"domain x\nsortlist 10.0.0.0"
	for _, tt := range []struct {
		flags dnsFlags
		want  string
	}{
		{dnsFlags{servers: []string{"1.1.1.1", "::1"}}, "# comment\nsearch corp.example\n" +
			"options ndots:2\ndomain x\nsortlist 10.0.0.0\nnameserver 1.1.1.1\nnameserver ::1\n"},
		{dnsFlags{domains: []string{"a", "b"}}, "# comment\nnameserver 10.0.0.1\n" +
			"options ndots:2\nsortlist 10.0.0.0\nsearch a b\n"},
		{dnsFlags{domains: []string{"."}, options: []string{"rotate", "trust-ad"}},
			"# comment\nnameserver 10.0.0.1\nsortlist 10.0.0.0\noptions rotate trust-ad\n"},
	} {
		if got := tt.flags.resolvConf(host); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.flags, got, tt.want)
		}
	}
}

package build

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/internal/event"
)

// Credentials for contexts and for the sources of ADD are secrets of certain names, as in BuildKit
// (https://docs.docker.com/build/building/secrets/).

// httpAuthorization is the Authorization header for a host: HTTP_AUTH_HEADER_<host> as it is, or HTTP_AUTH_TOKEN_<host>.
func (b *builder) httpAuthorization(host string) string {
	if header := b.secretText("HTTP_AUTH_HEADER_" + host); header != "" {
		return header
	}
	if token := b.secretText("HTTP_AUTH_TOKEN_" + host); token != "" {
		return "Bearer " + token
	}
	return ""
}

// gitAuthorization is the same for git over http: GIT_AUTH_HEADER and GIT_AUTH_TOKEN, with the host after a dot for one
// only.
func (b *builder) gitAuthorization(host string) string {
	for _, suffix := range []string{"." + host, ""} {
		if header := b.secretText("GIT_AUTH_HEADER" + suffix); header != "" {
			return header
		}
		if token := b.secretText("GIT_AUTH_TOKEN" + suffix); token != "" {
			return "basic " + base64.StdEncoding.EncodeToString([]byte("x-access-token:"+token))
		}
	}
	return ""
}

// secretText is what a secret says, or "" where there is none.
func (b *builder) secretText(id string) string {
	i := slices.IndexFunc(b.opts.Run.Secrets, func(s Secret) bool { return s.ID == id })
	if i < 0 {
		return ""
	}
	data, err := b.readSecret(context.Background(), i)
	if err != nil {
		b.sink(event.Warning{Message: fmt.Sprintf("it is asked for without credentials: %v", err), Time: time.Now()})
		return ""
	}
	return strings.TrimSpace(string(data))
}

// agent is the socket of the ssh agent for git, or "".
func (b *builder) agent() string {
	i := slices.IndexFunc(b.opts.Run.SSH, func(s SSH) bool { return s.ID == "default" })
	if i < 0 {
		return ""
	}
	return b.opts.Run.SSH[i].Socket
}

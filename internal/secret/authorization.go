package secret

import (
	"context"
	"encoding/base64"
)

// Credentials for contexts and for the sources of ADD are secrets with certain IDs, as in BuildKit
// (https://docs.docker.com/build/building/secrets/). A secret may be a pipe, for whose data the
// methods wait until ctx ends. They then return "": the request for which they were called has the
// same context and is not made.

// HTTPAuthorization returns the Authorization header for a host: the value of
// HTTP_AUTH_HEADER_<host>, or a bearer token from HTTP_AUTH_TOKEN_<host>, or "".
func (s *Store) HTTPAuthorization(ctx context.Context, host string) string {
	if header := s.text(ctx, "HTTP_AUTH_HEADER_"+host); header != "" {
		return header
	}
	if token := s.text(ctx, "HTTP_AUTH_TOKEN_"+host); token != "" {
		return "Bearer " + token
	}
	return ""
}

// GitAuthorization returns the Authorization header for git over HTTP, or "". It uses
// GIT_AUTH_HEADER or GIT_AUTH_TOKEN; with a dot and a host after the name, these apply only to that
// host.
func (s *Store) GitAuthorization(ctx context.Context, host string) string {
	for _, suffix := range []string{"." + host, ""} {
		if header := s.text(ctx, "GIT_AUTH_HEADER"+suffix); header != "" {
			return header
		}
		if token := s.text(ctx, "GIT_AUTH_TOKEN"+suffix); token != "" {
			return "basic " + base64.StdEncoding.EncodeToString([]byte("x-access-token:"+token))
		}
	}
	return ""
}

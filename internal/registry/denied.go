package registry

import (
	"context"
	"fmt"
	"strings"

	"github.com/layerbuild/layerbuild/internal/reference"
)

// deniedError is the error of a place that denies access, with what the user can do about it.
type deniedError struct {
	err    error
	remedy string
}

func (e *deniedError) Error() string { return e.err.Error() + "; " + e.remedy }
func (e *deniedError) Unwrap() error { return e.err }

// denied adds the remedy to the error of a place that denied access.
func (c *Client) denied(ctx context.Context, e endpoint, err error) error {
	server := e.host
	if server == hubServer {
		server = reference.DockerHub
	}
	store, storeErr := c.creds()
	if storeErr != nil {
		return err
	}
	remedy := fmt.Sprintf("there are no credentials for %s: log in with 'layerbuild login %[1]s'",
		server)
	if cred, err := store.get(ctx, e.host, e.repo); err == nil && cred != (credential{}) {
		remedy = fmt.Sprintf("%s refuses the stored token, or it does not permit this: log in "+
			"with 'layerbuild login %[1]s'", server)
		if cred.username != "" {
			remedy = fmt.Sprintf("%s refuses the password of %s, or that user may not do this: "+
				"log in with 'layerbuild login %[1]s'", server, cred.username)
		}
	}
	return &deniedError{err, remedy}
}

// officialImages is the part of Docker Hub to which names without a user belong.
const officialImages = reference.DockerHub + "/library/"

// denied adds the remedy to the error of a push that was denied.
func (p *Pusher) denied(ctx context.Context, err error) error {
	if name, ok := strings.CutPrefix(p.name.String(), officialImages); ok {
		return &deniedError{err, "only Docker can push to " + officialImages + ": give a name " +
			"with a user or a registry, such as USER/" + name}
	}
	return p.c.denied(ctx, p.place, err)
}

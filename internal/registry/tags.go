package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/layerbuild/layerbuild/internal/ocijson"
	digest "github.com/opencontainers/go-digest"
)

const (
	// tagsPage is the number of tags for which a request asks.
	tagsPage = 1000
	// maxTagsPage limits the bytes of an answer: a tag has at most 128.
	maxTagsPage = 8 << 20
)

// Tags calls f with the tags of the repository, until f returns an error. It asks for them in
// pages: see "Listing Tags" in the distribution specification.
func (p *Pusher) Tags(ctx context.Context, f func(tag string) error) error {
	at := fmt.Sprintf("/v2/%s/tags/list?n=%d", p.place.repo, tagsPage)
	for seen := map[string]bool{}; at != ""; {
		if seen[at] {
			return fmt.Errorf("tags of %s: the server repeats a page", p.name.Repository())
		}
		seen[at] = true
		tags, next, err := p.tags(ctx, at)
		if err != nil {
			return fmt.Errorf("tags of %s: %w", p.name.Repository(), err)
		}
		for _, tag := range tags {
			if err := f(tag); err != nil {
				return err
			}
		}
		at = next
	}
	return nil
}

// tags returns a page of tags, and the address of the next one; "" if there is none.
func (p *Pusher) tags(ctx context.Context, at string) (tags []string, next string, err error) {
	resp, err := p.host.do(ctx, call{method: http.MethodGet, url: at,
		scope: pullScope(p.place.repo)})
	if err != nil {
		return nil, "", err
	}
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound: // nothing was pushed to the repository yet
		resp.Body.Close()
		return nil, "", nil
	default:
		return nil, "", failure(resp)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxTagsPage+1))
	if err != nil {
		return nil, "", err
	}
	if len(data) > maxTagsPage {
		return nil, "", fmt.Errorf("the server's answer has more than %d bytes", maxTagsPage)
	}
	var page struct {
		Tags []string `json:"tags"`
	}
	if err := ocijson.Unmarshal(data, &page); err != nil {
		return nil, "", err
	}
	return page.Tags, nextPage(resp.Header.Get("Link"), p.place.repo), nil
}

// nextPage returns the address in a Link header (RFC 8288) of the next page of a repository's tags,
// without its server: the answer of one server does not lead to another. It returns "" if there is
// no next page.
func nextPage(link, repo string) string {
	target, params, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(link), "<"), ">")
	if !ok || !strings.Contains(strings.ReplaceAll(params, `"`, ""), "rel=next") {
		return ""
	}
	u, err := url.Parse(target)
	if err != nil {
		return ""
	}
	return "/v2/" + repo + "/tags/list?" + u.RawQuery
}

// Untag deletes the manifest of a tag, with its other tags. Registries delete by digest only. The
// error wraps ErrNotFound if there is no such tag.
func (p *Pusher) Untag(ctx context.Context, tag string) error {
	scope := "repository:" + p.place.repo + ":delete,pull"
	at := "/v2/" + p.place.repo + "/manifests/"
	resp, err := p.host.do(ctx, call{method: http.MethodHead, url: at + tag,
		header: http.Header{"Accept": accepted}, scope: scope})
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return failure(resp)
	}
	resp.Body.Close()
	d := digest.Digest(resp.Header.Get("Docker-Content-Digest"))
	if err := d.Validate(); err != nil {
		return fmt.Errorf("the server does not send the digest of %s:%s", p.name.Repository(), tag)
	}
	resp, err = p.host.do(ctx, call{method: http.MethodDelete, url: at + d.String(), scope: scope})
	if err != nil {
		return err
	}
	switch resp.StatusCode {
	case http.StatusAccepted, http.StatusOK, http.StatusNoContent:
		resp.Body.Close()
		return nil
	case http.StatusMethodNotAllowed:
		return errors.Join(ErrNoDelete, failure(resp))
	}
	return failure(resp)
}

// ErrNoDelete is returned by Untag if a registry permits no deletion.
var ErrNoDelete = errors.New("the registry permits no deletion")

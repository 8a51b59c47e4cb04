package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// DefaultSocket is the socket of the docker daemon if $DOCKER_HOST does not name another one.
const DefaultSocket = "/var/run/docker.sock"

// ErrNoImage is returned for an image that the daemon does not have.
var ErrNoImage = errors.New("the docker daemon has no such image")

// Engine is a docker daemon.
type Engine struct {
	address string // for messages
	http    *http.Client
}

// New returns the daemon at an address in the form of $DOCKER_HOST; "" is DefaultSocket. It does
// not connect yet.
func New(host string) (*Engine, error) {
	network, address := "unix", DefaultSocket
	if host != "" {
		scheme, rest, ok := strings.Cut(host, "://")
		switch {
		case ok && scheme == "unix" && rest != "":
			address = rest
		case ok && scheme == "tcp" && rest != "":
			network, address = "tcp", strings.TrimSuffix(rest, "/")
		default:
			return nil, fmt.Errorf("$DOCKER_HOST %q: unix://PATH or tcp://HOST:PORT is expected",
				host)
		}
	}
	dialer := &net.Dialer{Timeout: 8 * time.Second}
	return &Engine{address: network + "://" + address, http: &http.Client{
		// The API redirects nothing.
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
		Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, network, address)
			}},
	}}, nil
}

// Save returns an archive of docker save with one image. The caller closes it. ErrNoImage is
// returned if the daemon does not have the image.
func (e *Engine) Save(ctx context.Context, name string) (io.ReadCloser, error) {
	resp, err := e.do(ctx, http.MethodGet, "/images/get?names="+url.QueryEscape(name), nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, e.failure(resp)
	}
	return resp.Body, nil
}

// Load loads the images of an archive of docker save. It returns what the daemon has reported.
func (e *Engine) Load(ctx context.Context, archive io.Reader) (string, error) {
	resp, err := e.do(ctx, http.MethodPost, "/images/load?quiet=1", archive)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", e.failure(resp)
	}
	defer resp.Body.Close()
	return messages(io.LimitReader(resp.Body, maxMessages))
}

// maxMessages limits the answer to Load.
const maxMessages = 1 << 20

func (e *Engine) do(ctx context.Context, method, path string,
	body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://docker"+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "layerbuild")
	if body != nil {
		req.Header.Set("Content-Type", "application/x-tar")
	}
	resp, err := e.http.Do(req)
	if err == nil {
		return resp, nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the address, which has a made-up host
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = errors.New("there is no such socket; start the daemon, or set DOCKER_HOST")
	case errors.Is(err, fs.ErrPermission):
		err = errors.New("permission denied; members of the group docker may use it")
	}
	return nil, fmt.Errorf("docker daemon at %s: %w", e.address, err)
}

// failure returns the error in an answer, and closes it.
func (e *Engine) failure(resp *http.Response) error {
	defer resp.Body.Close()
	data, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	var answer struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(data, &answer) != nil || answer.Message == "" {
		answer.Message = resp.Status
	}
	err := fmt.Errorf("docker daemon at %s: %s", e.address, strings.TrimSpace(answer.Message))
	if resp.StatusCode == http.StatusNotFound {
		return fmt.Errorf("%w (%w)", ErrNoImage, err)
	}
	return err
}

// messages reads the stream of an answer, in which each message is a JSON object. The status is
// sent before the archive is read, so that errors are in the stream.
func messages(r io.Reader) (string, error) {
	var text strings.Builder
	for dec := json.NewDecoder(r); ; {
		var m struct {
			Stream string `json:"stream"`
			Error  string `json:"error"`
			Detail struct {
				Message string `json:"message"`
			} `json:"errorDetail"`
		}
		switch err := dec.Decode(&m); {
		case err == io.EOF:
			return text.String(), nil
		case err != nil:
			return "", fmt.Errorf("the docker daemon's answer: %w", err)
		case m.Detail.Message != "":
			return "", fmt.Errorf("docker daemon: %s", m.Detail.Message)
		case m.Error != "":
			return "", fmt.Errorf("docker daemon: %s", m.Error)
		}
		text.WriteString(m.Stream)
	}
}

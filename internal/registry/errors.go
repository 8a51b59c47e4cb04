package registry

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

var (
	// ErrNotFound is returned if a registry does not have the image or blob.
	ErrNotFound = errors.New("not found")
	// ErrDenied is returned if a registry requires credentials, or others. Some registries
	// answer like this also for missing images.
	ErrDenied = errors.New("access denied")
	// ErrBlocked is returned if registries.conf blocks the registry.
	ErrBlocked = errors.New("blocked by registries.conf")
	// ErrNoPlatform is returned for an image that exists, but not for the platform.
	ErrNoPlatform = errors.New("not available for the platform")
)

// Error is an unexpected answer of a registry. errors.Is reports ErrNotFound or ErrDenied for it
// according to its status.
type Error struct {
	Method, URL string
	Status      int
	Code        string // "MANIFEST_UNKNOWN"; may be empty
	Message     string // may be empty
}

// Error returns what the server answered.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: %d %s", e.Method, e.URL, e.Status, http.StatusText(e.Status))
	if e.Code != "" {
		fmt.Fprintf(&b, ": %s", strings.ToLower(strings.ReplaceAll(e.Code, "_", " ")))
	}
	if e.Message != "" && !strings.EqualFold(strings.ReplaceAll(e.Message, "_", " "),
		strings.ReplaceAll(e.Code, "_", " ")) {
		fmt.Fprintf(&b, ": %s", e.Message)
	}
	return b.String()
}

// Is reports whether the status is that of ErrNotFound or ErrDenied.
func (e *Error) Is(target error) bool {
	switch target {
	case ErrNotFound:
		return e.Status == http.StatusNotFound
	case ErrDenied:
		return e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden
	}
	return false
}

// failure turns an answer into an error and closes it.
func failure(resp *http.Response) error {
	defer resp.Body.Close()
	e := &Error{Method: resp.Request.Method, URL: resp.Request.URL.Redacted(),
		Status: resp.StatusCode}
	if u := *resp.Request.URL; u.RawQuery != "" { // signed addresses have secrets in the query
		u.RawQuery = ""
		e.URL = u.Redacted()
	}
	data, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	var answer struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
		Details string `json:"details"`
		Message string `json:"message"`
	}
	if json.Unmarshal(data, &answer) == nil {
		switch {
		case len(answer.Errors) > 0:
			e.Code, e.Message = answer.Errors[0].Code, answer.Errors[0].Message
		case answer.Details != "":
			e.Message = answer.Details
		default:
			e.Message = answer.Message
		}
	} else if bytes.Contains(data, []byte("<Code>")) { // of S3, and of storage of Azure
		e.Code, e.Message = element(data, "Code"), element(data, "Message")
	}
	e.Code, e.Message = printable(e.Code), printable(e.Message)
	return e
}

// element returns the text of the first XML element with a name.
func element(data []byte, name string) string {
	_, rest, _ := bytes.Cut(data, []byte("<"+name+">"))
	text, _, ok := bytes.Cut(rest, []byte("</"+name+">"))
	if !ok {
		return ""
	}
	return html.UnescapeString(string(text))
}

// printable makes a server's text safe for a terminal.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if r := []rune(s); len(r) > 300 {
		s = string(r[:300]) + "…"
	}
	return strings.TrimSpace(s)
}

// speaksPlainHTTP reports whether an error shows that a server of plain http has answered.
func speaksPlainHTTP(err error) bool {
	return strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") ||
		errors.As(err, new(tls.RecordHeaderError))
}

// withoutURL returns the cause of an error of net/http. The error repeats the method and the
// address, which the caller's message has already.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// explain adds the remedy to common errors. If plain http was tried because https has failed, it
// adds why: the server may be one of https that had a fault.
func explain(h *host, err error) error {
	failed := withoutURL(err)
	err = withRemedy(h, failed)
	if noTLS := h.noTLS.Load(); noTLS != nil && !speaksPlainHTTP(*noTLS) {
		if secure := withoutURL(*noTLS); secure.Error() != failed.Error() {
			err = fmt.Errorf("%w (and by https: %w)", err, secure)
		}
	}
	return err
}

func withRemedy(h *host, err error) error {
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	switch {
	case h.web && speaksPlainHTTP(err):
		return fmt.Errorf("%s answers with plain http: %w; its address begins with http://",
			h.name, err)
	case h.web && (errors.As(err, &authority) || errors.As(err, &name)):
		return fmt.Errorf("%s: %w; put its certificate authority into "+
			"/etc/containers/certs.d/%s/ca.crt", h.name, err, h.name)
	case speaksPlainHTTP(err):
		return fmt.Errorf("%s answers with plain http: %w; to allow that, set insecure = true "+
			"for it in registries.conf", h.name, err)
	case errors.As(err, &authority), errors.As(err, &name):
		return fmt.Errorf("%s: %w; put its certificate authority into "+
			"/etc/containers/certs.d/%s/ca.crt, or set insecure = true for it in registries.conf",
			h.name, err, h.name)
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		if host, _, splitErr := net.SplitHostPort(h.name); dns.Name == h.name ||
			splitErr == nil && dns.Name == host {
			return fmt.Errorf("%s cannot be looked up: %w (is this machine online?)",
				h.name, lookupError{dns})
		}
		// for example with the name of a proxy
		return fmt.Errorf("%s: %w (is this machine online?)", h.name, err)
	}
	if errors.Is(err, errNoAnswer) {
		return fmt.Errorf("%s: %w", h.name, err)
	}
	return err
}

// lookupError is the reason why a name cannot be looked up, for a message that has the name
// already.
type lookupError struct{ *net.DNSError }

func (e lookupError) Error() string { return e.Err }
func (e lookupError) Unwrap() error { return e.DNSError }

// retryable reports whether a request that ended with this error may succeed when it is sent again.
func retryable(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		// A server that restarts refuses connections for a moment. Without a network the error
		// is reported at once.
		return isRefused(err)
	}
	for _, e := range []error{io.EOF, io.ErrUnexpectedEOF, errNoAnswer, errIdle,
		syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE, syscall.ETIMEDOUT, net.ErrClosed} {
		if errors.Is(err, e) {
			return true
		}
	}
	var n net.Error
	if errors.As(err, &n) && n.Timeout() {
		return !errors.As(err, new(*net.DNSError))
	}
	// Errors for which net/http has no type.
	for _, s := range []string{"server closed idle connection", "http2: ",
		"malformed HTTP response", "connection reset"} {
		if strings.Contains(err.Error(), s) {
			return true
		}
	}
	return false
}

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

func retryableStatus(status int) bool {
	switch status {
	case http.StatusTooManyRequests, http.StatusRequestTimeout, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// retryAfter returns the time that the server asks to wait: seconds, or a time of day.
func retryAfter(resp *http.Response) time.Duration {
	v := resp.Header.Get("Retry-After")
	if v == "" {
		return 0
	}
	if n, err := strconv.Atoi(v); err == nil {
		return time.Duration(min(max(n, 0), 1<<20)) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(0, time.Until(t))
	}
	return 0
}

func jitter(d time.Duration) time.Duration {
	return d + time.Duration(rand.Int64N(int64(d)/4+1))
}

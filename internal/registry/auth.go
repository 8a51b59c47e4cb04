package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/internal/memo"
)

// formType is the content type of a token request that carries a password or refresh token.
const formType = "application/x-www-form-urlencoded"

// authState holds a server's authentication scheme and the tokens that it has issued.
//
// A token server may have a private address and another name than the registry. A GitLab on
// premises is an example: registry.gitlab.corp and gitlab.corp, both in the private network.
type authState struct {
	host *host
	// requests holds the token requests that run now, by scope.
	requests memo.Map[string, token]

	mu      sync.Mutex
	basic   bool
	realm   string
	service string
	tokens  map[string]token
	// why credentials could not be read, for the message if they turn out to be needed
	helperErr error
}

type token struct {
	value   string
	expires time.Time
}

func (t token) valid() bool { return t.value != "" && time.Now().Before(t.expires) }

// ready looks up the credentials that header needs for a scope. It is called before the time for an
// answer begins: a credential helper may ask the user for a password.
func (a *authState) ready(ctx context.Context, scope string) error {
	a.mu.Lock()
	need := a.basic || a.realm != "" && !a.tokens[scope].valid()
	a.mu.Unlock()
	if !need {
		return nil
	}
	_, err := a.credential(ctx, scope)
	return err
}

// header returns the Authorization header for a scope; "" if the server has not asked for one
// yet.
func (a *authState) header(ctx context.Context, scope string) (string, error) {
	a.mu.Lock()
	basic, realm, t := a.basic, a.realm, a.tokens[scope]
	a.mu.Unlock()
	switch {
	case basic:
		return a.basicHeader(ctx, scope)
	case realm == "":
		return "", nil
	case t.valid():
		return "Bearer " + t.value, nil
	}
	value, err := a.fetch(ctx, scope, t.value)
	if err != nil || value == "" {
		return "", err
	}
	return "Bearer " + value, nil
}

func (a *authState) basicHeader(ctx context.Context, scope string) (string, error) {
	cred, err := a.credential(ctx, scope)
	if err != nil || cred.username == "" {
		return "", err
	}
	return cred.basic(), nil
}

// credential looks up the credentials for the first repository of the scope. If a helper fails,
// the request is anonymous, as in docker: most images need no credentials.
func (a *authState) credential(ctx context.Context, scope string) (credential, error) {
	store, err := a.host.c.creds()
	if err != nil {
		return credential{}, err
	}
	first, _, _ := strings.Cut(scope, " ")
	repo := strings.TrimPrefix(first, "repository:")
	if i := strings.LastIndexByte(repo, ':'); i >= 0 {
		repo = repo[:i]
	}
	cred, err := store.get(ctx, a.host.name, repo)
	if ctx.Err() != nil {
		return credential{}, context.Cause(ctx)
	}
	if err != nil {
		a.mu.Lock()
		a.helperErr = err
		a.mu.Unlock()
	}
	return cred, nil
}

// answer handles a 401 and reports whether the request should be sent again. sent is the
// Authorization header of the refused request.
func (a *authState) answer(ctx context.Context, resp *http.Response, scope,
	sent string) (again bool, err error) {
	// After a redirect to another server, that server's challenge must not be answered.
	if base, err := a.host.base(ctx); err != nil ||
		resp.Request.URL.Scheme+"://"+resp.Request.URL.Host != base {
		return false, err
	}
	challenges := parseChallenges(resp.Header.Values("Www-Authenticate"))
	if i := slices.IndexFunc(challenges, func(c challenge) bool {
		return c.scheme == "bearer" && c.params["realm"] != ""
	}); i >= 0 {
		c := challenges[i]
		if err := a.checkRealm(c.params["realm"], resp.Request.URL); err != nil {
			return false, err
		}
		a.mu.Lock()
		a.realm, a.service = c.params["realm"], c.params["service"]
		a.mu.Unlock()
		value, err := a.fetch(ctx, scope, strings.TrimPrefix(sent, "Bearer "))
		return err == nil && value != "" && "Bearer "+value != sent, err
	}
	if slices.ContainsFunc(challenges, func(c challenge) bool { return c.scheme == "basic" }) {
		header, err := a.basicHeader(ctx, scope)
		if err != nil || header == "" || header == sent {
			return false, errors.Join(err, a.why())
		}
		a.mu.Lock()
		a.basic = true
		a.mu.Unlock()
		return true, nil
	}
	return false, nil
}

// why returns the error of looking up credentials, nil if there are simply none.
func (a *authState) why() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.helperErr
}

// checkRealm returns an error for a token server over plain http if the registry uses https, and
// for one at a link-local address.
func (a *authState) checkRealm(realm string, registry *url.URL) error {
	u, err := url.Parse(realm)
	if err != nil || u.Host == "" {
		return fmt.Errorf("%s names an invalid token server: %q", a.host.name, printable(realm))
	}
	if u.Scheme != "https" && (u.Scheme != "http" || registry.Scheme == "https") {
		return fmt.Errorf("%s names a token server without https: %s", a.host.name, u.Redacted())
	}
	if isLinkLocal(u.Hostname()) {
		return fmt.Errorf("%s names a token server at a link-local address: %s",
			a.host.name, u.Redacted())
	}
	return nil
}

// fetch fetches a token for a scope, unless another goroutine has replaced the old one
// meanwhile.
func (a *authState) fetch(ctx context.Context, scope, old string) (string, error) {
	for {
		mine := false
		t, err := a.requests.Share(ctx, scope, func() (token, error) {
			mine = true
			return a.replace(ctx, scope, old)
		})
		// Another goroutine may have found the token that this one has to replace.
		if err != nil || mine || t.value != old {
			return t.value, err
		}
	}
}

// replace returns a token that is not the old one. It keeps it for the requests that follow.
func (a *authState) replace(ctx context.Context, scope, old string) (token, error) {
	a.mu.Lock()
	t, realm, service := a.tokens[scope], a.realm, a.service
	a.mu.Unlock()
	if t.valid() && t.value != old {
		return t, nil
	}
	t, err := a.login(ctx, realm, service, scope)
	if err != nil {
		return token{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tokens == nil {
		a.tokens = map[string]token{}
	}
	a.tokens[scope] = t
	return t, nil
}

// login returns a new token for a scope.
func (a *authState) login(ctx context.Context, realm, service, scope string) (token, error) {
	cred, err := a.credential(ctx, scope)
	if err != nil {
		return token{}, err
	}
	if cred.access != "" {
		return token{cred.access, time.Now().Add(time.Hour)}, nil
	}
	t, err := a.exchange(ctx, realm, service, scope, cred)
	if err != nil {
		return token{}, fmt.Errorf("log in to %s: %w", a.host.name, errors.Join(err, a.why()))
	}
	return t, nil
}

// exchange requests a token from the token server:
// https://distribution.github.io/distribution/spec/auth/token/ and …/oauth/.
func (a *authState) exchange(ctx context.Context, realm, service, scope string,
	cred credential) (token, error) {
	u, err := url.Parse(realm)
	if err != nil {
		return token{}, err
	}
	// Credentials are sent to another server only by verified https, even if the registry itself
	// is insecure.
	if cred != (credential{}) && u.Scheme != "https" && u.Hostname() != hostname(a.host.name) {
		return token{}, fmt.Errorf(
			"credentials are not sent to a token server on another host without https: %s",
			u.Redacted())
	}
	server, err := a.tokenServer(u)
	if err != nil {
		return token{}, err
	}
	resp, err := server.do(ctx, tokenRequest(u, service, scope, cred))
	if err != nil {
		return token{}, err
	}
	if resp.StatusCode != http.StatusOK {
		return token{}, failure(resp)
	}
	defer resp.Body.Close()
	return readToken(resp.Body)
}

// tokenServer returns the server of a realm, which may be the registry itself.
func (a *authState) tokenServer(realm *url.URL) (*host, error) {
	if realm.Host == a.host.name {
		return a.host, nil
	}
	conf, err := a.host.c.config()
	if err != nil {
		return nil, err
	}
	t := conf.find(realm.Host)
	insecure := t != nil && t.Insecure ||
		a.host.insecure && realm.Hostname() == hostname(a.host.name)
	return a.host.c.host(realm.Host, insecure)
}

// tokenRequest returns the request for a token: a POST of a form for a refresh token, and otherwise
// a GET with the password.
func tokenRequest(realm *url.URL, service, scope string, cred credential) call {
	q := call{method: http.MethodGet, header: http.Header{}, bare: true}
	form := url.Values{}
	if service != "" {
		form.Set("service", service)
	}
	if cred.refresh != "" {
		form.Set("grant_type", "refresh_token")
		form.Set("refresh_token", cred.refresh)
		form.Set("client_id", "layerbuild")
		form.Set("scope", scope)
		data := form.Encode()
		q.method, q.size = http.MethodPost, int64(len(data))
		q.header.Set("Content-Type", formType)
		q.body = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(data)), nil }
		q.url = realm.String()
		return q
	}
	for s := range strings.FieldsSeq(scope) {
		form.Add("scope", s)
	}
	for k, v := range realm.Query() { // a realm may have a query of its own
		if _, ok := form[k]; !ok {
			form[k] = v
		}
	}
	if cred.username != "" {
		form.Set("account", cred.username)
		q.header.Set("Authorization", cred.basic())
	}
	u := *realm
	u.RawQuery = form.Encode()
	q.url = u.String()
	return q
}

// readToken reads a token server's answer.
func readToken(body io.Reader) (token, error) {
	var answer struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
		ExpiresIn   any    `json:"expires_in"` // a whole number in well-formed answers
	}
	if err := json.NewDecoder(io.LimitReader(body, 1<<20)).Decode(&answer); err != nil {
		return token{}, fmt.Errorf("the token server's answer: %w", err)
	}
	t := token{value: answer.Token}
	if t.value == "" {
		t.value = answer.AccessToken
	}
	if t.value == "" {
		return token{}, errors.New("the token server's answer has no token")
	}
	if strings.ContainsFunc(t.value, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return token{}, errors.New(
			"the token server's answer has a token that cannot be used in a header")
	}
	// A missing value means 60 seconds. A shorter time is used, so that the token does not
	// expire before it arrives.
	seconds, _ := answer.ExpiresIn.(float64)
	life := time.Duration(min(max(seconds, 60), 24*3600)) * time.Second
	t.expires = time.Now().Add(life * 9 / 10)
	return t, nil
}

// challenge is one way of authentication that a server offers.
type challenge struct {
	scheme string // in lower case
	params map[string]string
}

// parseChallenges parses WWW-Authenticate headers (RFC 9110, 11.6.1). It skips what it cannot
// parse.
func parseChallenges(headers []string) []challenge {
	var out []challenge
	for _, s := range headers {
		for s = strings.TrimLeft(s, " \t,"); s != ""; s = strings.TrimLeft(s, " \t,") {
			word := s[:tokenEnd(s)]
			if word == "" {
				break
			}
			s = s[len(word):]
			rest := strings.TrimLeft(s, " \t")
			if value, ok := strings.CutPrefix(rest, "="); ok && len(out) > 0 {
				value = strings.TrimLeft(value, " \t")
				var v string
				v, s = parseValue(value)
				out[len(out)-1].params[strings.ToLower(word)] = v
				continue
			}
			out = append(out, challenge{scheme: strings.ToLower(word), params: map[string]string{}})
		}
	}
	return out
}

func tokenEnd(s string) int {
	i := strings.IndexAny(s, " \t,=\"")
	if i < 0 {
		return len(s)
	}
	return i
}

// parseValue reads a token or a quoted string and returns the rest.
func parseValue(s string) (value, rest string) {
	if !strings.HasPrefix(s, `"`) {
		i := strings.IndexAny(s, " \t,")
		if i < 0 {
			i = len(s)
		}
		return s[:i], s[i:]
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if i++; i < len(s) {
				b.WriteByte(s[i])
			}
		case '"':
			return b.String(), s[i+1:]
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), ""
}

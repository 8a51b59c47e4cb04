package cachestore

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/registry"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// actionsStore is a Store in the cache service of GitHub Actions, version 2: entries with a key and
// a blob, which cannot be written again. A document therefore has a new key each time, which is
// found by its beginning; of several, the service returns the one that was written last.
type actionsStore struct {
	base
	prefix string // of all keys
	now    func() time.Time
	// single is the size up to which a blob is sent in one request, and block that of the blocks of
	// larger ones.
	single, block int64
}

// The variables that a job of GitHub Actions has for actions. Steps with run do not have them
// without help.
const (
	actionsURL   = "ACTIONS_RESULTS_URL"
	actionsToken = "ACTIONS_RUNTIME_TOKEN"
)

// actionsService is the path of the service.
const actionsService = "/twirp/github.actions.results.api.v1.CacheService/"

// actionsVersion is the version of entries: others are not found.
var actionsVersion = func() string {
	sum := sha256.Sum256([]byte("layerbuild 1"))
	return hex.EncodeToString(sum[:])
}()

var actionsScope = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

// openActions returns the store at an address of the form gha or gha:SCOPE.
func openActions(p remotecache.SharedPlace, o Options) (*actionsStore, error) {
	s := &actionsStore{base: base{place: p, Options: o}, prefix: "layerbuild-", now: time.Now,
		single: 256 << 20, block: 64 << 20}
	if scope, ok := strings.CutPrefix(p.Ref, "gha:"); ok {
		if !actionsScope.MatchString(scope) {
			return nil, fmt.Errorf("scope %q: letters, digits and ._- are possible", scope)
		}
		s.prefix += scope + "-"
	}
	return s, nil
}

// HintsOnly implements remotecache.HintStore: the service limits the number of requests.
func (s *actionsStore) HintsOnly() {}

// call calls a method of the service.
func (s *actionsStore) call(ctx context.Context, method string, in, out any) error {
	address, token := s.Getenv(actionsURL), s.Getenv(actionsToken)
	if address == "" || token == "" {
		return fmt.Errorf("%s and %s are not set: they are only for actions, so a step with run "+
			"needs an action before it that exports them", actionsURL, actionsToken)
	}
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	resp, err := s.Client.Do(ctx, registry.Request{Method: http.MethodPost,
		URL: strings.TrimRight(address, "/") + actionsService + method, Direct: true,
		Header: http.Header{"Content-Type": {"application/json"}},
		Body:   bytesBody(body), Size: int64(len(body)),
		Authorize: func(r *http.Request) error {
			r.Header.Set("Authorization", "Bearer "+token)
			return nil
		}})
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return registry.Failure(resp)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	return nil
}

// actionsEntry is a request about an entry.
type actionsEntry struct {
	Key     string   `json:"key"`
	Restore []string `json:"restore_keys,omitempty"` // beginnings of keys
	Size    string   `json:"size_bytes,omitempty"`
	Version string   `json:"version"`
}

// find returns the address of the blob of the entry that was written last of those whose keys begin
// with key; "" if there is none.
func (s *actionsStore) find(ctx context.Context, key string) (string, error) {
	var out struct {
		OK  bool   `json:"ok"`
		URL string `json:"signed_download_url"`
		Key string `json:"matched_key"`
	}
	err := s.call(ctx, "GetCacheEntryDownloadURL", actionsEntry{Key: key, Restore: []string{key},
		Version: actionsVersion}, &out)
	if errors.Is(err, registry.ErrNotFound) {
		return "", nil
	}
	if err != nil || !out.OK || !strings.HasPrefix(out.Key, key) {
		return "", err
	}
	return out.URL, checkSigned(out.URL)
}

// checkSigned returns an error if the address of a blob cannot be used.
func checkSigned(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return errors.New("the service has answered with an address that is not valid")
	}
	return nil
}

// signed returns a request for a signed address, which needs no credentials.
func signed(method, address string) registry.Request {
	return registry.Request{Method: method, URL: address,
		Authorize: func(*http.Request) error { return nil }}
}

// docKey and blobKey are the beginnings of keys.
func (s *actionsStore) docKey(name string) string { return s.prefix + name + "-" }

func (s *actionsStore) blobKey(hex string) string { return s.prefix + "sha256-" + hex + "-" }

// Get implements remotecache.Store.
func (s *actionsStore) Get(ctx context.Context, name string) ([]byte, *image.Artifact, error) {
	address, err := s.find(ctx, s.docKey(name))
	if err != nil {
		return nil, nil, err
	}
	if address == "" {
		return nil, nil, remotecache.ErrNoDocument
	}
	_, data, err := s.Client.Read(ctx, signed(http.MethodGet, address), maxDocument)
	if errors.Is(err, registry.ErrNotFound) { // it was evicted
		return nil, nil, remotecache.ErrNoDocument
	}
	return data, s.artifact(s.open), err
}

// open opens a blob.
func (s *actionsStore) open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	hex, err := hexOf(d.Digest)
	if err != nil {
		return nil, err
	}
	address, err := s.find(ctx, s.blobKey(hex))
	if err != nil {
		return nil, fmt.Errorf("fetch blob %s: %w", d.Digest, err)
	}
	if address == "" {
		return nil, fmt.Errorf("fetch blob %s: %w", d.Digest, registry.ErrNotFound)
	}
	return s.Client.Open(ctx, signed(http.MethodGet, address), d)
}

// Put implements remotecache.Store.
func (s *actionsStore) Put(ctx context.Context, name string, data []byte,
	_ []ocispec.Descriptor) error {
	return s.write(ctx, s.docKey(name), int64(len(data)), bytesBody(data))
}

// Send implements remotecache.Store.
func (s *actionsStore) Send(ctx context.Context, d ocispec.Descriptor) error {
	return s.once(ctx, d, func() error {
		key := s.blobKey(d.Digest.Encoded())
		if address, err := s.find(ctx, key); address != "" || err != nil {
			return err
		}
		return s.write(ctx, key, d.Size, s.blob(ctx, d))
	})
}

// write writes an entry whose key begins with key. The rest of the key is the time, so that the
// key is new also if another job has begun to write an entry and has not ended it.
func (s *actionsStore) write(ctx context.Context, key string, size int64,
	body func() (io.ReadCloser, error)) error {
	entry := actionsEntry{Version: actionsVersion}
	var created struct {
		OK  bool   `json:"ok"`
		URL string `json:"signed_upload_url"`
	}
	// If the answer to an earlier attempt was lost, there is an entry with the first key.
	for n := 0; n < 2 && !created.OK; n++ {
		entry.Key = key + strconv.FormatInt(s.now().UnixMicro(), 10)
		if err := s.call(ctx, "CreateCacheEntry", entry, &created); err != nil {
			return err
		}
	}
	if !created.OK {
		return errors.New("the service refuses a new entry; the job may have no permission to " +
			"write, as for a pull request from a fork: use ,ro")
	}
	if err := checkSigned(created.URL); err != nil {
		return err
	}
	if err := s.upload(ctx, created.URL, size, body); err != nil {
		return err
	}
	var ended struct {
		OK bool `json:"ok"`
	}
	entry.Size = strconv.FormatInt(size, 10)
	err := s.call(ctx, "FinalizeCacheEntryUpload", entry, &ended)
	if err == nil && !ended.OK {
		err = errors.New("the service refuses the end of an upload")
	}
	return err
}

// upload sends a blob to an address of Azure Blob Storage: in one request ("Put Blob"), or in
// blocks ("Put Block", "Put Block List").
func (s *actionsStore) upload(ctx context.Context, address string, size int64,
	body func() (io.ReadCloser, error)) error {
	put := func(address string, header http.Header, size int64,
		body func() (io.ReadCloser, error)) error {
		r := signed(http.MethodPut, address)
		r.Header, r.Body, r.Size = header, body, size
		resp, err := s.Client.Do(ctx, r)
		if err != nil {
			return err
		}
		return ended(resp, http.StatusCreated)
	}
	if size <= s.single {
		header := blobHeader()
		header.Set("X-Ms-Blob-Type", "BlockBlob")
		return put(address, header, size, body)
	}
	src := &sections{open: body}
	defer src.close()
	var list strings.Builder
	for n, off := 0, int64(0); off < size; n++ {
		length := min(s.block, size-off)
		id := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%06d", n))
		err := put(address+"&comp=block&blockid="+url.QueryEscape(id), blobHeader(), length,
			src.at(off, length))
		if err != nil {
			return err
		}
		fmt.Fprintf(&list, "<Latest>%s</Latest>", id)
		off += length
	}
	if err := src.finish(); err != nil {
		return err
	}
	text := []byte("<BlockList>" + list.String() + "</BlockList>")
	return put(address+"&comp=blocklist", http.Header{"Content-Type": {"application/xml"}},
		int64(len(text)), bytesBody(text))
}

package remotecache

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// keyPair returns a pair of Ed25519 keys in PEM.
func keyPair(t *testing.T) (private, public []byte) {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	q, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: p}),
		pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: q})
}

func mustKey(t *testing.T, data []byte) *Key {
	t.Helper()
	k, err := ParseKey(data)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestParseKey(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := x509.MarshalPKCS8PrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, data, want string
	}{
		{"empty", "", "0 bytes"},
		{"short", strings.Repeat("x", minSecret-1), "31 bytes"},
		{"another algorithm", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY",
			Bytes: other})), "a key of another algorithm"},
		{"a certificate", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE"})),
			`a PEM block "CERTIFICATE"`},
		{"damaged", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY",
			Bytes: []byte("x")})), "an Ed25519 key is expected"},
	} {
		if _, err := ParseKey([]byte(tt.data)); err == nil ||
			!strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestSign checks that a signature is valid for the record that was signed, also after it was
// written and read, and for no other.
func TestSign(t *testing.T) {
	private, public := keyPair(t)
	otherPrivate, _ := keyPair(t)
	secret := []byte(strings.Repeat("s", minSecret))
	for _, tt := range []struct {
		name                     string
		signer, checker, another *Key
	}{
		{"secret", mustKey(t, secret), mustKey(t, secret),
			mustKey(t, []byte(strings.Repeat("t", minSecret)))},
		{"pair", mustKey(t, private), mustKey(t, public), mustKey(t, otherPrivate)},
	} {
		r := result("a", "", "l", 1)
		r.Created = time.Now() // with the location of the machine, and a monotonic time
		r.Layer.Descriptor.Annotations = map[string]string{"b": "1", "a": "2"}
		r.Signature = tt.signer.sign(r)
		data, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var read Record
		if err := json.Unmarshal(data, &read); err != nil {
			t.Fatal(err)
		}
		if !tt.checker.valid(read) || tt.another.valid(read) {
			t.Errorf("%s: valid %v, with another key %v", tt.name, tt.checker.valid(read),
				tt.another.valid(read))
		}
		for name, change := range map[string]func(*Record){
			"key":        func(r *Record) { r.Key = "b" },
			"content":    func(r *Record) { r.Content = "c" },
			"moved":      func(r *Record) { r.Key, r.Content = "", r.Key },
			"time":       func(r *Record) { r.Created = r.Created.Add(1) },
			"no layer":   func(r *Record) { r.Layer = nil },
			"descriptor": func(r *Record) { r.Layer.Descriptor.Size++ },
			"media type": func(r *Record) { r.Layer.Descriptor.MediaType = "x" },
			"URLs":       func(r *Record) { r.Layer.Descriptor.URLs = []string{"http://x"} },
			"platform":   func(r *Record) { r.Layer.Descriptor.Platform = &ocispec.Platform{} },
			"diffID":     func(r *Record) { r.Layer.DiffID = r.Layer.Descriptor.Digest },
			"parent":     func(r *Record) { r.Layer.Parent = r.Layer.DiffID },
			"format":     func(r *Record) { r.Layer.Sealed += "x" },
			"signature":  func(r *Record) { r.Signature = "" },
			"no base64":  func(r *Record) { r.Signature = "?" },
		} {
			forged := read
			l := *read.Layer
			forged.Layer = &l
			if change(&forged); tt.checker.valid(forged) {
				t.Errorf("%s: with another %s it is valid", tt.name, name)
			}
		}
	}
	if mustKey(t, public).CanSign() || !mustKey(t, private).CanSign() ||
		!mustKey(t, secret).CanSign() {
		t.Error("CanSign is wrong")
	}
}

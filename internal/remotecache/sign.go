package remotecache

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// Key signs the records of a Shared, and checks their signatures: who can write to the cache and
// does not have the key cannot add results.
type Key struct {
	secret  []byte // of HMAC-SHA-256; nil: the key is one of Ed25519
	private ed25519.PrivateKey
	public  ed25519.PublicKey
}

// minSecret is the length of the shortest secret key, in bytes. RFC 2104 recommends at least the
// length of the hash.
const minSecret = 32

// ParseKey parses the content of a key file: an Ed25519 key in PEM as openssl genpkey and openssl
// pkey -pubout write it, or else any bytes, at least 32, as a secret for HMAC-SHA-256.
func ParseKey(data []byte) (*Key, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		if len(data) < minSecret {
			return nil, fmt.Errorf("the key has %d bytes; a secret has at least %d", len(data),
				minSecret)
		}
		return &Key{secret: data}, nil
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	default:
		err = fmt.Errorf("a PEM block %q", block.Type)
	}
	switch key := key.(type) {
	case ed25519.PrivateKey:
		return &Key{private: key, public: key.Public().(ed25519.PublicKey)}, nil
	case ed25519.PublicKey:
		return &Key{public: key}, nil
	}
	if err == nil {
		err = errors.New("a key of another algorithm")
	}
	return nil, fmt.Errorf("an Ed25519 key is expected, as openssl genpkey -algorithm ed25519 "+
		"makes it: %w", err)
}

// CanSign reports whether the key can sign. A public key can only check.
func (k *Key) CanSign() bool { return k.secret != nil || k.private != nil }

// sign returns the signature of a record.
func (k *Key) sign(r Record) string {
	if k.secret != nil {
		return base64.StdEncoding.EncodeToString(k.mac(signedBytes(r)))
	}
	return base64.StdEncoding.EncodeToString(ed25519.Sign(k.private, signedBytes(r)))
}

// valid reports whether a record has a signature of the key.
func (k *Key) valid(r Record) bool {
	sig, err := base64.StdEncoding.DecodeString(r.Signature)
	if err != nil {
		return false
	}
	if k.secret != nil {
		return subtle.ConstantTimeCompare(sig, k.mac(signedBytes(r))) == 1
	}
	return ed25519.Verify(k.public, signedBytes(r), sig)
}

func (k *Key) mac(message []byte) []byte {
	h := hmac.New(sha256.New, k.secret)
	h.Write(message)
	return h.Sum(nil)
}

// signedBytes returns the message that the signature of a record signs: everything in the record
// that determines what a build makes of it, in a form that does not depend on the record's JSON.
func signedBytes(r Record) []byte {
	fields := []any{"layerbuild cache record 1", r.Key, r.Content,
		r.Created.UTC().Format(time.RFC3339Nano)}
	if l := r.Layer; l != nil {
		fields = append(fields, l.Descriptor, l.DiffID, l.Parent, l.Sealed)
	}
	data, err := json.Marshal(fields)
	if err != nil {
		panic("unreachable: a record is plain data: " + err.Error())
	}
	return data
}

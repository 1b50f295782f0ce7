package seal

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// keyName is the name of every signing key; its hash tells one from another.
const keyName = "cura-ehr-sync-audit"

// Key signs heads. It lives in a file beside the worker, and never in the database.
type Key struct {
	signer    note.Signer
	verifier  string
	verifiers Verifiers
}

// GenerateKeyFile makes a key file with mode 0600 and gives the verifier key, which isn't secret. It never overwrites a file: the
// key in it may have signed heads.
func GenerateKeyFile(path string) (verifier string, err error) {
	private, verifier, err := note.GenerateKey(rand.Reader, keyName)
	if err != nil {
		return "", fmt.Errorf("generating a key: %w", err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("the key file %s exists already; heads may have been signed with it, so it is left as it is", path)
	}
	if err != nil {
		return "", fmt.Errorf("creating the key file: %w", err)
	}
	if _, err := file.WriteString(private + "\n"); err != nil {
		return "", errors.Join(fmt.Errorf("writing the key file: %w", err), file.Close())
	}
	return verifier, file.Close()
}

// OpenKeyFile reads a key file made by GenerateKeyFile; one that others may read is refused. Lines after the first are the verifier
// keys of the keys before it, whose heads are still believed. Its errors repeat nothing of the file.
func OpenKeyFile(path string) (*Key, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no key file for the audit log at %s; make one with: starter audit keygen %s", path, path)
	}
	if err != nil {
		return nil, fmt.Errorf("looking at the audit log's key file: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("the audit log's key file %s may be read by others; make it private with: chmod 600 %s", path, path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the audit log's key file: %w", err)
	}
	lines := strings.Split(string(bytes.TrimSpace(text)), "\n")
	signer, err := note.NewSigner(lines[0])
	if err != nil {
		return nil, fmt.Errorf("the first line of %s isn't a signing key; make a key file with: starter audit keygen FILE", path)
	}
	own, err := verifierOf(lines[0])
	if err != nil {
		return nil, fmt.Errorf("the first line of %s isn't an Ed25519 key; make a key file with: starter audit keygen FILE", path)
	}
	verifiers, err := ParseVerifiers(append([]string{own}, lines[1:]...)...)
	if err != nil {
		return nil, fmt.Errorf("the lines of %s after the first: %w", path, err)
	}
	return &Key{signer: signer, verifier: own, verifiers: verifiers}, nil
}

// verifierOf derives the verifier key from a signing key: PRIVATE+KEY+NAME+HASH+BASE64, of which the last is the algorithm and the seed.
func verifierOf(private string) (string, error) {
	parts := strings.SplitN(private, "+", 5)
	if len(parts) != 5 {
		return "", errors.New("it has too few parts")
	}
	data, err := base64.StdEncoding.DecodeString(parts[4])
	if err != nil || len(data) != 1+ed25519.SeedSize {
		return "", errors.New("it holds no seed")
	}
	public, ok := ed25519.NewKeyFromSeed(data[1:]).Public().(ed25519.PublicKey)
	if !ok {
		return "", errors.New("it has no public key")
	}
	return note.NewEd25519VerifierKey(parts[2], public)
}

// Verifier is the key's public part, for whoever checks heads and proofs.
func (k *Key) Verifier() string { return k.verifier }

// Verifiers are the keys whose heads this one believes: its own, and those before it.
func (k *Key) Verifiers() Verifiers { return k.verifiers }

// Sign signs a head.
func (k *Key) Sign(h Head) (SignedHead, error) {
	signed, err := note.Sign(&note.Note{Text: h.Text()}, k.signer)
	if err != nil {
		return SignedHead{}, fmt.Errorf("signing the head of the audit log: %w", err)
	}
	return OpenHead(string(signed), k.verifiers)
}

// Verifiers are the keys whose signatures are believed.
type Verifiers = note.Verifiers

// ParseVerifiers reads verifier keys.
func ParseVerifiers(keys ...string) (Verifiers, error) {
	list := make([]note.Verifier, len(keys))
	for i, key := range keys {
		v, err := note.NewVerifier(strings.TrimSpace(key))
		if err != nil {
			return nil, fmt.Errorf("key %d of %d isn't a verifier key; starter audit keygen printed it, as %s+…+…", i+1, len(keys), keyName)
		}
		list[i] = v
	}
	return note.VerifierList(list...), nil
}

// Package secrets seals credentials before they reach the database. The key is a Tink keyset in a file beside the
// process, so that a copy of the database alone opens nothing.
package secrets

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// Kind is what kind of credential is sealed.
type Kind string

// ClientSecret is the OAuth client secret of a connection.
const ClientSecret Kind = "client-secret"

// Sealer seals and opens credentials with AES-256-GCM. What is sealed for one org, connection and kind opens for no
// other: the three are the associated data.
type Sealer struct {
	aead tink.AEAD
}

// GenerateKeyFile makes a new key file at path with mode 0600. It never overwrites one: what the old key sealed would
// be lost.
func GenerateKeyFile(path string) error {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return fmt.Errorf("generating a key: %w", err)
	}
	var keys bytes.Buffer
	// The keyset is in clear text in its file, as a TLS key is: the file's mode and the host guard it.
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&keys)); err != nil {
		return fmt.Errorf("encoding a key: %w", err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("the key file %s exists already; what it sealed can only be opened with it, so it is left as it is", path)
	}
	if err != nil {
		return fmt.Errorf("creating the key file: %w", err)
	}
	if _, err := file.Write(keys.Bytes()); err != nil {
		return errors.Join(fmt.Errorf("writing the key file: %w", err), file.Close())
	}
	return file.Close()
}

// Open reads a key file made by GenerateKeyFile. A file that others may read is refused.
func Open(path string) (*Sealer, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no key file at %s; make one with: starter keygen %s", path, path)
	}
	if err != nil {
		return nil, fmt.Errorf("looking at the key file: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("the key file %s may be read by others; make it private with: chmod 600 %s", path, path)
	}
	keys, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the key file: %w", err)
	}
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(keys)))
	if err != nil {
		return nil, fmt.Errorf("the key file %s isn't a Tink keyset: %w", path, err)
	}
	primitive, err := aead.New(handle)
	if err != nil {
		return nil, fmt.Errorf("the key file %s has no AEAD key: %w", path, err)
	}
	return &Sealer{aead: primitive}, nil
}

// Seal encrypts secret for this org, connection and kind.
func (s *Sealer) Seal(org cura.OrgID, connection cura.ConnectionID, kind Kind, secret string) ([]byte, error) {
	sealed, err := s.aead.Encrypt([]byte(secret), associated(org, connection, kind))
	if err != nil {
		return nil, fmt.Errorf("sealing the %s: %w", kind, err)
	}
	return sealed, nil
}

// Unseal opens what Seal made for the same org, connection and kind.
func (s *Sealer) Unseal(org cura.OrgID, connection cura.ConnectionID, kind Kind, sealed []byte) (string, error) {
	secret, err := s.aead.Decrypt(sealed, associated(org, connection, kind))
	if err != nil {
		return "", fmt.Errorf("the %s of connection %s doesn't open with this key file: it was sealed with another key, or for another connection; give the secret again with: starter connection edit", kind, connection)
	}
	return string(secret), nil
}

func associated(org cura.OrgID, connection cura.ConnectionID, kind Kind) []byte {
	return []byte(string(org) + "|" + string(connection) + "|" + string(kind))
}

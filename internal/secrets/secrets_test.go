package secrets_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/secrets"
)

func open(t *testing.T) *secrets.Sealer {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key.json")
	require.NoError(t, secrets.GenerateKeyFile(path))
	s, err := secrets.Open(path)
	require.NoError(t, err)
	return s
}

func TestASecretOpensOnlyForWhatItWasSealedFor(t *testing.T) {
	t.Parallel()
	s := open(t)
	sealed, err := s.Seal("org", "connection", secrets.ClientSecret, "hunter2")
	require.NoError(t, err)
	require.NotContains(t, string(sealed), "hunter2")
	got, err := s.Unseal("org", "connection", secrets.ClientSecret, sealed)
	require.NoError(t, err)
	require.Equal(t, "hunter2", got)

	again, err := s.Seal("org", "connection", secrets.ClientSecret, "hunter2")
	require.NoError(t, err)
	require.NotEqual(t, sealed, again, "equal secrets don't look equal")

	broken := append([]byte{}, sealed...)
	broken[len(broken)-1] ^= 1
	for name, open := range map[string]func() (string, error){
		"another org":        func() (string, error) { return s.Unseal("other", "connection", secrets.ClientSecret, sealed) },
		"another connection": func() (string, error) { return s.Unseal("org", "other", secrets.ClientSecret, sealed) },
		"another kind":       func() (string, error) { return s.Unseal("org", "connection", "refresh-token", sealed) },
		"a changed byte":     func() (string, error) { return s.Unseal("org", "connection", secrets.ClientSecret, broken) },
		"another key":        func() (string, error) { return openOther(t).Unseal("org", "connection", secrets.ClientSecret, sealed) },
	} {
		_, err := open()
		require.ErrorContains(t, err, "starter connection edit", name)
		require.NotContains(t, err.Error(), "hunter2", name)
	}
}

func openOther(t *testing.T) *secrets.Sealer {
	t.Helper()
	return open(t)
}

func TestKeyFilesArePrivateAndNeverOverwritten(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "key.json")
	_, err := secrets.Open(path)
	require.ErrorContains(t, err, "starter keygen")
	require.NoError(t, secrets.GenerateKeyFile(path))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	require.ErrorContains(t, secrets.GenerateKeyFile(path), "exists already")
	require.NoError(t, os.Chmod(path, 0o644))
	_, err = secrets.Open(path)
	require.ErrorContains(t, err, "chmod 600")
	require.NoError(t, os.WriteFile(path, []byte("{}"), 0o600))
	require.NoError(t, os.Chmod(path, 0o600))
	_, err = secrets.Open(path)
	require.ErrorContains(t, err, "isn't a Tink keyset")
}

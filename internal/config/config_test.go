package config_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/config"
)

func TestDefaultsAreValid(t *testing.T) { //nolint:paralleltest // it reads the environment
	c, err := config.Read()
	require.NoError(t, err)
	require.Equal(t, 500, c.PageSize)
	require.Equal(t, 10*time.Minute, c.Overlap)
	require.EqualValues(t, 16<<20, c.MaxResourceBytes)
	require.EqualValues(t, 160<<20, c.MemoryLimit)
}

func TestErrorsNameTheVariable(t *testing.T) {
	for name, value := range map[string]string{
		"CURA_PAGE_SIZE": "0", "CURA_MAX_RESOURCE_BYTES": "5", "CURA_OVERLAP": "-1s", "CURA_RETRY_ATTEMPTS": "0",
		"CURA_RETRY_INITIAL": "0s", "CURA_RETRY_MAX": "1ms", "CURA_CHUNK_RESOURCES": "0", "CURA_CHUNK_TIME": "0s",
		"CURA_PROBE_INITIAL": "-1s", "CURA_PROBE_MAX": "1s", "CURA_ORG_SLOTS": "4", "CURA_BULK_SLOTS": "2",
		"CURA_ALERT_WEBHOOK": "alerts.example/hook",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, value)
			_, err := config.Read()
			require.ErrorContains(t, err, name)
		})
	}
}

func TestAWebhooksTokenIsNotRepeated(t *testing.T) {
	t.Setenv("CURA_ALERT_WEBHOOK", "ftp://alerts.example/hook?token=hush")
	_, err := config.Read()
	require.ErrorContains(t, err, "CURA_ALERT_WEBHOOK isn't an absolute URL")
	require.NotContains(t, err.Error(), "hush")
}

func TestBytesAreWrittenLikeGOMEMLIMIT(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]config.Bytes{
		"0": 0, "512": 512, "512B": 512, "1KiB": 1 << 10, "160MiB": 160 << 20, "2GiB": 2 << 30, "1TiB": 1 << 40,
	} {
		var got config.Bytes
		require.NoError(t, got.UnmarshalText([]byte(text)), text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "MiB", "-1", "1.5GiB", "160MB", "160 MiB", "9999999TiB"} {
		var got config.Bytes
		require.ErrorContains(t, got.UnmarshalText([]byte(text)), "such as 160MiB", text)
	}
}

func TestTheAlertSecretComesFromAFile(t *testing.T) {
	t.Parallel()
	secret, err := config.Config{}.AlertSecret()
	require.NoError(t, err)
	require.Nil(t, secret, "alerts go out unsigned")

	path := filepath.Join(t.TempDir(), "secret")
	c := config.Config{AlertWebhookSecretFile: path}
	_, err = c.AlertSecret()
	require.ErrorContains(t, err, "CURA_ALERT_WEBHOOK_SECRET_FILE")
	require.NoError(t, os.WriteFile(path, []byte("  0123456789abcdef\n"), 0o600))
	secret, err = c.AlertSecret()
	require.NoError(t, err)
	require.Equal(t, "0123456789abcdef", string(secret), "without the space around it")
	require.NoError(t, os.WriteFile(path, []byte("hush\n"), 0o600))
	_, err = c.AlertSecret()
	require.ErrorContains(t, err, "at least 16")
	require.NotContains(t, err.Error(), "hush")
}

func TestAFileFillsInWhatTheEnvironmentLeavesOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "env")
	require.NoError(t, os.WriteFile(path, []byte("CURA_DATABASE_URL=postgres://file\nCURA_KEY_FILE=/file/key\n\nnonsense\n"), 0o600))
	t.Setenv("CURA_DATABASE_URL", "")
	t.Setenv("CURA_KEY_FILE", "/own/key")
	require.NoError(t, os.Unsetenv("CURA_DATABASE_URL"))
	config.UseFile(filepath.Join(t.TempDir(), "missing"))
	config.UseFile(path)
	c, err := config.Read()
	require.NoError(t, err)
	require.Equal(t, "postgres://file", c.DatabaseURL)
	require.Equal(t, "/own/key", c.KeyFile, "what is set already wins")
	require.NoError(t, os.WriteFile(path, []byte("CURA_DATABASE_URL=postgres://other\n"), 0o600))
	config.UseFile(path)
	c, err = config.Read()
	require.NoError(t, err)
	require.Equal(t, "postgres://file", c.DatabaseURL)
}

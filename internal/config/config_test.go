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
}

func TestErrorsNameTheVariable(t *testing.T) {
	for name, value := range map[string]string{
		"CURA_PAGE_SIZE": "0", "CURA_MAX_RESOURCE_BYTES": "5", "CURA_OVERLAP": "-1s", "CURA_RETRY_ATTEMPTS": "0",
		"CURA_RETRY_INITIAL": "0s", "CURA_RETRY_MAX": "1ms", "CURA_CHUNK_RESOURCES": "0", "CURA_CHUNK_TIME": "0s",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, value)
			_, err := config.Read()
			require.ErrorContains(t, err, name)
		})
	}
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

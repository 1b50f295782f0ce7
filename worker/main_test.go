package main

import (
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/config"
	"github.com/cura-health/ehr-sync/internal/metrics"
)

func TestTheWorkerSaysHowItIs(t *testing.T) {
	t.Parallel()
	recorder, err := metrics.New()
	require.NoError(t, err)
	recorder.WebhookFailed(t.Context())
	for path, want := range map[string]struct {
		code int
		says string
	}{
		"/healthz": {http.StatusNoContent, ""},
		"/metrics": {http.StatusOK, "cura_webhook_failures_total 1"},
		"/":        {http.StatusNotFound, ""},
	} {
		w := httptest.NewRecorder()
		answers(recorder.Handler()).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody))
		require.Equal(t, want.code, w.Code, path)
		require.Contains(t, w.Body.String(), want.says, path)
	}
}

func TestTheMemoryLimitIsTheRuntimesUnlessItHasItsOwn(t *testing.T) { //nolint:paralleltest // the limit is the process's
	before := debug.SetMemoryLimit(math.MaxInt64)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	limitMemory(config.Config{MemoryLimit: 64 << 20, GoMemoryLimit: "1GiB"})
	limitMemory(config.Config{})
	require.EqualValues(t, math.MaxInt64, debug.SetMemoryLimit(-1), "-1 only asks")
	limitMemory(config.Config{MemoryLimit: 1 << 30})
	require.EqualValues(t, 1<<30, debug.SetMemoryLimit(-1))
}

func TestAnUnsignedWebhookIsMentioned(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(secret, []byte("0123456789abcdef"), 0o600))
	for name, tc := range map[string]struct {
		cfg  config.Config
		says string
	}{
		"no webhook": {config.Config{}, ""},
		"unsigned":   {config.Config{AlertWebhook: "https://alerts.example"}, "alerts go to the webhook unsigned"},
		"signed":     {config.Config{AlertWebhook: "https://alerts.example", AlertWebhookSecretFile: secret}, ""},
	} {
		var log strings.Builder
		require.NoError(t, checkAlerts(t.Context(), tc.cfg, slog.New(slog.NewTextHandler(&log, nil))), name)
		require.Contains(t, log.String(), tc.says, name)
		require.Equal(t, tc.says == "", log.String() == "", name)
	}
	require.Error(t, checkAlerts(t.Context(), config.Config{AlertWebhookSecretFile: secret + "-none"}, slog.New(slog.DiscardHandler)))
}

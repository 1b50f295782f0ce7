package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/audit/seal"
	"github.com/cura-health/ehr-sync/internal/config"
)

// TestTheAuditLogsKeyIsOpenedAtTheStart: what is wrong with key or folder is said before the worker takes anything on.
func TestTheAuditLogsKeyIsOpenedAtTheStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key, open := filepath.Join(dir, "key"), filepath.Join(dir, "open")
	for _, file := range []string{key, open} {
		_, err := seal.GenerateKeyFile(file)
		require.NoError(t, err)
	}
	require.NoError(t, os.Chmod(open, 0o644))
	for name, tc := range map[string]struct {
		cfg        config.Config
		says, logs string
		seals      bool
	}{
		"both":             {cfg: config.Config{AuditKeyFile: key, AuditHeadsDir: filepath.Join(dir, "heads")}, seals: true},
		"neither":          {logs: "the audit log isn't sealed"},
		"a key, no folder": {cfg: config.Config{AuditKeyFile: key}, says: "go together"},
		"others may read":  {cfg: config.Config{AuditKeyFile: open, AuditHeadsDir: dir}, says: "chmod 600"},
		"no key there":     {cfg: config.Config{AuditKeyFile: key + "-none", AuditHeadsDir: dir}, says: "starter audit keygen"},
		"no folder":        {cfg: config.Config{AuditKeyFile: key, AuditHeadsDir: key}, says: "making the folder"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log strings.Builder
			got, _, err := openAudit(t.Context(), tc.cfg, slog.New(slog.NewTextHandler(&log, nil)))
			if tc.says != "" {
				require.ErrorContains(t, err, tc.says)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tc.seals, got != nil)
			require.Contains(t, log.String(), tc.logs)
		})
	}
}

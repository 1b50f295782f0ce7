package config_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/config"
)

func TestTheAuditLogIsSealedWithBothSettingsOrNone(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		key, heads string
		seals, ok  bool
	}{{"", "", false, true}, {"key", "heads", true, true}, {"key", "", false, false}, {"", "heads", false, false}} {
		seals, err := config.Config{AuditKeyFile: tc.key, AuditHeadsDir: tc.heads}.SealsAudit()
		require.Equal(t, tc.seals, seals)
		require.Equal(t, tc.ok, err == nil)
		if err != nil {
			require.ErrorContains(t, err, "CURA_AUDIT_KEY_FILE and CURA_AUDIT_HEADS_DIR go together")
		}
	}
}

package activities_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/audit/seal"
	"github.com/cura-health/ehr-sync/internal/config"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// lines is a log that many goroutines write to.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestTheWorkerSealsTheLogsOfAllOrgs: at its start those that have something new, and an org's when a change of consent is settled. A log
// that doesn't fit its head is said, and holds up no other.
func TestTheWorkerSealsTheLogsOfAllOrgs(t *testing.T) {
	t.Parallel()
	db := cluster.New(t)
	var log lines
	cfg, err := config.Read()
	require.NoError(t, err)
	acts, err := activities.New(db.Store, nil, cfg, nil, slog.New(slog.NewTextHandler(&log, nil)))
	require.NoError(t, err)
	t.Cleanup(acts.Close)
	keys, folders := make([]*seal.Key, 2), make([]*seal.Folder, 2)
	for i := range keys {
		file := filepath.Join(t.TempDir(), "audit-key")
		_, err = seal.GenerateKeyFile(file)
		require.NoError(t, err)
		keys[i], err = seal.OpenKeyFile(file)
		require.NoError(t, err)
		folders[i], err = seal.MakeFolder(t.TempDir())
		require.NoError(t, err)
	}
	bad, err := db.AddOrg(t.Context(), "org-a", "test")
	require.NoError(t, err)
	_, err = db.SealAudit(t.Context(), bad.ID, keys[0], folders[0])
	require.NoError(t, err)
	org, err := db.AddOrg(t.Context(), "org-b", "test")
	require.NoError(t, err)

	// A worker with another key can't believe the head of the first org, and seals the others.
	ctx, stop := context.WithCancel(t.Context())
	var loop sync.WaitGroup
	loop.Go(func() { acts.SealAudit(ctx, keys[1], folders[1]) })
	size := func() int64 {
		head, err := folders[1].Last(org.ID, keys[1].Verifiers())
		require.NoError(t, err)
		return head.Size
	}
	require.Eventually(t, func() bool { return size() == 1 }, 20*time.Second, 20*time.Millisecond)
	require.Contains(t, log.String(), "the audit log couldn't be sealed")
	require.Contains(t, log.String(), string(bad.ID))

	// What is recorded is sealed as soon as the database says that a consent was settled.
	require.NoError(t, db.InOrg(t.Context(), org.ID, func(tx *store.Tx) error {
		tx.Audit(audit.Record{Kind: audit.ConsentSettled, Outcome: audit.Success})
		return nil
	}))
	require.Eventually(t, func() bool {
		storetest.Query[string](t, db, `SELECT pg_notify('cura_audit', $1)::text`, org.ID)
		return size() == 2
	}, 20*time.Second, 100*time.Millisecond)
	stop()
	loop.Wait()
}

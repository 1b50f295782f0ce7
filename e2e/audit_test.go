package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/audit/seal"
	"github.com/cura-health/ehr-sync/internal/sandbox"
)

// auditRow is what starter audit verify says of a log.
type auditRow struct {
	Org     string   `json:"org"`
	Records int64    `json:"records"`
	Sealed  int64    `json:"sealed"`
	State   string   `json:"state"`
	Why     string   `json:"why"`
	Notes   []string `json:"notes"`
	First   *struct {
		From int64 `json:"from"`
		To   int64 `json:"to"`
	} `json:"first_bad"`
}

// verifyAudit types starter audit verify for the hospital's log.
func (r *rig) verifyAudit() (auditRow, int) {
	r.t.Helper()
	out, errs, code := r.starter("audit", "verify", "--org", "hospital", "--output", "json")
	var rows []auditRow
	require.NoError(r.t, json.Unmarshal([]byte(out), &rows), errs)
	require.Len(r.t, rows, 1)
	return rows[0], code
}

// newAuditRig is a rig whose workers seal the audit log, and the verifier key.
func newAuditRig(t *testing.T) (r *rig, verifier string) {
	t.Helper()
	r = newRig(t, sandbox.Config{Patients: 5})
	file := filepath.Join(r.dir, "audit-key")
	r.ok("audit", "keygen", file)
	key, err := seal.OpenKeyFile(file)
	require.NoError(t, err)
	r.env = append(r.env, "CURA_AUDIT_KEY_FILE="+file, "CURA_AUDIT_HEADS_DIR="+filepath.Join(r.dir, "heads"))
	return r, key.Verifier()
}

// TestAWorkerKilledWhileItSeals leaves a head that the file has and the table doesn't: verify accepts it, and the next worker takes it up.
func TestAWorkerKilledWhileItSeals(t *testing.T) {
	t.Parallel()
	r, _ := newAuditRig(t)
	first, reached := r.worker("audit/head-kept:1")
	select {
	case <-first.Done():
	case <-time.After(2 * time.Minute):
		require.Fail(t, "the place was never reached")
	}
	text, err := os.ReadFile(reached)
	require.NoError(t, err, "it was the failpoint that killed the worker")
	require.Equal(t, "audit/head-kept", string(text))
	require.Zero(t, r.count("audit.signed_heads"))
	row, code := r.verifyAudit()
	require.Zero(t, code, row.Why)
	require.Equal(t, "verified", row.State)
	require.Contains(t, strings.Join(row.Notes, "\n"), "the file has a head more than the database")

	r.worker("")
	require.Eventually(t, func() bool {
		return r.count("audit.signed_heads JOIN directory.orgs USING (org_id) WHERE kind = 'live'") == 1
	}, time.Minute, 50*time.Millisecond)
	row, code = r.verifyAudit()
	require.Zero(t, code, row.Why)
	require.Empty(t, row.Notes)
}

// TestTheLogOfAnOnboardingProvesItself: sealed by the worker, verified, a record proved to an outsider, and tampering found.
func TestTheLogOfAnOnboardingProvesItself(t *testing.T) {
	t.Parallel()
	r, verifier := newAuditRig(t)
	r.worker("")
	out, code := r.onboard()
	require.Zero(t, code, out)
	r.ok("audit", "seal")
	row, code := r.verifyAudit()
	require.Zero(t, code, row.Why)
	require.Equal(t, "verified", row.State)
	require.Greater(t, row.Sealed, int64(20))

	proof := r.write("proof.json", r.ok("audit", "prove", "hospital", "7"))
	outsider := *r
	outsider.env = []string{"PATH=" + os.Getenv("PATH"), "CURA_DATABASE_URL=postgres://nobody@127.0.0.1:1/none"}
	require.Contains(t, outsider.ok("audit", "check-proof", proof, "--key", verifier), "Record 7 of org")

	super, err := pgx.Connect(t.Context(), r.db.SuperuserURL)
	require.NoError(t, err)
	defer super.Close(t.Context())
	_, err = super.Exec(t.Context(), "SET session_replication_role = replica; UPDATE audit.records SET outcome = 'denied' WHERE seq = 9 AND org_id IN (SELECT org_id FROM directory.orgs WHERE kind = 'live')")
	require.NoError(t, err)
	row, code = r.verifyAudit()
	require.Equal(t, 1, code)
	require.Equal(t, "bad", row.State)
	require.EqualValues(t, 9, row.First.From)
	require.EqualValues(t, 9, row.First.To)
}

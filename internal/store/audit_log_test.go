package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/audit/seal"
	"github.com/cura-health/ehr-sync/internal/consent"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// auditRig is an org with a log, a signing key and a folder of heads.
type auditRig struct {
	t      *testing.T
	db     *storetest.DB
	org    cura.OrgID
	key    *seal.Key
	dir    string
	folder *seal.Folder
}

func newAuditRig(t *testing.T) auditRig {
	t.Helper()
	r := auditRig{t: t, db: cluster.New(t), dir: filepath.Join(t.TempDir(), "heads")}
	org, err := r.db.AddOrg(t.Context(), "org-a", "test") // which is record 1
	require.NoError(t, err)
	r.org = org.ID
	file := filepath.Join(t.TempDir(), "audit-key")
	_, err = seal.GenerateKeyFile(file)
	require.NoError(t, err)
	r.key, err = seal.OpenKeyFile(file)
	require.NoError(t, err)
	r.folder, err = seal.MakeFolder(r.dir)
	require.NoError(t, err)
	return r
}

// record appends records to the log.
func (r auditRig) record(n int) {
	r.t.Helper()
	require.NoError(r.t, r.db.InOrg(r.t.Context(), r.org, func(tx *store.Tx) error {
		for i := range n {
			tx.Audit(audit.Record{Kind: audit.PageRead, Outcome: audit.Success, Details: map[string]any{"served": i}})
		}
		return nil
	}))
}

func (r auditRig) seal() seal.SignedHead {
	r.t.Helper()
	head, err := r.db.SealAudit(r.t.Context(), r.org, r.key, r.folder)
	require.NoError(r.t, err)
	return head
}

func (r auditRig) verify() store.VerifiedLog {
	r.t.Helper()
	v, err := r.db.VerifyAudit(r.t.Context(), r.org, r.folder, r.key.Verifiers())
	require.NoError(r.t, err)
	return v
}

// tamper runs statements as a superuser with triggers off.
func (r auditRig) tamper(statements ...string) {
	r.t.Helper()
	tamper(r.t, r.db, statements...)
}

func tamper(tb testing.TB, db *storetest.DB, statements ...string) {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), db.SuperuserURL)
	require.NoError(tb, err)
	defer func() { require.NoError(tb, conn.Close(context.WithoutCancel(tb.Context()))) }()
	for _, statement := range append([]string{"SET session_replication_role = replica"}, statements...) {
		_, err := conn.Exec(tb.Context(), statement)
		require.NoError(tb, err, statement)
	}
}

// sealedRig has 31 records under heads of 11, 21 and 31, and two more that aren't sealed.
func sealedRig(t *testing.T) auditRig {
	t.Helper()
	r := newAuditRig(t)
	for range 3 {
		r.record(10)
		r.seal()
	}
	r.record(2)
	return r
}

func TestALogIsSealedAndVerified(t *testing.T) {
	t.Parallel()
	r := newAuditRig(t)
	require.Zero(t, r.verify().Heads, "nothing is sealed yet")
	head := r.seal()
	require.EqualValues(t, 1, head.Size)
	require.Equal(t, head, r.seal(), "nothing is new: no head is signed")
	r.record(10)
	require.EqualValues(t, 11, r.seal().Size)
	r.record(3)

	v := r.verify()
	require.Nil(t, v.Bad)
	require.Equal(t, 2, v.Heads)
	require.EqualValues(t, 2, v.TableHeads)
	require.EqualValues(t, 14, v.Records)
	require.EqualValues(t, 11, v.Last.Size)
	require.False(t, v.HashesBroken)
	require.EqualValues(t, 3, inOrg(t, r.db, r.org, func(ctx context.Context, tx *store.Tx) (int64, error) { return tx.Unsealed(ctx) }))
	require.Equal(t, []int64{19}, storetest.Query[int64](t, r.db, "SELECT count(*) FROM audit.hashes"), "11 leaves, and the inner nodes of perfect trees")
}

// inOrg reads something in a transaction.
func inOrg[T any](t *testing.T, db *storetest.DB, org cura.OrgID, read func(context.Context, *store.Tx) (T, error)) T {
	t.Helper()
	var got T
	require.NoError(t, db.InOrg(t.Context(), org, func(tx *store.Tx) (err error) {
		got, err = read(t.Context(), tx)
		return err
	}))
	return got
}

// TestTamperingIsFound: as a superuser with triggers off. Where the stored hashes are as they were, the first bad record is named.
func TestTamperingIsFound(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		statements []string
		from, to   int64
		what       seal.What
	}{
		"an actor is edited":     {[]string{"UPDATE audit.records SET actor = 'nobody' WHERE seq = 14"}, 14, 14, seal.Changed},
		"an outcome is edited":   {[]string{"UPDATE audit.records SET outcome = 'denied' WHERE seq = 1"}, 1, 1, seal.Changed},
		"a microsecond":          {[]string{"UPDATE audit.records SET at = at + interval '1 microsecond' WHERE seq = 31"}, 31, 31, seal.Changed},
		"an instant for ever":    {[]string{"UPDATE audit.records SET at = 'infinity' WHERE seq = 9"}, 9, 9, seal.Changed},
		"a space in the details": {[]string{`UPDATE audit.records SET details = '{ "served":3}' WHERE seq = 5`}, 5, 5, seal.Changed},
		"another kind":           {[]string{"UPDATE audit.records SET kind = 'push.sent' WHERE seq = 22"}, 22, 22, seal.Changed},
		"a field taken away":     {[]string{"ALTER TABLE audit.records ALTER actor DROP NOT NULL", "UPDATE audit.records SET actor = NULL WHERE seq = 6"}, 6, 6, seal.Changed},
		"a run made up":          {[]string{"UPDATE audit.records SET run_id = org_id WHERE seq = 22"}, 22, 22, seal.Changed},
		"a record is deleted":    {[]string{"DELETE FROM audit.records WHERE seq = 14"}, 14, 14, seal.Missing},
		"deleted and renumbered": {[]string{"DELETE FROM audit.records WHERE seq = 14", "UPDATE audit.records SET seq = seq - 100 WHERE seq > 14", "UPDATE audit.records SET seq = seq + 99 WHERE seq < 0", "UPDATE audit.heads SET seq = seq - 1"}, 14, 14, seal.Changed},
		"one is inserted": {[]string{
			"ALTER TABLE audit.records DROP CONSTRAINT records_pkey",
			"INSERT INTO audit.records SELECT org_id, 17, at, kind, 'mallory', connection_id, run_id, outcome, details FROM audit.records WHERE seq = 3",
		}, 17, 17, ""},
		"inserted and renumbered": {[]string{
			"UPDATE audit.records SET seq = -seq WHERE seq >= 17", "UPDATE audit.records SET seq = 1 - seq WHERE seq < 0",
			"INSERT INTO audit.records SELECT org_id, 17, at, kind, 'mallory', connection_id, run_id, outcome, details FROM audit.records WHERE seq = 3",
		}, 17, 17, seal.Changed},
		"two change places": {[]string{
			"UPDATE audit.records SET seq = 0 WHERE seq = 12", "UPDATE audit.records SET seq = 12 WHERE seq = 19", "UPDATE audit.records SET seq = 19 WHERE seq = 0",
		}, 12, 12, seal.Changed},
		"a record below the first": {[]string{"UPDATE audit.records SET seq = 0 WHERE seq = 30"}, 0, 0, seal.Inserted},
		"the tail is cut off":      {[]string{"DELETE FROM audit.records WHERE seq > 25", "UPDATE audit.heads SET seq = 25"}, 26, 26, seal.Missing},
		"all is gone":              {[]string{"DELETE FROM audit.records", "DELETE FROM audit.heads"}, 1, 1, seal.Missing},
		"the table is replaced": {[]string{
			"CREATE TABLE audit.forged (LIKE audit.records INCLUDING ALL)", "INSERT INTO audit.forged SELECT * FROM audit.records",
			"UPDATE audit.forged SET details = '{}' WHERE seq > 20", "DROP TABLE audit.records", "ALTER TABLE audit.forged RENAME TO records",
			"ALTER TABLE audit.records OWNER TO cura_owner", "GRANT SELECT, INSERT ON audit.records TO cura_app",
		}, 21, 21, seal.Changed},
		"the stored hashes too": {[]string{
			"UPDATE audit.records SET actor = 'nobody' WHERE seq = 14", "UPDATE audit.hashes SET hash = sha256('') WHERE index > 20",
		}, 12, 21, seal.Changed},
		"the tail, the hashes and the heads in the table": {[]string{
			"DELETE FROM audit.records WHERE seq > 25", "UPDATE audit.heads SET seq = 25", "DELETE FROM audit.hashes WHERE index > 40", "DELETE FROM audit.signed_heads WHERE size > 21",
		}, 22, 31, seal.Missing},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := sealedRig(t)
			r.tamper(tc.statements...)
			bad := r.verify().Bad
			require.NotNil(t, bad)
			require.Equal(t, tc.from, bad.From, bad.String())
			require.Equal(t, tc.to, bad.To, bad.String())
			require.True(t, bad.Sealed)
			if tc.what != "" {
				require.Equal(t, tc.what, bad.What)
			}
		})
	}
}

// TestNothingIsSignedOnTopOfATamperedLog: the sealer goes on from stored hashes only, and only where they fit the heads.
func TestNothingIsSignedOnTopOfATamperedLog(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		statements []string
		says       string
	}{
		"the stored hashes":  {[]string{"UPDATE audit.hashes SET hash = sha256('')"}, "the stored hashes aren't what the last head"},
		"no stored hashes":   {[]string{"DELETE FROM audit.hashes"}, "the stored hashes aren't what the last head"},
		"a hole after it":    {[]string{"DELETE FROM audit.records WHERE seq = 32"}, "record 32 is missing"},
		"heads and hashes":   {[]string{"DELETE FROM audit.hashes WHERE index >= 39", "DELETE FROM audit.signed_heads WHERE size > 21", "UPDATE audit.records SET actor = 'nobody' WHERE seq = 30"}, "aren't those that the head of 31 records in the file"},
		"restored from old":  {[]string{"DELETE FROM audit.hashes WHERE index >= 39", "DELETE FROM audit.signed_heads WHERE size > 21", "DELETE FROM audit.records WHERE seq > 25", "UPDATE audit.heads SET seq = 25"}, "covers 31 records, and the log has 25"},
		"a head of its own":  {[]string{"UPDATE audit.signed_heads SET note = replace(note, E'\\n31\\n', E'\\n32\\n') WHERE size = 31"}, "its signature is wrong"},
		"a head that isn't ": {[]string{"UPDATE audit.signed_heads SET note = 'x' WHERE size = 31"}, "isn't a signed note"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := sealedRig(t)
			before := r.file()
			r.tamper(tc.statements...)
			_, err := r.db.SealAudit(t.Context(), r.org, r.key, r.folder)
			require.ErrorContains(t, err, tc.says)
			require.Equal(t, before, r.file())
		})
	}
}

// file is the file of heads.
func (r auditRig) file() string {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(r.dir, string(r.org)+".heads"))
	require.NoError(r.t, err)
	return string(text)
}

// TestBrokenHashesAreSaid: the records are right, so the log is; but nothing can be proved or sealed.
func TestBrokenHashesAreSaid(t *testing.T) {
	t.Parallel()
	r := sealedRig(t)
	r.tamper("UPDATE audit.hashes SET hash = sha256('')")
	v := r.verify()
	require.Nil(t, v.Bad)
	require.True(t, v.HashesBroken)
	_, err := r.db.ProveAudit(t.Context(), r.org, 5, r.key.Verifiers())
	require.ErrorContains(t, err, "starter audit verify")
}

// TestManySealersAtOnce: with a folder for all, and with a folder each, the files come to hold every head, and each head once.
func TestManySealersAtOnce(t *testing.T) {
	t.Parallel()
	for name, shared := range map[string]bool{"one folder": true, "a folder each": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newAuditRig(t)
			folders := make([]*seal.Folder, 8)
			for i := range folders {
				folders[i] = r.folder
				if !shared {
					var err error
					folders[i], err = seal.MakeFolder(t.TempDir())
					require.NoError(t, err)
				}
			}
			errs := make([]error, len(folders))
			var all sync.WaitGroup
			for i, folder := range folders {
				all.Go(func() {
					for range 5 {
						errs[i] = r.db.InOrg(t.Context(), r.org, func(tx *store.Tx) error {
							tx.Audit(audit.Record{Kind: audit.PageRead, Outcome: audit.Success})
							return nil
						})
						if errs[i] == nil {
							_, errs[i] = r.db.SealAudit(t.Context(), r.org, r.key, folder)
						}
						if errs[i] != nil {
							return
						}
					}
				})
			}
			all.Wait()
			for i, folder := range folders {
				require.NoError(t, errs[i])
				_, err := r.db.SealAudit(t.Context(), r.org, r.key, folder)
				require.NoError(t, err)
				v, err := r.db.VerifyAudit(t.Context(), r.org, folder, r.key.Verifiers())
				require.NoError(t, err)
				require.Nil(t, v.Bad)
				require.EqualValues(t, 41, v.Last.Size)
				require.EqualValues(t, v.TableHeads, v.Heads)
			}
		})
	}
}

// TestAHeadThatOnlyTheFileHas: a worker died between file and commit. Verify accepts it, and the next sealer takes it up.
func TestAHeadThatOnlyTheFileHas(t *testing.T) {
	t.Parallel()
	r := sealedRig(t)
	last := r.seal()
	require.EqualValues(t, 33, last.Size)
	r.tamper("DELETE FROM audit.signed_heads WHERE size = 33", "DELETE FROM audit.hashes WHERE index >= 57") // as if it hadn't committed
	r.record(4)
	v := r.verify()
	require.Nil(t, v.Bad)
	require.Equal(t, 4, v.Heads)
	require.EqualValues(t, 3, v.TableHeads)
	require.False(t, v.HashesBroken)

	require.EqualValues(t, 37, r.seal().Size)
	v = r.verify()
	require.Nil(t, v.Bad)
	require.Equal(t, 5, v.Heads)
	require.EqualValues(t, 5, v.TableHeads, "the table has the file's head now")
	require.False(t, v.HashesBroken)
}

// TestAFileThatIsBehind: it was cut off, or another worker has sealed elsewhere. Verify says so; the next sealer completes it.
func TestAFileThatIsBehind(t *testing.T) {
	t.Parallel()
	r := sealedRig(t)
	whole := r.file()
	path := filepath.Join(r.dir, string(r.org)+".heads")
	for _, cut := range []int{strings.Index(whole, "=\n\n") + 3, 0} {
		require.NoError(t, os.WriteFile(path, []byte(whole[:cut]), 0o600))
		v := r.verify()
		require.Nil(t, v.Bad)
		require.Less(t, v.Last.Size, v.TableSize)
		r.seal()
		require.True(t, strings.HasPrefix(r.file(), whole))
		v = r.verify()
		require.Nil(t, v.Bad)
		require.EqualValues(t, v.TableHeads, v.Heads)
	}
}

// TestALargeLogIsSealedInBatches: each under a head of its own.
func TestALargeLogIsSealedInBatches(t *testing.T) {
	t.Parallel()
	r := newAuditRig(t)
	fillLog(t, r.db, 24_999)
	require.EqualValues(t, 25_000, r.seal().Size)
	v := r.verify()
	require.Nil(t, v.Bad)
	require.Equal(t, 3, v.Heads)
	r.tamper("UPDATE audit.records SET actor = 'nobody' WHERE seq = 19999")
	require.EqualValues(t, 19_999, r.verify().Bad.From)
}

// fillLog puts so many records into the log of the org that has been added, at once.
func fillLog(tb testing.TB, db *storetest.DB, n int) {
	tb.Helper()
	tamper(tb, db,
		fmt.Sprintf(`INSERT INTO audit.records (org_id, seq, at, kind, actor, outcome, details)
			SELECT h.org_id, h.seq + n, now() + n * interval '1 ms', 'page.read', 'worker', 'success', json_build_object('type', 'Observation', 'served', n)
			FROM audit.heads h JOIN directory.orgs o USING (org_id), generate_series(1, %d) n WHERE o.kind = 'live'`, n),
		fmt.Sprintf("UPDATE audit.heads SET seq = seq + %d WHERE org_id IN (SELECT org_id FROM directory.orgs WHERE kind = 'live')", n))
}

func TestARecordIsProved(t *testing.T) {
	t.Parallel()
	r := sealedRig(t)
	for _, seq := range []int64{1, 14, 31} {
		proof, err := r.db.ProveAudit(t.Context(), r.org, seq, r.key.Verifiers())
		require.NoError(t, err)
		text, err := json.Marshal(proof)
		require.NoError(t, err)
		got, err := seal.CheckProof(strings.NewReader(string(text)), r.key.Verifiers())
		require.NoError(t, err)
		require.Equal(t, seq, got.Record.Seq)
		require.Equal(t, r.org, got.Record.Org)
	}
	_, err := r.db.ProveAudit(t.Context(), r.org, 32, r.key.Verifiers())
	require.ErrorContains(t, err, "isn't sealed yet")
	_, err = r.db.ProveAudit(t.Context(), r.org, 99, r.key.Verifiers())
	require.True(t, fault.Is(err, fault.NotFound))
}

func TestAuditRecordsAreListed(t *testing.T) {
	t.Parallel()
	r := newAuditRig(t)
	addConnection(t, r.db, r.org, "main")
	r.record(3)
	list := func(f store.AuditFilter) []audit.Record {
		return inOrg(t, r.db, r.org, func(ctx context.Context, tx *store.Tx) ([]audit.Record, error) { return tx.AuditRecords(ctx, f) })
	}
	all := list(store.AuditFilter{Limit: 100})
	require.Len(t, all, 5)
	require.EqualValues(t, 1, all[0].Seq, "oldest first")
	details, ok := all[4].Details.(json.RawMessage)
	require.True(t, ok)
	require.JSONEq(t, `{"served":2}`, string(details))
	require.Len(t, list(store.AuditFilter{Kind: audit.PageRead, Limit: 100}), 3)
	last := list(store.AuditFilter{Limit: 2})
	require.Equal(t, []int64{4, 5}, []int64{last[0].Seq, last[1].Seq})
	require.NotEmpty(t, all[1].Connection)
	require.Len(t, list(store.AuditFilter{Connection: all[1].Connection, Limit: 100}), 1)
	require.Empty(t, list(store.AuditFilter{Since: time.Now().Add(time.Hour), Limit: 100}))
}

// TestSealsAreAppendOnly: for the application, and for superusers who leave the triggers on.
func TestSealsAreAppendOnly(t *testing.T) {
	t.Parallel()
	r := sealedRig(t)
	conn := session(t, r.db)
	super, err := pgx.Connect(t.Context(), r.db.SuperuserURL)
	require.NoError(t, err)
	defer super.Close(t.Context())
	for _, table := range []string{"audit.hashes", "audit.signed_heads"} {
		for _, statement := range []string{"UPDATE " + table + " SET org_id = org_id", "DELETE FROM " + table, "TRUNCATE " + table} {
			as(t, conn, "cura_app", string(r.org), func(tx pgx.Tx) {
				_, err := tx.Exec(t.Context(), statement)
				requireState(t, err, insufficientPrivilege)
			})
			_, err := super.Exec(t.Context(), statement)
			requireState(t, err, insufficientPrivilege)
		}
	}
}

// TestAConsentThatIsSettledIsToldToTheSealer: with its commit, so that what the sealer reads has its record.
func TestAConsentThatIsSettledIsToldToTheSealer(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	o.ensureHead(t)
	told := make(chan cura.OrgID, 100)
	ctx, stop := context.WithCancel(t.Context())
	var listener sync.WaitGroup
	listener.Go(func() { _ = o.db.ListenSettled(ctx, func(org cura.OrgID) { told <- org }) })
	defer listener.Wait()
	defer stop()
	require.Eventually(t, func() bool { // until it listens
		o.change(t, "", consent.Grant(consent.Terms{}))
		o.settle(t)
		select {
		case org := <-told:
			return org == o.org
		case <-time.After(100 * time.Millisecond):
			return false
		}
	}, 20*time.Second, time.Millisecond)
}

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/audit/seal"
)

// sealedDesk is a desk with org st-mary, whose log it seals and verifies.
type sealedDesk struct {
	desk
	dir, heads, verifier string
	key                  *seal.Key
}

func newSealedDesk(t *testing.T) sealedDesk {
	t.Helper()
	s := sealedDesk{desk: newDesk(t), dir: t.TempDir()}
	s.heads = filepath.Join(s.dir, "heads")
	file := filepath.Join(s.dir, "audit-key")
	var made struct {
		KeyFile  string `json:"key_file"`
		Verifier string `json:"verifier"`
	}
	require.NoError(t, json.Unmarshal([]byte(s.does(t, "audit", "keygen", file, "-o", "json")), &made))
	require.Equal(t, file, made.KeyFile)
	s.verifier = made.Verifier
	var err error
	s.key, err = seal.OpenKeyFile(file)
	require.NoError(t, err)
	s.addMain(t)
	s.seal(t)
	return s
}

// seal seals every log, as the worker does.
func (s sealedDesk) seal(t *testing.T) {
	t.Helper()
	folder, err := seal.MakeFolder(s.heads)
	require.NoError(t, err)
	orgs, err := s.db.AuditedOrgs(t.Context())
	require.NoError(t, err)
	for _, o := range orgs {
		_, err := s.db.SealAudit(t.Context(), o.ID, s.key, folder)
		require.NoError(t, err)
	}
}

func (s sealedDesk) verify(t *testing.T, more ...string) (typedLine, []verifiedOrg) {
	t.Helper()
	got := s.starter(t, append([]string{"audit", "verify", "--heads", s.heads, "--key", s.verifier, "-o", "json"}, more...)...)
	var all []verifiedOrg
	if got.out != "" {
		require.NoError(t, json.Unmarshal([]byte(got.out), &all), got.out)
	}
	return got, all
}

func (s sealedDesk) tamper(t *testing.T, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.db.SuperuserURL)
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	for _, statement := range append([]string{"SET session_replication_role = replica"}, statements...) {
		_, err := conn.Exec(t.Context(), statement)
		require.NoError(t, err)
	}
}

func TestALogIsVerifiedAndTamperingNamed(t *testing.T) {
	t.Parallel()
	s := newSealedDesk(t)
	got, all := s.verify(t)
	require.Equal(t, exitDone, got.code, got.err)
	require.Len(t, all, 2, "the sandbox org has a log too")
	require.Equal(t, "st-mary", all[0].Org)
	require.True(t, all[0].Verified)
	require.Equal(t, all[0].Records, all[0].Sealed)
	require.Contains(t, all[0].Head, "cura-ehr-sync audit "+string(all[0].OrgID)+"\n")
	table := s.does(t, "audit", "verify", "--heads", s.heads, "--key", s.verifier, "--org", "st-mary")
	require.Contains(t, table, "verified")

	s.does(t, "org", "policy", "st-mary", "--part2") // one more record
	_, all = s.verify(t, "--org", "st-mary")
	require.Contains(t, all[0].Notes[0], "1 records after the last head aren't sealed yet")
	s.seal(t)

	s.tamper(t, "UPDATE audit.records SET actor = 'nobody' WHERE seq = 2")
	got, all = s.verify(t)
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, got.err, "1 of 2 logs can't be believed")
	require.Contains(t, got.err, "tell whoever answers for security")
	require.Equal(t, &firstBad{From: 2, To: 2, What: seal.Changed, Sealed: true}, all[0].FirstBad)
	require.Contains(t, all[0].Why, "record 2 isn't what was sealed")
	require.False(t, all[0].Verified)
	require.NotContains(t, all[0].Why+got.err, "nobody")
}

func TestWhatIsWrongWithHeadsIsSaid(t *testing.T) {
	t.Parallel()
	s := newSealedDesk(t)
	_, all := s.verify(t)
	sealed := fmt.Sprintf("\n%d\n", all[0].Sealed)
	file := filepath.Join(s.heads, string(all[0].OrgID)+".heads")
	whole, err := os.ReadFile(file)
	require.NoError(t, err)

	require.NoError(t, os.WriteFile(file, whole[:len(whole)-9], 0o600))
	got, all := s.verify(t)
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, all[0].Why, "the file was cut off")
	require.Contains(t, all[0].Notes[0], "ends in the middle of a head")

	require.NoError(t, os.WriteFile(file, []byte(strings.Replace(string(whole), sealed, "\n99\n", 1)), 0o600))
	_, all = s.verify(t)
	require.Contains(t, all[0].Why, "its signature is wrong")

	require.NoError(t, os.WriteFile(file, whole, 0o600))
	gone := strings.Replace(file, string(all[0].OrgID), "0b7c6a52-8c5e-4a55-9d0e-3f6b1f2f3a10", 1)
	require.NoError(t, os.WriteFile(gone, whole, 0o600))
	got, all = s.verify(t)
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, all[2].Why, "which the database doesn't know")

	_, other, found := strings.Cut(s.does(t, "audit", "keygen", filepath.Join(s.dir, "other")), "Verifier key: ")
	require.True(t, found)
	got = s.starter(t, "audit", "verify", "--heads", s.heads, "--key", strings.TrimSpace(other))
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, got.out, "none of the keys given has signed it")
}

func TestAProofIsCheckedWithoutADatabase(t *testing.T) {
	t.Parallel()
	s := newSealedDesk(t)
	text := s.does(t, "audit", "prove", "st-mary", "2", "--key", s.verifier)
	file := filepath.Join(s.dir, "proof.json")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))

	got := starter(t, "audit", "check-proof", file, "--key", s.verifier, "--database-url", nowhere)
	require.Equal(t, exitDone, got.code, got.err)
	require.Contains(t, got.out, "Record 2 of org")
	require.Contains(t, got.out, "connection.added")
	got = starterWith(t, text, "audit", "check-proof", "-", "--key", s.verifier, "-o", "json")
	var p proved
	require.NoError(t, json.Unmarshal([]byte(got.out), &p))
	require.True(t, p.InLog)
	require.EqualValues(t, 2, p.Record.Seq)

	got = starterWith(t, strings.Replace(text, `"seq": 2`, `"seq": 3`, 1), "audit", "check-proof", "-", "--key", s.verifier)
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, got.err, "what it says of the record")
	got = s.starter(t, "audit", "prove", "st-mary", "99", "--key", s.verifier)
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, got.err, "has no record 99")
}

func TestTheAuditLogIsListed(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.addMain(t)
	var records []audit.Record
	require.NoError(t, json.Unmarshal([]byte(d.does(t, "audit", "list", "st-mary", "-o", "json")), &records))
	require.Equal(t, audit.OrgAdded, records[0].Kind)
	require.Contains(t, records[0].Actor, "pat")
	require.Contains(t, d.does(t, "audit", "list", "st-mary", "--connection", "st-mary/main", "--kind", "connection.added", "--since", "1h"), "connection.added")
	require.Contains(t, d.does(t, "audit", "list", "st-mary", "--kind", "push.sent"), "There are no such records.")
	got := d.starter(t, "audit", "list", "st-joseph")
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, got.err, "starter org list")
}

func TestAuditUsage(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		args []string
		says string
	}{
		"list of none":         {[]string{"audit", "list"}, "takes one argument, the org"},
		"limit":                {[]string{"audit", "list", "a", "--limit", "0"}, "--limit is 0"},
		"since":                {[]string{"audit", "list", "a", "--since", "yesterday"}, "neither a date"},
		"prove without number": {[]string{"audit", "prove", "a"}, "takes two arguments"},
		"prove a word":         {[]string{"audit", "prove", "a", "b"}, "takes two arguments"},
		"check without key":    {[]string{"audit", "check-proof", "p"}, "needs --key"},
		"check with no key":    {[]string{"audit", "check-proof", "p", "--key", "x"}, "isn't a verifier key"},
		"keygen without file":  {[]string{"audit", "keygen"}, "takes one argument, the file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := starter(t, append(tc.args, "--database-url", nowhere)...)
			require.Equal(t, exitUsage, got.code, got.err)
			require.Contains(t, got.err, tc.says)
		})
	}
}

func TestSealingByHandNeedsKeyAndFolder(t *testing.T) {
	d := newDesk(t)
	d.addMain(t)
	file := filepath.Join(t.TempDir(), "audit-key")
	d.does(t, "audit", "keygen", file)
	got := d.starter(t, "audit", "seal")
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, got.err, "starter audit keygen FILE")
	t.Setenv("CURA_AUDIT_KEY_FILE", file)
	got = d.starter(t, "audit", "seal")
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, got.err, "go together")
	t.Setenv("CURA_AUDIT_HEADS_DIR", filepath.Join(t.TempDir(), "heads"))
	require.Contains(t, d.does(t, "audit", "seal", "--org", "st-mary"), "st-mary")
	require.Contains(t, d.does(t, "audit", "verify"), "verified", "key and folder as the worker has them")
	require.NoError(t, os.Chmod(file, 0o644))
	got = d.starter(t, "audit", "verify")
	require.Contains(t, got.err, "chmod 600")
}

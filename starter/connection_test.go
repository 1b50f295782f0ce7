package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/secrets"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

func TestOrgs(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	require.Contains(t, d.does(t, "org", "list"), "There are no orgs")
	d.does(t, "org", "add", "st-mary")
	again := d.starter(t, "org", "add", "st-mary")
	require.Equal(t, exitFailed, again.code)
	require.Contains(t, again.err, "there is an org")

	var orgs []store.Org
	require.NoError(t, json.Unmarshal([]byte(d.does(t, "org", "list", "--output", "json")), &orgs))
	require.Len(t, orgs, 1)
	require.Equal(t, "st-mary", orgs[0].Name)
}

func TestConnectionIsAddedWithItsSecretAndItsShadow(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.addMain(t, "--types", "Observation,Patient")
	l, err := d.db.FindConnection(t.Context(), "st-mary/main")
	require.NoError(t, err)

	s := &session{store: d.db.Store}
	conn, err := s.state(t.Context(), l)
	require.NoError(t, err)
	require.Equal(t, "https://ehr.st-mary.example/fhir/R4", conn.BaseURL)
	require.Equal(t, []cura.ResourceType{cura.Patient, cura.Observation}, conn.Types)
	require.Equal(t, []string{"system/Patient.rs", "system/Observation.rs"}, conn.Scopes, "the least set")

	sealer, err := secrets.Open(d.keyFile)
	require.NoError(t, err)
	var sealed []byte
	require.NoError(t, d.db.InOrg(t.Context(), l.Org, func(tx *store.Tx) error {
		sealed, err = tx.Credential(t.Context(), l.Connection, string(secrets.ClientSecret))
		return err
	}))
	secret, err := sealer.Unseal(l.Org, l.Connection, secrets.ClientSecret, sealed)
	require.NoError(t, err)
	require.Equal(t, theSecret, secret, "without the newline of its file")

	shadow, err := s.shadow(t.Context(), l.Org, l.Connection)
	require.NoError(t, err)
	require.NotEqual(t, l.Connection, shadow.ID)
	require.Equal(t, l.Connection, shadow.ShadowOf)
	require.Equal(t, "none", shadow.ClientID)
	require.Equal(t, conn.Types, shadow.Types)
	require.Equal(t, []int64{1}, storetest.Query[int64](t, d.db, "SELECT count(*) FROM sync.credentials"), "the shadow has none")
}

func TestConnectionAddThatFailsLeavesNothing(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	none := d.starter(t, mainSettings(t)...)
	require.Equal(t, exitFailed, none.code)
	require.Contains(t, none.err, `there is no org "st-mary"`)

	d.addMain(t)
	twice := d.starter(t, mainSettings(t)...)
	require.Equal(t, exitFailed, twice.code)
	require.Contains(t, twice.err, `has a connection "main" already`)
	require.Equal(t, []int64{2}, storetest.Query[int64](t, d.db, "SELECT count(*) FROM sync.connections"), "the connection and its shadow")
}

func TestConnectionEditChangesWhatIsNamed(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.addMain(t)
	d.does(t, "connection", "edit", "main", "--types", "Patient,Consent", "--match", "national-id:urn:oid:9.9")
	l, err := d.db.FindConnection(t.Context(), "main")
	require.NoError(t, err)
	s := &session{store: d.db.Store}
	conn, err := s.state(t.Context(), l)
	require.NoError(t, err)
	require.Equal(t, "https://ehr.st-mary.example/fhir/R4", conn.BaseURL)
	require.Equal(t, []string{"system/Patient.rs", "system/Consent.rs"}, conn.Scopes, "the least set follows the types")
	shadow, err := s.shadow(t.Context(), l.Org, l.Connection)
	require.NoError(t, err)
	require.Equal(t, conn.Types, shadow.Types)
	require.Equal(t, conn.Match, shadow.Match)

	d.does(t, "connection", "edit", "main", "--scope", "")
	conn, err = s.state(t.Context(), l)
	require.NoError(t, err)
	require.Empty(t, conn.Scopes, "none is asked for")

	wrong := d.starter(t, "connection", "edit", "main", "--base-url", "http://ehr.st-mary.example/fhir")
	require.Equal(t, exitUsage, wrong.code)
	require.Contains(t, wrong.err, "plain http")
}

func TestASecretDoesntFollowItsConnectionToAnotherHost(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.addMain(t)
	for _, change := range [][]string{
		{"--base-url", "https://elsewhere.example/fhir/R4"},
		{"--base-url", "https://ehr.st-mary.example:444/fhir/R4"},
		{"--token-url", "https://elsewhere.example/token"},
	} {
		refused := d.starter(t, append([]string{"connection", "edit", "main"}, change...)...)
		require.Equal(t, exitUsage, refused.code, change)
		require.Contains(t, refused.err, "--secret-file", change)
	}
	d.does(t, "connection", "edit", "main", "--base-url", "https://ehr.st-mary.example/fhir/R5")
}

func TestSecretIsNeverPrinted(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.does(t, "org", "add", "st-mary")
	next := filepath.Join(t.TempDir(), "next")
	require.NoError(t, os.WriteFile(next, []byte("other-"+theSecret), 0o600))
	two := filepath.Join(t.TempDir(), "two")
	require.NoError(t, os.WriteFile(two, []byte(theSecret+"\n"+theSecret+"\n"), 0o600))
	for _, args := range [][]string{
		mainSettings(t), mainSettings(t),
		{"connection", "show", "main"},
		{"connection", "list"},
		{"connection", "edit", "main", "--secret-file", next},
		{"connection", "edit", "main", "--secret-file", two},
		{"connection", "edit", "main", "--secret-file", next, "--key-file", filepath.Join(t.TempDir(), "none")},
		{"connection", "edit", "main", "--secret", theSecret},
		{"status"},
		{"attention"},
	} {
		for _, output := range []string{"table", "json"} {
			got := d.starter(t, append(args, "--output", output)...)
			require.NotContains(t, got.out+got.err, theSecret, args[0])
		}
	}
	require.Empty(t, storetest.Query[string](t, d.db, "SELECT details::text FROM audit.records WHERE details::text LIKE '%"+theSecret+"%'"))
}

func TestSecretFromStandardInput(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.addMain(t)
	edit := []string{"connection", "edit", "main", "--secret-file", "-", "--database-url", d.db.URL, "--key-file", d.keyFile}
	require.Equal(t, exitDone, starterWith(t, "from stdin\n", edit...).code)
	empty := starterWith(t, "\n", edit...)
	require.Equal(t, exitUsage, empty.code)
	require.Contains(t, empty.err, "the client secret is empty")
}

func TestConnectionShow(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.addMain(t)
	l, err := d.db.FindConnection(t.Context(), "main")
	require.NoError(t, err)
	require.NoError(t, d.db.InOrg(t.Context(), l.Org, func(tx *store.Tx) error {
		if err := tx.SwitchTypeOff(t.Context(), l.Connection, cura.Consent, "the EHR forbids it (403)"); err != nil {
			return err
		}
		return tx.SetStanding(t.Context(), l.Connection, store.Standing{
			Phase: cura.PhaseTesting, Health: cura.HealthAttention, WaitsFor: cura.WaitsForFixCredentials,
			Why: "The endpoint test failed", Commands: []string{"starter retry " + string(l.Connection)},
		}, "test")
	}))
	text := d.does(t, "connection", "show", "st-mary/main")
	for _, part := range []string{
		"https://ehr.st-mary.example/fhir/R4", "its secret is sealed", "Waits for a person (fix-credentials)", "The endpoint test failed",
		"starter retry st-mary/main", "the EHR forbids it (403)", "No run yet.",
	} {
		require.Contains(t, text, part)
	}
	var view connectionView
	require.NoError(t, json.Unmarshal([]byte(d.does(t, "connection", "show", string(l.Connection), "-o", "json")), &view))
	require.Equal(t, "fix-credentials", string(view.WaitsFor))
	require.Len(t, view.TypeStates, 7)

	missing := d.starter(t, "connection", "show", "nope")
	require.Equal(t, exitFailed, missing.code)
	require.Contains(t, missing.err, "List them with: starter connection list")
}

func TestRemoveAsksFirst(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.addMain(t)
	got := d.starter(t, "connection", "remove", "main")
	require.Equal(t, exitUsage, got.code)
	require.Contains(t, got.err, "say --yes")
	require.Contains(t, d.does(t, "connection", "list"), "st-mary/main")
}

func TestRemovedConnectionTakesItsShadowAlong(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.addMain(t)
	l, err := d.db.FindConnection(t.Context(), "main")
	require.NoError(t, err)
	s := &session{store: d.db.Store, actor: "asserted:pat"}
	require.NoError(t, s.removeConnection(t.Context(), l))
	require.Contains(t, d.does(t, "connection", "list"), "There are no connections")
	require.Equal(t, []int64{0}, storetest.Query[int64](t, d.db, "SELECT count(*) FROM sync.connections WHERE removed_at IS NULL"))
	require.Equal(t, []int64{0}, storetest.Query[int64](t, d.db, "SELECT count(*) FROM sync.credentials"))
	// Its name is free again, in the sandbox org too.
	d.does(t, mainSettings(t)...)
}

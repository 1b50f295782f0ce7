package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/profile"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

func TestProfilesAreListedWithTheirStrategies(t *testing.T) {
	t.Parallel()
	got := starter(t, "profiles")
	require.Equal(t, exitDone, got.code, got.err)
	for _, name := range profile.Names() {
		require.Contains(t, got.out, name)
	}
	require.Contains(t, got.out, "roster; snapshot: Patient")

	var views []profileView
	require.NoError(t, json.Unmarshal([]byte(starter(t, "profiles", "--output", "json").out), &views))
	require.Len(t, views, len(profile.Names()))
	for _, v := range views {
		require.Len(t, v.Types, len(cura.ResourceTypes()), v.Name)
	}
}

func TestAProfileIsShownWithItsRules(t *testing.T) {
	t.Parallel()
	got := starter(t, "profiles", "show", "athena")
	require.Equal(t, exitDone, got.code, got.err)
	for _, part := range []string{"athenahealth", "--profile-param practice=VALUE", "intent=order", "SMART v2"} {
		require.Contains(t, got.out, part)
	}
	var v profileView
	require.NoError(t, json.Unmarshal([]byte(starter(t, "profiles", "show", "epic", "-o", "json").out), &v))
	for _, typ := range v.Types {
		require.Equal(t, cura.StrategySnapshot, typ.Strategy)
		require.NotEmpty(t, typ.Why)
		require.NotEmpty(t, typ.CanMiss)
	}
	unknown := starter(t, "profiles", "show", "epik")
	require.Equal(t, exitUsage, unknown.code)
	require.Contains(t, unknown.err, "isn't one of athena, epic")
}

const ownProfile = `
name: our-epic
scopes: v1
query: {tenant: "${tenant}"}
params: [tenant]
types:
  Patient: {strategy: snapshot, why: It is read by id.}
  Observation: {strategy: roster, categories: [laboratory], why: It takes both.}
`

func TestAProfileFileIsChecked(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "ours.yaml")
	require.NoError(t, os.WriteFile(file, []byte(ownProfile), 0o600))
	require.Contains(t, starter(t, "profiles", "check", file).out, "is a profile without faults: our-epic")
	require.Equal(t, exitDone, starterWith(t, ownProfile, "profiles", "check", "-").code)

	require.NoError(t, os.WriteFile(file, []byte(strings.Replace(ownProfile, "roster", "rooster", 1)), 0o600))
	broken := starter(t, "profiles", "check", file)
	require.Equal(t, exitFailed, broken.code)
	require.Contains(t, broken.err, "ours.yaml:8: types.Observation.strategy")
	require.Equal(t, exitUsage, starter(t, "profiles", "check", filepath.Join(t.TempDir(), "none")).code)
}

// settings reads the connection main as it is stored.
func (d desk) settings(t *testing.T) store.ConnectionState {
	t.Helper()
	l, err := d.db.FindConnection(t.Context(), "main")
	require.NoError(t, err)
	conn, err := (&session{store: d.db.Store}).state(t.Context(), l)
	require.NoError(t, err)
	return conn
}

func TestAConnectionTakesUpItsProfile(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.addMain(t, "--profile", "athena", "--profile-param", "practice=Organization/a-1.Practice-1", "--budget", "120", "--alert-after", "3")
	conn := d.settings(t)
	require.Equal(t, "athena", conn.EHRProfile)
	require.Equal(t, map[string]string{"practice": "Organization/a-1.Practice-1"}, conn.ProfileParams)
	require.Equal(t, "system/Patient.rs", conn.Scopes[0])
	require.Equal(t, []int32{120}, storetest.Query[int32](t, d.db, "SELECT requests_per_minute FROM sync.pace"))
	require.Equal(t, []int32{3}, storetest.Query[int32](t, d.db, "SELECT alert_after FROM sync.pace"))

	d.does(t, "connection", "edit", "main", "--profile", "oracle", "--strategy", "Observation=snapshot", "--strategy", "Consent=snapshot")
	conn = d.settings(t)
	require.Empty(t, conn.ProfileParams, "they were the other profile's")
	require.Equal(t, "system/Patient.read", conn.Scopes[0], "the least set follows the profile")
	require.Equal(t, map[cura.ResourceType]cura.Strategy{cura.Observation: "snapshot", cura.Consent: "snapshot"}, conn.Strategies)

	d.does(t, "connection", "edit", "main", "--profile", "epic", "--strategy", "Consent=")
	conn = d.settings(t)
	require.Empty(t, conn.Scopes, "Epic wants none to be asked for")
	require.Equal(t, map[cura.ResourceType]cura.Strategy{cura.Observation: "snapshot"}, conn.Strategies)

	d.does(t, "connection", "edit", "main", "--types", "Patient,Consent")
	require.Empty(t, d.settings(t).Strategies, "of a type that isn't read any more")

	before := d.settings(t)
	for _, wrong := range [][]string{
		{"--profile", "athena"}, {"--profile", "epik"}, {"--strategy", "Consent=rooster"}, {"--budget", "-2", "--profile", "hapi"},
	} {
		require.Equal(t, exitUsage, d.starter(t, append([]string{"connection", "edit", "main"}, wrong...)...).code, wrong)
	}
	require.Equal(t, before, d.settings(t), "nothing of a wrong command is stored")
}

func TestAConnectionHasAProfileOfItsOwn(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	file := filepath.Join(t.TempDir(), "ours.yaml")
	require.NoError(t, os.WriteFile(file, []byte(ownProfile), 0o600))
	d.addMain(t, "--profile-file", file, "--profile-param", "tenant=t1")
	conn := d.settings(t)
	require.Equal(t, "our-epic", conn.EHRProfile)
	require.Equal(t, ownProfile, conn.ProfileText)
	require.Equal(t, []cura.ResourceType{cura.Patient, cura.Observation}, conn.Types, "what the profile has")
	require.Equal(t, []string{"system/Patient.read", "system/Observation.read"}, conn.Scopes)

	wrong := d.starter(t, "connection", "edit", "main", "--types", "Patient,Consent")
	require.Equal(t, exitUsage, wrong.code)
	require.Contains(t, wrong.err, "doesn't offer Consent")

	d.does(t, "connection", "edit", "main", "--profile", "generic")
	conn = d.settings(t)
	require.Empty(t, conn.ProfileText)
	require.Empty(t, conn.ProfileParams)
}

func TestConnectionShowSaysHowEachTypeIsRead(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.addMain(t, "--profile", "oracle", "--strategy", "Consent=snapshot", "--budget", "90")
	conn := d.settings(t)
	require.NoError(t, d.db.InOrg(t.Context(), conn.OrgID, func(tx *store.Tx) error {
		if _, _, err := tx.AddMembers(t.Context(), conn.ID, cura.RosterList, []string{"phi-1", "phi-2"}, "test"); err != nil {
			return err
		}
		if _, _, err := tx.Pause(t.Context(), conn.ID, store.Pause{Type: cura.Encounter, By: "asserted:pat", Reason: "the hospital moves"}); err != nil {
			return err
		}
		return tx.PutStrategies(t.Context(), conn.ID, []cura.StrategyChoice{{
			Type: cura.Observation, Strategy: cura.StrategyRoster, ChosenBy: profile.ByProbe, Reason: "It took both.", CanMiss: "Little.", NotOffered: []string{"therapy"},
		}})
	}))
	text := d.does(t, "connection", "show", "main")
	for _, part := range []string{
		"Profile     oracle", "90 requests a minute", "It took both.", "The server doesn't offer: therapy", "operator", "An operator chose it.",
		"2 (2 by list)", "Paused      Encounter is paused since", "the hospital moves", "paused since",
	} {
		require.Contains(t, text, part)
	}
	require.NotContains(t, text, "phi-")

	var view connectionView
	require.NoError(t, json.Unmarshal([]byte(d.does(t, "connection", "show", "main", "-o", "json")), &view))
	require.Len(t, view.Strategies, len(cura.ResourceTypes()))
	chosenBy := map[cura.ResourceType]string{}
	for _, s := range view.Strategies {
		chosenBy[s.Type] = s.ChosenBy
	}
	require.Equal(t, profile.ByProbe, chosenBy[cura.Observation])
	require.Equal(t, profile.ByOperator, chosenBy[cura.Consent])
	require.Equal(t, profile.ByProfile, chosenBy[cura.Patient])
	require.Equal(t, 2, view.Roster.Members[cura.RosterList])
	require.Len(t, view.Pauses, 1)
	require.Equal(t, 90, view.Pace.RequestsPerMinute)
}

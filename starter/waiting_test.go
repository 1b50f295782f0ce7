package main

import (
	"encoding/json"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// openLetter leaves a dead letter of st-mary/main.
func openLetter(t *testing.T, d desk) (store.Listed, cura.DeadLetterID) {
	t.Helper()
	l, err := d.db.FindConnection(t.Context(), "main")
	require.NoError(t, err)
	var id cura.DeadLetterID
	require.NoError(t, d.db.InOrg(t.Context(), l.Org, func(tx *store.Tx) error {
		id, err = tx.OpenDeadLetter(t.Context(), store.DeadLetter{
			Connection: l.Connection, Type: cura.Encounter, Run: uuid.NewString(), Fault: fault.Transient, Detail: "the server answered 500", Attempts: 8,
		})
		return err
	}))
	return l, id
}

func TestAttention(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.addMain(t)
	nothing := d.starter(t, "attention", "--output", "json")
	require.Equal(t, exitDone, nothing.code)
	require.JSONEq(t, "[]", nothing.out)

	l, letter := openLetter(t, d)
	require.NoError(t, d.db.InOrg(t.Context(), l.Org, func(tx *store.Tx) error {
		return tx.SetStanding(t.Context(), l.Connection, store.Standing{
			Phase: cura.PhaseMonitoring, Health: cura.HealthAttention, WaitsFor: cura.WaitsForRetry, Why: "The monitoring window is unhealthy",
			Commands: []string{"starter extend " + string(l.Connection) + " --by 24h"},
		}, "test")
	}))
	got := d.starter(t, "attention")
	require.Equal(t, exitWaiting, got.code)
	require.Contains(t, got.err, "2 things wait for a person")
	for _, part := range []string{
		"st-mary/main  dead-letter", "Encounter gave up after 8 attempts", "starter dead-letters replay " + string(letter),
		"st-mary/main  onboarding", "The monitoring window is unhealthy", "starter extend st-mary/main --by 24h",
	} {
		require.Contains(t, got.out, part)
	}
	asJSON := d.starter(t, "attention", "--output", "json")
	require.Equal(t, exitWaiting, asJSON.code)
	var items []attentionItem
	require.NoError(t, json.Unmarshal([]byte(asJSON.out), &items))
	require.Len(t, items, 2)
}

func TestDeadLetters(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.addMain(t)
	require.Contains(t, d.does(t, "dead-letters", "list"), "There are no dead letters")
	_, id := openLetter(t, d)
	require.Contains(t, d.does(t, "dead-letters", "list"), string(id))
	require.Contains(t, d.does(t, "dead-letters", "show", string(id)), "starter dead-letters replay "+string(id))
	require.Contains(t, d.does(t, "status"), "st-mary/main")

	d.does(t, "dead-letters", "discard", string(id), "--reason", "the EHR was down")
	require.Contains(t, d.does(t, "dead-letters", "list"), "There are no dead letters")
	require.Contains(t, d.does(t, "dead-letters", "list", "--all"), "discarded")
	require.Equal(t, []string{"the EHR was down"}, storetest.Query[string](t, d.db,
		"SELECT details->>'reason' FROM audit.records WHERE kind = 'operator.command' AND actor = 'asserted:pat'"))

	for _, command := range []string{"discard", "replay"} {
		again := d.starter(t, "dead-letters", command, string(id))
		require.Equal(t, exitFailed, again.code)
		require.Contains(t, again.err, "is discarded already")
	}
	none := d.starter(t, "dead-letters", "show", uuid.NewString())
	require.Equal(t, exitFailed, none.code)
	require.Contains(t, none.err, "dead-letters list --all")
}

func TestPilot(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.addMain(t)
	require.Contains(t, d.does(t, "pilot", "main"), "begin one with: starter onboard st-mary/main")

	l, err := d.db.FindConnection(t.Context(), "main")
	require.NoError(t, err)
	s := &session{store: d.db.Store}
	shadow, err := s.shadow(t.Context(), l.Org, l.Connection)
	require.NoError(t, err)
	run := uuid.NewString()
	require.NoError(t, d.db.InOrg(t.Context(), shadow.OrgID, func(tx *store.Tx) error {
		if err := tx.StartRun(t.Context(), store.Run{ID: run, Connection: shadow.ID, Kind: cura.RunPilot, WorkflowID: "onboarding/x"}); err != nil {
			return err
		}
		if err := tx.StartPilot(t.Context(), shadow.ID, run, []string{"ehr-1", "ehr-2", "ehr-3"}); err != nil {
			return err
		}
		err := tx.PutPilotReport(t.Context(), shadow.ID, cura.PilotPatient{
			Position: 1, Match: "new", MatchReason: "no profile has this identifier", Counts: map[cura.ResourceType]cura.Counts{cura.Patient: {Served: 1, Stored: 1}},
			Missing: []string{"profiles.gender"}, Preview: []cura.PreviewLine{{Element: "Patient.name", Source: "Quillfeather", Field: "profiles.name", Value: "Quillfeather"}},
		})
		if err != nil {
			return err
		}
		return tx.PutPilotReport(t.Context(), shadow.ID, cura.PilotPatient{Position: 2, Match: "ambiguous", MatchReason: "two profiles have it"})
	}))

	for _, output := range []string{"table", "json"} {
		got := d.starter(t, "pilot", "main", "--output", output)
		require.Equal(t, exitDone, got.code, got.err)
		require.Contains(t, got.out, "profiles.gender")
		require.Contains(t, got.err, "1 of 3 patients haven't been read yet")
		require.NotContains(t, got.out, "Quillfeather", "patient data is shown by --preview alone")
		require.Contains(t, d.does(t, "pilot", "main", "--preview", "--output", output), "Quillfeather")
	}
	second := d.does(t, "pilot", "main", "--position", "2", "--preview")
	require.Contains(t, second, "ambiguous")
	require.NotContains(t, second, "Quillfeather")
	require.Equal(t, exitFailed, d.starter(t, "pilot", "main", "--position", "3").code, "not read yet")
	require.Equal(t, []int64{7}, storetest.Query[int64](t, d.db,
		"SELECT count(*) FROM audit.records WHERE kind = 'pilot.viewed' AND actor = 'asserted:pat' AND org_id = '"+string(l.Org)+"'"))

	require.NoError(t, d.db.InOrg(t.Context(), shadow.OrgID, func(tx *store.Tx) error {
		return tx.PurgePilot(t.Context(), shadow.ID, "the connection is live")
	}))
	require.Contains(t, d.does(t, "pilot", "main"), "was purged at")
	require.Contains(t, d.does(t, "pilot", "main"), "the connection is live")
}

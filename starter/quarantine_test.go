package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/workflows"
)

// sets has resources of st-mary/main that can't be mapped, for these reasons, and gives their ids in quarantine.
func (d desk) sets(t *testing.T, typ cura.ResourceType, reasons ...store.Reason) []string {
	t.Helper()
	l, err := d.db.FindConnection(t.Context(), "main")
	require.NoError(t, err)
	pass := store.Pass{Connection: l.Connection, Type: typ, Run: uuid.NewString()}
	items := make([]store.Item, len(reasons))
	for i, r := range reasons {
		raw := []byte(`{"resourceType":"` + string(typ) + `"}`)
		items[i] = store.Item{
			EHRID: "secret-" + string(rune('a'+i)), Hash: sha256.Sum256(raw), Raw: raw, RawBytes: int64(len(raw)),
			Outcome: store.Quarantined, Reasons: []store.Reason{r},
		}
	}
	var ids []string
	require.NoError(t, d.db.InOrg(t.Context(), l.Org, func(tx *store.Tx) error {
		if err := tx.StartRun(t.Context(), store.Run{ID: pass.Run, Connection: pass.Connection, Kind: cura.RunBackfill, WorkflowID: "test"}); err != nil {
			return err
		}
		if _, err := tx.ApplyPatient(t.Context(), pass, "1", items); err != nil {
			return err
		}
		entries, err := tx.Quarantine(t.Context(), l.Connection, store.QuarantineFilter{Type: typ})
		for _, e := range entries {
			ids = append(ids, e.ID)
		}
		return err
	}))
	return ids
}

func TestTheQuarantineIsListedWithReasonsAndWithoutTheEHRsIDs(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.addMain(t)
	require.Equal(t, "Nothing is in quarantine.\n", d.does(t, "quarantine", "list", "main"))
	required := store.Reason{Path: "Observation.status", Text: "required but missing"}
	ids := d.sets(t, cura.Observation, required, required, store.Reason{Path: "Observation.value", Text: "isn't a number"})
	d.sets(t, cura.Encounter, store.Reason{Path: "Encounter.status", Text: "required but missing"})

	all := d.does(t, "quarantine", "list", "main")
	for _, part := range append(ids, "Observation.status: required but missing", "Encounter.status: required but missing") {
		require.Contains(t, all, part)
	}
	require.NotContains(t, all, "secret")
	var entries []store.QuarantineEntry
	require.NoError(t, json.Unmarshal([]byte(d.does(t, "quarantine", "list", "main", "--path", "Observation.value", "-o", "json")), &entries))
	require.Len(t, entries, 1)
	var groups []store.QuarantineGroup
	require.NoError(t, json.Unmarshal([]byte(d.does(t, "quarantine", "list", "main", "--summary", "--type", "Observation", "-o", "json")), &groups))
	require.Equal(t, []store.QuarantineGroup{
		{Type: cura.Observation, Path: "Observation.status", Text: "required but missing", Count: 2},
		{Type: cura.Observation, Path: "Observation.value", Text: "isn't a number", Count: 1},
	}, groups)
	some := d.starter(t, "quarantine", "list", "main", "--limit", "1")
	require.Contains(t, some.err, "These are 1 of 4")
}

func TestARetrySaysWhatIsWrongBeforeAnythingIsStarted(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.addMain(t)
	open := d.sets(t, cura.Observation, store.Reason{Path: "Observation.status", Text: "required but missing"})[0]
	closed := d.sets(t, cura.Encounter, store.Reason{Path: "Encounter.status", Text: "required but missing"})[0]
	l, err := d.db.FindConnection(t.Context(), "main")
	require.NoError(t, err)
	require.NoError(t, d.db.InOrg(t.Context(), l.Org, func(tx *store.Tx) error {
		_, err := tx.Tombstone(t.Context(), store.Pass{Connection: l.Connection, Type: cura.Encounter, Run: uuid.NewString()}, []string{"secret-a"}, cura.GoneDeleted)
		return err
	}))
	unknown := uuid.NewString()
	tests := map[string]struct {
		args []string
		code int
		says string
	}{
		"no connection":     {nil, exitUsage, "takes the connection"},
		"three words":       {[]string{"main", open, open}, exitUsage, "takes the connection"},
		"no id":             {[]string{"main", "first"}, exitUsage, `"first" isn't an id in quarantine`},
		"an unknown one":    {[]string{"main", unknown}, exitUsage, "st-mary/main has nothing in quarantine with the id " + unknown},
		"a closed one":      {[]string{"main", closed}, exitUsage, "isn't in quarantine any more"},
		"an id and a type":  {[]string{"main", open, "--type", "Observation"}, exitUsage, "leave out --type"},
		"no element":        {[]string{"main", "--path", "Anna Huber"}, exitUsage, "isn't an element path"},
		"no words":          {[]string{"main", "--reason", " "}, exitUsage, "1 to 200 bytes"},
		"no such type":      {[]string{"main", "--type", "Condition"}, exitUsage, `"Condition"`},
		"nothing like that": {[]string{"main", "--reason", "Anna Huber"}, exitDone, ""},
	}
	for name, tc := range tests {
		got := d.starter(t, append([]string{"quarantine", "retry"}, tc.args...)...)
		require.Equal(t, tc.code, got.code, name+got.err)
		require.Contains(t, got.err, tc.says, name)
	}
	require.Equal(t, "Nothing of that is in quarantine.\n", d.does(t, "quarantine", "retry", "main", "--reason", "Anna Huber"))
}

func TestRemapUsage(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.addMain(t)
	for _, tc := range []struct {
		args []string
		says string
	}{
		{[]string{"main", "--samples", "3"}, "--samples goes with --dry-run"},
		{[]string{"main", "--dry-run", "--samples", "21"}, "it must be 1 to 20"},
		{[]string{"main", "--dry-run", "--samples", "0"}, "it must be 1 to 20"},
		{[]string{"main", "--type", "Condition"}, `"Condition"`},
	} {
		got := d.starter(t, append([]string{"remap"}, tc.args...)...)
		require.Equal(t, exitUsage, got.code, got.err)
		require.Contains(t, got.err, tc.says)
	}
	early := d.starter(t, "remap", "main")
	require.Equal(t, exitFailed, early.code)
	require.Contains(t, early.err, "st-mary/main is at phase new")
}

func TestWhatMappingAgainHasComeToIsPrinted(t *testing.T) {
	t.Parallel()
	l := store.Listed{OrgName: "st-mary", Name: "main"}
	v := remapView{
		RemapResult: workflows.RemapResult{
			Outcome: "incomplete", DryRun: true, MappingVersion: "1",
			Types: []activities.Retaken{{
				Type: cura.Observation, RetakeCounts: store.RetakeCounts{Same: 5, Changed: 2, Rejected: 1},
				Elements: map[string]int{"Observation.unit": 1, "Observation.code.codings": 2}, Reasons: map[string]int{"Observation.value: isn't a number": 1},
			}},
			Ended: []workflows.Ended{{Type: cura.Encounter, Details: activities.Details{Kind: fault.Busy, Detail: "another run is reading it", Fix: "Wait"}}},
		},
		Samples: []sampleView{{
			Type: cura.Observation, EHRID: "o1", Kind: store.RetakeChanged, Changes: []store.ElementChange{{Path: "Observation.unit", After: "g/L"}},
		}},
	}
	var out bytes.Buffer
	app := &cli.App{Writer: &out, Action: func(c *cli.Context) error { return printRemapped(c, l, v) }}
	oneAtATime.Lock()
	defer oneAtATime.Unlock()
	require.ErrorContains(t, app.RunContext(t.Context(), []string{"starter"}), "not every type came to its end")
	require.Equal(t, ` TYPE         SAME  CHANGED  REJECTED  ACCEPTED  IN REVIEW  EXCLUDED  WITHHELD  SKIPPED 
 Observation  5     2        1         0         0          0         0         0       

Elements that differ:
       2  Observation.code.codings
       1  Observation.unit

Why resources can't be mapped:
       1  Observation.value: isn't a number

Observation/o1: changed
  Observation.unit: - -> g/L

Nothing was written. Apply it with: starter remap st-mary/main

Encounter wasn't mapped: another run is reading it
    fix: Wait
`, out.String())
}

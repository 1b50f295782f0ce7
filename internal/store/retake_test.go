package store_test

import (
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

func TestRecordChangesNameElementsAndNotPlaces(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		before, after string
		want          []store.ElementChange
	}{
		"the same bytes":        {`{"status":"final"}`, `{"status":"final"}`, nil},
		"another order":         {`{"a":1,"b":2}`, `{"b":2,"a":1}`, nil},
		"a value":               {`{"status":"final"}`, `{"status":"amended"}`, []store.ElementChange{{Path: "Observation.status", Before: "final", After: "amended"}}},
		"digits":                {`{"value":1.0}`, `{"value":1.00}`, []store.ElementChange{{Path: "Observation.value", Before: "1.0", After: "1.00"}}},
		"one that comes":        {`{}`, `{"unit":"g/L"}`, []store.ElementChange{{Path: "Observation.unit", Before: "", After: "g/L"}}},
		"one that goes":         {`{"value":{"unit":"g/L"}}`, `{}`, []store.ElementChange{{Path: "Observation.value", Before: `{"unit":"g/L"}`, After: ""}}},
		"within a list":         {`{"codings":[{"code":"a"},{"code":"b"}]}`, `{"codings":[{"code":"x"},{"code":"y"}]}`, []store.ElementChange{{Path: "Observation.codings.code", Before: "a", After: "x"}, {Path: "Observation.codings.code", Before: "b", After: "y"}}},
		"a longer list":         {`{"codings":[]}`, `{"codings":["x"]}`, []store.ElementChange{{Path: "Observation.codings", Before: "[]", After: `["x"]`}}},
		"something else for it": {`{"value":["a"]}`, `{"value":true}`, []store.ElementChange{{Path: "Observation.value", Before: `["a"]`, After: "true"}}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := store.RecordChanges(cura.Observation, []byte(tc.before), []byte(tc.after))
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}
	_, err := store.RecordChanges(cura.Observation, []byte(`{"family":"Chalmers`), []byte(`{}`))
	require.Error(t, err)
	require.NotContains(t, err.Error(), "Chalmers")
}

// landed puts a patient and so many observations of theirs into a fixture, and gives the ids of those.
func landed(t *testing.T, f *fixture, contents ...string) (cura.ProfileID, []string) {
	t.Helper()
	p := patient("p1", "100")
	_, err := f.apply(t, f.lease(t, f.pass(cura.Patient)), store.Advance{Candidate: serverTime}, p)
	require.NoError(t, err)
	items := make([]store.Item, len(contents))
	ids := make([]string, len(contents))
	for i, content := range contents {
		ids[i] = "o" + string(rune('a'+i))
		items[i] = observation(ids[i], "mmol/L", p.Profile)
		items[i].Record.PatientEHRID = "p1"
		items[i].Raw, items[i].RawBytes = []byte(content), int64(len(content))
	}
	pass := f.lease(t, f.pass(cura.Observation))
	_, err = f.apply(t, pass, store.Advance{Candidate: serverTime}, items...)
	require.NoError(t, err)
	require.NoError(t, f.in(t, func(tx *store.Tx) error { return tx.ReleaseLease(t.Context(), pass) }))
	return p.Profile, ids
}

func (f *fixture) landed(t *testing.T, sel store.Retake, after, upTo string, limit int) []string {
	t.Helper()
	ids := []string{}
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		found, err := tx.Landed(t.Context(), f.pass(cura.Observation), sel, after, upTo, limit)
		for _, l := range found {
			ids = append(ids, l.Item.EHRID)
		}
		return err
	}))
	return ids
}

func TestLandedResourcesComeInPagesThatAreBoundedByTheirSize(t *testing.T) {
	t.Parallel()
	f := newFixture(t, cluster.New(t))
	large := strings.Repeat("x", 9<<20)
	profile, _ := landed(t, f, "1", "2", large, large, "5")
	for name, tc := range map[string]struct {
		after, upTo string
		limit       int
		want        []string
	}{
		"up to the limit":         {"", "", 2, []string{"oa", "ob"}},
		"up to 16 MB":             {"", "", 9, []string{"oa", "ob", "oc"}},
		"after the one before":    {"oc", "", 9, []string{"od", "oe"}},
		"up to the page's end":    {"ob", "oe", 1, []string{"oc", "od", "oe"}},
		"none after the last one": {"oe", "", 9, []string{}},
	} {
		require.Equal(t, tc.want, f.landed(t, store.Retake{}, tc.after, tc.upTo, tc.limit), name)
	}
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		found, err := tx.Landed(t.Context(), f.pass(cura.Observation), store.Retake{}, "", "", 1)
		require.Equal(t, []byte("1"), found[0].Item.Raw)
		require.Equal(t, store.Stored, found[0].Outcome)
		require.Equal(t, profile, found[0].Row.Profile)
		require.Equal(t, "1", found[0].Row.MappingVersion)
		require.JSONEq(t, `{"status":"final","code":{},"value":{"kind":"quantity","quantity":{"value":5.40,"unit":"mmol/L"}}}`, string(found[0].Row.Record))
		return err
	}))
}

func TestWhatIsGoneIsntTakenAgainButWhatWasWithdrawnIs(t *testing.T) {
	t.Parallel()
	f := newFixture(t, cluster.New(t))
	landed(t, f, "1", "2", "3")
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		if _, err := tx.Tombstone(t.Context(), f.pass(cura.Observation), []string{"oa"}, cura.GoneDeleted); err != nil {
			return err
		}
		_, err := tx.Tombstone(t.Context(), f.pass(cura.Observation), []string{"ob"}, cura.GoneEnteredInError)
		return err
	}))
	require.Equal(t, []string{"ob", "oc"}, f.landed(t, store.Retake{}, "", "", 9))
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		n, err := tx.LandedCount(t.Context(), f.pass(cura.Observation))
		require.Equal(t, 2, n)
		types, err2 := tx.LandedTypes(t.Context(), f.connection)
		require.Equal(t, []cura.ResourceType{cura.Patient, cura.Observation}, types)
		require.NoError(t, err2)
		return err
	}))
}

// takes is a page with which a run comes from one place to the next.
func takes(after, to string, items ...store.Item) store.RetakenPage {
	page := store.RetakenPage{After: after, Items: items, Landings: map[string]int64{}, State: store.RetakeState{After: to}}
	for _, it := range items {
		page.Landings[it.EHRID] = it.Landing
	}
	return page
}

func TestAPageThatIsTakenAgainIsWrittenOnceAndByTheNewestVersionAlone(t *testing.T) {
	t.Parallel()
	db := cluster.New(t)
	f := newFixture(t, db)
	profile, _ := landed(t, f, "1")
	run := f.pass(cura.Observation)
	run.Run = uuid.NewString()
	f.startRun(t, run.Run, cura.RunRemap)
	var again store.Item
	begin := func(version string) (store.RetakeState, error) {
		var state store.RetakeState
		err := f.in(t, func(tx *store.Tx) error {
			found, err := tx.Landed(t.Context(), run, store.Retake{}, "", "", 1)
			if err != nil {
				return err
			}
			again = found[0].Item
			again.Outcome, again.Profile, again.Record = store.Stored, profile, observation("oa", "mg/dL", profile).Record
			again.Record.PatientEHRID = "p1"
			state, err = tx.BeginRetake(t.Context(), run, false, version)
			return err
		})
		return state, err
	}
	apply := func(overrides int, page store.RetakenPage) error {
		return f.in(t, func(tx *store.Tx) error { return tx.ApplyRetaken(t.Context(), run, overrides, "2", page) })
	}
	units := func() []string {
		return storetest.Query[string](t, db, "SELECT unit || ' ' || mapping_version FROM labs.observations")
	}
	_, err := begin("2")
	require.NoError(t, err)

	reader := f.lease(t, f.pass(cura.Observation))
	require.True(t, fault.Is(apply(0, takes("", "oa", again)), fault.Busy), "a reader has the type")
	require.Equal(t, []string{"mmol/L 1"}, units())
	newer := observation("oa", "g/L", profile)
	newer.Record.PatientEHRID = "p1"
	_, err = f.apply(t, reader, store.Advance{Keep: true}, newer)
	require.NoError(t, err)
	require.NoError(t, f.in(t, func(tx *store.Tx) error { return tx.ReleaseLease(t.Context(), reader) }))
	require.ErrorIs(t, apply(0, takes("", "oa", again)), store.ErrSettledMeanwhile, "the reader has brought another version")

	_, err = begin("2")
	require.NoError(t, err)
	require.True(t, fault.Is(apply(7, takes("", "oa", again)), fault.Conflict), "other overrides hold by now")
	require.Equal(t, []string{"g/L 1"}, units())
	require.NoError(t, apply(0, takes("", "oa", again)))
	require.Equal(t, []string{"mg/dL 2"}, units())
	require.True(t, fault.Is(apply(0, takes("", "oa", again)), fault.Busy), "another attempt has come further")
	state, err := begin("2")
	require.NoError(t, err)
	require.Equal(t, "oa", state.After)
	_, err = begin("3")
	require.True(t, fault.Is(err, fault.Conflict), "a run is of one mapping")
	require.Empty(t, storetest.Query[string](t, db, "SELECT holder FROM sync.leases WHERE resource_type = 'Observation' AND holder <> ''"))
}

func TestQuarantine(t *testing.T) {
	t.Parallel()
	f := newFixture(t, cluster.New(t))
	bad := func(id string, reasons ...store.Reason) store.Item {
		it := item(id, "bad "+id)
		it.Outcome, it.Reasons = store.Quarantined, reasons
		return it
	}
	required := store.Reason{Path: "Observation.status", Text: "required but missing"}
	_, err := f.apply(t, f.lease(t, f.pass(cura.Observation)), store.Advance{Candidate: serverTime},
		bad("a", required), bad("b", required, store.Reason{Path: "Observation.component[0].value", Text: "isn't a number"}))
	require.NoError(t, err)
	_, err = f.apply(t, f.lease(t, f.pass(cura.Encounter)), store.Advance{Candidate: serverTime}, bad("c", store.Reason{Path: "Encounter.status", Text: "required but missing"}))
	require.NoError(t, err)

	for name, tc := range map[string]struct {
		filter store.QuarantineFilter
		want   int
	}{
		"all":             {store.QuarantineFilter{}, 3},
		"of a type":       {store.QuarantineFilter{Type: cura.Observation}, 2},
		"an element":      {store.QuarantineFilter{Path: "Observation.status"}, 2},
		"a list's":        {store.QuarantineFilter{Path: "Observation.component"}, 1},
		"half a name":     {store.QuarantineFilter{Path: "Observation.stat"}, 0},
		"words":           {store.QuarantineFilter{Reason: "A NUMBER"}, 1},
		"of one reason":   {store.QuarantineFilter{Path: "Observation.status", Reason: "number"}, 0},
		"percent is text": {store.QuarantineFilter{Reason: "%"}, 0},
	} {
		require.NoError(t, f.in(t, func(tx *store.Tx) error {
			entries, err := tx.Quarantine(t.Context(), f.connection, tc.filter)
			require.Len(t, entries, tc.want, name)
			require.NoError(t, err)
			n, err := tx.Quarantined(t.Context(), f.connection, tc.filter)
			require.Equal(t, tc.want, n, name)
			return err
		}))
	}
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		groups, err := tx.QuarantineSummary(t.Context(), f.connection, store.QuarantineFilter{})
		require.Equal(t, []store.QuarantineGroup{
			{Type: cura.Observation, Path: "Observation.status", Text: "required but missing", Count: 2},
			{Type: cura.Encounter, Path: "Encounter.status", Text: "required but missing", Count: 1},
			{Type: cura.Observation, Path: "Observation.component[0].value", Text: "isn't a number", Count: 1},
		}, groups)
		require.NoError(t, err)
		entries, err := tx.Quarantine(t.Context(), f.connection, store.QuarantineFilter{Limit: 1})
		require.Len(t, entries, 1)
		require.NoError(t, err)
		one, err := tx.QuarantineEntry(t.Context(), f.connection, entries[0].ID)
		require.Equal(t, entries[0], one)
		require.NoError(t, err)
		_, err = tx.QuarantineEntry(t.Context(), f.connection, uuid.NewString())
		require.True(t, fault.Is(err, fault.NotFound))
		return nil
	}))
}

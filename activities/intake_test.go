package activities_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fhir"
	"github.com/cura-health/ehr-sync/internal/match"
	"github.com/cura-health/ehr-sync/internal/store"
)

// pages are pages of one type on their way into the tables, without an EHR.
type pages struct {
	h    *hospital
	pass store.Pass
	*activities.Intake
}

func newPages(t *testing.T, typ cura.ResourceType) *pages {
	t.Helper()
	h := newHospital(t, options{match: "mrn:urn:mrn"})
	pass := store.Pass{Connection: h.target.Connection, Type: typ, Run: h.begin(t, cura.RunBackfill)}
	return &pages{h, pass, activities.NewIntake(h.a, pass, h.target, h.connection(t))}
}

func (p *pages) prepared(t *testing.T, entries ...fhir.Entry) []store.Item {
	t.Helper()
	items, err := p.Prepare(t.Context(), entries)
	require.NoError(t, err)
	return items
}

// settled gives the outcomes of items as of now.
func (p *pages) settled(t *testing.T, items []store.Item) (outcomes []store.Outcome) {
	t.Helper()
	require.NoError(t, p.Settle(t.Context(), items))
	for _, it := range items {
		outcomes = append(outcomes, it.Outcome)
	}
	return outcomes
}

func (p *pages) write(t *testing.T, items []store.Item) {
	t.Helper()
	require.NoError(t, p.h.db.InOrg(t.Context(), p.h.target.Org, func(tx *store.Tx) error {
		_, err := tx.ApplyPatient(t.Context(), p.pass, "1", items)
		return err
	}))
}

func entry(t *testing.T, raw string) fhir.Entry {
	t.Helper()
	head, err := fhir.Head([]byte(raw))
	require.NoError(t, err)
	hash, err := fhir.Hash([]byte(raw))
	require.NoError(t, err)
	return fhir.Entry{
		Resource: []byte(raw), Size: int64(len(raw)), Type: head.Type, ID: head.ID, VersionID: head.VersionID, LastUpdated: head.LastUpdated, Hash: hash,
	}
}

// version is a Patient at a time of the year 2026, "" for a server that doesn't tell.
func version(t *testing.T, family, updated string) fhir.Entry {
	t.Helper()
	meta := ""
	if updated != "" {
		meta = `,"meta":{"lastUpdated":"2026-` + updated + `T00:00:00Z"}`
	}
	return entry(t, `{"resourceType":"Patient","id":"p"`+meta+`,"birthDate":"1980-01-01","name":[{"family":"`+family+`"}],"identifier":[{"system":"urn:mrn","value":"M1"}]}`)
}

// TestAPageIsSettledByWhatIsThereWhenItIsWritten: the second page is prepared before the first is written.
func TestAPageIsSettledByWhatIsThereWhenItIsWritten(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		first, second fhir.Entry
		want          store.Outcome
	}{
		"the same version":      {version(t, "A", "01-01"), version(t, "A", "01-01"), store.Unchanged},
		"an older one":          {version(t, "B", "01-02"), version(t, "A", "01-01"), store.Unchanged},
		"a newer one":           {version(t, "A", "01-01"), version(t, "B", "01-02"), store.Stored},
		"one of the same time":  {version(t, "A", "01-01"), version(t, "B", "01-01"), store.Stored},
		"one without a time":    {version(t, "A", ""), version(t, "B", ""), store.Stored},
		"the same but its time": {version(t, "A", "01-01"), version(t, "A", "01-02"), store.Unchanged},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPages(t, cura.Patient)
			first, second := p.prepared(t, tt.first), p.prepared(t, tt.second)
			require.Equal(t, []store.Outcome{store.Stored}, p.settled(t, first))
			p.write(t, first)
			require.Equal(t, []store.Outcome{tt.want}, p.settled(t, second))
		})
	}
}

// TestWhatTheHintCalledUnchangedIsReadWhenItIsNot: another version was written between.
func TestWhatTheHintCalledUnchangedIsReadWhenItIsNot(t *testing.T) {
	t.Parallel()
	p := newPages(t, cura.Patient)
	first := p.prepared(t, version(t, "A", ""))
	require.Equal(t, []store.Outcome{store.Stored}, p.settled(t, first))
	p.write(t, first)

	again := p.prepared(t, version(t, "A", ""))
	require.Empty(t, again[0].Mapped, "not even looked into")
	second := p.prepared(t, version(t, "B", ""))
	require.Equal(t, []store.Outcome{store.Stored}, p.settled(t, second))
	p.write(t, second)
	require.Equal(t, []store.Outcome{store.Stored}, p.settled(t, again), "back to what it was: a change all the same")
	require.Equal(t, "A", again[0].Record.Profile.Name.Family)
}

func TestRepeatsOnAPageAreCountedAndTheNewestIsWritten(t *testing.T) {
	t.Parallel()
	p := newPages(t, cura.Patient)
	items := p.prepared(t, version(t, "A", "01-01"), version(t, "C", "01-03"), version(t, "B", "01-02"))
	require.Equal(t, []store.Outcome{store.Unchanged, store.Stored, store.Unchanged}, p.settled(t, items))
}

// TestSettlingAgainForgetsTheFirst: another connection has made the patient's profile since, so that there is one to match.
func TestSettlingAgainForgetsTheFirst(t *testing.T) {
	t.Parallel()
	p := newPages(t, cura.Patient)
	numbered := entry(t, `{"resourceType":"Patient","id":"p","birthDate":"1980-01-01","name":[{"family":"A"}],"identifier":[{"system":"urn:mrn","value":"M1"}]}`)
	invalid := entry(t, `{"resourceType":"Patient","id":"q","birthDate":"yesterday"}`)
	items := p.prepared(t, numbered, invalid)
	require.Equal(t, []store.Outcome{store.Stored, store.Quarantined}, p.settled(t, items))
	require.Equal(t, string(match.New), items[0].MatchedBy)
	made := items[0].Profile
	reasons := items[1].Reasons

	twin := p.h.twin(t)
	other := &pages{p.h, store.Pass{Connection: twin.Connection, Type: cura.Patient, Run: p.h.beginFor(t, twin, cura.RunBackfill)}, nil}
	other.Intake = activities.NewIntake(p.h.a, other.pass, twin, p.h.connection(t))
	theirs := other.prepared(t, numbered)
	other.settled(t, theirs)
	other.write(t, theirs)

	require.Equal(t, []store.Outcome{store.Stored, store.Quarantined}, p.settled(t, items))
	require.Equal(t, theirs[0].Profile, items[0].Profile)
	require.Equal(t, "mrn", items[0].MatchedBy)
	require.Empty(t, items[0].MatchKeys)
	require.NotEqual(t, made, items[0].Profile)
	require.Equal(t, reasons, items[1].Reasons)
}

// TestFewLargeResourcesAreReadAtATime: what is weighed is bytes.
func TestFewLargeResourcesAreReadAtATime(t *testing.T) {
	t.Parallel()
	weight, all := activities.Weight(2, 1000)
	require.Equal(t, all/2, weight, "two handfuls of small ones side by side")
	weight, all = activities.Weight(2, 10<<20)
	require.Equal(t, all, weight, "a large one alone")
}

package activities_test

import (
	"encoding/json"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/sandbox"
	"github.com/cura-health/ehr-sync/internal/store"
)

func (h *hospital) pilot(t *testing.T, in activities.PilotInput) (activities.PilotResult, error) {
	t.Helper()
	in.Target, in.WorkflowID = h.target, "test"
	if in.Run == "" {
		in.Run = uuid.NewString()
	}
	if in.Patients == 0 {
		in.Patients = 10
	}
	return run[activities.PilotResult](t, h, h.a.RunPilot, in)
}

func (h *hospital) slots(t *testing.T) []store.PilotSlot {
	t.Helper()
	var slots []store.PilotSlot
	require.NoError(t, h.db.InOrg(t.Context(), h.shadow.Org, func(tx *store.Tx) error {
		var err error
		slots, err = tx.PilotPatients(t.Context(), h.shadow.Connection, "")
		return err
	}))
	return slots
}

func TestThePilotWritesToTheSandboxOrgAlone(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	result, err := h.pilot(t, activities.PilotInput{})
	require.NoError(t, err)
	require.Equal(t, 10, result.Patients)
	require.Equal(t, 10, result.New+result.Matched+result.Ambiguous)
	for typ, counts := range result.Counts {
		require.True(t, counts.Balanced(), typ)
	}
	require.Positive(t, result.Counts[cura.Observation].Stored, "a patient is read whole")
	for _, table := range []string{"cura.profiles", "labs.observations", "cura.visits", "sync.landing", "sync.patient_links"} {
		require.Positive(t, h.stored(t, "SELECT count(*) FROM "+table+" WHERE org_id = $1", h.shadow.Org), table)
		require.Zero(t, h.stored(t, "SELECT count(*) FROM "+table+" WHERE org_id = $1", h.target.Org), table)
	}

	_, err = run[any](t, h, h.a.PurgePilot, activities.PurgeInput{Target: h.target, Why: "test"})
	require.NoError(t, err)
	for _, table := range []string{"cura.profiles", "labs.observations", "sync.landing", "sync.pilot_patients", "sync.runs", "sync.resources", "cura.consent_log"} {
		require.Zero(t, h.stored(t, "SELECT count(*) FROM "+table), table)
	}
	require.Positive(t, h.stored(t, "SELECT count(*) FROM audit.records WHERE kind = 'pilot.purged'"), "the fact stays")
}

func TestThePilotMatchesWithLiveProfiles(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	h.pullAll(t, cura.RunBackfill)
	result, err := h.pilot(t, activities.PilotInput{})
	require.NoError(t, err)
	require.Equal(t, 10, result.Matched, "every patient has a live profile by now")
	require.Zero(t, result.New)
}

func TestThePilotReportSaysForEachPatientWhatIsWrong(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{sandbox: sandbox.Config{Patients: 1}})
	put := func(resource string) { require.NoError(t, h.ehr.Put(json.RawMessage(resource))) }
	id := `"identifier":[{"system":"` + h.ehr.MRNSystem() + `","value":"`
	put(`{"resourceType":"Patient","id":"good","name":[{"family":"Good"}],"gender":"female","birthDate":"1980-01-01",` + id + `G1"}]}`)
	put(`{"resourceType":"Patient","id":"bare",` + id + `B1"}]}`)
	put(`{"resourceType":"Patient","id":"nobody","name":[{"family":"Nobody"}],"gender":"male","birthDate":"1981-01-01"}`)
	put(`{"resourceType":"Patient","id":"broken","gender":"no such gender",` + id + `X1"}]}`)
	put(`{"resourceType":"Observation","id":"bad","code":{"text":"x"},"subject":{"reference":"Patient/good"}}`)
	require.NoError(t, h.db.InOrg(t.Context(), h.target.Org, func(tx *store.Tx) error {
		return tx.PutPilotChoices(t.Context(), h.target.Connection, []string{"good", "bare", "nobody", "broken", "missing"}, "test")
	}))
	result, err := h.pilot(t, activities.PilotInput{})
	require.NoError(t, err)
	require.Equal(t, 5, result.Patients, "the chosen ones, not the first ten")
	require.Equal(t, 0, result.Clean)

	reports := h.slots(t)
	require.Equal(t, "new", reports[0].Report.Match)
	require.Equal(t, []string{"Observation.status required but missing"}, reports[0].Report.Rejected)
	require.NotEmpty(t, reports[0].Report.Preview)
	require.Equal(t, []string{"profiles.name", "profiles.birth_date", "profiles.gender"}, reports[1].Report.Missing)
	require.Equal(t, "ambiguous", reports[2].Report.Match)
	require.Contains(t, reports[2].Report.MatchReason, "no usable identifier")
	require.Equal(t, "rejected", reports[3].Report.Match)
	require.Equal(t, "rejected", reports[4].Report.Match)
	require.Contains(t, reports[4].Report.MatchReason, "no such patient")
}

func TestAResumedPilotGoesOnWithTheSamePatients(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	id := uuid.NewString()
	require.NoError(t, h.ehr.SetFaults(sandbox.Faults{RefuseTypes: []string{"Patient"}}))
	_, err := h.pilot(t, activities.PilotInput{Run: id})
	require.Equal(t, fault.Scope, kindOf(t, err))
	require.NoError(t, h.ehr.SetFaults(sandbox.Faults{}))
	first, err := h.pilot(t, activities.PilotInput{Run: id})
	require.NoError(t, err)
	landed := h.stored(t, "SELECT count(*) FROM sync.landing")
	again, err := h.pilot(t, activities.PilotInput{Run: id})
	require.NoError(t, err)
	require.Equal(t, first, again)
	require.Equal(t, landed, h.stored(t, "SELECT count(*) FROM sync.landing"), "nothing is read twice")
}

func TestAnEmptyServerGivesAnEmptyPilot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := newHospital(t, options{sandbox: sandbox.Config{DataDir: dir}, match: "mrn:urn:mrn"})
	result, err := h.pilot(t, activities.PilotInput{})
	require.NoError(t, err)
	require.Zero(t, result.Patients)
	require.Equal(t, 10, result.Wanted)
}

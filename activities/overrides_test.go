package activities_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/sandbox"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
	"github.com/cura-health/ehr-sync/mappings"
)

// setOverrides has a connection mapped with a file.
func (h *hospital) setOverrides(t *testing.T, target activities.Target, text string) *mappings.Overrides {
	t.Helper()
	o, err := mappings.ParseOverrides("site.yaml", []byte(text))
	require.NoError(t, err)
	require.NoError(t, h.db.InOrg(t.Context(), target.Org, func(tx *store.Tx) error {
		_, err := tx.SetMappingOverrides(t.Context(), target.Connection, store.MappingOverrides{Version: o.Number(), Text: text}, o.Excluded(), "test")
		return err
	}))
	return o
}

// glucose has the EHR hold an Observation of a patient in the hospital's own code and unit.
func (h *hospital) glucose(t *testing.T, patient, value string) {
	t.Helper()
	require.NoError(t, h.ehr.Put(json.RawMessage(`{"resourceType":"Observation","id":"local-glucose","status":"final","subject":{"reference":"Patient/`+patient+`"},
		"code":{"coding":[{"system":"http://st-mary.example/labs","code":"GLU"}]},"valueQuantity":{"value":`+value+`,"unit":"g/L"}}`)))
}

const glucoseRules = `
codes:
  - resource: Observation
    from: {system: "http://st-mary.example/labs", code: GLU}
    to: {system: "http://loinc.org", code: 2345-7}
units:
  - {resource: Observation, code: {system: "http://loinc.org", code: 2345-7}, from: g/L, to: mg/dL, factor: 100}
`

// glucoseRow is what Cura has of it.
func (h *hospital) glucoseRow(t *testing.T) string {
	t.Helper()
	rows := storetest.Query[string](t, h.db, "SELECT code || ' ' || value || ' ' || unit || ' ' || mapping_version FROM labs.observations WHERE ehr_id = 'local-glucose'")
	require.Len(t, rows, 1)
	return rows[0]
}

func TestAPageIsMappedWithTheOverridesAndRowsSayWhich(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	patient := h.patients(t)[0]
	h.glucose(t, patient, "0.99")
	one := h.setOverrides(t, h.target, "version: 1"+glucoseRules)
	h.pullAll(t, cura.RunBackfill)
	require.Equal(t, "2345-7 99 mg/dL "+one.Version(), h.glucoseRow(t))
	for _, table := range []string{"cura.profiles", "cura.allergies", "cura.medications", "labs.observations", "cura.visits", "cura.consent_log"} {
		require.Equal(t, []string{one.Version()}, storetest.Query[string](t, h.db, "SELECT DISTINCT mapping_version FROM "+table), table)
	}

	// A change of the file changes no row by itself, and holds for what is read from then on.
	two := h.setOverrides(t, h.target, "version: 2"+glucoseRules)
	h.pullAll(t, cura.RunIncremental)
	require.Equal(t, "2345-7 99 mg/dL "+one.Version(), h.glucoseRow(t))
	h.glucose(t, patient, "1.01")
	h.pullAll(t, cura.RunIncremental)
	require.Equal(t, "2345-7 101 mg/dL "+two.Version(), h.glucoseRow(t))

	require.NoError(t, h.db.InOrg(t.Context(), h.target.Org, func(tx *store.Tx) error {
		_, err := tx.ClearMappingOverrides(t.Context(), h.target.Connection, "test")
		return err
	}))
	h.glucose(t, patient, "1.02")
	h.pullAll(t, cura.RunIncremental)
	require.Equal(t, "GLU 1.02 g/L "+mappings.Version, h.glucoseRow(t))
}

// What waited for its patient is mapped when it is taken up, with what holds then.
func TestWhatIsWokenIsMappedWithTheOverrides(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	h.glucose(t, "late", "0.99")
	h.pullAll(t, cura.RunBackfill)
	o := h.setOverrides(t, h.target, "version: 1"+glucoseRules)
	require.NoError(t, h.ehr.Put(json.RawMessage(`{"resourceType":"Patient","id":"late","birthDate":"1980-01-01","name":[{"family":"Late"}],
		"identifier":[{"system":"`+h.ehr.MRNSystem()+`","value":"late-1"}]}`)))
	h.pullAll(t, cura.RunIncremental)
	require.Equal(t, "2345-7 99 mg/dL "+o.Version(), h.glucoseRow(t))
}

// What a table refuses by what the overrides have made of it stops one resource.
func TestAPageThatIsRefusedIsGoneThroughWithTheOverrides(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	h.glucose(t, h.patients(t)[0], "0.99")
	h.setOverrides(t, h.target, "version: 1"+glucoseRules)
	// A stand-in for whatever nobody has thought of: what only the overrides bring about.
	h.superuser(t, "ALTER TABLE labs.observations ADD CHECK (value <> '99' OR mapping_version NOT LIKE '1+site.1.%')")
	counts := h.pullAll(t, cura.RunBackfill)[cura.Observation]
	require.Equal(t, h.ehr.Counts()["Observation"], counts.Served)
	require.Equal(t, counts.Served-1, counts.Stored)
	require.EqualValues(t, 1, h.stored(t, "SELECT count(*) FROM sync.quarantine WHERE ehr_id = 'local-glucose' AND reasons::text LIKE '%that the database can''t hold%'"))
}

func TestThePilotIsMappedWithTheOverridesOfTheLiveConnection(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{types: []cura.ResourceType{cura.Patient, cura.Observation, cura.Encounter}})
	patient := h.patients(t)[0]
	for id := range h.source(t)["Observation"] {
		require.NoError(t, h.ehr.Delete("Observation", id)) // the preview shows the first one
	}
	h.glucose(t, patient, "0.99")
	o := h.setOverrides(t, h.target, "version: 1"+glucoseRules+"types: {exclude: [Encounter]}")
	h.choosePatients(t, patient)
	result, err := h.pilot(t, activities.PilotInput{})
	require.NoError(t, err)
	require.NotContains(t, result.Counts, cura.Encounter)
	require.Equal(t, "2345-7 99 mg/dL "+o.Version(), h.glucoseRow(t))
	require.Equal(t, []string{o.Version()}, storetest.Query[string](t, h.db, "SELECT DISTINCT mapping_version FROM cura.profiles"))
	require.Contains(t, h.slots(t)[0].Report.Preview, cura.PreviewLine{
		Element: "Observation.valueQuantity", Source: "0.99 g/L", Field: "labs.observations.value", Value: "kind=quantity quantity=(99 mg/dL)",
	})
}

func TestAnExcludedTypeIsNotAskedFor(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	h.setOverrides(t, h.target, "version: 1\ntypes: {exclude: [Observation]}")
	id := h.begin(t, cura.RunBackfill)
	asked := len(h.ehr.Requests())
	_, err := h.pull(t, activities.PullInput{Run: id, Type: cura.Observation, Full: true})
	require.Equal(t, fault.Unsupported, kindOf(t, err))
	details := activities.DetailsOf(err)
	require.Contains(t, details.Detail, "excluded by the mapping overrides")
	require.Contains(t, details.Fix, "starter mapping set")
	_, err = run[activities.ReconcileResult](t, h, h.a.ReconcileType, activities.ReconcileInput{Target: h.target, Run: id, Type: cura.Observation})
	require.Equal(t, fault.Unsupported, kindOf(t, err))
	require.Len(t, h.ehr.Requests(), asked, "the EHR isn't asked for anything")

	// As the workflow goes on: the type is off, and the run is complete without it.
	_, err = run[any](t, h, h.a.GiveUp, activities.GiveUpInput{Target: h.target, Run: id, Type: cura.Observation, Details: details})
	require.NoError(t, err)
	finished, err := run[activities.FinishResult](t, h, h.a.FinishRun, activities.FinishInput{
		Target: h.target, Run: id, Kind: cura.RunBackfill, Ended: map[cura.ResourceType]activities.Details{cura.Observation: details},
	})
	require.NoError(t, err)
	require.Equal(t, "complete", finished.Outcome)
	require.Equal(t, []string{store.ExcludedType}, storetest.Query[string](t, h.db, "SELECT reason FROM sync.type_switches"))
	require.EqualValues(t, 0, h.stored(t, "SELECT count(*) FROM sync.dead_letters"))

	// Taken again it is read from the start, since no watermark has moved.
	h.setOverrides(t, h.target, "version: 2")
	require.EqualValues(t, 0, h.stored(t, "SELECT count(*) FROM sync.type_switches"))
	require.Equal(t, h.ehr.Counts()["Observation"], h.pullAll(t, cura.RunIncremental)[cura.Observation].Landed)
}

// Without Consents nobody knows who denies: where that decides about pulls, leaving them out leaves out the clinical types.
func TestExcludingConsentDoesNotLiftAPolicy(t *testing.T) {
	t.Parallel()
	for policy, kind := range map[cura.PullConsent]fault.Kind{
		cura.PullConsentNone: fault.Unsupported, cura.PullConsentOptOut: fault.Scope, cura.PullConsentOptIn: fault.Scope,
	} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			h := newHospital(t, options{sandbox: sandbox.Config{Patients: 2}})
			h.setPolicy(t, policy)
			h.setOverrides(t, h.target, "version: 1\ntypes: {exclude: [Consent]}")
			_, err := h.pull(t, activities.PullInput{Run: h.begin(t, cura.RunBackfill), Type: cura.Consent, Full: true})
			require.Equal(t, kind, kindOf(t, err), "workflows go on without Consents only for Unsupported")
			require.True(t, activities.TypeOff(kindOf(t, err)))
		})
	}
}

// A file that an older release took and this one doesn't stops the connection, and says what to do.
func TestOverridesThatCanNotBeReadStopTheRead(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	h.setOverrides(t, h.target, "version: 1")
	h.superuser(t, "UPDATE sync.mapping_overrides SET text = 'version: [secret'")
	id := h.begin(t, cura.RunBackfill)
	_, err := h.pull(t, activities.PullInput{Run: id, Type: cura.Patient, Full: true})
	require.Equal(t, fault.Config, kindOf(t, err))
	require.Contains(t, activities.DetailsOf(err).Fix, "starter mapping set")
	require.NotContains(t, err.Error(), "secret")
	require.EqualValues(t, 0, h.stored(t, "SELECT count(*) FROM sync.landing"))
	_, err = h.pilot(t, activities.PilotInput{})
	require.Equal(t, fault.Config, kindOf(t, err))
}

func TestParsedOverridesAreKeptAndBounded(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{sandbox: sandbox.Config{Patients: 2}})
	_, most := h.a.Parsed()
	targets := []activities.Target{h.target}
	for range most {
		conn := h.connection(t).Connection
		conn.ID, conn.Name = cura.ConnectionID(fmt.Sprintf("00000000-0000-4000-8000-%012d", len(targets))), fmt.Sprintf("c%d", len(targets))
		require.NoError(t, h.db.InOrg(t.Context(), h.target.Org, func(tx *store.Tx) error { return tx.AddConnection(t.Context(), conn, "", "test") }))
		targets = append(targets, activities.Target{Org: h.target.Org, Connection: conn.ID})
	}
	for _, target := range targets {
		o := h.setOverrides(t, target, "version: 1\ntypes: {exclude: [Encounter]}")
		conn := h.connectionOf(t, target)
		for range 2 {
			got, err := h.a.OverridesOf(t.Context(), conn)
			require.NoError(t, err)
			require.Equal(t, o.Version(), got.Version())
		}
	}
	kept, _ := h.a.Parsed()
	require.Equal(t, most, kept)

	// Parsed once a version: what holds is known without the database's text.
	conn := h.connectionOf(t, targets[most])
	h.superuser(t, "UPDATE sync.mapping_overrides SET text = 'version: ['")
	_, err := h.a.OverridesOf(t.Context(), conn)
	require.NoError(t, err)
	h.setOverrides(t, targets[most], "version: 2")
	got, err := h.a.OverridesOf(t.Context(), h.connectionOf(t, targets[most]))
	require.NoError(t, err)
	require.Equal(t, 2, got.Number(), "another version is another file")
}

func (h *hospital) connectionOf(t *testing.T, target activities.Target) store.ConnectionState {
	t.Helper()
	var conn store.ConnectionState
	require.NoError(t, h.db.InOrg(t.Context(), target.Org, func(tx *store.Tx) error {
		var err error
		conn, err = tx.Connection(t.Context(), target.Connection)
		return err
	}))
	return conn
}

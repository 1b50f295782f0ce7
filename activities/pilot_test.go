package activities_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/sandbox"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
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

func (h *hospital) choosePatients(t *testing.T, ids ...string) {
	t.Helper()
	require.NoError(t, h.db.InOrg(t.Context(), h.target.Org, func(tx *store.Tx) error {
		return tx.PutPilotChoices(t.Context(), h.target.Connection, ids, "test")
	}))
}

// superuser runs a statement that the store would never make.
func (h *hospital) superuser(t *testing.T, statement string, args ...any) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), h.db.SuperuserURL)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), statement, args...)
	require.NoError(t, err)
}

// odd puts an EHR in the sandbox's place whose FHIR answers are what page says; anything else is an empty searchset.
func (h *hospital) odd(t *testing.T, page func(w http.ResponseWriter, r *http.Request) bool) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"access_token":"x","token_type":"Bearer","expires_in":3600}`)
	})
	mux.HandleFunc("/fhir/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/fhir+json")
		if !page(w, r) {
			fmt.Fprint(w, `{"resourceType":"Bundle","type":"searchset"}`)
		}
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	h.superuser(t, `
		UPDATE sync.connections SET base_url = $1, token_url = $2, insecure_loopback = true, ca_pem = '', settings_version = settings_version + 1
		WHERE connection_id = $3`, server.URL+"/fhir", server.URL+"/token", h.target.Connection)
}

// patientJSON is a Patient of whom nothing is missing.
func (h *hospital) patientJSON(id string) string {
	return `{"resourceType":"Patient","id":"` + id + `","name":[{"family":"` + id + `"}],"gender":"female","birthDate":"1980-01-01",` +
		`"identifier":[{"system":"` + h.ehr.MRNSystem() + `","value":"MRN-` + id + `"}]}`
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

// TestTwoPilotsOfTheSamePatientsArePurgedApart: two connections of an org can serve the same person, whose live profile both
// pilots match.
func TestTwoPilotsOfTheSamePatientsArePurgedApart(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	h.pullAll(t, cura.RunBackfill)
	other := activities.Target{Org: h.target.Org, Connection: cura.ConnectionID(uuid.NewString())}
	second := cura.ConnectionID(uuid.NewString())
	require.NoError(t, h.db.InOrg(t.Context(), h.shadow.Org, func(tx *store.Tx) error {
		return tx.AddConnection(t.Context(), cura.Connection{
			ID: second, Name: "second", Scopes: []string{}, Match: cura.MatchStrategy{By: cura.MatchMRN, System: "urn:mrn"}, EHRProfile: "generic", Types: cura.ResourceTypes(),
		}, other.Connection, "test")
	}))
	pilot := func() {
		result, err := h.pilot(t, activities.PilotInput{})
		require.NoError(t, err)
		require.Equal(t, 10, result.Matched, "the report is about the live profiles")
	}
	// One connection pilots for both: the shadows change places in between.
	swap := func(first, other cura.ConnectionID) {
		h.superuser(t, "UPDATE sync.connections SET shadow_of = NULL WHERE connection_id IN ($1, $2)", h.shadow.Connection, second)
		h.superuser(t, "UPDATE sync.connections SET shadow_of = $2 WHERE connection_id = $1", h.shadow.Connection, first)
		h.superuser(t, "UPDATE sync.connections SET shadow_of = $2 WHERE connection_id = $1", second, other)
	}
	pilot()
	swap(other.Connection, h.target.Connection)
	pilot()
	const rehearsed = "SELECT count(*) FROM cura.profiles WHERE connection_id = $1"
	require.EqualValues(t, 10, h.stored(t, rehearsed, h.shadow.Connection))
	require.EqualValues(t, 10, h.stored(t, rehearsed, second))
	live := "SELECT count(*) FROM cura.profiles s JOIN cura.profiles l USING (profile_id) WHERE s.org_id = $1 AND l.org_id = $2"
	require.Zero(t, h.stored(t, live, h.shadow.Org, h.target.Org), "a rehearsed profile is nobody's live one")

	_, err := run[any](t, h, h.a.PurgePilot, activities.PurgeInput{Target: h.target, Why: "test"})
	require.NoError(t, err)
	require.Zero(t, h.stored(t, rehearsed, second))
	require.EqualValues(t, 10, h.stored(t, rehearsed, h.shadow.Connection), "the other pilot is untouched")
	_, err = run[any](t, h, h.a.PurgePilot, activities.PurgeInput{Target: other, Why: "test"})
	require.NoError(t, err)
	require.Zero(t, h.stored(t, "SELECT count(*) FROM sync.landing WHERE org_id = $1", h.shadow.Org))
}

func TestOneOddPatientDoesNotStopThePilot(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	h.odd(t, func(w http.ResponseWriter, r *http.Request) bool {
		id, read := strings.CutPrefix(r.URL.Path, "/fhir/Patient/")
		switch {
		case read && id == "withheld":
			w.WriteHeader(http.StatusUnprocessableEntity)
		case read && id == "half":
			fmt.Fprint(w, `{"resourceType":"Patient","id":"half"`)
		case read:
			fmt.Fprint(w, h.patientJSON(id))
		case r.URL.Path == "/fhir/Observation" && r.URL.Query().Get("patient") == "portal":
			fmt.Fprint(w, "<html>Secret Name</html>")
		default:
			return false
		}
		return true
	})
	h.choosePatients(t, "good", "odd:id", "withheld", "good", "half", "portal", "last")
	result, err := h.pilot(t, activities.PilotInput{})
	require.NoError(t, err)
	require.Equal(t, 6, result.Patients, "nobody is piloted twice")
	require.Equal(t, 4, result.Rejected)
	require.Equal(t, 2, result.Clean)

	slots := h.slots(t)
	for i, want := range map[int]string{1: "isn't spelled as FHIR allows", 2: "the server answered 422", 3: "broken JSON"} {
		require.Equal(t, "rejected", slots[i].Report.Match)
		require.Contains(t, slots[i].Report.MatchReason, want)
		require.NotContains(t, slots[i].Report.MatchReason, slots[i].EHRID, "no EHR id in a reason")
	}
	portal := slots[4].Report
	require.Equal(t, "new", portal.Match, "how the patient was matched is known all the same")
	require.Len(t, portal.Rejected, 1)
	require.Contains(t, portal.Rejected[0], "Observation can't be read")
	require.NotContains(t, portal.Rejected[0], "Secret")
	require.True(t, slots[5].Report.Clean())
}

func TestAFaultOfTheConnectionStopsThePilot(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	h.odd(t, func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/Patient/refused") {
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		id, read := strings.CutPrefix(r.URL.Path, "/fhir/Patient/")
		if read {
			fmt.Fprint(w, h.patientJSON(id))
		}
		return read
	})
	h.choosePatients(t, "good", "refused", "last")
	_, err := h.pilot(t, activities.PilotInput{})
	require.Equal(t, fault.Auth, kindOf(t, err))
	slots := h.slots(t)
	require.True(t, slots[0].Done)
	require.False(t, slots[1].Done, "it goes on here")
}

func TestThePilotReadsSoMuchOfAPatientAndNoMore(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	const limit = 2000
	var pages int
	h.odd(t, func(w http.ResponseWriter, r *http.Request) bool {
		id, read := strings.CutPrefix(r.URL.Path, "/fhir/Patient/")
		switch {
		case read:
			fmt.Fprint(w, h.patientJSON(id))
			return true
		case r.URL.Path != "/fhir/Observation":
			return false
		}
		pages++
		n := limit
		if r.URL.Query().Get("patient") == "much" {
			n++
		}
		entries := make([]string, n)
		for i := range entries {
			entries[i] = fmt.Sprintf(`{"resource":{"resourceType":"Observation","id":"%s-%d","status":"final","code":{"text":"x"},"subject":{"reference":"Patient/%[1]s"}}}`,
				r.URL.Query().Get("patient"), i)
		}
		link := ""
		if n > limit {
			link = fmt.Sprintf(`"link":[{"relation":"next","url":"Observation?patient=much&page=%d"}],`, pages)
		}
		fmt.Fprint(w, `{"resourceType":"Bundle","type":"searchset",`+link+`"entry":[`+strings.Join(entries, ",")+`]}`)
		return true
	})
	h.choosePatients(t, "much", "enough")
	result, err := h.pilot(t, activities.PilotInput{})
	require.NoError(t, err)
	require.Equal(t, 2, result.Clean, "a note needs nobody")
	require.Equal(t, 2*limit, result.Counts[cura.Observation].Stored)
	require.Equal(t, 2, pages)
	slots := h.slots(t)
	require.Equal(t, []string{"Observation: the EHR has more than 2000; the pilot has read no further"}, slots[0].Report.Notes)
	require.Empty(t, slots[1].Report.Notes)
}

// TestWhatTheDatabaseRefusesDoesNotStopThePilot has constraints stand in for whatever nobody has thought of.
func TestWhatTheDatabaseRefusesDoesNotStopThePilot(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{sandbox: sandbox.Config{Patients: 1}})
	h.superuser(t, "ALTER TABLE labs.observations ADD CONSTRAINT odd CHECK (ehr_id <> 'odd')")
	h.superuser(t, "ALTER TABLE cura.profiles ADD CONSTRAINT odd CHECK (ehr_id <> 'odd')")
	h.superuser(t, "ALTER TABLE sync.landing ADD CONSTRAINT worse CHECK (ehr_id <> 'worse')")
	for _, id := range []string{"good", "odd", "worse", "last"} {
		require.NoError(t, h.ehr.Put(json.RawMessage(h.patientJSON(id))))
	}
	observe := func(id, patient string) {
		require.NoError(t, h.ehr.Put(json.RawMessage(`{"resourceType":"Observation","id":"`+id+`","status":"final","code":{"text":"x"},"subject":{"reference":"Patient/`+patient+`"}}`)))
	}
	observe("odd", "good")
	observe("fine", "good")
	observe("orphan", "odd")
	h.choosePatients(t, "good", "odd", "worse", "last")
	result, err := h.pilot(t, activities.PilotInput{})
	require.NoError(t, err)
	require.Equal(t, 1, result.Clean)
	require.Equal(t, 3, result.Rejected)
	for typ, counts := range result.Counts {
		require.True(t, counts.Balanced(), typ)
	}

	slots := h.slots(t)
	const why = " has a value that the database can't hold"
	require.Equal(t, "new", slots[0].Report.Match)
	require.Equal(t, []string{"Observation" + why}, slots[0].Report.Rejected)
	require.Equal(t, 1, slots[0].Report.Counts[cura.Observation].Stored)
	require.Equal(t, "rejected", slots[1].Report.Match)
	require.Equal(t, []string{"Patient" + why, "Observation.subject refers to a patient who was set aside"}, slots[1].Report.Rejected)
	require.Equal(t, "rejected", slots[2].Report.Match)
	require.Contains(t, slots[2].Report.MatchReason, "constraint worse")
	require.Empty(t, slots[2].Report.Counts)
	require.True(t, slots[3].Report.Clean())
	require.Equal(t, []string{"fine"}, storetest.Query[string](t, h.db, "SELECT ehr_id FROM labs.observations"))
	require.EqualValues(t, 3, h.stored(t, "SELECT count(*) FROM sync.quarantine"))
}

func TestPurgingForgetsWhichPatientsWereChosen(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{sandbox: sandbox.Config{Patients: 1}})
	purge := func() {
		h.choosePatients(t, "p1", "p2")
		_, err := run[any](t, h, h.a.PurgePilot, activities.PurgeInput{Target: h.target, Why: "test"})
		require.NoError(t, err)
		require.Zero(t, h.stored(t, "SELECT count(*) FROM sync.pilot_choices"))
	}
	purge()
	h.superuser(t, "UPDATE sync.connections SET shadow_of = NULL")
	purge() // a shadow that isn't there is as good as purged
}

package activities_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/testsuite"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/config"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// refresh looks after a roster once.
func (h *hospital) refresh(t *testing.T, target activities.Target) (activities.RosterResult, error) {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.SetTestTimeout(2 * time.Minute)
	env.RegisterActivity(h.a.RefreshRoster)
	var result activities.RosterResult
	value, err := env.ExecuteActivity(h.a.RefreshRoster, target)
	if err == nil {
		require.NoError(t, value.Get(&result))
	}
	return result, err
}

// change edits the settings of a connection.
func (h *hospital) change(t *testing.T, target activities.Target, fn func(*cura.Connection)) {
	t.Helper()
	require.NoError(t, h.db.InOrg(t.Context(), target.Org, func(tx *store.Tx) error {
		c, err := tx.Connection(t.Context(), target.Connection)
		require.NoError(t, err)
		fn(&c.Connection)
		return tx.EditConnection(t.Context(), c.Connection, "test")
	}))
}

func (h *hospital) enrol(t *testing.T, target activities.Target, people ...store.Enrolment) {
	t.Helper()
	require.NoError(t, h.db.InOrg(t.Context(), target.Org, func(tx *store.Tx) error {
		_, err := tx.Enrol(t.Context(), target.Connection, people, "test")
		return err
	}))
}

// TestWhomCuraKnowsIsFoundAtAnotherConnection: what one connection has brought into Cura feeds the roster of the next.
func TestWhomCuraKnowsIsFoundAtAnotherConnection(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{types: []cura.ResourceType{cura.Patient}})
	counts, err := h.pull(t, activities.PullInput{Run: h.begin(t, cura.RunBackfill), Type: cura.Patient, Full: true})
	require.NoError(t, err)
	profiles := int(h.stored(t, "SELECT count(*) FROM cura.profiles"))
	require.Positive(t, counts.Stored)

	twin := h.twin(t)
	for _, target := range []activities.Target{h.target, twin} {
		h.change(t, target, func(c *cura.Connection) { c.RosterSource = cura.RosterEnrolment })
	}
	result, err := h.refresh(t, twin)
	require.NoError(t, err)
	require.Equal(t, profiles, result.Members)
	require.Equal(t, profiles, result.Added)
	require.Zero(t, result.NotFound+result.Ambiguous+result.Pending)
	require.False(t, result.More)
	require.Zero(t, h.stored(t, `
		SELECT count(*) FROM sync.roster r WHERE connection_id = $1 AND NOT EXISTS (
			SELECT FROM cura.profiles p JOIN sync.enrolments e ON e.profile_id = p.profile_id WHERE e.member_id = r.member_id AND p.ehr_id = r.ehr_id)`,
		twin.Connection), "each is the patient whom the other connection read")

	again, err := h.refresh(t, twin)
	require.NoError(t, err)
	require.Equal(t, activities.RosterResult{Members: profiles}, again, "nothing is left to ask")

	own, err := h.refresh(t, h.target)
	require.NoError(t, err)
	require.Equal(t, profiles, own.Members, "whom the connection is linked to joins without being asked for")
	require.EqualValues(t, profiles, h.stored(t, "SELECT count(*) FROM sync.enrolments"))
}

func TestAListIsFedByNothing(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{types: []cura.ResourceType{cura.Patient}})
	_, err := h.pull(t, activities.PullInput{Run: h.begin(t, cura.RunBackfill), Type: cura.Patient, Full: true})
	require.NoError(t, err)
	twin := h.twin(t)
	h.change(t, twin, func(c *cura.Connection) { c.RosterSource = cura.RosterList })
	result, err := h.refresh(t, twin)
	require.NoError(t, err)
	require.Equal(t, activities.RosterResult{}, result)
}

// clinic is an EHR on plain http that answers searches for patients, and Groups, as a test wants.
type clinic struct {
	mu sync.Mutex
	// patients answers a search by the identifier's value; nobody: no patient.
	patients map[string]func(http.ResponseWriter)
	group    func(http.ResponseWriter)
	asked    []string
}

func (c *clinic) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w.Header().Set("Content-Type", "application/fhir+json")
	switch {
	case r.URL.Path == "/token":
		writeJSON(w, map[string]any{"access_token": "t", "token_type": "bearer", "expires_in": 300})
	case strings.HasPrefix(r.URL.Path, "/fhir/Group/"):
		c.group(w)
	case !strings.HasPrefix(r.URL.Path, "/fhir/Patient"):
		w.WriteHeader(http.StatusNotFound)
	default:
		_, value, _ := strings.Cut(r.FormValue("identifier"), "|")
		c.asked = append(c.asked, value)
		answer := c.patients[value]
		if answer == nil {
			answer = gives()
		}
		answer(w)
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	if err := json.NewEncoder(w).Encode(v); err != nil {
		panic(err)
	}
}

// gives answers with patients.
func gives(patients ...map[string]any) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		entries := []any{}
		for _, p := range patients {
			entries = append(entries, map[string]any{"resource": p, "search": map[string]any{"mode": "match"}})
		}
		writeJSON(w, map[string]any{"resourceType": "Bundle", "type": "searchset", "entry": entries})
	}
}

// status answers with an HTTP status alone.
func status(code int) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { w.WriteHeader(code) }
}

// members answers with a Group of patients.
func members(ids ...string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		list := []any{}
		for _, id := range ids {
			list = append(list, map[string]any{"entity": map[string]any{"reference": "Patient/" + id}})
		}
		writeJSON(w, map[string]any{"resourceType": "Group", "id": "g", "type": "person", "actual": true, "member": list})
	}
}

func person(id, mrn, family string) map[string]any {
	return map[string]any{
		"resourceType": "Patient", "id": id, "identifier": []any{map[string]any{"system": "urn:mrn", "value": mrn}},
		"name": []any{map[string]any{"family": family}},
	}
}

// newClinic is a hospital whose connection leads to a clinic.
func newClinic(t *testing.T, source cura.RosterSource, more ...func(*config.Config)) (*hospital, *clinic) {
	t.Helper()
	// Few attempts, so that an EHR that is out of order isn't taken for one that is down.
	h := newHospital(t, options{types: []cura.ResourceType{cura.Patient}, config: func(c *config.Config) {
		c.RetryAttempts = 1
		for _, change := range more {
			change(c)
		}
	}})
	c := &clinic{patients: map[string]func(http.ResponseWriter){}}
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	h.change(t, h.target, func(conn *cura.Connection) {
		conn.BaseURL, conn.TokenURL, conn.InsecureLoopback, conn.CAPEM = server.URL+"/fhir", server.URL+"/token", true, ""
		conn.Match = cura.MatchStrategy{By: cura.MatchMRN, System: "urn:mrn"}
		conn.RosterSource, conn.GroupID = source, "g"
	})
	return h, c
}

func TestPeopleWhoAreNotFoundAreAskedForAgainAfterADay(t *testing.T) {
	t.Parallel()
	h, c := newClinic(t, cura.RosterList)
	h.enrol(t, h.target,
		store.Enrolment{Value: "1", Family: "A", Line: 2}, store.Enrolment{Value: "2", Family: "B", Line: 3}, store.Enrolment{Value: "3", Family: "C", Line: 4})
	c.patients["1"] = gives(person("p1", "1", "A"))
	c.patients["3"] = gives(person("p3", "3", "X"))
	result, err := h.refresh(t, h.target)
	require.NoError(t, err)
	require.Equal(t, activities.RosterResult{Members: 1, Added: 1, NotFound: 1, Ambiguous: 1}, result)
	require.Equal(t, []string{"1", "2", "3"}, c.asked)

	c.patients["2"] = gives(person("p2", "2", "B"))
	result, err = h.refresh(t, h.target)
	require.NoError(t, err)
	require.Equal(t, 1, result.Members, "not before a day has passed")
	aDayLater(t, h)
	result, err = h.refresh(t, h.target)
	require.NoError(t, err)
	require.Equal(t, activities.RosterResult{Members: 2, Added: 1, Ambiguous: 1}, result)
	require.Equal(t, []string{"1", "2", "3", "2"}, c.asked)
	require.Empty(t, storetest.Query[string](t, h.db, `SELECT details::text FROM audit.records WHERE kind = $1 AND details::text LIKE '%p1%'`, audit.RosterChanged))
}

// aDayLater moves the asking of everybody back by a day.
func aDayLater(t *testing.T, h *hospital) {
	t.Helper()
	storetest.Query[string](t, h.db, "UPDATE sync.enrolments SET asked_at = asked_at - interval '25 hours' RETURNING state")
}

func TestOneWhomTheEHRCantBeAskedForStopsNobodyElse(t *testing.T) {
	t.Parallel()
	for name, useless := range map[string]func(http.ResponseWriter){
		"server error":  status(http.StatusInternalServerError),
		"bad request":   status(http.StatusBadRequest),
		"broken answer": func(w http.ResponseWriter) { writeJSON(w, "neither") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, c := newClinic(t, cura.RosterList)
			h.enrol(t, h.target, store.Enrolment{Value: "1", Family: "A"}, store.Enrolment{Value: "2", Family: "B"})
			c.patients["1"], c.patients["2"] = useless, gives(person("p2", "2", "B"))
			result, err := h.refresh(t, h.target)
			require.NoError(t, err)
			require.Equal(t, activities.RosterResult{Members: 1, Added: 1, Pending: 1}, result)
			reasons := storetest.Query[string](t, h.db, "SELECT reason FROM sync.enrolments WHERE state = 'pending'")
			require.Contains(t, reasons[0], "the EHR's answer was of no use")

			c.patients["1"] = gives(person("p1", "1", "A"))
			aDayLater(t, h)
			result, err = h.refresh(t, h.target)
			require.NoError(t, err)
			require.Equal(t, activities.RosterResult{Members: 2, Added: 1}, result)
		})
	}
}

func TestACallThatIsFullGoesOnWithTheNext(t *testing.T) {
	t.Parallel()
	h, c := newClinic(t, cura.RosterGroup, func(c *config.Config) { c.ChunkTime = time.Nanosecond })
	c.group = members("g1")
	for _, value := range []string{"1", "2", "3"} {
		h.enrol(t, h.target, store.Enrolment{Value: value, Family: "A"})
		c.patients[value] = gives(person("p"+value, value, "A"))
	}
	for _, want := range []activities.RosterResult{
		{Members: 1, Added: 1, Pending: 2, More: true},
		{Members: 2, Added: 1, Pending: 1, More: true},
		{Members: 4, Added: 2},
	} {
		result, err := h.refresh(t, h.target)
		require.NoError(t, err)
		require.Equal(t, want, result)
	}
	require.Equal(t, []string{"1", "2", "3"}, c.asked, "each once")
}

func TestWhatIsAboutTheConnectionEndsTheCall(t *testing.T) {
	t.Parallel()
	throttled := func(w http.ResponseWriter) {
		w.Header().Set("Retry-After", "120")
		w.WriteHeader(http.StatusTooManyRequests)
	}
	for name, tc := range map[string]struct {
		answer func(http.ResponseWriter)
		kind   fault.Kind
		asked  int
	}{
		"refused credentials":      {status(http.StatusUnauthorized), fault.Auth, 0},
		"throttled for long":       {throttled, fault.Throttled, 0},
		"forbidden":                {status(http.StatusForbidden), fault.Config, 0},
		"useless thrice in a row":  {status(http.StatusBadRequest), fault.Config, 2},
		"out of order all the way": {status(http.StatusInternalServerError), fault.Transient, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, c := newClinic(t, cura.RosterList)
			for _, value := range []string{"1", "2", "3", "4"} {
				h.enrol(t, h.target, store.Enrolment{Value: value, Family: "A"})
				c.patients[value] = tc.answer
			}
			_, err := h.refresh(t, h.target)
			require.Equal(t, tc.kind, activities.DetailsOf(err).Kind, err)
			require.EqualValues(t, tc.asked, h.stored(t, "SELECT count(*) FROM sync.enrolments WHERE asked_at IS NOT NULL"), "the others are asked for next time")
			require.EqualValues(t, 4, h.stored(t, "SELECT count(*) FROM sync.enrolments WHERE state = 'pending'"))
		})
	}
}

func TestAGroupFeedsTheRoster(t *testing.T) {
	t.Parallel()
	h, c := newClinic(t, cura.RosterGroup)
	c.group = members("a", "b", "c")
	result, err := h.refresh(t, h.target)
	require.NoError(t, err)
	require.Equal(t, activities.RosterResult{Members: 3, Added: 3}, result)

	c.group = members("b", "c", "d")
	result, err = h.refresh(t, h.target)
	require.NoError(t, err)
	require.Equal(t, activities.RosterResult{Members: 3, Added: 1, Left: 1}, result)
	require.EqualValues(t, 4, h.stored(t, "SELECT count(*) FROM sync.roster"), "the row of who left stays")

	c.group = members()
	_, err = h.refresh(t, h.target)
	require.Equal(t, fault.Config, activities.DetailsOf(err).Kind)
	require.Contains(t, activities.DetailsOf(err).Detail, "nobody was taken off")
	require.EqualValues(t, 3, h.stored(t, "SELECT count(*) FROM sync.roster WHERE removed_at IS NULL"))

	c.group = status(http.StatusForbidden)
	_, err = h.refresh(t, h.target)
	require.Equal(t, fault.Config, activities.DetailsOf(err).Kind, "without its Group the connection would read nobody, and say nothing")
	require.Contains(t, activities.DetailsOf(err).Fix, "starter roster upload")
}

func TestAConnectionThatIsGoneHasNoRoster(t *testing.T) {
	t.Parallel()
	h, _ := newClinic(t, cura.RosterList)
	_, err := h.refresh(t, activities.Target{Org: h.target.Org, Connection: cura.ConnectionID(uuid.NewString())})
	require.Equal(t, fault.NotFound, activities.DetailsOf(err).Kind)
}

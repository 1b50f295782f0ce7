package ehr_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/profile"
)

const tried = "p-4711" // the patient of the roster that a test tries with: PHI

// manners are what a server's search demands and takes.
type manners struct {
	demandsPatient bool
	// bound is what becomes of _lastUpdated: "" taken, refused, ignored; refused-alone is refused without a patient.
	bound string
	// categories are offered one by one; none: the parameter isn't wanted.
	categories []string
	// ignoresPatient gives anybody's resources, and says so.
	ignoresPatient bool
}

func (m manners) serve(h *hospital, typ cura.ResourceType) {
	refusal := text(http.StatusBadRequest, outcome("error", "required"))
	h.on("/fhir/"+string(typ)+"/"+tried, text(http.StatusOK, fmt.Sprintf(`{"resourceType":%q,"id":%q}`, typ, tried)))
	h.on("/fhir/"+string(typ), func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		shown := url.Values{}
		for name := range q {
			if (m.bound != "ignored" || name != "_lastUpdated") && (!m.ignoresPatient || name != "patient") {
				shown.Set(name, q.Get(name))
			}
		}
		switch {
		case m.demandsPatient && !q.Has("patient"),
			m.bound == "refused" && q.Has("_lastUpdated"),
			m.bound == "refused-alone" && q.Has("_lastUpdated") && !q.Has("patient"),
			m.categories != nil && !slices.Contains(m.categories, q.Get("category")):
			refusal(w, r)
		default:
			text(http.StatusOK, searchset(match(string(typ), "x1"), link("self", string(typ)+"?"+shown.Encode())))(w, r)
		}
	})
}

// TestEndpointStrategies tries one type of each kind of server by each kind of profile.
func TestEndpointStrategies(t *testing.T) {
	t.Parallel()
	epicCategories := []string{"social-history", "vital-signs", "imaging", "laboratory", "survey", "exam", "core-characteristics"}
	cases := map[string]struct {
		profile  string
		typ      cura.ResourceType
		server   manners
		patient  string
		override cura.Strategy

		read, params cura.Verdict // "" for no such check
		seen         string       // by either
		strategy     cura.Strategy
		by           string
		notOffered   []string
	}{
		"system, as the profile says": {
			"hapi", cura.Observation,
			manners{},
			"", "",
			cura.VerdictOK, cura.VerdictOK, "listed in metadata and taken", cura.StrategySystem, profile.ByProbe, nil,
		},
		"system, sorted for its cursors": {
			"medplum", cura.Observation,
			manners{},
			"", "",
			cura.VerdictOK, cura.VerdictOK, "", cura.StrategySystem, profile.ByProbe, nil,
		},
		"system at a server that wants a patient, and none is there": {
			"generic", cura.Observation,
			manners{demandsPatient: true},
			"", "",
			cura.VerdictFailed, "", "400", cura.StrategySnapshot, profile.ByProbe, nil,
		},
		"system at a server that wants a patient": {
			"generic", cura.Observation,
			manners{demandsPatient: true},
			tried, "",
			cura.VerdictOK, cura.VerdictWarning, "which the profile counts on", cura.StrategyRoster, profile.ByProbe, nil,
		},
		"system at a server that takes the bound with a patient alone": {
			"generic", cura.Observation,
			manners{bound: "refused-alone"},
			tried, "",
			cura.VerdictOK, cura.VerdictWarning, "which the profile counts on", cura.StrategyRoster, profile.ByProbe, nil,
		},
		"system at a server that ignores the bound": {
			"generic", cura.Observation,
			manners{bound: "ignored"},
			tried, "",
			cura.VerdictOK, cura.VerdictWarning, "which the profile counts on", cura.StrategySnapshot, profile.ByProbe, nil,
		},
		"system at a server that ignores the bound, and nobody to try with": {
			"generic", cura.Observation,
			manners{bound: "ignored"},
			"", "",
			cura.VerdictOK, cura.VerdictFailed, "ignores _lastUpdated", cura.StrategySnapshot, profile.ByProbe, nil,
		},
		"system at Epic": {
			"generic", cura.Observation,
			manners{demandsPatient: true, categories: epicCategories},
			tried, "",
			cura.VerdictFailed, "", "400", cura.StrategySnapshot, profile.ByProbe, nil,
		},
		"patients as a system at a server that wants a patient": {
			"generic", cura.Patient,
			manners{demandsPatient: true},
			tried, "",
			cura.VerdictOK, cura.VerdictWarning, "which the profile counts on", cura.StrategySnapshot, profile.ByProbe, nil,
		},
		"roster": {
			"oracle", cura.Encounter,
			manners{demandsPatient: true},
			tried, "",
			cura.VerdictOK, cura.VerdictOK, "listed in metadata and taken", cura.StrategyRoster, profile.ByProbe, nil,
		},
		"roster, and nobody on it": {
			"oracle", cura.Encounter,
			manners{demandsPatient: true},
			"", "",
			cura.VerdictWarning, "", "no patient on the roster", cura.StrategyRoster, profile.ByMetadata, nil,
		},
		"roster, and the bound is refused": {
			"oracle", cura.Encounter,
			manners{demandsPatient: true, bound: "refused"},
			tried, "",
			cura.VerdictOK, cura.VerdictWarning, "read whole every time", cura.StrategySnapshot, profile.ByProbe, nil,
		},
		"roster, and the bound is ignored": {
			"oracle", cura.Encounter,
			manners{demandsPatient: true, bound: "ignored"},
			tried, "",
			cura.VerdictOK, cura.VerdictWarning, "read whole every time", cura.StrategySnapshot, profile.ByProbe, nil,
		},
		"roster, and the patient is ignored": {
			"oracle", cura.Encounter,
			manners{ignoresPatient: true},
			tried, "",
			cura.VerdictFailed, "", "anybody's resources came", "", "", nil,
		},
		"snapshot by category, two not offered": {
			"epic", cura.Observation,
			manners{demandsPatient: true, categories: epicCategories, bound: "refused"},
			tried, "",
			cura.VerdictOK, "", "2 of 9 categories aren't offered: functional-status, smartdata", cura.StrategySnapshot, profile.ByProfile,
			[]string{"functional-status", "smartdata"},
		},
		"snapshot, and no category is offered": {
			"epic", cura.Observation,
			manners{demandsPatient: true, categories: []string{"other"}},
			tried, "",
			cura.VerdictFailed, "", "400", cura.StrategySnapshot, profile.ByProfile, nil,
		},
		"snapshot of a patient": {
			"epic", cura.Patient,
			manners{demandsPatient: true},
			tried, "",
			cura.VerdictOK, "", "can be read by id", cura.StrategySnapshot, profile.ByProfile, nil,
		},
		"snapshot of a patient, and nobody on the roster": {
			"epic", cura.Patient,
			manners{demandsPatient: true},
			"", "",
			cura.VerdictWarning, "", "no patient on the roster", cura.StrategySnapshot, profile.ByProfile, nil,
		},
		"snapshot with the type's parameters": {
			"athena", cura.MedicationRequest,
			manners{demandsPatient: true},
			tried, "",
			cura.VerdictOK, "", "search by patient works", cura.StrategySnapshot, profile.ByProfile, nil,
		},
		"an operator's system, and it works": {
			"epic", cura.Encounter,
			manners{},
			tried, cura.StrategySystem,
			cura.VerdictOK, cura.VerdictOK, "listed in metadata and taken", cura.StrategySystem, profile.ByOperator, nil,
		},
		"an operator's system, and it doesn't": {
			"epic", cura.Encounter,
			manners{demandsPatient: true},
			tried, cura.StrategySystem,
			cura.VerdictFailed, "", "400", cura.StrategySystem, profile.ByOperator, nil,
		},
		"an operator's roster, and it doesn't": {
			"epic", cura.Encounter,
			manners{demandsPatient: true, bound: "refused"},
			tried, cura.StrategyRoster,
			cura.VerdictOK, cura.VerdictFailed, "which the strategy roster needs", cura.StrategyRoster, profile.ByOperator, nil,
		},
		"an operator's snapshot": {
			"generic", cura.Encounter,
			manners{demandsPatient: true, bound: "refused"},
			tried, cura.StrategySnapshot,
			cura.VerdictOK, "", "search by patient works", cura.StrategySnapshot, profile.ByOperator, nil,
		},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			test.server.serve(h, test.typ)
			r := h.client(t, withProfile(builtin(t, test.profile))).Test(t.Context(), ehr.TestOptions{
				Types: []cura.ResourceType{test.typ}, Patient: test.patient, Overrides: map[cura.ResourceType]cura.Strategy{test.typ: test.override},
			})
			requireCheck(t, r, ehr.CheckRead, test.typ, test.read, "")
			shown := checks(r, ehr.CheckRead)[0].Seen
			if test.params == "" {
				require.Empty(t, checks(r, ehr.CheckSearchParams))
			} else {
				requireCheck(t, r, ehr.CheckSearchParams, test.typ, test.params, "")
				shown += checks(r, ehr.CheckSearchParams)[0].Seen
			}
			require.Contains(t, shown, test.seen)
			require.NotContains(t, fmt.Sprint(r), tried, "the report holds no PHI")

			if test.strategy == "" {
				require.Empty(t, r.Strategies)
				return
			}
			require.Len(t, r.Strategies, 1)
			choice := r.Strategies[0]
			require.Equal(t, test.typ, choice.Type)
			require.Equal(t, test.strategy, choice.Strategy, choice.Reason)
			require.Equal(t, test.by, choice.ChosenBy, choice.Reason)
			require.Equal(t, test.notOffered, choice.NotOffered)
			require.NotEmpty(t, choice.Reason)
			require.NotEmpty(t, choice.CanMiss)
		})
	}
}

// TestEndpointSearchesByPatient looks at the requests: one a category, each with the patient, none for more than one resource.
func TestEndpointSearchesByPatient(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	manners{}.serve(h, cura.Observation)
	h.client(t, withProfile(builtin(t, "epic"))).Test(t.Context(), ehr.TestOptions{Types: []cura.ResourceType{cura.Observation}, Patient: tried})
	var categories []string
	for _, r := range h.asked("/fhir/Observation") {
		q := r.URL.Query()
		categories = append(categories, q.Get("category"))
		require.Equal(t, url.Values{"patient": {tried}, "_count": {"1"}, "category": {q.Get("category")}}, q)
	}
	rules, _ := builtin(t, "epic").Rules(cura.Observation)
	require.Equal(t, rules.Categories, categories)
}

func TestEndpointWithoutAPatientToTryWith(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	for _, typ := range cura.ResourceTypes() {
		h.on("/fhir/"+string(typ), text(http.StatusBadRequest, outcome("error", "required")))
	}
	r := h.client(t, withProfile(builtin(t, "epic"))).Test(t.Context(), ehr.TestOptions{})
	require.Equal(t, cura.VerdictWarning, r.Verdict(), "never a failure: %+v", r.Checks)
	require.Len(t, checks(r, ehr.CheckRead), len(cura.ResourceTypes()))
	for _, c := range checks(r, ehr.CheckRead) {
		require.Equal(t, "no patient on the roster to try with", c.Seen)
		require.Contains(t, c.Fix, "starter roster")
	}
	for _, name := range []string{ehr.CheckMetadata, ehr.CheckToken, ehr.CheckClock} {
		requireCheck(t, r, name, "", cura.VerdictOK, "")
	}
	require.Len(t, r.Strategies, len(cura.ResourceTypes()))
	require.Empty(t, r.Missing)
}

func TestEndpointPatientOfTheRoster(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		answer  http.HandlerFunc
		verdict cura.Verdict
		seen    string
	}{
		"is gone":      {text(http.StatusGone, ""), cura.VerdictWarning, "isn't at the EHR any more"},
		"isn't there":  {text(http.StatusNotFound, ""), cura.VerdictWarning, "isn't at the EHR any more"},
		"is forbidden": {text(http.StatusForbidden, ""), cura.VerdictFailed, "without patients nothing can be pulled"},
		"is busy":      {text(http.StatusTooManyRequests, "", "Retry-After", "5"), cura.VerdictWarning, "slow down"},
		"is in trouble": {
			text(http.StatusInternalServerError, outcome("fatal", "exception")), cura.VerdictFailed, "500",
		},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			h.on("/fhir/Patient/"+tried, test.answer)
			r := h.client(t, withProfile(builtin(t, "epic"))).Test(t.Context(), ehr.TestOptions{Types: []cura.ResourceType{cura.Patient, cura.Encounter}, Patient: tried})
			requireCheck(t, r, ehr.CheckRead, cura.Patient, test.verdict, test.seen)
			requireCheck(t, r, ehr.CheckRead, cura.Encounter, cura.VerdictOK, "")
		})
	}
}

// TestEndpointDecidesNothingByTrouble: a server that can't answer just now has shown nothing, whatever its metadata says.
func TestEndpointDecidesNothingByTrouble(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{
		"in trouble": text(http.StatusBadGateway, ""), "throttled": text(http.StatusTooManyRequests, ""), "forbidden": text(http.StatusForbidden, ""),
		"not offered": text(http.StatusNotFound, ""),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			h.on("/fhir/metadata", text(http.StatusOK, `{"resourceType":"CapabilityStatement","fhirVersion":"4.0.1"}`))
			h.on("/fhir/Encounter", answer)
			r := h.client(t).Test(t.Context(), ehr.TestOptions{Types: []cura.ResourceType{cura.Encounter}, Patient: tried})
			require.Empty(t, r.Strategies)
		})
	}
}

// TestEndpointTroubleInTheFallback: the server refuses to be read as a whole, and is in trouble when asked by patient.
func TestEndpointTroubleInTheFallback(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	h.on("/fhir/Encounter", func(w http.ResponseWriter, r *http.Request) {
		status := http.StatusBadRequest
		if r.URL.Query().Has("patient") {
			status = http.StatusBadGateway
		}
		text(status, "")(w, r)
	})
	r := h.client(t).Test(t.Context(), ehr.TestOptions{Types: []cura.ResourceType{cura.Encounter}, Patient: tried})
	requireCheck(t, r, ehr.CheckRead, cura.Encounter, cura.VerdictFailed, "502")
	require.Empty(t, r.Strategies)
}

func TestEndpointTypeThatTheProfileLacks(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	own, err := profile.Parse("own.yaml", []byte(strings.Join([]string{
		"name: own", "scopes: v2", "types:", "  Patient:", "    strategy: system", "    why: The vendor says so.",
	}, "\n")))
	require.NoError(t, err)
	h.on("/fhir/Patient", stocked(h, cura.Patient, 3))
	types := []cura.ResourceType{cura.Patient, cura.Consent, cura.Encounter}
	r := ehr.Test(t.Context(), h.config(), ehr.TestOptions{
		Types: types, Profile: own, Patient: tried, Overrides: map[cura.ResourceType]cura.Strategy{cura.Encounter: cura.StrategySnapshot},
	})
	require.Equal(t, []cura.ResourceType{cura.Consent}, r.Missing)
	requireCheck(t, r, ehr.CheckRead, cura.Consent, cura.VerdictWarning, "the profile own doesn't have it")
	requireCheck(t, r, ehr.CheckRead, cura.Encounter, cura.VerdictOK, "search by patient works")
	require.Empty(t, h.asked("/fhir/Consent"))
	require.Len(t, r.Strategies, 2)
}

func TestEndpointProfileToFillIn(t *testing.T) {
	t.Parallel()
	athena, err := profile.Builtin("athena")
	require.NoError(t, err)
	h := newHospital(t)
	r := ehr.Test(t.Context(), h.config(withProfile(athena)), ehr.TestOptions{})
	requireCheck(t, r, ehr.CheckProfile, "", cura.VerdictFailed, "the profile athena needs practice")
	require.Contains(t, r.Checks[0].Fix, "--profile-param practice=")
	require.Empty(t, h.asked(""))
}

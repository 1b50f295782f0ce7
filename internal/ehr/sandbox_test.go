package ehr_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/fhir"
	"github.com/cura-health/ehr-sync/internal/sandbox"
)

// The sandbox EHR is from another hand: what is agreed with it here is not agreed with ourselves alone.
func startSandbox(t *testing.T, faults sandbox.Faults) (*sandbox.Server, ehr.Config) {
	t.Helper()
	return startVendor(t, "", faults)
}

// startVendor starts a sandbox with the manners of a vendor; "" for a general FHIR store.
func startVendor(t *testing.T, vendor string, faults sandbox.Faults) (*sandbox.Server, ehr.Config) {
	t.Helper()
	s, err := sandbox.Start(t.Context(), sandbox.Config{Seed: 7, Patients: 12, Faults: faults, Vendor: vendor})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	cfg := ehr.Config{BaseURL: s.BaseURL(), ClientID: s.ClientID(), Secret: s.ClientSecret(), CAPEM: string(s.CAPEM()), PageSize: 20}
	for _, typ := range cura.ResourceTypes() {
		cfg.Scopes = append(cfg.Scopes, "system/"+string(typ)+".rs")
	}
	return s, cfg
}

func TestSandboxIsReadWhole(t *testing.T) {
	t.Parallel()
	for name, faults := range map[string]sandbox.Faults{
		"well-behaved":         {},
		"no total, empty page": {NoTotal: true, EmptyPage: true},
		"relative next links":  {RelativeNext: true},
		"short-lived tokens":   {TokenLifetimeSeconds: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, cfg := startSandbox(t, faults)
			c := newClient(t, cfg)
			for _, typ := range cura.ResourceTypes() {
				ids, count, err := pages(t, c, typ)
				require.NoError(t, err)
				require.Len(t, ids, s.Counts()[string(typ)])
				require.GreaterOrEqual(t, count, len(ids)/20)
				slices.Sort(ids)
				require.Len(t, slices.Compact(ids), s.Counts()[string(typ)])
			}
			for _, request := range s.Requests() {
				public := strings.HasSuffix(request.Path, "/metadata") || strings.HasSuffix(request.Path, "/smart-configuration")
				require.NotEqual(t, public, request.Authorization, request.Path)
			}
		})
	}
}

func TestSandboxPasses(t *testing.T) {
	t.Parallel()
	_, cfg := startSandbox(t, sandbox.Faults{})
	r := ehr.Test(t.Context(), cfg, ehr.TestOptions{})
	require.Equal(t, cura.VerdictOK, r.Verdict(), "%+v", r.Checks)
}

// TestSandboxFaults turns one knob at a time and looks for the check that must see it.
func TestSandboxFaults(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		faults  sandbox.Faults
		check   string
		typ     cura.ResourceType
		verdict cura.Verdict
		seen    string
	}{
		"HTML":             {sandbox.Faults{HTML: true}, ehr.CheckMetadata, "", cura.VerdictFailed, "HTML page"},
		"STU3":             {sandbox.Faults{STU3: true}, ehr.CheckMetadata, "", cura.VerdictFailed, "3.0.2 (STU3)"},
		"expired":          {sandbox.Faults{Certificate: "expired"}, ehr.CheckTLS, "", cura.VerdictFailed, "expired on"},
		"not yet valid":    {sandbox.Faults{Certificate: "not-yet-valid"}, ehr.CheckTLS, "", cura.VerdictFailed, "isn't valid before"},
		"self-signed":      {sandbox.Faults{Certificate: "self-signed"}, ehr.CheckTLS, "", cura.VerdictFailed, "self-signed"},
		"wrong host":       {sandbox.Faults{Certificate: "wrong-host"}, ehr.CheckTLS, "", cura.VerdictFailed, "another host name"},
		"TLS 1.1":          {sandbox.Faults{MaxTLS: "1.1"}, ehr.CheckTLS, "", cura.VerdictFailed, "no TLS version from 1.2 on"},
		"revoked":          {sandbox.Faults{RevokedClient: true}, ehr.CheckToken, "", cura.VerdictFailed, "invalid_client"},
		"fewer scopes":     {sandbox.Faults{GrantedScopes: "system/Patient.rs"}, ehr.CheckScopes, "", cura.VerdictWarning, "not granted: AllergyIntolerance"},
		"over-broad scope": {sandbox.Faults{GrantedScopes: "system/*.cruds"}, ehr.CheckBreadth, "", cura.VerdictWarning, "system/*.cruds"},
		"clock skew":       {sandbox.Faults{ClockSkewSeconds: 90}, ehr.CheckClock, "", cura.VerdictWarning, "ahead of ours"},
		"clock far off":    {sandbox.Faults{ClockSkewSeconds: -3600}, ehr.CheckClock, "", cura.VerdictFailed, "behind ours"},
		"forbidden type":   {sandbox.Faults{RefuseTypes: []string{"Observation"}}, ehr.CheckRead, cura.Observation, cura.VerdictWarning, "forbidden (403)"},
		"missing type":     {sandbox.Faults{MissingTypes: []string{"Consent"}}, ehr.CheckRead, cura.Consent, cura.VerdictWarning, "doesn't offer it"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, cfg := startSandbox(t, test.faults)
			r := ehr.Test(t.Context(), cfg, ehr.TestOptions{})
			requireCheck(t, r, test.check, test.typ, test.verdict, test.seen)
		})
	}
}

// TestSandboxByProfile finds a patient at each vendor's sandbox by that vendor's profile, and tests it with that patient.
func TestSandboxByProfile(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		vendor, profile   string
		patient           bool
		verdict           cura.Verdict
		patients, records cura.Strategy
	}{
		"epic":                           {"epic", "epic", true, cura.VerdictOK, cura.StrategySnapshot, cura.StrategySnapshot},
		"epic, nobody on the roster":     {"epic", "epic", false, cura.VerdictWarning, cura.StrategySnapshot, cura.StrategySnapshot},
		"oracle":                         {"oracle", "oracle", true, cura.VerdictOK, cura.StrategySnapshot, cura.StrategyRoster},
		"athena":                         {"athena", "athena", true, cura.VerdictOK, cura.StrategySnapshot, cura.StrategySnapshot},
		"medplum":                        {"medplum", "medplum", true, cura.VerdictOK, cura.StrategySystem, cura.StrategySystem},
		"hapi":                           {"hapi", "hapi", true, cura.VerdictOK, cura.StrategySystem, cura.StrategySystem},
		"a general store":                {"", "generic", true, cura.VerdictOK, cura.StrategySystem, cura.StrategySystem},
		"a general store, as if oracle":  {"", "oracle", true, cura.VerdictOK, cura.StrategySnapshot, cura.StrategyRoster},
		"epic, by the generic one":       {"epic", "generic", false, cura.VerdictFailed, cura.StrategySnapshot, cura.StrategySnapshot},
		"oracle, nobody on the roster":   {"oracle", "oracle", false, cura.VerdictWarning, cura.StrategySnapshot, cura.StrategyRoster},
		"athena, without a search of it": {"athena", "athena", false, cura.VerdictWarning, cura.StrategySnapshot, cura.StrategySnapshot},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, cfg := startVendor(t, test.vendor, sandbox.Faults{})
			cfg.Profile = builtin(t, test.profile)
			cfg.Scopes = cfg.Profile.ScopesFor(cura.ResourceTypes())
			opts := ehr.TestOptions{}
			if test.patient {
				require.NoError(t, s.Put(json.RawMessage(`{"resourceType":"Patient","id":"tried","name":[{"family":"Tried","given":["Once"]}],"birthDate":"1980-01-02",
					"gender":"female","identifier":[{"system":"`+s.MRNSystem()+`","value":"TRIED-1"}]}`)))
				found, err := newClient(t, cfg).FindPatients(t.Context(), ehr.Person{
					System: s.MRNSystem(), Value: "TRIED-1", Family: "Tried", Given: "Once", BirthDate: "1980-01-02", Gender: "female",
				})
				require.NoError(t, err)
				require.Len(t, found, 1)
				opts.Patient = found[0].ID
			}
			r := ehr.Test(t.Context(), cfg, opts)
			require.Equal(t, test.verdict, r.Verdict(), "%+v", r.Checks)
			require.Len(t, r.Strategies, len(cura.ResourceTypes()))
			for _, choice := range r.Strategies {
				want := test.records
				if choice.Type == cura.Patient {
					want = test.patients
				}
				require.Equal(t, want, choice.Strategy, "%s: %s", choice.Type, choice.Reason)
				require.Empty(t, choice.NotOffered)
			}
		})
	}
}

func TestSandboxCounts(t *testing.T) {
	t.Parallel()
	s, cfg := startSandbox(t, sandbox.Faults{})
	n, ok, err := newClient(t, cfg).Count(t.Context(), ehr.Query{Type: cura.Patient})
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, s.Counts()["Patient"], n)
}

func TestSandboxChains(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		panic("a request was sent to another host")
	}))
	t.Cleanup(elsewhere.Close)
	cases := map[string]struct {
		faults sandbox.Faults
		kind   fault.Kind
	}{
		"endless loop":   {sandbox.Faults{NextLoop: true}, fault.Protocol},
		"another host":   {sandbox.Faults{NextOtherHost: elsewhere.URL}, fault.Protocol},
		"throttled":      {sandbox.Faults{Throttle: sandbox.Throttle{EveryN: 2, RetryAfterSeconds: 3}}, fault.Throttled},
		"throttled till": {sandbox.Faults{Throttle: sandbox.Throttle{EveryN: 2, RetryAfterSeconds: 3, RetryAfterDate: true}}, fault.Throttled},
		"in trouble":     {sandbox.Faults{ErrorRate: 1}, fault.Transient},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, cfg := startSandbox(t, test.faults)
			cfg.PageSize = 2
			_, _, err := pages(t, newClient(t, cfg), cura.Observation)
			f := requireFault(t, err, test.kind)
			require.Equal(t, test.kind == fault.Throttled, f.RetryAfter > 0)
		})
	}
}

func TestSandboxOversize(t *testing.T) {
	t.Parallel()
	s, cfg := startSandbox(t, sandbox.Faults{Oversize: map[string]int{"Patient": 20 << 20}})
	page, err := newClient(t, cfg).Search(t.Context(), ehr.Query{Type: cura.Patient})
	require.NoError(t, err)
	require.Len(t, page.Entries, s.Counts()["Patient"])
	require.True(t, slices.ContainsFunc(page.Entries, func(e fhir.Entry) bool { return e.Oversize }))
}

package activities_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/config"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/sandbox"
	"github.com/cura-health/ehr-sync/internal/store"
)

func (h *hospital) finish(t *testing.T, id string, ended map[cura.ResourceType]activities.Details) activities.FinishResult {
	t.Helper()
	result, err := run[activities.FinishResult](t, h, h.a.FinishRun, activities.FinishInput{Target: h.target, Run: id, Ended: ended})
	require.NoError(t, err)
	return result
}

func (h *hospital) connection(t *testing.T) store.ConnectionState {
	t.Helper()
	var c store.ConnectionState
	require.NoError(t, h.db.InOrg(t.Context(), h.target.Org, func(tx *store.Tx) error {
		var err error
		c, err = tx.Connection(t.Context(), h.target.Connection)
		return err
	}))
	return c
}

func (h *hospital) attention(t *testing.T) []store.Waiting {
	t.Helper()
	var waiting []store.Waiting
	require.NoError(t, h.db.InOrg(t.Context(), h.target.Org, func(tx *store.Tx) error {
		var err error
		waiting, err = tx.Attention(t.Context())
		return err
	}))
	return waiting
}

func TestADeadLetterHoldsItsWatermarkUntilARunComesThrough(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	h.pullAll(t, cura.RunBackfill)
	before := h.stored(t, "SELECT extract(epoch FROM watermark)::bigint FROM sync.watermarks WHERE resource_type = 'Observation'")

	require.NoError(t, h.ehr.SetFaults(sandbox.Faults{ErrorRate: 1}))
	id := h.begin(t, cura.RunIncremental)
	_, err := h.pull(t, activities.PullInput{Run: id, Type: cura.Observation})
	require.Equal(t, fault.Transient, kindOf(t, err))
	d := activities.DetailsOf(err)
	require.Equal(t, 3, d.Attempts)
	_, err = run[any](t, h, h.a.GiveUp, activities.GiveUpInput{Target: h.target, Run: id, Type: cura.Observation, Details: d})
	require.NoError(t, err)
	require.Equal(t, "incomplete", h.finish(t, id, map[cura.ResourceType]activities.Details{cura.Observation: d}).Outcome)
	require.Equal(t, before, h.stored(t, "SELECT extract(epoch FROM watermark)::bigint FROM sync.watermarks WHERE resource_type = 'Observation'"))
	waiting := h.attention(t)
	require.Len(t, waiting, 1)
	require.Equal(t, "dead-letter", waiting[0].What)
	require.Contains(t, waiting[0].Commands[1], "starter dead-letters replay ")

	require.NoError(t, h.ehr.SetFaults(sandbox.Faults{}))
	h.pullAll(t, cura.RunIncremental)
	require.Empty(t, h.attention(t), "a run that came through has recovered it")
	require.Equal(t, int64(1), h.stored(t, "SELECT count(*) FROM sync.dead_letters WHERE state = 'recovered'"))
}

func TestAForbiddenTypeIsSwitchedOffAndProbedUntilItIsAllowed(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{sandbox: sandbox.Config{Faults: sandbox.Faults{RefuseTypes: []string{"Encounter"}}}})
	result, err := run[activities.EndpointResult](t, h, h.a.TestEndpoint, h.target)
	require.NoError(t, err)
	require.Equal(t, cura.VerdictWarning, result.Verdict, "%+v", result.Problems)
	require.Equal(t, []cura.ResourceType{cura.Encounter}, result.Forbidden)
	require.Equal(t, "type-off", h.attention(t)[0].What)

	id := h.begin(t, cura.RunIncremental)
	_, err = h.pull(t, activities.PullInput{Run: id, Type: cura.Encounter})
	require.Equal(t, fault.Scope, kindOf(t, err), "it is probed")
	off := map[cura.ResourceType]activities.Details{cura.Encounter: activities.DetailsOf(err)}
	require.Equal(t, "complete", h.finish(t, id, off).Outcome, "a type that is off doesn't fail the run")
	require.Len(t, h.attention(t), 1, "it goes on waiting for a person")

	require.NoError(t, h.ehr.SetFaults(sandbox.Faults{}))
	id = h.begin(t, cura.RunIncremental)
	_, err = h.pull(t, activities.PullInput{Run: id, Type: cura.Encounter})
	require.NoError(t, err)
	h.finish(t, id, nil)
	require.Empty(t, h.attention(t))
}

func TestALiveConnectionThatIsRefusedRaisesTheAlarmOnce(t *testing.T) {
	t.Parallel()
	alerts := make(chan activities.Alert, 10)
	webhook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var alert activities.Alert
		if json.NewDecoder(r.Body).Decode(&alert) == nil {
			alerts <- alert
		}
	}))
	t.Cleanup(webhook.Close)
	h := newHospital(t, options{config: func(c *config.Config) { c.AlertWebhook = webhook.URL }})
	_, err := run[any](t, h, h.a.RecordStanding, activities.StandingInput{Target: h.target, Phase: cura.PhaseLive, Health: cura.HealthOK, WaitsFor: cura.WaitsForNobody})
	require.NoError(t, err)
	refused := map[cura.ResourceType]activities.Details{cura.Patient: {Kind: fault.Auth, Detail: "invalid_client"}}
	for range 2 {
		h.finish(t, h.begin(t, cura.RunIncremental), refused)
	}
	require.Equal(t, cura.HealthAttention, h.connection(t).Health)
	require.Equal(t, cura.WaitsForFixCredentials, h.connection(t).WaitsFor)
	require.Equal(t, cura.WaitsForFixCredentials, (<-alerts).WaitsFor)
	require.Empty(t, alerts, "the second refusal is no news")
	require.Equal(t, int64(1), h.stored(t, "SELECT count(*) FROM audit.records WHERE kind = 'alert.raised'"))

	through := h.begin(t, cura.RunIncremental)
	_, err = h.pull(t, activities.PullInput{Run: through, Type: cura.Patient})
	require.NoError(t, err)
	h.finish(t, through, nil)
	require.Equal(t, cura.HealthOK, h.connection(t).Health)
}

func TestOnlyARunThatReadSomethingLowersTheFlagOfALiveConnection(t *testing.T) {
	t.Parallel()
	auth := activities.Details{Kind: fault.Auth, Detail: "invalid_client"}
	for name, c := range map[string]struct {
		waitsFor cura.WaitsFor
		pull     bool
		ended    map[cura.ResourceType]activities.Details
		health   cura.Health
	}{
		"a type came to its end":   {cura.WaitsForFixCredentials, true, nil, cura.HealthOK},
		"another type failed":      {cura.WaitsForFixEndpoint, true, map[cura.ResourceType]activities.Details{cura.Encounter: {Kind: fault.Transient}}, cura.HealthOK},
		"another type was refused": {cura.WaitsForFixCredentials, true, map[cura.ResourceType]activities.Details{cura.Encounter: auth}, cura.HealthAttention},
		"all was busy":             {cura.WaitsForFixCredentials, false, map[cura.ResourceType]activities.Details{cura.Patient: {Kind: fault.Busy}}, cura.HealthAttention},
		"all is switched off":      {cura.WaitsForFixCredentials, false, map[cura.ResourceType]activities.Details{cura.Patient: {Kind: fault.Scope}}, cura.HealthAttention},
		"nothing was read":         {cura.WaitsForFixCredentials, false, nil, cura.HealthAttention},
		"the onboarding's flag":    {cura.WaitsForRetry, true, nil, cura.HealthAttention},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t, options{})
			_, err := run[any](t, h, h.a.RecordStanding, activities.StandingInput{
				Target: h.target, Phase: cura.PhaseLive, Health: cura.HealthAttention, WaitsFor: c.waitsFor, Why: "it was refused",
			})
			require.NoError(t, err)
			id := h.begin(t, cura.RunIncremental)
			if c.pull {
				_, err = h.pull(t, activities.PullInput{Run: id, Type: cura.Patient})
				require.NoError(t, err)
			}
			h.finish(t, id, c.ended)
			require.Equal(t, c.health, h.connection(t).Health)
		})
	}
}

func TestWhatARunHadToReadItselfMakesItIncomplete(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	for _, c := range []struct {
		run     cura.RunKind
		typ     cura.ResourceType
		kind    fault.Kind
		outcome string
	}{
		{cura.RunBackfill, cura.Observation, fault.Busy, "incomplete"},
		{cura.RunReplay, cura.Observation, fault.Busy, "incomplete"},
		{cura.RunIncremental, cura.Observation, fault.Busy, "complete"},
		{cura.RunBackfill, cura.Patient, fault.Scope, "incomplete"},
		{cura.RunBackfill, cura.Patient, fault.Unsupported, "incomplete"},
		{cura.RunBackfill, cura.Observation, fault.Scope, "complete"},
		{cura.RunIncremental, cura.Patient, fault.Scope, "complete"},
		{cura.RunBackfill, cura.Observation, fault.Config, "incomplete"},
	} {
		result, err := run[activities.FinishResult](t, h, h.a.FinishRun, activities.FinishInput{
			Target: h.target, Run: h.begin(t, c.run), Kind: c.run, Ended: map[cura.ResourceType]activities.Details{c.typ: {Kind: c.kind}},
		})
		require.NoError(t, err)
		require.Equal(t, c.outcome, result.Outcome, "%+v", c)
	}
	require.Equal(t, int64(5), h.stored(t, "SELECT count(*) FROM sync.runs WHERE outcome = 'incomplete'"))
}

func TestTheWindowIsJudgedFromTheAuditLog(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	began := time.Now().Add(-time.Minute)
	h.finish(t, h.begin(t, cura.RunBackfill), map[cura.ResourceType]activities.Details{cura.Patient: {Kind: fault.Transient}})
	h.finish(t, h.begin(t, cura.RunIncremental), nil)
	h.finish(t, h.begin(t, cura.RunIncremental), map[cura.ResourceType]activities.Details{cura.Patient: {Kind: fault.Auth}})
	e, err := run[cura.Evaluation](t, h, h.a.EvaluateWindow, activities.EvaluateInput{
		Target: h.target, Began: began, Thresholds: cura.Thresholds{}.WithDefaults(time.Minute),
	})
	require.NoError(t, err)
	require.Equal(t, 2, e.Syncs, "the backfill isn't a sync")
	require.Equal(t, 1, e.FailedSyncs)
	require.Equal(t, 1, e.AuthFailures)
	require.True(t, e.AuthBreach)
	require.Equal(t, int64(1), h.stored(t, "SELECT count(*) FROM audit.records WHERE kind = 'window.evaluated'"))
}

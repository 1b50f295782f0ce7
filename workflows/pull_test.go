package workflows_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/workflows"
)

func (w *world) sync(t *testing.T, in workflows.SyncInput) workflows.ReadResult {
	t.Helper()
	in.Target = target()
	w.env.ExecuteWorkflow(workflows.IncrementalSync, in)
	require.NoError(t, w.env.GetWorkflowError())
	var r workflows.ReadResult
	require.NoError(t, w.env.GetWorkflowResult(&r))
	return r
}

func (w *world) backfill(t *testing.T) workflows.ReadResult {
	t.Helper()
	w.env.ExecuteWorkflow(workflows.Backfill, workflows.BackfillInput{Target: target(), Run: "33333333-3333-4333-8333-333333333333"})
	require.NoError(t, w.env.GetWorkflowError())
	var r workflows.ReadResult
	require.NoError(t, w.env.GetWorkflowResult(&r))
	return r
}

func TestPatientsAreReadFirstAndEveryTypeToItsEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var mu sync.Mutex
	var order []cura.ResourceType
	w.pull = func(in activities.PullInput, call int) (activities.PullResult, error) {
		mu.Lock()
		defer mu.Unlock()
		order = append(order, in.Type)
		return activities.PullResult{Done: call == 3, Pages: 40}, nil
	}
	require.Equal(t, "complete", w.backfill(t).Outcome)
	require.Equal(t, []cura.ResourceType{cura.Patient, cura.Patient, cura.Patient}, order[:3])
	require.Len(t, order, 9)
}

func TestAPauseThatTheEHRAsksForIsADurableTimerAndUsesUpNoAttempt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.types = []cura.ResourceType{cura.Patient}
	w.pull = func(_ activities.PullInput, call int) (activities.PullResult, error) {
		if call <= 50 {
			return activities.PullResult{Wait: 10 * time.Minute, Pages: call % 2}, nil
		}
		return activities.PullResult{Done: true}, nil
	}
	began := w.env.Now()
	require.Equal(t, "complete", w.sync(t, workflows.SyncInput{}).Outcome)
	require.GreaterOrEqual(t, w.env.Now().Sub(began), 500*time.Minute)
	require.Empty(t, w.gaveUp)
}

func TestThrottlingIsBoundedByElapsedTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.types = []cura.ResourceType{cura.Patient}
	w.pull = func(activities.PullInput, int) (activities.PullResult, error) {
		return activities.PullResult{Wait: 10 * time.Minute}, nil
	}
	began := w.env.Now()
	r := w.sync(t, workflows.SyncInput{ThrottleBudget: 2 * time.Hour})
	require.Equal(t, "incomplete", r.Outcome)
	require.Equal(t, fault.Throttled, w.gaveUp[0].Details.Kind)
	require.InDelta(t, 130, w.env.Now().Sub(began).Minutes(), 1)
}

func TestAFaultOfOneTypeStopsOnlyThatType(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kind    fault.Kind
		outcome string
		gaveUp  int
	}{
		"5xx":              {fault.Transient, "incomplete", 1},
		"403":              {fault.Scope, "complete", 1},
		"not offered":      {fault.Unsupported, "complete", 1},
		"read by another":  {fault.Busy, "complete", 0},
		"wrong credential": {fault.Auth, "incomplete", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.pull = func(in activities.PullInput, _ int) (activities.PullResult, error) {
				if in.Type == cura.Observation {
					return activities.PullResult{}, refuses(c.kind, "it failed")
				}
				return activities.PullResult{Done: true}, nil
			}
			r := w.sync(t, workflows.SyncInput{})
			require.Equal(t, c.outcome, r.Outcome)
			require.Len(t, w.gaveUp, c.gaveUp)
			require.Equal(t, 1, w.calls("PullType Encounter"), "the other types are read")
			require.Len(t, r.Ended, 1)
			require.Equal(t, cura.Observation, r.Ended[0].Type)
		})
	}
}

func TestRefusedCredentialsAreToldOnceForTheWholeRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pull = func(activities.PullInput, int) (activities.PullResult, error) {
		return activities.PullResult{}, refuses(fault.Auth, "invalid_client")
	}
	r := w.sync(t, workflows.SyncInput{})
	require.Equal(t, "incomplete", r.Outcome)
	require.Len(t, r.Ended, 3)
	require.Empty(t, w.gaveUp, "no dead letter for what only a person can mend")
	require.Zero(t, w.calls("PullType Observation"), "the EHR isn't asked again and again with a refused secret")
}

func TestAFirstReadWithoutPatientsReadsNothingElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pull = func(in activities.PullInput, _ int) (activities.PullResult, error) {
		if in.Type == cura.Patient {
			return activities.PullResult{}, refuses(fault.Transient, "503 eight times")
		}
		return activities.PullResult{Done: true}, nil
	}
	require.Equal(t, "incomplete", w.backfill(t).Outcome)
	require.Zero(t, w.calls("PullType Observation"))
}

func TestALongBackfillGoesOnInANewHistoryWithWhatItKnows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pull = func(in activities.PullInput, call int) (activities.PullResult, error) {
		if in.Type == cura.Encounter {
			return activities.PullResult{}, refuses(fault.Scope, "403")
		}
		if in.Type == cura.Observation && call == 3 {
			w.env.SetContinueAsNewSuggested(true)
		}
		return activities.PullResult{Done: in.Type == cura.Patient, Pages: 1}, nil
	}
	w.env.ExecuteWorkflow(workflows.Backfill, workflows.BackfillInput{Target: target(), Run: "33333333-3333-4333-8333-333333333333"})
	var next *workflow.ContinueAsNewError
	require.ErrorAs(t, w.env.GetWorkflowError(), &next)
	var in workflows.BackfillInput
	require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(next.Input, &in))
	require.Equal(t, "33333333-3333-4333-8333-333333333333", in.Run)
	require.Equal(t, fault.Scope, in.Ended[cura.Encounter].Kind, "a type that ended isn't begun again")
	require.Empty(t, w.finished, "the run isn't over")
}

// busyUntil has another run read Observation until that much workflow time has passed.
func (w *world) busyUntil(d time.Duration) {
	began := w.env.Now()
	w.pull = func(in activities.PullInput, _ int) (activities.PullResult, error) {
		if in.Type == cura.Observation && w.env.Now().Sub(began) < d {
			return activities.PullResult{}, refuses(fault.Busy, "another run is reading Observation")
		}
		return activities.PullResult{Done: true, Pages: 1}, nil
	}
}

func TestABackfillWaitsForAnotherRunAsLongAsItTakes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.busyUntil(3 * time.Hour)
	began := w.env.Now()
	r := w.backfill(t)
	require.Equal(t, "complete", r.Outcome)
	require.Empty(t, r.Ended)
	require.Empty(t, w.gaveUp)
	require.GreaterOrEqual(t, w.env.Now().Sub(began), 3*time.Hour)
	require.InDelta(t, 3*360, w.calls("PullType Observation"), 3, "every ten seconds")
	require.Equal(t, 1, w.calls("PullType Encounter"), "the other types are read meanwhile")
}

func TestWaitingForAnotherRunIsBoundedByElapsedTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.busyUntil(24 * time.Hour)
	began := w.env.Now()
	r := w.backfill(t)
	require.Equal(t, "incomplete", r.Outcome)
	require.Equal(t, fault.Busy, r.Ended[0].Details.Kind)
	require.Contains(t, r.Ended[0].Details.Detail, "6h")
	require.NotEmpty(t, r.Ended[0].Details.Fix)
	require.InDelta(t, 6, w.env.Now().Sub(began).Hours(), 0.1)
	require.Equal(t, cura.RunBackfill, w.finished[0].Kind)
}

func TestTimeWaitedCountsAcrossHistories(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.busyUntil(24 * time.Hour)
	began := w.env.Now()
	w.after(4*time.Hour, func() { w.env.SetContinueAsNewSuggested(true) })
	in := workflows.BackfillInput{Target: target(), Run: "33333333-3333-4333-8333-333333333333"}
	w.env.ExecuteWorkflow(workflows.Backfill, in)
	var next *workflow.ContinueAsNewError
	require.ErrorAs(t, w.env.GetWorkflowError(), &next)
	require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(next.Input, &in))

	second := newWorld(t)
	second.env.SetStartTime(began.Add(4 * time.Hour))
	second.busyUntil(24 * time.Hour)
	second.env.ExecuteWorkflow(workflows.Backfill, in)
	require.NoError(t, second.env.GetWorkflowError())
	require.InDelta(t, 6, second.env.Now().Sub(began).Hours(), 0.1)
}

func TestASyncLeavesATypeToTheRunThatReadsIt(t *testing.T) {
	t.Parallel()
	for replay, outcome := range map[cura.DeadLetterID]string{"": "complete", "44444444-4444-4444-8444-444444444444": "incomplete"} {
		w := newWorld(t)
		w.busyUntil(24 * time.Hour)
		r := w.sync(t, workflows.SyncInput{Replay: replay})
		require.Equal(t, outcome, r.Outcome)
		require.Equal(t, 1, w.calls("PullType Observation"))
	}
}

func TestWithoutLeaveToReadPatientsABackfillIsIncompleteAndASyncGoesOn(t *testing.T) {
	t.Parallel()
	for _, kind := range []fault.Kind{fault.Scope, fault.Unsupported} {
		refuse := func(in activities.PullInput, _ int) (activities.PullResult, error) {
			if in.Type == cura.Patient {
				return activities.PullResult{}, refuses(kind, "403")
			}
			return activities.PullResult{Done: true, Pages: 1}, nil
		}
		w := newWorld(t)
		w.pull = refuse
		r := w.backfill(t)
		require.Equal(t, "incomplete", r.Outcome)
		require.Equal(t, []workflows.Ended{
			{Type: cura.Patient, Details: activities.Details{Kind: kind, Detail: "403", Fix: "Do what the fix says", Attempts: 1}},
			{Type: cura.Observation, Details: activities.Details{Kind: fault.Config, Detail: "not read, because Patient wasn't: 403", Fix: "Do what the fix says"}},
			{Type: cura.Encounter, Details: activities.Details{Kind: fault.Config, Detail: "not read, because Patient wasn't: 403", Fix: "Do what the fix says"}},
		}, r.Ended)

		w = newWorld(t)
		w.pull = refuse
		require.Equal(t, "complete", w.sync(t, workflows.SyncInput{}).Outcome)
		require.Equal(t, 1, w.calls("PullType Observation"), "patients that are linked already go on being read")
	}
}

func TestAPausedBackfillGoesOnWhenItIsResumed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	paused := true
	w.pull = func(in activities.PullInput, _ int) (activities.PullResult, error) {
		if in.Type == cura.Observation && paused {
			return activities.PullResult{Paused: true}, nil
		}
		return activities.PullResult{Done: true, Pages: 1}, nil
	}
	began := w.env.Now()
	w.after(30*24*time.Hour+10*time.Second, func() {
		paused = false
		w.env.SignalWorkflow(workflows.SignalResumed, nil)
	})
	r := w.backfill(t)
	require.Equal(t, "complete", r.Outcome, "a pause has no bound")
	require.Empty(t, r.Ended)
	require.Equal(t, 30*24*time.Hour+10*time.Second, w.env.Now().Sub(began), "the signal has woken it")
}

func TestASyncLeavesAPausedTypeAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.paused = []cura.ResourceType{cura.Consent}
	w.pull = func(in activities.PullInput, _ int) (activities.PullResult, error) {
		return activities.PullResult{Paused: in.Type == cura.Observation, Done: in.Type != cura.Observation}, nil
	}
	r := w.sync(t, workflows.SyncInput{})
	require.Equal(t, "complete", r.Outcome)
	require.Len(t, r.Ended, 2)
	for _, e := range r.Ended {
		require.Equal(t, fault.Paused, e.Details.Kind)
	}
	require.Zero(t, w.calls("PullType Consent"))
}

func TestWhoStepsAsideReadsOnAfterwards(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.types = []cura.ResourceType{cura.Patient}
	w.pull = func(_ activities.PullInput, call int) (activities.PullResult, error) {
		switch call {
		case 1, 2:
			return activities.PullResult{Yielded: true, Pages: 1}, nil
		case 3:
			return activities.PullResult{}, refuses(fault.Busy, "somebody who goes ahead is reading")
		}
		return activities.PullResult{Done: true}, nil
	}
	r := w.sync(t, workflows.SyncInput{})
	require.Equal(t, "complete", r.Outcome)
	require.Empty(t, r.Ended, "a sync waits too, for whom it has let in")
	require.Equal(t, 4, w.calls("PullType Patient"))
}

func TestTheRosterIsLookedAfterWhereATypeIsReadByPatient(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		byPatient bool
		patients  []string
		err       error
		refreshed int
		pulled    int
	}{
		"read system-wide":               {refreshed: 0, pulled: 1},
		"read by patient":                {byPatient: true, refreshed: 2, pulled: 1},
		"single patients were asked for": {byPatient: true, patients: []string{"p"}, refreshed: 0, pulled: 1},
		"the search for one fails":       {byPatient: true, err: refuses(fault.Transient, "500"), refreshed: 1, pulled: 1},
		"the EHR lets nobody in":         {byPatient: true, err: refuses(fault.Auth, "401"), refreshed: 1, pulled: 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.byPatient = c.byPatient
			w.roster = func(call int) (activities.RosterResult, error) {
				return activities.RosterResult{More: call == 1}, c.err
			}
			w.sync(t, workflows.SyncInput{Patients: c.patients})
			require.Equal(t, c.refreshed, w.calls("RefreshRoster"))
			require.Equal(t, c.pulled, w.calls("PullType Observation"))
		})
	}
}

func TestARangeAndAPatientAreAskedForAsTheyWereGiven(t *testing.T) {
	t.Parallel()
	since, until := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	for kind, in := range map[cura.RunKind]workflows.SyncInput{
		cura.RunRange:       {Since: &since, Until: &until},
		cura.RunPatient:     {Patients: []string{"p1"}, Ahead: true},
		cura.RunIncremental: {},
	} {
		w := newWorld(t)
		w.pull = func(got activities.PullInput, _ int) (activities.PullResult, error) {
			if got.Since != nil || in.Since != nil {
				require.Equal(t, []*time.Time{in.Since, in.Until}, []*time.Time{got.Since, got.Until})
			}
			require.Equal(t, in.Patients, got.Patients)
			require.Equal(t, in.Ahead, got.Ahead)
			return activities.PullResult{Done: true}, nil
		}
		w.sync(t, in)
		require.Equal(t, kind, w.begun[0].Kind)
	}
}

func TestAComparisonGoesThroughTheTypesAndTellsWhatItCouldnt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.reconcile = func(in activities.ReconcileInput, call int) (activities.ReconcileResult, error) {
		switch {
		case in.Type == cura.Encounter:
			return activities.ReconcileResult{}, refuses(fault.Transient, "500")
		case in.Type == cura.Observation && call < 4:
			return activities.ReconcileResult{Pages: 1, Yielded: call == 2, Wait: time.Minute}, nil
		}
		return activities.ReconcileResult{Done: true, Reconciliation: cura.Reconciliation{Type: in.Type, Source: 5, Cura: 4, Missing: 1}}, nil
	}
	w.env.ExecuteWorkflow(workflows.Reconcile, workflows.ReconcileInput{Target: target(), Repair: true})
	require.NoError(t, w.env.GetWorkflowError())
	var r workflows.ReconcileResult
	require.NoError(t, w.env.GetWorkflowResult(&r))
	require.Equal(t, "incomplete", r.Outcome)
	require.Len(t, r.Types, 2)
	require.Equal(t, cura.Encounter, r.Ended[0].Type)
	require.Equal(t, cura.RunReconcile, w.begun[0].Kind)
}

// TestConsentIsReadBeforeTheClinicalTypes: it says whose may be read; where it can't be read, they aren't.
func TestConsentIsReadBeforeTheClinicalTypes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fails fault.Kind
		read  []cura.ResourceType
		kind  fault.Kind
	}{
		"read":                      {"", []cura.ResourceType{cura.Patient, cura.Consent, cura.Observation}, ""},
		"the EHR has none":          {fault.Unsupported, []cura.ResourceType{cura.Patient, cura.Consent, cura.Observation}, ""},
		"forbidden":                 {fault.Scope, []cura.ResourceType{cura.Patient, cura.Consent}, fault.Config},
		"the EHR fails":             {fault.Transient, []cura.ResourceType{cura.Patient, cura.Consent}, fault.Transient},
		"another run is reading it": {fault.Busy, []cura.ResourceType{cura.Patient, cura.Consent}, fault.Busy},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.types = []cura.ResourceType{cura.Patient, cura.Observation, cura.Consent}
			w.consentFirst = true
			var read []cura.ResourceType
			w.pull = func(in activities.PullInput, _ int) (activities.PullResult, error) {
				w.mu.Lock()
				defer w.mu.Unlock()
				read = append(read, in.Type)
				if in.Type == cura.Consent && c.fails != "" {
					return activities.PullResult{}, refuses(c.fails, "it can't be read")
				}
				return activities.PullResult{Done: true}, nil
			}
			w.env.ExecuteWorkflow(workflows.IncrementalSync, workflows.SyncInput{Target: target()})
			require.NoError(t, w.env.GetWorkflowError())
			require.Equal(t, c.read, read)
			require.Equal(t, c.kind, w.finished[0].Ended[cura.Observation].Kind)
		})
	}
}

package workflows_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/workflows"
)

// answer is what an update came to.
type answer struct {
	accepted bool
	refusal  error
	text     any
	err      error
}

// update sends an update and keeps what it came to.
func (w *world) update(name string, arg any) *answer {
	a := &answer{}
	w.env.UpdateWorkflow(name, uuid.NewString(), &updateCallback{a}, arg)
	return a
}

type updateCallback struct{ a *answer }

func (c *updateCallback) Accept()                      { c.a.accepted = true }
func (c *updateCallback) Reject(err error)             { c.a.refusal = err }
func (c *updateCallback) Complete(text any, err error) { c.a.text, c.a.err = text, err }

func (w *world) status(t *testing.T) workflows.OnboardingStatus {
	t.Helper()
	value, err := w.env.QueryWorkflow(workflows.QueryStatus)
	require.NoError(t, err)
	var s workflows.OnboardingStatus
	require.NoError(t, value.Get(&s))
	return s
}

func (w *world) result(t *testing.T) workflows.OnboardingStatus {
	t.Helper()
	require.True(t, w.env.IsWorkflowCompleted())
	require.NoError(t, w.env.GetWorkflowError())
	var s workflows.OnboardingStatus
	require.NoError(t, w.env.GetWorkflowResult(&s))
	return s
}

func TestOnboardingGoesLiveAfterSeventyTwoHours(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	began := w.env.Now()
	w.onboard(workflows.OnboardingInput{})
	status := w.result(t)
	require.Equal(t, cura.PhaseLive, status.Phase)
	require.GreaterOrEqual(t, w.env.Now().Sub(began), 72*time.Hour)
	require.Equal(t, 288, status.Window.Evaluations, "every quarter of an hour")
	for _, step := range status.Steps {
		require.Equal(t, "done", step.State, step.Name)
	}
	require.Equal(t, 1, w.did["EnableSchedule"])
	require.Equal(t, 1, w.did["PauseSchedule"], "no schedule of an earlier onboarding runs beside this one")
	require.Equal(t, 1, w.did["PurgePilot"], "the pilot's data goes at live")
	var phases []cura.Phase
	for _, s := range w.standings {
		if len(phases) == 0 || phases[len(phases)-1] != s.Phase {
			phases = append(phases, s.Phase)
		}
	}
	require.Equal(t, []cura.Phase{cura.PhaseTesting, cura.PhasePilot, cura.PhaseApproval, cura.PhaseBackfill, cura.PhaseMonitoring, cura.PhaseLive}, phases)
}

func TestAShortWindowIsLookedAtEveryTenSeconds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.onboard(workflows.OnboardingInput{Monitor: time.Minute})
	require.Equal(t, 6, w.result(t).Window.Evaluations)
}

func TestAFailedEndpointTestWaitsForAPersonAndGoesOnWhenTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.endpoint = func(call int) (activities.EndpointResult, error) {
		if call > 1 {
			return activities.EndpointResult{Verdict: cura.VerdictOK}, nil
		}
		return activities.EndpointResult{Verdict: cura.VerdictFailed, Problems: []cura.Check{
			{Name: "token", Verdict: cura.VerdictFailed, Seen: "invalid_client", Fix: "Give the secret again"},
		}}, nil
	}
	var waiting workflows.OnboardingStatus
	var approve, retry *answer
	w.after(time.Hour, func() {
		waiting = w.status(t)
		approve = w.update(workflows.UpdateApprove, workflows.Command{As: "asserted:ann"})
		retry = w.update(workflows.UpdateRetry, workflows.Command{As: "asserted:ann"})
	})
	w.onboard(workflows.OnboardingInput{Monitor: time.Minute})
	require.Equal(t, cura.PhaseLive, w.result(t).Phase)

	require.Equal(t, cura.HealthAttention, waiting.Health)
	require.Equal(t, cura.WaitsForFixCredentials, waiting.WaitsFor)
	require.Contains(t, waiting.Why, "Give the secret again")
	require.Contains(t, waiting.Commands, "starter retry "+string(connection))
	require.ErrorContains(t, approve.refusal, "nothing waits for an approval")
	require.NoError(t, retry.refusal)
	require.True(t, retry.accepted)
	require.NoError(t, retry.err)

	var actors []string
	for _, s := range w.standings {
		actors = append(actors, s.Actor)
	}
	require.Contains(t, actors, "asserted:ann", "what a person caused is recorded as theirs")
}

func TestAnErrorOfAnActivityWaitsForAPersonToo(t *testing.T) {
	t.Parallel()
	for step, breakIt := range map[string]func(*world){
		"testing": func(w *world) {
			w.endpoint = func(call int) (activities.EndpointResult, error) {
				if call == 1 {
					return activities.EndpointResult{}, refuses(fault.Config, "no secret")
				}
				return activities.EndpointResult{Verdict: cura.VerdictOK}, nil
			}
		},
		"pilot": func(w *world) {
			w.pilot = func(call int) (activities.PilotResult, error) {
				if call == 1 {
					return activities.PilotResult{}, refuses(fault.Protocol, "HTML came")
				}
				return activities.PilotResult{Wanted: 10, Patients: 3, Clean: 3}, nil
			}
		},
	} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			breakIt(w)
			var waiting workflows.OnboardingStatus
			w.after(time.Hour, func() {
				waiting = w.status(t)
				w.update(workflows.UpdateRetry, workflows.Command{})
			})
			w.onboard(workflows.OnboardingInput{Monitor: time.Minute})
			require.Equal(t, cura.PhaseLive, w.result(t).Phase)
			require.Equal(t, cura.Phase(step), waiting.Phase)
			require.Contains(t, waiting.Why, "Do what the fix says")
		})
	}
}

func TestThePilotIsHeldAgainstItsThreshold(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		result    activities.PilotResult
		threshold float64
		waits     bool
	}{
		"at the threshold":    {activities.PilotResult{Wanted: 10, Patients: 10, Clean: 8, Ambiguous: 2}, 0.2, false},
		"above the threshold": {activities.PilotResult{Wanted: 10, Patients: 10, Clean: 7, Ambiguous: 3}, 0.2, true},
		"a laxer threshold":   {activities.PilotResult{Wanted: 10, Patients: 10, Clean: 7, Ambiguous: 3}, 0.3, false},
		"fewer than wanted":   {activities.PilotResult{Wanted: 10, Patients: 2, Clean: 2}, 0.2, false},
		"an empty server":     {activities.PilotResult{Wanted: 10}, 0.2, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.pilot = func(int) (activities.PilotResult, error) { return c.result, nil }
			waited := false
			w.after(30*time.Second, func() {
				waited = w.status(t).Phase == cura.PhasePilot
				if waited {
					w.update(workflows.UpdateAbort, workflows.AbortCommand{Reason: "enough"})
				}
			})
			w.onboard(workflows.OnboardingInput{Monitor: time.Minute, PilotThreshold: c.threshold})
			status := w.result(t)
			require.Equal(t, c.waits, waited)
			if c.result.Patients > 0 && c.result.Patients < c.result.Wanted {
				require.Contains(t, status.Steps[1].Text, "fewer than the 10 wanted")
			}
		})
	}
}

func TestApprovalIsWaitedForWhereItIsAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var waiting workflows.OnboardingStatus
	var retry, extend *answer
	w.after(48*time.Hour, func() {
		waiting = w.status(t)
		retry = w.update(workflows.UpdateRetry, workflows.Command{})
		extend = w.update(workflows.UpdateExtend, workflows.ExtendCommand{By: time.Hour})
		w.update(workflows.UpdateApprove, workflows.Command{As: "asserted:ann"})
	})
	w.onboard(workflows.OnboardingInput{Monitor: time.Minute, RequireApproval: true})
	status := w.result(t)
	require.Equal(t, cura.WaitsForApproval, waiting.WaitsFor)
	require.ErrorContains(t, retry.refusal, "starter approve")
	require.ErrorContains(t, extend.refusal, "no monitoring window")
	require.Equal(t, "approved by asserted:ann", status.Steps[2].Text)
}

func TestAnIncompleteBackfillIsRetriedAsTheSameRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pull = func(in activities.PullInput, call int) (activities.PullResult, error) {
		if in.Type == cura.Observation && call == 1 {
			return activities.PullResult{}, refuses(fault.Transient, "503 eight times")
		}
		return activities.PullResult{Done: true}, nil
	}
	var waiting workflows.OnboardingStatus
	w.after(time.Hour, func() {
		waiting = w.status(t)
		w.update(workflows.UpdateRetry, workflows.Command{})
	})
	w.onboard(workflows.OnboardingInput{Monitor: time.Minute})
	require.Equal(t, cura.PhaseLive, w.result(t).Phase)
	require.Equal(t, cura.PhaseBackfill, waiting.Phase)
	require.Contains(t, waiting.Why, "503 eight times")
	require.Len(t, w.gaveUp, 1, "it became a dead letter")
	require.Len(t, w.begun, 2)
	require.Equal(t, w.begun[0].Run, w.begun[1].Run, "so that what was read isn't read again")
}

func TestAnUnhealthyWindowPausesTheScheduleAndWaits(t *testing.T) {
	t.Parallel()
	for name, goOn := range map[string]func(*world) *answer{
		"retry": func(w *world) *answer { return w.update(workflows.UpdateRetry, workflows.Command{}) },
		"extend": func(w *world) *answer {
			return w.update(workflows.UpdateExtend, workflows.ExtendCommand{By: 2 * time.Minute})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.evaluate = func(call int) cura.Evaluation {
				if call == 2 {
					return cura.Evaluation{Breaches: []string{"the EHR refused the credentials in 1 syncs; allowed: 0"}, AuthBreach: true}
				}
				return cura.Evaluation{}
			}
			var waiting workflows.OnboardingStatus
			var went *answer
			w.after(time.Hour, func() {
				waiting = w.status(t)
				went = goOn(w)
			})
			w.onboard(workflows.OnboardingInput{Monitor: time.Minute})
			status := w.result(t)
			require.Equal(t, cura.PhaseLive, status.Phase)
			require.Equal(t, cura.PhaseMonitoring, waiting.Phase)
			require.Equal(t, cura.WaitsForFixCredentials, waiting.WaitsFor)
			require.Contains(t, waiting.Why, "refused the credentials")
			require.NoError(t, went.refusal)
			require.Equal(t, 3, w.did["PauseSchedule"], "for each endpoint test, and for the unhealthy window")
			require.Equal(t, 2, w.did["EnableSchedule"], "the schedule goes on with the new window")
			require.Equal(t, 2, w.did["TestEndpoint"], "what was mended is tested before the new window begins")
			require.True(t, w.windows[2].Began.After(w.windows[1].Began), "old failures don't count in the new window")
			want := map[string]int{"retry": 6, "extend": 12}[name]
			require.Equal(t, want, status.Window.Evaluations)
		})
	}
}

func TestAHealthyWindowCanBeExtended(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.after(30*time.Second, func() { w.update(workflows.UpdateExtend, workflows.ExtendCommand{By: time.Minute}) })
	began := w.env.Now()
	w.onboard(workflows.OnboardingInput{Monitor: time.Minute})
	require.Equal(t, cura.PhaseLive, w.result(t).Phase)
	require.GreaterOrEqual(t, w.env.Now().Sub(began), 2*time.Minute)
}

func TestAbortPurgesThePilotWhereverItStands(t *testing.T) {
	t.Parallel()
	for name, setUp := range map[string]func(*world, *workflows.OnboardingInput){
		"waiting": func(w *world, _ *workflows.OnboardingInput) {
			w.pilot = func(int) (activities.PilotResult, error) { return activities.PilotResult{Wanted: 10}, nil }
		},
		"approval":   func(_ *world, in *workflows.OnboardingInput) { in.RequireApproval = true },
		"monitoring": func(_ *world, in *workflows.OnboardingInput) { in.Monitor = 72 * time.Hour },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			in := workflows.OnboardingInput{Monitor: time.Minute}
			setUp(w, &in)
			w.after(time.Hour, func() { w.update(workflows.UpdateAbort, workflows.AbortCommand{Reason: "the hospital withdrew"}) })
			w.onboard(in)
			status := w.result(t)
			require.Equal(t, cura.PhaseAborted, status.Phase)
			require.Equal(t, 1, w.did["PurgePilot"])
			require.Equal(t, 1, w.did["DeleteSchedule"])
			require.Equal(t, cura.PhaseAborted, w.standings[len(w.standings)-1].Phase)
		})
	}
}

func TestACancelledOnboardingCleansUpAsAnAbortedOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.after(time.Hour, w.env.CancelWorkflow)
	w.onboard(workflows.OnboardingInput{})
	require.Equal(t, cura.PhaseAborted, w.result(t).Phase)
	require.Equal(t, 1, w.did["PurgePilot"])
}

func TestAnOnboardingGoesOnInANewHistory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.after(24*time.Hour+time.Minute, func() { w.env.SetContinueAsNewSuggested(true) })
	w.onboard(workflows.OnboardingInput{})
	in := w.nextHistory(t)
	require.Equal(t, cura.PhaseMonitoring, in.State.Phase)
	require.Equal(t, 97, in.State.Window.Evaluations)

	// The second history goes on with the window of the first: no new test, pilot, backfill or schedule.
	second := newWorld(t)
	second.env.SetStartTime(in.State.Window.Began.Add(24*time.Hour + 15*time.Minute))
	second.env.ExecuteWorkflow(workflows.Onboarding, in)
	status := second.result(t)
	require.Equal(t, cura.PhaseLive, status.Phase)
	require.Equal(t, 288, status.Window.Evaluations)
	require.Zero(t, second.did["TestEndpoint"]+second.did["RunPilot"]+second.did["BeginRun"]+second.did["EnableSchedule"])
}

// nextHistory is what the workflow begins its next history with.
func (w *world) nextHistory(t *testing.T) workflows.OnboardingInput {
	t.Helper()
	var next *workflow.ContinueAsNewError
	require.ErrorAs(t, w.env.GetWorkflowError(), &next)
	var in workflows.OnboardingInput
	require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(next.Input, &in))
	return in
}

func TestWhatAPersonHasSaidIsHeardInTheNextHistory(t *testing.T) {
	t.Parallel()
	first := newWorld(t)
	first.after(time.Hour, func() {
		first.env.SetContinueAsNewSuggested(true)
		require.NoError(t, first.update(workflows.UpdateApprove, workflows.Command{As: "asserted:ann"}).refusal)
	})
	first.onboard(workflows.OnboardingInput{Monitor: time.Minute, RequireApproval: true})

	second := newWorld(t)
	second.after(time.Hour, func() { second.update(workflows.UpdateAbort, workflows.AbortCommand{Reason: "it waits again"}) })
	second.env.ExecuteWorkflow(workflows.Onboarding, first.nextHistory(t))
	status := second.result(t)
	require.Equal(t, cura.PhaseLive, status.Phase)
	require.Equal(t, "approved by asserted:ann", status.Steps[2].Text)
	require.Empty(t, status.Said, "what was said has been done")
}

func TestAbortComesBeforeANewHistory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.after(time.Hour, func() {
		w.env.SetContinueAsNewSuggested(true)
		w.update(workflows.UpdateAbort, workflows.AbortCommand{Reason: "the hospital withdrew"})
	})
	w.onboard(workflows.OnboardingInput{RequireApproval: true})
	require.Equal(t, cura.PhaseAborted, w.result(t).Phase)

	// An abort that a new history is told of is done there, before anything else.
	second := newWorld(t)
	second.onboard(workflows.OnboardingInput{State: &workflows.OnboardingStatus{
		Phase: cura.PhaseBackfill, Steps: []workflows.Step{{Name: string(cura.PhaseBackfill), State: "running"}},
		Said: workflows.Said{Aborted: "the hospital withdrew"},
	}})
	require.Equal(t, cura.PhaseAborted, second.result(t).Phase)
	require.Zero(t, second.did["BeginRun"])
}

func TestAbortDoesTheFailedStepNoMore(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		breakIt func(*world)
		again   []string
	}{
		"an endpoint test that failed": {func(w *world) {
			w.endpoint = func(int) (activities.EndpointResult, error) {
				return activities.EndpointResult{}, refuses(fault.Config, "no secret")
			}
		}, []string{"TestEndpoint"}},
		"an incomplete backfill": {func(w *world) {
			w.pull = func(in activities.PullInput, _ int) (activities.PullResult, error) {
				if in.Type == cura.Observation {
					return activities.PullResult{}, refuses(fault.Protocol, "HTML came")
				}
				return activities.PullResult{Done: true, Pages: 1}, nil
			}
		}, []string{"BeginRun", "PullType Patient", "PullType Observation"}},
		"an unhealthy window": {func(w *world) {
			w.evaluate = func(int) cura.Evaluation { return cura.Evaluation{Breaches: []string{"no sync"}} }
		}, []string{"TestEndpoint", "EnableSchedule"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c.breakIt(w)
			w.after(time.Hour, func() { w.update(workflows.UpdateAbort, workflows.AbortCommand{Reason: "the hospital withdrew"}) })
			w.onboard(workflows.OnboardingInput{Monitor: time.Minute})
			require.Equal(t, cura.PhaseAborted, w.result(t).Phase)
			for _, activity := range c.again {
				require.Equal(t, 1, w.did[activity], activity)
			}
		})
	}
}

func TestCancellingAWaitingOnboardingDoesTheFailedStepNoMore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pilot = func(int) (activities.PilotResult, error) { return activities.PilotResult{Wanted: 10}, nil }
	w.after(time.Hour, w.env.CancelWorkflow)
	w.onboard(workflows.OnboardingInput{})
	require.Equal(t, cura.PhaseAborted, w.result(t).Phase)
	require.Equal(t, 1, w.did["RunPilot"])
}

func TestALiveConnectionWhosePilotCannotBePurgedWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.act = func(name string, call int) error {
		if name == "PurgePilot" && call == 1 {
			return refuses(fault.Conflict, "the pilot is locked")
		}
		return nil
	}
	var waiting workflows.OnboardingStatus
	var retry *answer
	w.after(time.Hour, func() {
		waiting = w.status(t)
		retry = w.update(workflows.UpdateRetry, workflows.Command{})
	})
	w.onboard(workflows.OnboardingInput{Monitor: time.Minute})
	status := w.result(t)
	require.Equal(t, cura.WaitsForRetry, waiting.WaitsFor)
	require.Contains(t, waiting.Why, "the pilot is locked")
	require.NoError(t, retry.refusal)
	require.Equal(t, cura.PhaseLive, status.Phase)
	require.Equal(t, "done", status.Steps[5].State)
	require.Equal(t, 2, w.did["PurgePilot"])
	require.Equal(t, 1, w.did["EnableSchedule"], "it goes on from there")
	require.Equal(t, cura.HealthOK, w.standings[len(w.standings)-1].Health)
}

func TestAnOnboardingThatWaitsAtLiveCanBeAborted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.act = func(name string, call int) error {
		if name == "PurgePilot" && call == 1 {
			return refuses(fault.Conflict, "the pilot is locked")
		}
		return nil
	}
	w.after(time.Hour, func() { w.update(workflows.UpdateAbort, workflows.AbortCommand{Reason: "enough"}) })
	w.onboard(workflows.OnboardingInput{Monitor: time.Minute})
	require.Equal(t, cura.PhaseAborted, w.result(t).Phase)
	require.Equal(t, 1, w.did["DeleteSchedule"])
}

func TestAbortEndsEvenWhereItCannotCleanUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.act = func(name string, _ int) error {
		if name == "PauseSchedule" {
			return nil
		}
		return refuses(fault.Conflict, name+" is refused")
	}
	w.after(time.Hour, func() { w.update(workflows.UpdateAbort, workflows.AbortCommand{Reason: "the hospital withdrew"}) })
	w.onboard(workflows.OnboardingInput{RequireApproval: true})
	status := w.result(t)
	require.Equal(t, cura.PhaseAborted, status.Phase)
	text := status.Steps[2].Text
	require.Contains(t, text, "aborted: the hospital withdrew")
	require.Contains(t, text, "the schedule couldn't be deleted: DeleteSchedule is refused")
	require.Contains(t, text, "the pilot's data couldn't be purged: PurgePilot is refused")
	require.Contains(t, text, "starter onboard "+string(connection))
}

func TestExtendBeginsANewWindowWhateverTheProblemIs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.act = func(name string, call int) error {
		if name == "PauseSchedule" && call == 2 {
			return refuses(fault.Conflict, "the schedule is being changed")
		}
		return nil
	}
	w.evaluate = func(call int) cura.Evaluation {
		if call == 2 {
			return cura.Evaluation{Breaches: []string{"no sync"}}
		}
		return cura.Evaluation{}
	}
	var extended time.Time
	w.after(time.Hour, func() {
		require.Contains(t, w.status(t).Why, "The schedule couldn't be paused")
		extended = w.env.Now()
		require.NoError(t, w.update(workflows.UpdateExtend, workflows.ExtendCommand{By: 2 * time.Minute}).refusal)
	})
	w.onboard(workflows.OnboardingInput{Monitor: time.Minute})
	status := w.result(t)
	require.Equal(t, cura.PhaseLive, status.Phase)
	require.WithinDuration(t, extended, status.Window.Began, time.Second)
	require.Equal(t, 2*time.Minute, status.Window.Ends.Sub(status.Window.Began))
	require.Equal(t, 12, status.Window.Evaluations)
	require.Equal(t, 2, w.did["TestEndpoint"])
}

func TestABackfillWithoutPatientsWaitsForAPerson(t *testing.T) {
	t.Parallel()
	for _, kind := range []fault.Kind{fault.Scope, fault.Unsupported} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.pull = func(in activities.PullInput, call int) (activities.PullResult, error) {
				if in.Type == cura.Patient && call == 1 {
					return activities.PullResult{}, refuses(kind, "403")
				}
				return activities.PullResult{Done: true, Pages: 1}, nil
			}
			var waiting workflows.OnboardingStatus
			w.after(time.Hour, func() {
				waiting = w.status(t)
				w.update(workflows.UpdateRetry, workflows.Command{})
			})
			w.onboard(workflows.OnboardingInput{Monitor: time.Minute})
			require.Equal(t, cura.PhaseLive, w.result(t).Phase)
			require.Equal(t, cura.PhaseBackfill, waiting.Phase)
			require.Equal(t, cura.WaitsForFixCredentials, waiting.WaitsFor)
			require.Contains(t, waiting.Why, "without patients nothing can be read")
			require.Equal(t, "incomplete", waiting.Backfill.Outcome)
			require.Equal(t, 1, w.calls("PullType Observation"), "it is read once patients are")
		})
	}
}

func TestABackfillThatStillRunsIsToldInWords(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.env.OnWorkflow(workflows.Backfill, mock.Anything, mock.Anything).
		Return(workflows.ReadResult{}, &temporal.ChildWorkflowExecutionAlreadyStartedError{}).Once()
	w.env.OnWorkflow(workflows.Backfill, mock.Anything, mock.Anything).Return(workflows.ReadResult{Outcome: "complete"}, nil)
	var waiting workflows.OnboardingStatus
	w.after(time.Hour, func() {
		waiting = w.status(t)
		w.update(workflows.UpdateRetry, workflows.Command{})
	})
	w.onboard(workflows.OnboardingInput{Monitor: time.Minute})
	require.Equal(t, cura.PhaseLive, w.result(t).Phase)
	require.Equal(t, cura.WaitsForRetry, waiting.WaitsFor)
	require.Contains(t, waiting.Why, "still runs")
	require.Contains(t, waiting.Why, "retry")
	require.NotContains(t, waiting.Why, "an activity failed")
}

package workflows_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/workflows"
)

const (
	org        = cura.OrgID("11111111-1111-4111-8111-111111111111")
	connection = cura.ConnectionID("22222222-2222-4222-8222-222222222222")
)

func target() activities.Target { return activities.Target{Org: org, Connection: connection} }

// world is what the workflows find: fake activities of a hospital that behaves well, until a test says otherwise.
type world struct {
	env *testsuite.TestWorkflowEnvironment

	mu        sync.Mutex
	standings []activities.StandingInput
	gaveUp    []activities.GiveUpInput
	finished  []activities.FinishInput
	begun     []activities.BeginInput
	windows   []activities.EvaluateInput
	// did counts the calls of each activity.
	did map[string]int

	types    []cura.ResourceType
	endpoint func(call int) (activities.EndpointResult, error)
	pilot    func(call int) (activities.PilotResult, error)
	pull     func(in activities.PullInput, call int) (activities.PullResult, error)
	evaluate func(call int) cura.Evaluation
	// roster is what RefreshRoster finds; byPatient has the run look after it.
	byPatient bool
	roster    func(call int) (activities.RosterResult, error)
	reconcile func(in activities.ReconcileInput, call int) (activities.ReconcileResult, error)
	// paused are the types that BeginRun leaves out.
	paused []cura.ResourceType
	// consentFirst has Consent read before the clinical types.
	consentFirst bool
	// act is what becomes of PurgePilot and of what is done to the schedule.
	act func(name string, call int) error
}

func newWorld(t *testing.T) *world {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	w := &world{
		env:   suite.NewTestWorkflowEnvironment(),
		did:   map[string]int{},
		types: []cura.ResourceType{cura.Patient, cura.Observation, cura.Encounter},
		endpoint: func(int) (activities.EndpointResult, error) {
			return activities.EndpointResult{Verdict: cura.VerdictOK, Checks: 9}, nil
		},
		pilot: func(int) (activities.PilotResult, error) {
			return activities.PilotResult{Wanted: 10, Patients: 10, Clean: 10, New: 10}, nil
		},
		pull: func(activities.PullInput, int) (activities.PullResult, error) {
			return activities.PullResult{Done: true, Pages: 1}, nil
		},
		evaluate: func(int) cura.Evaluation { return cura.Evaluation{Syncs: 1} },
		act:      func(string, int) error { return nil },
		roster:   func(int) (activities.RosterResult, error) { return activities.RosterResult{Members: 3}, nil },
		reconcile: func(in activities.ReconcileInput, _ int) (activities.ReconcileResult, error) {
			return activities.ReconcileResult{Done: true, Reconciliation: cura.Reconciliation{Type: in.Type, Source: 5, Cura: 5}}, nil
		},
	}
	w.env.SetTestTimeout(time.Minute)
	w.env.RegisterWorkflow(workflows.Backfill)
	w.env.RegisterWorkflow(workflows.Onboarding)
	w.env.RegisterWorkflow(workflows.IncrementalSync)
	w.env.RegisterWorkflow(workflows.Reconcile)
	w.register()
	return w
}

// call counts a call and gives its number, from 1.
func (w *world) call(name string, note func()) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.did[name]++
	if note != nil {
		note()
	}
	return w.did[name]
}

func (w *world) calls(name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.did[name]
}

func (w *world) register() {
	add := func(name string, fn any) {
		w.env.RegisterActivityWithOptions(fn, activity.RegisterOptions{Name: name})
	}
	add("TestEndpoint", func(context.Context, activities.Target) (activities.EndpointResult, error) {
		return w.endpoint(w.call("TestEndpoint", nil))
	})
	add("RunPilot", func(context.Context, activities.PilotInput) (activities.PilotResult, error) {
		return w.pilot(w.call("RunPilot", nil))
	})
	add("BeginRun", func(_ context.Context, in activities.BeginInput) (activities.BeginResult, error) {
		w.call("BeginRun", func() { w.begun = append(w.begun, in) })
		return activities.BeginResult{Types: w.types, Paused: w.paused, ByPatient: w.byPatient, ConsentFirst: w.consentFirst}, nil
	})
	add("RefreshRoster", func(context.Context, activities.Target) (activities.RosterResult, error) {
		return w.roster(w.call("RefreshRoster", nil))
	})
	add("ReconcileType", func(_ context.Context, in activities.ReconcileInput) (activities.ReconcileResult, error) {
		return w.reconcile(in, w.call("ReconcileType "+string(in.Type), nil))
	})
	add("PullType", func(_ context.Context, in activities.PullInput) (activities.PullResult, error) {
		return w.pull(in, w.call("PullType "+string(in.Type), nil))
	})
	add("GiveUp", func(_ context.Context, in activities.GiveUpInput) error {
		w.call("GiveUp", func() { w.gaveUp = append(w.gaveUp, in) })
		return nil
	})
	add("FinishRun", func(_ context.Context, in activities.FinishInput) (activities.FinishResult, error) {
		w.call("FinishRun", func() { w.finished = append(w.finished, in) })
		result := activities.FinishResult{Outcome: "complete"}
		for _, d := range in.Ended {
			if !activities.TypeOff(d.Kind) && d.Kind != fault.Paused && (d.Kind != fault.Busy || in.Kind != cura.RunIncremental) {
				result.Outcome = "incomplete"
			}
		}
		return result, nil
	})
	add("RecordStanding", func(_ context.Context, in activities.StandingInput) error {
		w.call("RecordStanding", func() { w.standings = append(w.standings, in) })
		return nil
	})
	add("EvaluateWindow", func(_ context.Context, in activities.EvaluateInput) (cura.Evaluation, error) {
		return w.evaluate(w.call("EvaluateWindow", func() { w.windows = append(w.windows, in) })), nil
	})
	for _, name := range []string{"PurgePilot", "EnableSchedule", "PauseSchedule", "DeleteSchedule"} {
		add(name, func(context.Context, map[string]any) error {
			return w.act(name, w.call(name, nil))
		})
	}
}

// refuses is an activity's error as the worker makes it of a fault that no retry mends.
func refuses(kind fault.Kind, detail string) error {
	return temporal.NewApplicationErrorWithOptions(detail, string(kind), temporal.ApplicationErrorOptions{
		NonRetryable: true, Details: []any{activities.Details{Kind: kind, Detail: detail, Fix: "Do what the fix says", Attempts: 1}},
	})
}

// onboard runs an onboarding to its end.
func (w *world) onboard(in workflows.OnboardingInput) {
	in.Target = target()
	w.env.ExecuteWorkflow(workflows.Onboarding, in)
}

// after has fn called once so much workflow time has passed.
func (w *world) after(d time.Duration, fn func()) { w.env.RegisterDelayedCallback(fn, d) }

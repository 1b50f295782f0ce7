package main

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	enumspb "go.temporal.io/api/enums/v1"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/workflows"
)

// worker answers as Temporal with a worker does: with one status after the other, then as a workflow that has ended.
type worker struct {
	client.Client

	statuses []workflows.OnboardingStatus
	result   *workflows.OnboardingStatus
	ended    error
	missing  bool
	update   error
	// silent makes queries fail, as without a worker.
	silent int
	sent   client.UpdateWorkflowOptions
}

func (w *worker) DescribeWorkflowExecution(context.Context, string, string) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	if w.missing {
		return nil, serviceerror.NewNotFound("no such workflow")
	}
	status := enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING
	if len(w.statuses) == 0 && w.silent == 0 {
		status = enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED
	}
	return &workflowservice.DescribeWorkflowExecutionResponse{WorkflowExecutionInfo: &workflow.WorkflowExecutionInfo{Status: status}}, nil
}

func (w *worker) QueryWorkflow(context.Context, string, string, string, ...any) (converter.EncodedValue, error) {
	if w.silent > 0 {
		w.silent--
		return nil, serviceerror.NewDeadlineExceeded("no worker")
	}
	status := w.statuses[0]
	w.statuses = w.statuses[1:]
	payloads, err := converter.GetDefaultDataConverter().ToPayloads(status)
	return client.NewValue(payloads), err
}

func (w *worker) GetWorkflow(context.Context, string, string) client.WorkflowRun {
	return &endedRun{worker: w}
}

func (w *worker) UpdateWorkflow(ctx context.Context, options client.UpdateWorkflowOptions) (client.WorkflowUpdateHandle, error) {
	w.sent = options
	var late *client.WorkflowUpdateServiceTimeoutOrCanceledError
	var missing *serviceerror.NotFound
	if errors.As(w.update, &late) || errors.As(w.update, &missing) {
		return nil, w.update
	}
	return &told{err: w.update}, ctx.Err()
}

type endedRun struct {
	client.WorkflowRun
	worker *worker
}

func (r *endedRun) Get(_ context.Context, into any) error {
	if r.worker.missing {
		return serviceerror.NewNotFound("no such workflow")
	}
	if r.worker.ended != nil {
		return r.worker.ended
	}
	status, ok := into.(*workflows.OnboardingStatus)
	if !ok {
		return errors.New("not a status")
	}
	*status = *r.worker.result
	return nil
}

type told struct {
	client.WorkflowUpdateHandle
	err error
}

func (u *told) Get(_ context.Context, into any) error {
	if text, ok := into.(*string); ok && u.err == nil {
		*text = "trying the step again"
	}
	return u.err
}

func TestWatchOnboarding(t *testing.T) {
	t.Parallel()
	at := func(phase cura.Phase, waitsFor cura.WaitsFor) workflows.OnboardingStatus {
		return workflows.OnboardingStatus{Phase: phase, WaitsFor: waitsFor, Health: cura.HealthOK, Steps: []workflows.Step{{Name: string(phase), State: "running"}}}
	}
	testingIt, waiting, live := at(cura.PhaseTesting, cura.WaitsForNobody), at(cura.PhaseApproval, cura.WaitsForApproval), at(cura.PhaseLive, cura.WaitsForNobody)
	d := newDesk(t)
	d.addMain(t)
	l, err := d.db.FindConnection(t.Context(), "main")
	require.NoError(t, err)
	// Without a worker it is the database that answers.
	silent := workflows.OnboardingStatus{Phase: cura.PhaseNew, WaitsFor: cura.WaitsForNobody, Health: cura.HealthOK, Commands: []string{}}
	tests := map[string]struct {
		worker *worker
		seen   []workflows.OnboardingStatus
		fails  fault.Kind
	}{
		"until it waits for a person":      {&worker{statuses: []workflows.OnboardingStatus{testingIt, testingIt, waiting, live}}, []workflows.OnboardingStatus{testingIt, waiting}, ""},
		"until it has ended":               {&worker{statuses: []workflows.OnboardingStatus{live}, result: &live}, []workflows.OnboardingStatus{live, live}, ""},
		"while no worker answers":          {&worker{silent: 1, statuses: []workflows.OnboardingStatus{waiting}}, []workflows.OnboardingStatus{silent, waiting}, ""},
		"one that was never begun":         {&worker{missing: true}, nil, fault.NotFound},
		"one that has ended with an error": {&worker{ended: temporal.NewApplicationError("broken", "unknown")}, nil, fault.Unknown},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var seen []workflows.OnboardingStatus
			status, err := watchOnboarding(t.Context(), &session{store: d.db.Store}, tc.worker, l, func(s workflows.OnboardingStatus) { seen = append(seen, s) })
			require.Equal(t, tc.fails, fault.KindOf(err))
			require.Equal(t, tc.seen, seen)
			if err == nil {
				require.Equal(t, tc.seen[len(tc.seen)-1], status)
			}
		})
	}
}

func TestUpdates(t *testing.T) {
	t.Parallel()
	l := store.Listed{OrgName: "st-mary", Name: "main", Connection: "c"}
	tests := map[string]struct {
		err  error
		says string
	}{
		"done":      {nil, ""},
		"refused":   {temporal.NewApplicationError("nothing waits to be retried", "wrapError"), "nothing waits to be retried"},
		"none runs": {serviceerror.NewNotFound("workflow execution already completed"), "begin one with: starter onboard st-mary/main"},
		"no worker": {client.NewWorkflowUpdateServiceTimeoutOrCanceledError(context.DeadlineExceeded), "no worker has answered within 10s"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &worker{update: tc.err}
			text, err := sendUpdate(t.Context(), w, l, workflows.UpdateRetry, workflows.Command{As: "asserted:pat"})
			require.Equal(t, workflows.OnboardingID("c"), w.sent.WorkflowID)
			require.Equal(t, client.WorkflowUpdateStageCompleted, w.sent.WaitForStage)
			if tc.says == "" {
				require.NoError(t, err)
				require.Equal(t, "trying the step again", text)
				return
			}
			require.ErrorContains(t, err, tc.says)
			if name == "refused" {
				require.Equal(t, tc.says, explain(err), "as it is")
			}
		})
	}
}

func TestChangesPrintsWhatIsNew(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	show := newProgress(&out)
	status := workflows.OnboardingStatus{Steps: []workflows.Step{{Name: "testing", State: "running"}, {Name: "pilot", State: "pending"}}}
	showOnboarding(show, status)
	showOnboarding(show, status)
	status.Steps[0].State, status.Steps[0].Text = "done", "31 checks: ok"
	status.Steps[1] = workflows.Step{Name: "backfill", State: "running"}
	status.Backfill.Counts = map[cura.ResourceType]cura.Counts{cura.Patient: {Served: 40}}
	showOnboarding(show, status)
	show.stop()
	require.Equal(t, "testing: running\ntesting: done. 31 checks: ok\nbackfill: running\nbackfill Patient: running, 40 resources\n", out.String())
}

func TestBarsEndWhenTheyAreStopped(t *testing.T) {
	t.Parallel()
	show := newBars(&bytes.Buffer{})
	show.note("No worker answers yet")
	show.show(progressItem{key: "testing", state: "running"})
	show.show(progressItem{key: "testing", state: "waiting", text: "the token was refused"})
	show.show(progressItem{key: "testing", state: "running"})
	show.show(progressItem{key: "testing", state: "done", text: "31 checks: ok"})
	show.show(progressItem{key: "monitoring", state: "running", value: 3, total: 60})
	show.stop()
}

func TestSyncIsRefusedBeforeThePilotIsPast(t *testing.T) {
	t.Parallel()
	for phase, may := range map[cura.Phase]bool{
		cura.PhaseNew: false, cura.PhaseTesting: false, cura.PhasePilot: false, cura.PhaseApproval: false,
		cura.PhaseBackfill: true, cura.PhaseMonitoring: true, cura.PhaseLive: true, cura.PhaseAborted: false,
	} {
		conn := store.ConnectionState{Connection: cura.Connection{Phase: phase}}
		require.Equal(t, may, pastPilot(conn, store.Listed{}) == nil, phase)
	}
}

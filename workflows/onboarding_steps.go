package workflows

import (
	"encoding/json"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/workflow"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// test tests the endpoints. A schedule that an earlier onboarding has left stands still meanwhile: it goes on after the
// backfill.
func (o *onboarding) test(ctx workflow.Context) *problem {
	var a *activities.Activities
	err := workflow.ExecuteActivity(quick(ctx, "pause the schedule"), a.PauseSchedule, activities.PauseInput{
		Target: o.in.Target, ScheduleID: ScheduleID(o.in.Connection), Why: "an onboarding is under way",
	}).Get(ctx, nil)
	if err != nil {
		return o.failed("The schedule couldn't be paused", err)
	}
	var result activities.EndpointResult
	err = workflow.ExecuteActivity(reading(ctx, QueueInteractive, "test the endpoints"), a.TestEndpoint, o.in.Target).Get(ctx, &result)
	if err != nil {
		return o.failed("The endpoint test couldn't be made", err)
	}
	s := o.current()
	s.Text = fmt.Sprintf("%d checks: %s", result.Checks, result.Verdict)
	o.status.Strategies = result.Strategies
	if result.Verdict == cura.VerdictOK {
		return nil
	}
	var failures []string
	waitsFor := cura.WaitsForFixEndpoint
	for _, c := range result.Problems {
		name := c.Name
		if c.Type != "" {
			name += " of " + string(c.Type)
		}
		if c.Verdict != cura.VerdictFailed {
			s.Text += "; warning on " + name + ": " + c.Seen
			continue
		}
		failures = append(failures, fmt.Sprintf("%s: %s. %s", name, c.Seen, c.Fix))
		if c.Name == "token" || c.Name == "scopes" {
			waitsFor = cura.WaitsForFixCredentials
		}
	}
	if result.Verdict != cura.VerdictFailed {
		s.State = "warning"
		return nil
	}
	return &problem{waitsFor: waitsFor, why: "The endpoint test failed:" + bullets(failures), commands: []string{
		o.command("test"), o.edit(waitsFor), o.command("retry"),
	}}
}

// pilot reads ten patients into the sandbox org.
func (o *onboarding) pilot(ctx workflow.Context) *problem {
	if o.status.PilotRun == "" || o.current().Attempt > 1 {
		run, err := newRun(ctx)
		if err != nil {
			return o.failed("The pilot couldn't begin", err)
		}
		o.status.PilotRun = run
	}
	var a *activities.Activities
	var r activities.PilotResult
	err := workflow.ExecuteActivity(reading(ctx, QueueInteractive, "pilot"), a.RunPilot, activities.PilotInput{
		Target: o.in.Target, Run: o.status.PilotRun, WorkflowID: workflow.GetInfo(ctx).WorkflowExecution.ID, Patients: o.in.Pilot,
	}).Get(ctx, &r)
	if err != nil {
		return o.failed("The pilot couldn't be run", err)
	}
	o.status.Pilot = r
	s := o.current()
	s.Text = fmt.Sprintf("%d patients: %d matched, %d new, %d ambiguous; %d need nobody", r.Patients, r.Matched, r.New, r.Ambiguous, r.Clean)
	if r.Patients < r.Wanted {
		s.Text += fmt.Sprintf("; the EHR has fewer than the %d wanted", r.Wanted)
	}
	commands := []string{o.command("pilot"), o.edit(cura.WaitsForFixData), o.command("retry")}
	if r.Patients == 0 {
		return &problem{
			waitsFor: cura.WaitsForFixData, commands: commands,
			why: "The EHR serves no patients, so there is nothing to pilot. Ask the hospital whether the client may see patients, then retry.",
		}
	}
	if unclean := r.Patients - r.Clean; float64(unclean) > o.in.PilotThreshold*float64(r.Patients) {
		return &problem{waitsFor: cura.WaitsForFixData, commands: commands, why: fmt.Sprintf(
			"%d of %d pilot patients need a person (%d ambiguous, %d with rejected resources, %d with required fields missing); allowed: %.0f %%. The report says why for each.",
			unclean, r.Patients, r.Ambiguous, r.Rejected, r.Missing, 100*o.in.PilotThreshold)}
	}
	return nil
}

// approval waits for a person where that was asked for.
func (o *onboarding) approval() *problem {
	s := o.current()
	if !o.in.RequireApproval {
		s.Text = "not asked for"
		return nil
	}
	if o.status.Said.Answer == UpdateApprove {
		s.Text = "approved by " + o.status.Said.Actor
		return nil
	}
	return &problem{
		waitsFor: cura.WaitsForApproval, why: "The pilot is done: " + o.status.Steps[1].Text + ". It goes on when it is approved.",
		commands: []string{o.command("pilot"), o.command("approve"), o.command("abort")},
	}
}

// backfill reads everything, as a workflow of its own.
func (o *onboarding) backfill(ctx workflow.Context) *problem {
	if o.status.BackfillRun == "" {
		run, err := newRun(ctx)
		if err != nil {
			return o.failed("The backfill couldn't begin", err)
		}
		o.status.BackfillRun = run
	}
	child := workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID:          BackfillID(o.in.Connection),
		TaskQueue:           QueueInteractive,
		WaitForCancellation: true,
		ParentClosePolicy:   enumspb.PARENT_CLOSE_POLICY_REQUEST_CANCEL,
		StaticSummary:       "Backfill",
	})
	var r ReadResult
	err := workflow.ExecuteChildWorkflow(child, Backfill, BackfillInput{Target: o.in.Target, Run: o.status.BackfillRun}).Get(ctx, &r)
	if err != nil {
		return o.failed("The backfill couldn't be run", err)
	}
	o.status.Backfill = r
	var all cura.Counts
	for _, t := range cura.ResourceTypes() {
		all = all.Plus(r.Counts[t])
	}
	s := o.current()
	s.Text = countsInWords(all)
	if t := o.in.Thresholds; all.Landed >= t.QuarantineSample && float64(all.Quarantined) > t.QuarantineRate*float64(all.Landed) {
		s.State = "warning"
		s.Text += "; more than the usual share is quarantined"
	}
	var incomplete []string
	waitsFor := cura.WaitsForRetry
	for _, e := range r.Ended {
		switch {
		case activities.TypeOff(e.Details.Kind) && e.Type == cura.Patient:
			incomplete = append(incomplete, fmt.Sprintf("Patient is switched off, and without patients nothing can be read: %s. %s", e.Details.Detail, e.Details.Fix))
			waitsFor = cura.WaitsForFixCredentials
		case activities.TypeOff(e.Details.Kind):
			s.State = "warning"
			s.Text += "; " + string(e.Type) + " is switched off"
		default:
			incomplete = append(incomplete, fmt.Sprintf("%s: %s. %s", e.Type, e.Details.Detail, e.Details.Fix))
			if e.Details.Kind == fault.Auth {
				waitsFor = cura.WaitsForFixCredentials
			}
		}
	}
	if len(incomplete) == 0 {
		return nil
	}
	return &problem{
		waitsFor: waitsFor, why: "The backfill is incomplete; nothing is lost, and what was read isn't read again:" + bullets(incomplete),
		commands: []string{"starter dead-letters list", o.command("test"), o.edit(waitsFor), o.command("retry")},
	}
}

// monitor looks at the window once, and waits for the next look. It begins the window first, where that is due.
func (o *onboarding) monitor(ctx workflow.Context) (over bool, p *problem) {
	w := &o.status.Window
	if w.Ends.IsZero() {
		if o.current().Attempt > 1 {
			if p := o.test(ctx); p != nil {
				return false, p
			}
		}
		if p := o.enableSchedule(ctx); p != nil {
			return false, p
		}
		now := workflow.Now(ctx)
		*w = Window{Began: now, JudgedFrom: now, Ends: now.Add(o.in.Monitor)}
		o.current().Text = ""
		o.show(ctx)
	}
	ends := w.Ends
	tick := max(o.in.Monitor/288, 10*time.Second)
	wait := min(tick, ends.Sub(workflow.Now(ctx)))
	if wait > 0 {
		if _, err := workflow.AwaitWithTimeout(ctx, wait, func() bool { return o.status.Said.Aborted != "" || !w.Ends.Equal(ends) }); err != nil || o.status.Said.Aborted != "" {
			return false, nil
		}
	}
	var a *activities.Activities
	var e cura.Evaluation
	err := workflow.ExecuteActivity(quick(ctx, "look at the window"), a.EvaluateWindow,
		activities.EvaluateInput{Target: o.in.Target, Began: w.JudgedFrom, Thresholds: o.in.Thresholds}).Get(ctx, &e)
	if err != nil {
		return false, o.failed("The monitoring window couldn't be evaluated", err)
	}
	w.Evaluations++
	w.Last = e
	o.current().Text = fmt.Sprintf("%d syncs, %d incomplete; %d new versions, %d quarantined; last complete sync %.0f s ago",
		e.Syncs, e.FailedSyncs, e.Landed, e.Quarantined, e.LagSeconds)
	workflow.SetCurrentDetails(ctx, o.status.words())
	if !e.Healthy() {
		return false, o.unhealthy(ctx, e)
	}
	return !workflow.Now(ctx).Before(w.Ends), nil
}

func (o *onboarding) unhealthy(ctx workflow.Context, e cura.Evaluation) *problem {
	var a *activities.Activities
	err := workflow.ExecuteActivity(quick(ctx, "pause the schedule"), a.PauseSchedule, activities.PauseInput{
		Target: o.in.Target, ScheduleID: ScheduleID(o.in.Connection), Why: "the monitoring window is unhealthy",
	}).Get(ctx, nil)
	if err != nil {
		return o.failed("The schedule couldn't be paused", err)
	}
	waitsFor := cura.WaitsForRetry
	if e.AuthBreach {
		waitsFor = cura.WaitsForFixCredentials
	}
	why := "The monitoring window is unhealthy, and the schedule is paused:" + bullets(e.Breaches)
	// A new window begins when the person says retry; extend sets its end.
	o.status.Window.Ends = time.Time{}
	return &problem{waitsFor: waitsFor, why: why, commands: []string{o.command("test"), o.edit(waitsFor), o.command("retry"), o.command("extend") + " --by 24h"}}
}

func (o *onboarding) enableSchedule(ctx workflow.Context) *problem {
	args, err := json.Marshal(SyncInput{Target: o.in.Target})
	if err != nil {
		return o.failed("The schedule couldn't be described", err)
	}
	comparison, err := json.Marshal(ReconcileInput{Target: o.in.Target, Repair: true})
	if err != nil {
		return o.failed("The nightly comparison couldn't be described", err)
	}
	var a *activities.Activities
	err = workflow.ExecuteActivity(quick(ctx, "enable the schedule"), a.EnableSchedule, activities.ScheduleInput{
		Target: o.in.Target, ScheduleID: ScheduleID(o.in.Connection), Interval: o.in.Interval,
		Workflow: "IncrementalSync", WorkflowID: SyncID(o.in.Connection), TaskQueue: QueueInteractive, Args: args, Summary: "Incremental sync",
		Also: []activities.ScheduleInput{{
			ScheduleID: ReconcileScheduleID(o.in.Connection), Interval: nightly, Workflow: "Reconcile",
			WorkflowID: ReconcileID(o.in.Connection), TaskQueue: QueueInteractive, Args: comparison, Summary: "Nightly comparison with the EHR",
		}},
	}).Get(ctx, nil)
	if err != nil {
		return o.failed("The schedule couldn't be enabled", err)
	}
	return nil
}

// live purges the pilot and says so.
func (o *onboarding) live(ctx workflow.Context) *problem {
	var a *activities.Activities
	err := workflow.ExecuteActivity(quick(ctx, "purge the pilot"), a.PurgePilot,
		activities.PurgeInput{Target: o.in.Target, Why: "the connection is live"}).Get(ctx, nil)
	if err != nil {
		return o.failed("The pilot's data couldn't be purged", err)
	}
	o.begin(ctx)
	s := o.current()
	now := workflow.Now(ctx)
	s.State, s.Ended, s.Text = "done", &now, "the pilot's data is purged; the schedule goes on"
	workflow.SetCurrentDetails(ctx, o.status.words())
	return nil
}

// abort stops what runs and takes the pilot's data away. It goes through even when the workflow itself was cancelled,
// and ends even where it couldn't do all of that: the step's text says what is left.
func (o *onboarding) abort(ctx workflow.Context) {
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	var a *activities.Activities
	err := workflow.ExecuteActivity(quick(ctx, "delete the schedule"), a.DeleteSchedule, activities.PauseInput{
		Target: o.in.Target, ScheduleID: ScheduleID(o.in.Connection), Why: o.status.Said.Aborted,
		Also: []string{ReconcileScheduleID(o.in.Connection)},
	}).Get(ctx, nil)
	var left []string
	if err != nil {
		workflow.GetLogger(ctx).Error("deleting the schedule of an aborted onboarding")
		left = append(left, o.failed("the schedule couldn't be deleted", err).why)
	}
	err = workflow.ExecuteActivity(quick(ctx, "purge the pilot"), a.PurgePilot,
		activities.PurgeInput{Target: o.in.Target, Why: "the onboarding was aborted"}).Get(ctx, nil)
	if err != nil {
		workflow.GetLogger(ctx).Error("purging the pilot of an aborted onboarding")
		left = append(left, o.failed("the pilot's data couldn't be purged", err).why)
	}
	s := o.current()
	now := workflow.Now(ctx)
	s.State, s.Ended, s.Text = "waiting", &now, "aborted: "+o.status.Said.Aborted
	if len(left) > 0 {
		s.Text += ". Not everything could be cleaned up; to try it again: " + o.command("onboard") + ", then " + o.command("abort") + bullets(left)
	}
	o.status.Phase, o.status.Health, o.status.WaitsFor = cura.PhaseAborted, cura.HealthOK, cura.WaitsForNobody
	o.show(ctx)
}

// failed makes a problem of an activity's error.
func (o *onboarding) failed(what string, err error) *problem {
	d := activities.DetailsOf(err)
	waitsFor := cura.WaitsForRetry
	switch {
	case d.Kind == fault.Auth:
		waitsFor = cura.WaitsForFixCredentials
	case activities.WholeConnection(d.Kind):
		waitsFor = cura.WaitsForFixEndpoint
	}
	why := what + ": " + d.Detail
	if d.Fix != "" {
		why += ". " + d.Fix
	}
	return &problem{waitsFor: waitsFor, why: why, commands: []string{o.command("test"), o.command("retry")}}
}

func (o *onboarding) command(name string) string {
	return "starter " + name + " " + string(o.in.Connection)
}

// edit is the command that mends what the onboarding waits for, with the flag that it is most likely about.
func (o *onboarding) edit(waitsFor cura.WaitsFor) string {
	flag := " --base-url URL"
	switch waitsFor {
	case cura.WaitsForFixCredentials:
		flag = " --secret-file FILE"
	case cura.WaitsForFixData:
		flag = " --match mrn:SYSTEM"
	case cura.WaitsForNobody, cura.WaitsForApproval, cura.WaitsForFixEndpoint, cura.WaitsForRetry:
	}
	return o.command("connection edit") + flag
}

// newRun makes the id of a run, once.
func newRun(ctx workflow.Context) (string, error) {
	var id string
	err := workflow.SideEffect(ctx, func(workflow.Context) any { return cura.NewRunID() }).Get(&id)
	return id, err
}

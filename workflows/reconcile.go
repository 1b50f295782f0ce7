package workflows

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// ReconcileInput says what to compare.
type ReconcileInput struct {
	activities.Target
	// Types narrows it; empty: all of the connection's.
	Types []cura.ResourceType `json:"types,omitempty"`
	// Repair mends what differs; without it, it is only listed.
	Repair bool `json:"repair"`
	// Ended and Done are carried from one history to the next when the workflow continues as new.
	Ended map[cura.ResourceType]activities.Details `json:"ended,omitempty"`
	Done  []cura.Reconciliation                    `json:"done,omitempty"`
}

// ReconcileResult is how the source and Cura compare, by type, in the order of reading.
type ReconcileResult struct {
	Run string `json:"run"`
	// Outcome is complete or incomplete: whether every type could be compared. It says nothing of differences.
	Outcome string                `json:"outcome"`
	Types   []cura.Reconciliation `json:"types"`
	Ended   []Ended               `json:"ended,omitempty"`
}

// Reconcile compares what the EHR has with what Cura has, by id and content, and lists what differs. A schedule starts it
// every night, with repair; or a person does. Types are compared one after the other, to be light on the EHR.
func Reconcile(ctx workflow.Context, in ReconcileInput) (ReconcileResult, error) {
	if err := workflow.UpsertTypedSearchAttributes(ctx,
		AttributeOrg().ValueSet(string(in.Org)), AttributeConnection().ValueSet(string(in.Connection))); err != nil {
		return ReconcileResult{}, err
	}
	workflow.SetCurrentDetails(ctx, "Comparing everything that the EHR has with Cura.")
	r := reader{target: in.Target, run: workflow.GetInfo(ctx).FirstRunID, kind: cura.RunReconcile, ended: in.Ended}
	types, err := r.begin(ctx, in.Types)
	if err != nil {
		return ReconcileResult{}, err
	}
	for _, t := range types {
		if slices.ContainsFunc(in.Done, func(d cura.Reconciliation) bool { return d.Type == t }) {
			continue
		}
		if _, ended := r.ended[t]; ended {
			continue
		}
		done, err := r.reconcile(ctx, t, in.Repair)
		if err != nil {
			return ReconcileResult{}, err
		}
		if r.stopped {
			in.Ended = r.ended
			return ReconcileResult{}, workflow.NewContinueAsNewError(ctx, Reconcile, in)
		}
		if done != nil {
			in.Done = append(in.Done, *done)
		}
	}
	read, err := finish(ctx, &r)
	if err != nil {
		return ReconcileResult{}, err
	}
	result := ReconcileResult{Run: r.run, Outcome: read.Outcome, Types: in.Done, Ended: read.Ended}
	workflow.SetCurrentDetails(ctx, result.words())
	return result, nil
}

// reconcile compares one type. nil: it couldn't be, and r.ended says why, or the history has grown long.
func (r *reader) reconcile(ctx workflow.Context, t cura.ResourceType, repair bool) (*cura.Reconciliation, error) {
	var a *activities.Activities
	in := activities.ReconcileInput{Target: r.target, Run: r.run, Type: t, Repair: repair}
	since := workflow.Now(ctx)
	for {
		if workflow.GetInfo(ctx).GetContinueAsNewSuggested() {
			r.stopped = true
			return nil, nil
		}
		var result activities.ReconcileResult
		err := workflow.ExecuteActivity(ofOrg(reading(ctx, QueueBulk, "compare "+string(t)), r.target.Org, false), a.ReconcileType, in).Get(ctx, &result)
		switch {
		case temporal.IsCanceledError(err):
			return nil, err
		case err != nil:
			r.ended[t] = activities.DetailsOf(err)
			return nil, nil
		case result.Done:
			return &result.Reconciliation, nil
		case result.Paused:
			r.ended[t] = paused(t)
			return nil, nil
		case result.Pages > 0:
			since = workflow.Now(ctx)
		}
		pause := result.Wait
		if result.Yielded {
			pause = max(pause, yieldPause)
		}
		if workflow.Now(ctx).Sub(since) > defaultThrottleBudget {
			r.ended[t] = activities.Details{Kind: fault.Throttled, Detail: "the EHR has let no page through for " + defaultThrottleBudget.String()}
			return nil, nil
		}
		if pause > 0 {
			if err := workflow.NewTimerWithOptions(ctx, pause, workflow.TimerOptions{Summary: "others are served first, or the EHR asked for a pause"}).Get(ctx, nil); err != nil {
				return nil, err
			}
		}
	}
}

// words is the result for a person who looks at the Web UI.
func (r ReconcileResult) words() string {
	var b strings.Builder
	fmt.Fprintf(&b, "The comparison is %s.\n", r.Outcome)
	for _, t := range r.Types {
		fmt.Fprintf(&b, "\n- %s: source %d, Cura %d; missing %d, extra %d, changed %d", t.Type, t.Source, t.Cura, t.Missing, t.Extra, t.Changed)
		if t.Repaired > 0 {
			fmt.Fprintf(&b, "; repaired %d", t.Repaired)
		}
	}
	for _, e := range r.Ended {
		fmt.Fprintf(&b, "\n- %s wasn't compared: %s", e.Type, e.Details.Detail)
	}
	return b.String()
}

// nightly is how often a live connection is compared with its source.
const nightly = 24 * time.Hour

package workflows

import (
	"fmt"
	"slices"
	"strings"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// RemapInput says what to map again.
type RemapInput struct {
	activities.Target
	// Types narrows it; empty: all of which something has landed.
	Types []cura.ResourceType `json:"types,omitempty"`
	// Selection narrows it to what is in quarantine, or to what a person has decided about.
	activities.Selection
	// DryRun only says what would come of it.
	DryRun bool `json:"dry_run,omitempty"`
	// Begun, Ended and Done are carried from one history to the next when the workflow continues as new.
	Begun *activities.BeginRemapResult             `json:"begun,omitempty"`
	Ended map[cura.ResourceType]activities.Details `json:"ended,omitempty"`
	Done  []activities.Retaken                     `json:"done,omitempty"`
}

// RemapResult is what has become of what was mapped again, by type, in the order of mapping.
type RemapResult struct {
	Run string `json:"run"`
	// Outcome is complete or incomplete: whether every type came to its end.
	Outcome        string               `json:"outcome"`
	DryRun         bool                 `json:"dry_run"`
	MappingVersion string               `json:"mapping_version"`
	Types          []activities.Retaken `json:"types"`
	Ended          []Ended              `json:"ended,omitempty"`
}

// Remap maps again what has landed, with the mapping as it is now, without asking the EHR: after a change of the mapping or its
// overrides, for what is in quarantine, or because people have decided about patients. A person starts it. Types are mapped one
// after the other; Patient and Consent come first, since they say whose the others are and whose are kept out.
func Remap(ctx workflow.Context, in RemapInput) (RemapResult, error) {
	if err := workflow.UpsertTypedSearchAttributes(ctx,
		AttributeOrg().ValueSet(string(in.Org)), AttributeConnection().ValueSet(string(in.Connection))); err != nil {
		return RemapResult{}, err
	}
	workflow.SetCurrentDetails(ctx, "Mapping again what has landed. The EHR isn't asked.")
	run := workflow.GetInfo(ctx).FirstRunID
	var a *activities.Activities
	if in.Begun == nil {
		err := workflow.ExecuteActivity(quick(ctx, "begin the run"), a.BeginRemap, activities.BeginRemapInput{
			Target: in.Target, Run: run, WorkflowID: workflow.GetInfo(ctx).WorkflowExecution.ID, Types: in.Types,
		}).Get(ctx, &in.Begun)
		if err != nil {
			return RemapResult{}, err
		}
		in.Ended = map[cura.ResourceType]activities.Details{}
	}
	for _, t := range in.Begun.Types {
		_, ended := in.Ended[t]
		if ended || slices.ContainsFunc(in.Done, func(d activities.Retaken) bool { return d.Type == t }) {
			continue
		}
		stopped, err := in.retake(ctx, run, t)
		if err != nil {
			return RemapResult{}, err
		}
		if stopped {
			return RemapResult{}, workflow.NewContinueAsNewError(ctx, Remap, in)
		}
	}
	var finished activities.FinishResult
	err := workflow.ExecuteActivity(quick(ctx, "finish the run"), a.FinishRun,
		activities.FinishInput{Target: in.Target, Run: run, Kind: cura.RunRemap, Ended: in.Ended}).Get(ctx, &finished)
	if err != nil {
		return RemapResult{}, err
	}
	result := RemapResult{Run: run, Outcome: finished.Outcome, DryRun: in.DryRun, MappingVersion: in.Begun.MappingVersion, Types: in.Done}
	for _, t := range in.Begun.Types {
		if d, ok := in.Ended[t]; ok {
			result.Ended = append(result.Ended, Ended{Type: t, Details: d})
		}
	}
	workflow.SetCurrentDetails(ctx, result.words())
	return result, nil
}

// retake maps one type again, chunk by chunk, and keeps what became of it. stopped: the history has grown long.
func (in *RemapInput) retake(ctx workflow.Context, run string, t cura.ResourceType) (stopped bool, err error) {
	var a *activities.Activities
	// Who retries or decides a few waits for it; the whole is bulk.
	ahead := in.Only != ""
	queue := QueueBulk
	if ahead {
		queue = QueueInteractive
	}
	input := activities.RetakeInput{
		Target: in.Target, Run: run, Type: t, Selection: in.Selection, DryRun: in.DryRun, MappingVersion: in.Begun.MappingVersion, Ahead: ahead,
	}
	since := workflow.Now(ctx)
	for {
		if workflow.GetInfo(ctx).GetContinueAsNewSuggested() {
			return true, nil
		}
		var result activities.RetakeResult
		err := workflow.ExecuteActivity(ofOrg(reading(ctx, queue, "map "+string(t)+" again"), in.Org, ahead), a.Retake, input).Get(ctx, &result)
		switch {
		case temporal.IsCanceledError(err):
			return false, err
		case err != nil:
			in.Ended[t] = activities.DetailsOf(err)
			return false, nil
		case result.Done:
			in.Done = append(in.Done, result.Retaken)
			return false, nil
		case result.Pages > 0:
			since = workflow.Now(ctx)
		}
		if workflow.Now(ctx).Sub(since) > defaultThrottleBudget {
			in.Ended[t] = activities.Details{
				Kind: fault.Busy, Detail: "another run is reading " + string(t) + ", and has been for " + defaultThrottleBudget.String(),
				Fix: "Wait for that run to end, or end it, then map again",
			}
			return false, nil
		}
		if result.Yielded {
			if err := workflow.NewTimerWithOptions(ctx, yieldPause, workflow.TimerOptions{Summary: "others are served first"}).Get(ctx, nil); err != nil {
				return false, err
			}
		}
	}
}

// words is the result for a person who looks at the Web UI.
func (r RemapResult) words() string {
	var b strings.Builder
	b.WriteString("The mapping of what has landed is " + r.Outcome + ", with mapping " + r.MappingVersion + ".")
	if r.DryRun {
		b.WriteString(" It was tried and nothing was written.")
	}
	b.WriteString("\n")
	for _, t := range r.Types {
		fmt.Fprintf(&b, "\n- %s: same %d, changed %d, rejected %d, accepted %d, in review %d", t.Type, t.Same, t.Changed, t.Rejected, t.Accepted, t.InReview)
	}
	for _, e := range r.Ended {
		fmt.Fprintf(&b, "\n- %s wasn't mapped: %s", e.Type, e.Details.Detail)
	}
	return b.String()
}

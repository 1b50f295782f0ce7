package workflows

import (
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/cura"
)

// SyncInput says what a sync reads: what changed since each type's watermark.
type SyncInput struct {
	activities.Target
	// Types narrows the sync; empty: all of the connection's.
	Types []cura.ResourceType `json:"types,omitempty"`
	// Replay is set when a person replays a dead letter.
	Replay cura.DeadLetterID `json:"replay,omitempty"`
	// ThrottleBudget is how long the EHR may keep a type waiting; default six hours.
	ThrottleBudget time.Duration `json:"throttle_budget,omitempty"`
}

// ReadResult is how a run of reading ended: IncrementalSync or Backfill.
type ReadResult struct {
	Run string `json:"run"`
	// Outcome is complete or incomplete.
	Outcome string                            `json:"outcome"`
	Counts  map[cura.ResourceType]cura.Counts `json:"counts"`
	// Ended are the types that didn't come to their end, in the order of reading.
	Ended []Ended `json:"ended,omitempty"`
}

// Ended is a type that didn't come to its end, and why.
type Ended struct {
	Type    cura.ResourceType  `json:"type"`
	Details activities.Details `json:"details"`
}

// IncrementalSync reads what changed since the last time, type by type. The schedule starts it, or a person does. It
// never waits for a person: what it can't read it leaves as a dead letter, and ends incomplete.
func IncrementalSync(ctx workflow.Context, in SyncInput) (ReadResult, error) {
	if err := workflow.UpsertTypedSearchAttributes(ctx,
		AttributeOrg().ValueSet(string(in.Org)), AttributeConnection().ValueSet(string(in.Connection))); err != nil {
		return ReadResult{}, err
	}
	info := workflow.GetInfo(ctx)
	kind := cura.RunIncremental
	if in.Replay != "" {
		kind = cura.RunReplay
	}
	budget := in.ThrottleBudget
	if budget == 0 {
		budget = defaultThrottleBudget
	}
	r := reader{
		target: in.Target, run: info.FirstRunID, kind: kind, throttleBudget: budget,
		ended: map[cura.ResourceType]activities.Details{}, held: map[cura.ResourceType]time.Time{},
	}
	var a *activities.Activities
	var begun activities.BeginResult
	err := workflow.ExecuteActivity(quick(ctx, "begin the run"), a.BeginRun, activities.BeginInput{
		Target: in.Target, Run: r.run, Kind: r.kind, WorkflowID: info.WorkflowExecution.ID, Types: in.Types,
	}).Get(ctx, &begun)
	if err != nil {
		return ReadResult{}, err
	}
	if err := r.read(ctx, begun.Types); err != nil {
		return ReadResult{}, err
	}
	if r.stopped {
		return ReadResult{}, workflow.NewContinueAsNewError(ctx, IncrementalSync, in)
	}
	return finish(ctx, &r)
}

// finish closes the run and says in words how it ended.
func finish(ctx workflow.Context, r *reader) (ReadResult, error) {
	var a *activities.Activities
	var finished activities.FinishResult
	err := workflow.ExecuteActivity(quick(ctx, "finish the run"), a.FinishRun,
		activities.FinishInput{Target: r.target, Run: r.run, Kind: r.kind, Ended: r.ended}).Get(ctx, &finished)
	if err != nil {
		return ReadResult{}, err
	}
	result := ReadResult{Run: r.run, Outcome: finished.Outcome, Counts: finished.Counts}
	for _, t := range cura.ResourceTypes() {
		if d, ok := r.ended[t]; ok {
			result.Ended = append(result.Ended, Ended{Type: t, Details: d})
		}
	}
	workflow.SetCurrentDetails(ctx, result.words())
	return result, nil
}

// words is the result for a person who looks at the Web UI.
func (r ReadResult) words() string {
	var all cura.Counts
	for _, t := range cura.ResourceTypes() {
		all = all.Plus(r.Counts[t])
	}
	var text strings.Builder
	text.WriteString("The run is " + r.Outcome + ". " + countsInWords(all))
	for _, e := range r.Ended {
		text.WriteString("\n\n- " + string(e.Type) + ": " + e.Details.Detail)
		if e.Details.Fix != "" {
			text.WriteString(". " + e.Details.Fix)
		}
	}
	return text.String()
}

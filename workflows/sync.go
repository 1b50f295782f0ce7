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
	// Since and Until bound a range of _lastUpdated that a person wants read again; no watermark moves by it.
	Since *time.Time `json:"since,omitempty"`
	Until *time.Time `json:"until,omitempty"`
	// Patients narrows the sync to these: our own ids of roster members or patient links.
	Patients []string `json:"patients,omitempty"`
	// Ahead has other runs step aside, a backfill too: a person waits.
	Ahead bool `json:"ahead,omitempty"`
	// ThrottleBudget is how long the EHR may keep a type waiting; default six hours.
	ThrottleBudget time.Duration `json:"throttle_budget,omitempty"`
	// Ended and Held are carried from one history to the next when the workflow continues as new.
	Ended map[cura.ResourceType]activities.Details `json:"ended,omitempty"`
	Held  map[cura.ResourceType]time.Time          `json:"held,omitempty"`
}

// kind is what kind of run it is.
func (in SyncInput) kind() cura.RunKind {
	switch {
	case in.Replay != "":
		return cura.RunReplay
	case in.Since != nil || in.Until != nil:
		return cura.RunRange
	case len(in.Patients) > 0:
		return cura.RunPatient
	}
	return cura.RunIncremental
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
	budget := in.ThrottleBudget
	if budget == 0 {
		budget = defaultThrottleBudget
	}
	r := reader{
		target: in.Target, run: workflow.GetInfo(ctx).FirstRunID, kind: in.kind(), throttleBudget: budget, ended: in.Ended, held: in.Held,
		in: activities.PullInput{Since: in.Since, Until: in.Until, Patients: in.Patients, Ahead: in.Ahead},
	}
	types, err := r.begin(ctx, in.Types)
	if err != nil {
		return ReadResult{}, err
	}
	if err := r.read(ctx, types); err != nil {
		return ReadResult{}, err
	}
	if r.stopped {
		in.Ended, in.Held = r.ended, r.held
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

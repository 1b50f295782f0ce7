package workflows

import (
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/cura"
)

// BackfillInput says which run reads everything. Started again with the same run it goes on: types that came to their
// end aren't read again, the others resume at their cursor.
type BackfillInput struct {
	activities.Target
	Run string `json:"run"`
	// ThrottleBudget is how long the EHR may keep a type waiting; default six hours.
	ThrottleBudget time.Duration `json:"throttle_budget,omitempty"`
	// Ended is carried from one history to the next when the workflow continues as new.
	Ended map[cura.ResourceType]activities.Details `json:"ended,omitempty"`
	// Held is carried like it: since when no page of a type has come through.
	Held map[cura.ResourceType]time.Time `json:"held,omitempty"`
}

// Backfill reads everything that a connection offers, of every type. What it can't read it leaves as dead letters.
func Backfill(ctx workflow.Context, in BackfillInput) (ReadResult, error) {
	if err := workflow.UpsertTypedSearchAttributes(ctx,
		AttributeOrg().ValueSet(string(in.Org)), AttributeConnection().ValueSet(string(in.Connection))); err != nil {
		return ReadResult{}, err
	}
	workflow.SetCurrentDetails(ctx, readingEverything)
	if in.ThrottleBudget == 0 {
		in.ThrottleBudget = defaultThrottleBudget
	}
	r := reader{
		target: in.Target, run: in.Run, kind: cura.RunBackfill, in: activities.PullInput{Full: true}, patient: true, needPatients: true,
		throttleBudget: in.ThrottleBudget, ended: in.Ended, held: in.Held,
	}
	types, err := r.begin(ctx, nil)
	if err != nil {
		return ReadResult{}, err
	}
	if err := r.read(ctx, types); err != nil {
		return ReadResult{}, err
	}
	if r.stopped {
		in.Ended, in.Held = r.ended, r.held
		return ReadResult{}, workflow.NewContinueAsNewError(ctx, Backfill, in)
	}
	return finish(ctx, &r)
}

const readingEverything = "Reading everything that the EHR offers. `starter status` shows how far it is."

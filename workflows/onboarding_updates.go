package workflows

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// Command is what a person says to an onboarding. As is who they are, as they assert it.
type Command struct {
	As string `json:"as"`
}

// ExtendCommand lengthens the monitoring window.
type ExtendCommand struct {
	Command
	By time.Duration `json:"by"`
}

// AbortCommand ends an onboarding.
type AbortCommand struct {
	Command
	Reason string `json:"reason"`
}

// setUpdates registers the updates with their validators. A validator refuses what makes no sense now, and says what
// would; a refused update leaves no trace in the history.
func (o *onboarding) setUpdates(ctx workflow.Context) error {
	err := workflow.SetUpdateHandlerWithOptions(ctx, UpdateRetry, func(_ workflow.Context, c Command) (string, error) {
		o.status.Said.Answer, o.status.Said.Actor = UpdateRetry, c.As
		return "trying the step " + string(o.status.Phase) + " again", nil
	}, workflow.UpdateHandlerOptions{Description: "Try the step again that waits for a person", Validator: o.mayRetry})
	if err != nil {
		return err
	}
	err = workflow.SetUpdateHandlerWithOptions(ctx, UpdateApprove, func(_ workflow.Context, c Command) (string, error) {
		o.status.Said.Answer, o.status.Said.Actor = UpdateApprove, c.As
		return "approved; the backfill begins", nil
	}, workflow.UpdateHandlerOptions{Description: "Let the backfill begin after the pilot", Validator: o.mayApprove})
	if err != nil {
		return err
	}
	err = workflow.SetUpdateHandlerWithOptions(ctx, UpdateExtend, func(_ workflow.Context, c ExtendCommand) (string, error) {
		return o.extend(c), nil
	}, workflow.UpdateHandlerOptions{Description: "Lengthen the monitoring window", Validator: o.mayExtend})
	if err != nil {
		return err
	}
	return workflow.SetUpdateHandlerWithOptions(ctx, UpdateAbort, func(_ workflow.Context, c AbortCommand) (string, error) {
		o.status.Said.Actor, o.status.Said.Aborted = c.As, c.Reason
		if c.Reason == "" {
			o.status.Said.Aborted = "no reason given"
		}
		if o.cancel != nil {
			o.cancel()
		}
		return "aborting; the pilot's data is purged", nil
	}, workflow.UpdateHandlerOptions{Description: "End the onboarding", Validator: o.mayAbort})
}

func (o *onboarding) mayRetry(Command) error {
	switch {
	case o.problem == nil:
		return fmt.Errorf("nothing waits to be retried: the onboarding is at %s and goes on by itself", o.status.Phase)
	case o.problem.waitsFor == cura.WaitsForApproval:
		return fmt.Errorf("the onboarding waits for an approval; give it with: %s", o.command("approve"))
	}
	return nil
}

func (o *onboarding) mayApprove(Command) error {
	if o.problem == nil || o.problem.waitsFor != cura.WaitsForApproval {
		return fmt.Errorf("nothing waits for an approval: the onboarding is at %s", o.status.Phase)
	}
	return nil
}

func (o *onboarding) mayExtend(c ExtendCommand) error {
	switch {
	case o.status.Phase != cura.PhaseMonitoring:
		return fmt.Errorf("there is no monitoring window to extend: the onboarding is at %s", o.status.Phase)
	case c.By <= 0:
		return errors.New("the window is extended by a positive time, such as --by 24h")
	}
	return nil
}

func (o *onboarding) mayAbort(AbortCommand) error {
	over := o.status.Phase == cura.PhaseLive && o.problem == nil
	if over || o.status.Said.Aborted != "" {
		return fmt.Errorf("there is nothing to abort: the onboarding is at %s", o.status.Phase)
	}
	return nil
}

// extend moves the end of the window. Where it waits for a person it goes on with a new window instead, whatever it
// waited for: the old one may long be over.
func (o *onboarding) extend(c ExtendCommand) string {
	o.status.Said.Actor = c.As
	if o.problem == nil && !o.status.Window.Ends.IsZero() {
		o.status.Window.Ends = o.status.Window.Ends.Add(c.By)
		return "the window now ends at " + o.status.Window.Ends.UTC().Format(time.RFC3339)
	}
	o.in.Monitor = c.By
	o.status.Window.Ends = time.Time{}
	o.status.Said.Answer = UpdateExtend
	return "a window of " + c.By.String() + " begins once the endpoints have been tested"
}

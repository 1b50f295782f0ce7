package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/cura-health/ehr-sync/activities"
)

// Delivery takes the queue of one patient link to its EHR, in order, and ends when the queue is empty. What is queued, what
// is halted and what came of each item is in the database; a signal only wakes it. Patients never wait for each other: each
// has a workflow of their own.
func Delivery(ctx workflow.Context, in activities.DeliverInput) error {
	if err := workflow.UpsertTypedSearchAttributes(ctx,
		AttributeOrg().ValueSet(string(in.Org)), AttributeConnection().ValueSet(string(in.Connection))); err != nil {
		return err
	}
	ready, revoked := workflow.GetSignalChannel(ctx, SignalOutboxReady), workflow.GetSignalChannel(ctx, SignalConsentRevoked)
	woken := func() bool {
		signalled := false
		for ready.ReceiveAsync(nil) || revoked.ReceiveAsync(nil) {
			signalled = true
		}
		return signalled
	}
	for {
		woken()
		var a *activities.Activities
		var result activities.DeliverResult
		err := workflow.ExecuteActivity(ofOrg(delivering(ctx), in.Org, false), a.Deliver, in).Get(ctx, &result)
		switch {
		case temporal.IsCanceledError(err):
			return err
		case err != nil:
			// What stops the whole queue is the connection's trouble: it is told there, and tried again.
			d := activities.DetailsOf(err)
			result.Wait, result.Why = deliveryPause, d.Detail+". "+d.Fix
		case result.Idle:
			if !woken() {
				return nil
			}
			continue
		}
		if result.Wait > 0 {
			workflow.SetCurrentDetails(ctx, "Waits: "+result.Why)
			if err := pause(ctx, result.Wait, ready, revoked); err != nil {
				return err
			}
		}
		if workflow.GetInfo(ctx).GetContinueAsNewSuggested() {
			woken()
			return workflow.NewContinueAsNewError(ctx, Delivery, in)
		}
	}
}

// deliveryPause is how long a queue waits whose connection can't be opened.
const deliveryPause = time.Minute

// pause waits, or until a signal comes.
func pause(ctx workflow.Context, wait time.Duration, signals ...workflow.ReceiveChannel) error {
	timers, cancel := workflow.WithCancel(ctx)
	defer cancel()
	selector := workflow.NewSelector(ctx)
	selector.AddFuture(workflow.NewTimer(timers, wait), func(workflow.Future) {})
	for _, s := range signals {
		selector.AddReceive(s, func(c workflow.ReceiveChannel, _ bool) { c.ReceiveAsync(nil) })
	}
	selector.Select(ctx)
	return ctx.Err()
}

// delivering are the options of Deliver: what a crash leaves is in the ledger, so it can be called again.
func delivering(ctx workflow.Context) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue:           QueueInteractive,
		StartToCloseTimeout: 5 * time.Minute,
		HeartbeatTimeout:    12 * time.Second,
		Summary:             "deliver what is queued",
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: 30 * time.Second, MaximumAttempts: 10,
		},
	})
}

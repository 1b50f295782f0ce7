// Package workflows decides: what happens after what, what a failure means, what a person is asked. It does no IO; every
// effect is an activity. One file a flow.
package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// Task queues: what a person waits for is kept apart from long reading, so that one hospital's backfill holds nobody up.
const (
	QueueInteractive = "cura-interactive"
	QueueBulk        = "cura-bulk"
)

// Workflow ids. They hold ids of ours alone.

// OnboardingID is the id of a connection's onboarding.
func OnboardingID(c cura.ConnectionID) string { return "onboarding/" + string(c) }

// BackfillID is the id of a connection's backfill.
func BackfillID(c cura.ConnectionID) string { return "backfill/" + string(c) }

// SyncID is the id of a connection's incremental sync; a schedule's runs have the time appended.
func SyncID(c cura.ConnectionID) string { return "sync/" + string(c) }

// SyncNowID is the id of a sync that a person asked for.
func SyncNowID(c cura.ConnectionID) string { return "sync/" + string(c) + "/now" }

// ReplayID is the id of the replay of a dead letter.
func ReplayID(d cura.DeadLetterID) string { return "replay/" + string(d) }

// ReconcileID is the id of a connection's comparison with its source; a schedule's runs have the time appended.
func ReconcileID(c cura.ConnectionID) string { return "reconcile/" + string(c) }

// RemapID is the id of the mapping again of all that a connection has landed.
func RemapID(c cura.ConnectionID) string { return "remap/" + string(c) }

// QuarantineRetryID is the id of the mapping again of what a connection has in quarantine.
func QuarantineRetryID(c cura.ConnectionID) string { return RemapID(c) + "/quarantine" }

// DecisionsID is the id of the applying of what people have decided about a connection's patients. Each time is its own, so that no
// decision is missed that comes while an earlier one is applied.
func DecisionsID(c cura.ConnectionID, run string) string { return RemapID(c) + "/decisions/" + run }

// ReconcileScheduleID is the id of the schedule of a connection's nightly comparison.
func ReconcileScheduleID(c cura.ConnectionID) string { return "reconcile/" + string(c) }

// PatientSyncID is the id of a sync of one patient, named by our own id of them.
func PatientSyncID(c cura.ConnectionID, patient string) string {
	return "sync/" + string(c) + "/patient/" + patient
}

// RangeSyncID is the id of a run that reads a range again.
func RangeSyncID(c cura.ConnectionID) string { return "sync/" + string(c) + "/range" }

// DeliveryID is the id of the queue of a patient link at a connection.
func DeliveryID(c cura.ConnectionID, link string) string { return "delivery/" + string(c) + "/" + link }

// Signals of Delivery: both only wake it; what is to be done, and the halt, are in the database.
const (
	SignalOutboxReady    = "outbox-ready"
	SignalConsentRevoked = "consent-revoked"
)

// ScheduleID is the id of a connection's schedule.
func ScheduleID(c cura.ConnectionID) string { return "sync/" + string(c) }

// Updates and queries of Onboarding.
const (
	UpdateRetry   = "retry"
	UpdateApprove = "approve"
	UpdateExtend  = "extend"
	UpdateAbort   = "abort"
	QueryStatus   = "status"
)

// SignalResumed tells a backfill that an operator has resumed the connection, or a type of it.
const SignalResumed = "resumed"

// Search attributes. They stay readable to everyone who may see the namespace: opaque ids and closed lists only.
// They are made on each use, because a workflow package holds no variables.

// AttributeOrg is the org of a workflow.
func AttributeOrg() temporal.SearchAttributeKeyKeyword {
	return temporal.NewSearchAttributeKeyKeyword("CuraOrg")
}

// AttributeConnection is the connection of a workflow.
func AttributeConnection() temporal.SearchAttributeKeyKeyword {
	return temporal.NewSearchAttributeKeyKeyword("CuraConnection")
}

// AttributePhase is the phase that an onboarding is in.
func AttributePhase() temporal.SearchAttributeKeyKeyword {
	return temporal.NewSearchAttributeKeyKeyword("CuraPhase")
}

// AttributeHealth is ok or attention.
func AttributeHealth() temporal.SearchAttributeKeyKeyword {
	return temporal.NewSearchAttributeKeyKeyword("CuraHealth")
}

// AttributeWaitsFor is what a workflow waits for a person to do.
func AttributeWaitsFor() temporal.SearchAttributeKeyKeyword {
	return temporal.NewSearchAttributeKeyKeyword("CuraWaitsFor")
}

// SearchAttributes lists the attributes with their types, for registering them.
func SearchAttributes() []string {
	return []string{"CuraOrg", "CuraConnection", "CuraPhase", "CuraHealth", "CuraWaitsFor"}
}

// quick are the options of activities that touch our own database or Temporal: they are retried until they succeed.
func quick(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue:           QueueInteractive,
		StartToCloseTimeout: 30 * time.Second,
		Summary:             summary,
	})
}

// ofOrg shares the workers' slots fairly between orgs, where the server does (Temporal's fairness keys), and lets a person
// who waits go first.
func ofOrg(ctx workflow.Context, org cura.OrgID, ahead bool) workflow.Context {
	options := workflow.GetActivityOptions(ctx)
	options.Priority = temporal.Priority{FairnessKey: string(org)}
	if ahead {
		options.Priority.PriorityKey = 1
	}
	return workflow.WithActivityOptions(ctx, options)
}

// reading are the options of activities that talk to an EHR. They try again by themselves where that helps; Temporal
// steps in when a worker died, which the missing heartbeat tells.
func reading(ctx workflow.Context, queue, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue:           queue,
		StartToCloseTimeout: 30 * time.Minute,
		HeartbeatTimeout:    12 * time.Second,
		WaitForCancellation: true,
		Summary:             summary,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: time.Minute, MaximumAttempts: 20,
		},
	})
}

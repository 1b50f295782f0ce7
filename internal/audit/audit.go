// Package audit is the vocabulary of the audit log: what is recorded, of whom, with which outcome. Records are appended
// by the store, in the transaction that they tell of. It does no IO.
package audit

import (
	"time"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// Kind is what happened. The list is closed: append, never rename, since records are kept for years.
type Kind string

// The kinds.
const (
	OrgAdded          Kind = "org.added"
	ConnectionAdded   Kind = "connection.added"
	ConnectionEdited  Kind = "connection.edited"
	ConnectionRemoved Kind = "connection.removed"
	SecretStored      Kind = "secret.stored"
	SecretUsed        Kind = "secret.used"
	EndpointTested    Kind = "endpoint.tested"
	PhaseChanged      Kind = "phase.changed"
	OperatorCommand   Kind = "operator.command"
	PageRead          Kind = "page.read"
	ResourceRejected  Kind = "resource.rejected"
	ResourcesWoken    Kind = "resources.woken"
	ResourcesGone     Kind = "resources.gone"
	Reconciled        Kind = "connection.reconciled"
	ReviewOpened      Kind = "review.opened"
	ReviewViewed      Kind = "review.viewed"
	ReviewDecided     Kind = "review.decided"
	ProfileViewed     Kind = "profile.viewed"
	ProfileChanged    Kind = "profile.changed"
	LinkMoved         Kind = "link.moved"
	TypeSwitchedOff   Kind = "type.switched-off"
	TypeSwitchedOn    Kind = "type.switched-on"
	RunFinished       Kind = "run.finished"
	RemapViewed       Kind = "remap.viewed"
	PilotViewed       Kind = "pilot.viewed"
	PilotPurged       Kind = "pilot.purged"
	DeadLetterOpened  Kind = "dead-letter.opened"
	DeadLetterClosed  Kind = "dead-letter.closed"
	AlertRaised       Kind = "alert.raised"
	AlertCleared      Kind = "alert.cleared"
	SyncPaused        Kind = "sync.paused"
	SyncResumed       Kind = "sync.resumed"
	ScheduleChanged   Kind = "schedule.changed"
	WindowEvaluated   Kind = "window.evaluated"
	ChoicesStored     Kind = "pilot.choices-stored"
	RosterChanged     Kind = "roster.changed"
	EnrolmentsStored  Kind = "enrolments.stored"
	ConsentChanged    Kind = "consent.changed"
	ConsentSettled    Kind = "consent.settled"
	ConsentViewed     Kind = "consent.viewed"
	PolicyChanged     Kind = "policy.changed"
	PushQueued        Kind = "push.queued"
	PushDecided       Kind = "push.decided"
	PushSent          Kind = "push.sent"
	PushSettled       Kind = "push.settled"
	PushCancelled     Kind = "push.cancelled"
	PushViewed        Kind = "push.viewed"
	HaltSet           Kind = "halt.set"
	HaltLifted        Kind = "halt.lifted"
)

// Outcome is how it went.
type Outcome string

// The outcomes.
const (
	Success Outcome = "success"
	Failure Outcome = "failure"
	Denied  Outcome = "denied"
)

// Record is one entry of an org's log. Details hold ids of ours, counts, reasons and element paths; no PHI, no secret.
type Record struct {
	Seq        int64             `json:"seq"`
	At         time.Time         `json:"at"`
	Kind       Kind              `json:"kind"`
	Actor      string            `json:"actor"`
	Connection cura.ConnectionID `json:"connection_id,omitempty"`
	Run        string            `json:"run_id,omitempty"`
	Outcome    Outcome           `json:"outcome"`
	Details    any               `json:"details,omitempty"`
}

// RunDetails are the details of a RunFinished record: the run-level facts that monitoring judges by.
type RunDetails struct {
	Kind    string                            `json:"kind"`
	Outcome string                            `json:"outcome"`
	Counts  map[cura.ResourceType]cura.Counts `json:"counts"`
	// Faults counts the types that ended in a fault, by the fault's kind.
	Faults map[string]int `json:"faults,omitempty"`
	// Busy lists the types that another run was reading.
	Busy []cura.ResourceType `json:"busy,omitempty"`
}

// Worker is the actor of what happens without a person.
const Worker = "worker"

package cura

import (
	"slices"
	"time"
)

// ArtefactKind is what Cura wants in an EHR.
type ArtefactKind string

// The kinds of artefact.
const (
	// Note is an encounter note.
	Note ArtefactKind = "note"
	// Diagnosis is a diagnosis code: of an encounter, or for the problem list.
	Diagnosis ArtefactKind = "diagnosis"
	// Procedure is a procedure code.
	Procedure ArtefactKind = "procedure"
	// ConsentEvent tells the hospital that a patient's consent has changed. It has no clinical content.
	ConsentEvent ArtefactKind = "consent-event"
)

// ArtefactKinds lists the kinds.
func ArtefactKinds() []ArtefactKind { return []ArtefactKind{Note, Diagnosis, Procedure, ConsentEvent} }

// Known reports whether k is one of ArtefactKinds.
func (k ArtefactKind) Known() bool { return slices.Contains(ArtefactKinds(), k) }

// Role is what a person may do: authors write what is pushed, operators act on the machinery.
type Role string

// The roles of authors, then those of operators.
const (
	RoleClinician      Role = "clinician"
	RoleCoder          Role = "coder"
	RoleViewer         Role = "viewer"
	RoleOps            Role = "ops"
	RoleConsentOfficer Role = "consent_officer"
	RoleAdmin          Role = "admin"
)

// Roles lists the roles.
func Roles() []Role {
	return []Role{RoleClinician, RoleCoder, RoleViewer, RoleOps, RoleConsentOfficer, RoleAdmin}
}

// Known reports whether r is one of Roles.
func (r Role) Known() bool { return slices.Contains(Roles(), r) }

// Route is how an artefact of a kind reaches the hospital.
type Route string

// The routes.
const (
	// RouteFHIR writes it as a FHIR resource.
	RouteFHIR Route = "fhir"
	// RouteManual leaves a task with a document for a person to hand over.
	RouteManual Route = "manual"
	// RouteOff delivers nothing.
	RouteOff Route = "off"
	// RouteHL7v2 is reserved for the HL7 v2 bridge.
	RouteHL7v2 Route = "hl7v2"
)

// DeliveredBy lists the kinds of artefact that the connection delivers by a route, in their order.
func (c Connection) DeliveredBy(r Route) []ArtefactKind {
	return slices.DeleteFunc(ArtefactKinds(), func(k ArtefactKind) bool { return c.Deliveries[k] != r })
}

// Author is who answers for an artefact.
type Author struct {
	Name string `json:"name"`
	Role Role   `json:"role"`
	// PractitionerEHRID is the author's Practitioner at the EHR, where that is known.
	PractitionerEHRID string `json:"practitioner,omitempty"`
}

// Artefact is one version of what Cura wants in an EHR: the content of an outbox item. Exactly one of the pointers is set,
// the one that fits Kind; none in a retraction.
type Artefact struct {
	Kind ArtefactKind `json:"kind"`
	// ID and Version name it for good: Cura's own name of the artefact, 1 to 64 of [A-Za-z0-9.-], and a number from 1 on.
	ID      string `json:"artefact"`
	Version int    `json:"version"`
	Author  Author `json:"author"`
	// EncounterEHRID is the Encounter that it belongs to; some EHRs demand one (DOMAIN §4).
	EncounterEHRID string `json:"encounter,omitempty"`
	// Labels are its sensitivity, as codes of v3-Confidentiality and v3-ActCode: R, V, ETH, SUD, PSY, PSYTHPN, HIV, SDV.
	Labels []string `json:"labels,omitempty"`
	// AuthoredAt is when the author has signed it.
	AuthoredAt time.Time `json:"authored_at"`
	// Replaces is the version before, which the EHR holds under WrittenEHRID; 0: there is none.
	Replaces int `json:"replaces,omitempty"`
	// Retracts says that the version named by Replaces is withdrawn: entered-in-error.
	Retracts bool `json:"retracts,omitempty"`

	Note         *NoteContent      `json:"note,omitempty"`
	Diagnosis    *DiagnosisContent `json:"diagnosis,omitempty"`
	Procedure    *ProcedureContent `json:"procedure,omitempty"`
	ConsentEvent *ConsentContent   `json:"consent_event,omitempty"`
}

// NoteContent is an encounter note: text, or a document.
type NoteContent struct {
	// Type is the LOINC code of the kind of note, such as 11506-3.
	Type  string `json:"type"`
	Title string `json:"title"`
	// ContentType is text/plain, text/html, application/pdf or another that the connection's EHR takes.
	ContentType string `json:"content_type"`
	// Text is the note where it is text; Data where it isn't (base64 in JSON).
	Text string `json:"text,omitempty"`
	Data []byte `json:"data,omitempty"`
	// Draft: the author hasn't signed it yet (docStatus preliminary).
	Draft bool `json:"draft,omitempty"`
	// Start and End are the time that the note is about; zero where it isn't said.
	Start time.Time `json:"start,omitzero"`
	End   time.Time `json:"end,omitzero"`
}

// DiagnosisContent is a diagnosis code.
type DiagnosisContent struct {
	Code Concept `json:"code"`
	// Category is encounter-diagnosis or problem-list-item.
	Category string `json:"category"`
	// ClinicalStatus is active, recurrence, relapse, inactive, remission or resolved; VerificationStatus is unconfirmed,
	// provisional, differential, confirmed or refuted (R4 Condition).
	ClinicalStatus     string `json:"clinical_status"`
	VerificationStatus string `json:"verification_status"`
	// Onset is a FHIR dateTime, empty where it isn't known.
	Onset string `json:"onset,omitempty"`
}

// ProcedureContent is a procedure code.
type ProcedureContent struct {
	Code Concept `json:"code"`
	// Status is as in R4 Procedure.status, such as completed.
	Status string `json:"status"`
	// Performed is a FHIR dateTime.
	Performed string `json:"performed"`
}

// ConsentContent is what a consent event tells: no reason, no clinical content.
type ConsentContent struct {
	// Event is granted, revoked, expired or changed.
	Event string    `json:"event"`
	At    time.Time `json:"at"`
	// Epoch is the consent head's, so that two events are never taken for one.
	Epoch int64 `json:"epoch"`
}

// DeliveryState is where a delivery stands in the ledger.
type DeliveryState string

// The states of the ledger (DESIGN §5.4).
const (
	// DeliveryIntent: the gate has let it through; nothing was sent.
	DeliveryIntent DeliveryState = "intent"
	// DeliverySent: it may be on the wire until its deadline, and what came of it isn't settled.
	DeliverySent DeliveryState = "sent"
	// DeliveryConfirmed: the EHR has it.
	DeliveryConfirmed DeliveryState = "confirmed"
	// DeliveryRejected: the EHR refuses it for good.
	DeliveryRejected DeliveryState = "rejected"
	// DeliveryPresent: the EHR had it already.
	DeliveryPresent DeliveryState = "already-present"
	// DeliveryUnknown: it may have it, and can't be asked; a person decides.
	DeliveryUnknown DeliveryState = "unknown"
	// DeliveryCancelled: consent was withdrawn before it was sent.
	DeliveryCancelled DeliveryState = "cancelled-by-consent"
)

// ItemState is where an outbox item stands.
type ItemState string

// The states of an outbox item.
const (
	// ItemQueued waits for its turn.
	ItemQueued ItemState = "queued"
	// ItemSending has a delivery under way, or one whose outcome is being looked up.
	ItemSending ItemState = "sending"
	// ItemDelivered: the EHR has it, or a person has handed it over.
	ItemDelivered ItemState = "delivered"
	// ItemHeld: the EHR has taken it and keeps it for sign-off (reconciliation queue).
	ItemHeld ItemState = "held"
	// ItemDenied: consent, role or policy don't allow it; starter push retry asks again.
	ItemDenied ItemState = "denied"
	// ItemCancelled: consent was withdrawn, or a person cancelled it.
	ItemCancelled ItemState = "cancelled"
	// ItemRejected: the EHR refuses it.
	ItemRejected ItemState = "rejected"
	// ItemReview: a person decides; its queue goes on without it.
	ItemReview ItemState = "review"
	// ItemManual waits for a person to hand the document over.
	ItemManual ItemState = "manual"
)

// PullConsent is a connection's policy for pulling a patient's clinical types.
type PullConsent string

// The policies.
const (
	// PullConsentNone: pulling needs no consent (HIPAA treatment, payment and operations).
	PullConsentNone PullConsent = "none"
	// PullConsentOptOut: a patient who denies isn't pulled.
	PullConsentOptOut PullConsent = "opt-out"
	// PullConsentOptIn: only a patient who permits is pulled.
	PullConsentOptIn PullConsent = "opt-in"
)

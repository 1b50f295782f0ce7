// Package consent decides whether a patient's consents allow a disclosure, or a pull. It is pure.
package consent

import (
	"time"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// Action is what is to be done with the patient's data: a code of
// http://terminology.hl7.org/CodeSystem/consentaction.
type Action string

// The actions.
const (
	// Disclose is a push to the EHR: the hospital receives.
	Disclose Action = "disclose"
	// Collect is a pull from the EHR: Cura receives.
	Collect Action = "collect"
)

// Request is one thing to decide about.
type Request struct {
	Action Action
	// Kind is of a disclosure; it stands for the resource type that is written.
	Kind cura.ArtefactKind
	// Types are the clinical types of a pull. Several are allowed only together: ask for one at a time to know which are.
	Types []cura.ResourceType
	// Codes are the clinical codes of the content: LOINC type of a note, ICD-10, CPT, SNOMED CT.
	Codes []cura.Coding
	// Labels are the content's sensitivity, as codes of v3-Confidentiality and v3-ActCode: R, V, ETH, SUD, PSY, PSYTHPN,
	// HIV, SDV. Content without any is N. Each but U, L, M and N must be named by a permit, those that Cura doesn't know too.
	Labels []string
	// Purpose is a code of v3-PurposeOfUse; empty is TREAT.
	Purpose string
	// Part2 says that the org is a programme under 42 CFR Part 2. What has no label inherits that, and no label takes it
	// away: a permit must name 42CFRPart2, SUD or ETH.
	Part2 bool
	// RecipientEHRIDs are references by which a consent may name the hospital as actor, such as "Organization/1"; usually
	// none, and then no reference can be resolved.
	RecipientEHRIDs []string
	// DataFrom is when the content was authored; zero: unknown.
	DataFrom time.Time
}

// Consent is one consent as it stands now: the last entry of it in the log.
type Consent struct {
	// ID is the log's entry id: Cura's own, so that it may be shown.
	ID string
	// Source is "ehr" or "cura".
	Source         string
	EnteredInError bool
	// Entry holds the raw R4 JSON of Consent.provision whole in Provision. RootType and Period count only where it is empty.
	Entry cura.ConsentEntry
	// ModifierExtension says that the resource has a modifierExtension outside the provision: it can't be evaluated.
	ModifierExtension bool
}

// Code is how a decision came out.
type Code string

// The codes. Only Permitted allows.
const (
	Permitted Code = "permitted"
	// NoConsent: the patient has no consent about privacy.
	NoConsent Code = "no-consent"
	// Denied: a consent denies it.
	Denied Code = "denied"
	// NotActive: the patient's consents about privacy are withdrawn, rejected, drafts or entered in error.
	NotActive Code = "not-active"
	// NotYet and Expired: now is outside the consents' periods.
	NotYet  Code = "not-yet"
	Expired Code = "expired"
	// CannotEvaluate: a consent says something that isn't understood, which may deny this, or may not permit it.
	CannotEvaluate Code = "cannot-evaluate"
	// NoMatchingProvision: the active consents are about something else.
	NoMatchingProvision Code = "no-matching-provision"
	// Sensitive: it is permitted in general, but no permit names one of its labels.
	Sensitive Code = "sensitive"
	// Psychotherapy: the same of psychotherapy notes (PSYTHPN).
	Psychotherapy Code = "psychotherapy"
	// Part2: the same of records under 42 CFR Part 2.
	Part2 Code = "part2"
)

// Rule is one step of a decision. It holds codes and paths only.
type Rule struct {
	// Consent is its ID.
	Consent string `json:"consent"`
	// Path is the element, such as provision.provision[1].
	Path string `json:"path"`
	// Effect is permit, deny or unknown; empty where the step is about whether the consent counts at all.
	Effect string `json:"effect"`
	// Matched: it bears on this request. A denial that can't be evaluated is taken to; a permit that can't be isn't.
	Matched bool   `json:"matched"`
	Why     string `json:"why"`
}

// Decision is what Decide decides.
type Decision struct {
	Allow bool `json:"allow"`
	Code  Code `json:"code"`
	// Reason is one sentence for a person.
	Reason string `json:"reason"`
	// ConsentID is the consent that permits, that denies, or that can't be evaluated; empty where there is none such.
	ConsentID string `json:"consent_id,omitempty"`
	// Notice is the text that 42 CFR 2.32 demands to go along; empty where it need not.
	Notice string `json:"notice,omitempty"`
	// Rules are the steps, in the order taken.
	Rules []Rule `json:"rules"`
	// Until is the next instant at which time alone may change the decision; zero: never.
	Until time.Time `json:"until,omitzero"`
}

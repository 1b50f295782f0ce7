package cura

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// MatchBy says by which kind of identifier the patients of a connection are matched with Cura's profiles.
type MatchBy string

// The kinds of identifier a connection can match by.
const (
	MatchMRN        MatchBy = "mrn"
	MatchNationalID MatchBy = "national-id"
	MatchCuraID     MatchBy = "cura-id"
)

// Unmatched is a connection's policy for patients for whom no profile is found, or who have no national or Cura id to find one
// by. One without an MRN, where that is what patients are matched by, is always for a person to decide.
type Unmatched string

// The policies.
const (
	// UnmatchedNew: such a patient gets a profile of their own.
	UnmatchedNew Unmatched = "new"
	// UnmatchedReview: a person decides.
	UnmatchedReview Unmatched = "review"
)

// ParseUnmatched reads new or review.
func ParseUnmatched(text string) (Unmatched, error) {
	switch u := Unmatched(text); u {
	case UnmatchedNew, UnmatchedReview:
		return u, nil
	default:
		return "", fmt.Errorf("policy %q for patients for whom no profile is found isn't new or review", text)
	}
}

// MatchStrategy names the identifier that patients are matched by: always system and value, never a value alone.
type MatchStrategy struct {
	By MatchBy `json:"by"`
	// System is the identifier system's URI, exactly as the EHR writes it.
	System string `json:"system"`
	// Unmatched is what becomes of a patient for whom no profile is found; empty is UnmatchedNew.
	Unmatched Unmatched `json:"unmatched,omitempty"`
}

// ParseMatchStrategy reads "mrn:SYSTEM", "national-id:SYSTEM" or "cura-id:SYSTEM". Unmatched is left empty.
func ParseMatchStrategy(text string) (MatchStrategy, error) {
	by, system, ok := strings.Cut(text, ":")
	s := MatchStrategy{By: MatchBy(by), System: strings.TrimSpace(system)}
	switch {
	case !ok || s.System == "":
		return MatchStrategy{}, errors.New("match strategy needs a kind and an identifier system: mrn:SYSTEM, national-id:SYSTEM or cura-id:SYSTEM")
	case s.By != MatchMRN && s.By != MatchNationalID && s.By != MatchCuraID:
		return MatchStrategy{}, fmt.Errorf("match strategy kind %q isn't one of mrn, national-id, cura-id", by)
	case !strings.Contains(s.System, ":") || strings.ContainsAny(s.System, " \t\n"):
		return MatchStrategy{}, errors.New("match strategy system isn't a URI: give it as the EHR writes it in Patient.identifier.system, such as urn:oid:1.2.3 or http://hospital.example/mrn")
	}
	return s, nil
}

// SameIdentifier reports whether both match by the same identifier, whatever they do with those who aren't found by it.
func (s MatchStrategy) SameIdentifier(other MatchStrategy) bool {
	return s.By == other.By && s.System == other.System
}

// String is the form that ParseMatchStrategy reads; it leaves Unmatched out.
func (s MatchStrategy) String() string { return string(s.By) + ":" + s.System }

// Connection is one EHR endpoint of an org, without its secret.
type Connection struct {
	ID    ConnectionID `json:"id"`
	OrgID OrgID        `json:"org_id"`
	Name  string       `json:"name"`
	// BaseURL is the FHIR base, without a trailing slash.
	BaseURL string `json:"base_url"`
	// TokenURL is empty where it is discovered from .well-known/smart-configuration.
	TokenURL string        `json:"token_url,omitempty"`
	ClientID string        `json:"client_id"`
	Scopes   []string      `json:"scopes"`
	CAPEM    string        `json:"ca_pem,omitempty"`
	Match    MatchStrategy `json:"match"`
	// EHRProfile is what kind of server this is, such as epic; "generic" allows system-wide search by _lastUpdated.
	EHRProfile string `json:"ehr_profile"`
	// ProfileText is the profile itself where it was given in a file (YAML); empty: EHRProfile names one that is built in.
	ProfileText string `json:"profile_text,omitempty"`
	// ProfileParams are what the profile's placeholders stand for, such as athenahealth's practice.
	ProfileParams map[string]string `json:"profile_params,omitempty"`
	Types         []ResourceType    `json:"types"`
	// Strategies are what an operator has chosen instead of the profile's.
	Strategies map[ResourceType]Strategy `json:"strategies,omitempty"`
	// RosterSource is what feeds the roster by itself; empty is RosterEnrolment.
	RosterSource RosterSource `json:"roster_source"`
	// GroupID is the id of the EHR's Group that feeds the roster, for RosterGroup.
	GroupID string `json:"group_id,omitempty"`
	// Deliveries are how artefacts of each kind reach the hospital; a kind that isn't there is off.
	Deliveries map[ArtefactKind]Route `json:"deliveries,omitempty"`
	// PullConsent is whether pulling a patient's clinical types needs their consent; empty is PullConsentNone.
	PullConsent PullConsent `json:"pull_consent,omitempty"`
	// InsecureLoopback allows plain http to a loopback address, for rehearsals.
	InsecureLoopback bool      `json:"insecure_loopback,omitempty"`
	Phase            Phase     `json:"phase"`
	Health           Health    `json:"health"`
	CreatedAt        time.Time `json:"created_at"`
}

// RosterSource is where the members of a roster come from.
type RosterSource string

// The sources of a roster.
const (
	// RosterEnrolment: people whom Cura knows, found at the EHR by the connection's match identifier.
	RosterEnrolment RosterSource = "enrolment"
	// RosterList: an uploaded list of the EHR's patient ids.
	RosterList RosterSource = "list"
	// RosterGroup: a Group of the EHR.
	RosterGroup RosterSource = "group"
)

// Phase is where a connection stands in its onboarding.
type Phase string

// The phases, in order; aborted can follow any of them.
const (
	PhaseNew        Phase = "new"
	PhaseTesting    Phase = "testing"
	PhasePilot      Phase = "pilot"
	PhaseApproval   Phase = "approval"
	PhaseBackfill   Phase = "backfill"
	PhaseMonitoring Phase = "monitoring"
	PhaseLive       Phase = "live"
	PhaseAborted    Phase = "aborted"
)

// Health says whether a connection needs a person.
type Health string

// The states of health.
const (
	HealthOK        Health = "ok"
	HealthAttention Health = "attention"
)

// WaitsFor is the closed list of what a workflow can wait for a person to do: search attribute CuraWaitsFor.
type WaitsFor string

// The entries; empty means that it waits for nobody.
const (
	WaitsForNobody         WaitsFor = "nobody"
	WaitsForApproval       WaitsFor = "approve"
	WaitsForFixCredentials WaitsFor = "fix-credentials"
	WaitsForFixEndpoint    WaitsFor = "fix-endpoint"
	WaitsForFixData        WaitsFor = "fix-data"
	WaitsForRetry          WaitsFor = "retry"
)

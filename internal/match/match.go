// Package match decides which Cura profile a pulled patient is. It only decides; finding candidates is the store's.
package match

import (
	"strings"
	"time"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// Outcome is what a match comes to.
type Outcome string

// The outcomes.
const (
	// Matched: exactly one profile, and nothing speaks against it.
	Matched Outcome = "matched"
	// New: no profile carries the identifier.
	New Outcome = "new"
	// Ambiguous: a person must decide.
	Ambiguous Outcome = "ambiguous"
)

// Candidate is a profile that carries one of the patient's identifiers.
type Candidate struct {
	Profile   cura.ProfileID
	BirthDate string
	Family    string
	// TakenBy is the EHR id of another patient of the same connection that the profile is linked to; empty: none.
	TakenBy string
	// SourceConnection, SourceEHRID and LastUpdated tell which patient's version the profile shows.
	SourceConnection cura.ConnectionID
	SourceEHRID      string
	LastUpdated      *time.Time
}

// Decision is the outcome with its reason; Profile is set for Matched.
type Decision struct {
	Outcome Outcome
	Profile cura.ProfileID
	Reason  string
	// Candidates are those that a person has to choose from.
	Candidates []cura.ProfileID
}

// MaxIdentifier is the length in bytes, system and value together, above which an identifier is neither stored for look-up
// nor matched by: an index can't hold it.
const MaxIdentifier = 1000

// Keys are the patient's identifiers of the strategy's system that may be matched by: exact values, blanks trimmed,
// placeholders left out, and what is too long to be found again. Leading zeros count.
func Keys(profile *cura.Profile, strategy cura.MatchStrategy) []string {
	var keys []string
	for _, id := range profile.Identifiers {
		value := strings.TrimSpace(id.Value)
		if id.System != strategy.System || value == "" || placeholder(value) || id.Use == "old" ||
			len(id.System)+len(id.Value) > MaxIdentifier {
			continue
		}
		keys = append(keys, value)
	}
	return keys
}

// placeholder reports whether value is one that many patients share: all zeros or nines, or a word for "none".
func placeholder(value string) bool {
	digits := strings.Map(func(r rune) rune {
		if r == '-' || r == ' ' || r == '.' {
			return -1
		}
		return r
	}, value)
	if len(digits) >= 3 && (strings.Trim(digits, "0") == "" || strings.Trim(digits, "9") == "") {
		return true
	}
	switch strings.ToLower(value) {
	case "unknown", "none", "n/a", "na", "null", "test":
		return true
	}
	return false
}

// Decide matches a patient, whose Keys gave keys, with the candidates that carry one of them.
func Decide(patient *cura.Profile, keys []string, strategy cura.MatchStrategy, candidates []Candidate) Decision {
	if len(keys) == 0 {
		return Decision{Outcome: Ambiguous, Reason: "the patient has no usable identifier of the connection's match strategy " + string(strategy.By)}
	}
	var ids []cura.ProfileID
	for _, c := range candidates {
		ids = append(ids, c.Profile)
	}
	switch {
	case len(candidates) == 0 && strategy.By == cura.MatchCuraID:
		return Decision{Outcome: Ambiguous, Reason: "no profile has the Cura id that the EHR gives"}
	case len(candidates) == 0:
		return Decision{Outcome: New, Reason: "no profile carries the identifier"}
	case len(candidates) > 1:
		return Decision{Outcome: Ambiguous, Candidates: ids, Reason: "more than one profile carries the identifier"}
	}
	c := candidates[0]
	switch {
	case c.TakenBy != "":
		return Decision{Outcome: Ambiguous, Candidates: ids, Reason: "another patient of this connection is linked to the profile already"}
	case contradicts(patient, c):
		return Decision{Outcome: Ambiguous, Candidates: ids, Reason: "the identifier is the same, the birth date or the family name is not"}
	case !canCompare(patient, c):
		return Decision{Outcome: Ambiguous, Candidates: ids, Reason: "nothing but the identifier to go by: no birth date and no family name to compare"}
	}
	return Decision{Outcome: Matched, Profile: c.Profile, Candidates: ids, Reason: "identifier, birth date and family name agree"}
}

// contradicts compares what both sides know. A partial birth date agrees with a fuller one that it begins; a changed
// family name alone is common and no contradiction when the birth date agrees whole.
func contradicts(patient *cura.Profile, c Candidate) bool {
	birth, family := traits(patient)
	if birth != "" && c.BirthDate != "" {
		return !strings.HasPrefix(birth, c.BirthDate) && !strings.HasPrefix(c.BirthDate, birth)
	}
	return family != "" && c.Family != "" && !strings.EqualFold(family, c.Family)
}

// canCompare reports whether both sides know a birth date or both a family name: an identifier alone links nobody, since a
// mistyped one would show a patient somebody else's record.
func canCompare(patient *cura.Profile, c Candidate) bool {
	birth, family := traits(patient)
	return (birth != "" && c.BirthDate != "") || (family != "" && c.Family != "")
}

// traits are what a patient is told from others by, besides identifiers.
func traits(patient *cura.Profile) (birth, family string) {
	if patient.BirthDate != nil {
		birth = patient.BirthDate.Text
	}
	if patient.Name != nil {
		family = patient.Name.Family
	}
	return birth, family
}

// Package match decides which Cura profile a pulled patient is. It only decides; finding candidates is the store's.
package match

import (
	"slices"
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
	// New: no profile carries the identifier, and the connection's policy is to make one.
	New Outcome = "new"
	// Ambiguous: a person must decide.
	Ambiguous Outcome = "ambiguous"
)

// Candidate is a profile that carries one of the patient's identifiers.
type Candidate struct {
	Profile   cura.ProfileID
	BirthDate string
	Family    string
	// OtherFamilies are the family names of its other names, such as a maiden name; Given are its given names with blanks between.
	// Both are to judge a family name by that has changed, and may be left out.
	OtherFamilies []string
	Given         string
	// TakenBy is the EHR id of another patient of the same connection that the profile is linked to; empty: none.
	TakenBy string
}

// Decision is the outcome with its reason, in words without PHI; Profile is set for Matched.
type Decision struct {
	Outcome Outcome
	Profile cura.ProfileID
	Reason  string
	// Candidates are those that a person has to choose from.
	Candidates []cura.ProfileID
}

// Decide matches a patient, whose Keys gave keys, with the candidates that carry one of them; no profile is there twice. The
// order of neither matters. Nobody is linked to a profile that isn't the only one, or that anything speaks against.
func Decide(patient *cura.Profile, keys []string, strategy cura.MatchStrategy, candidates []Candidate) Decision {
	if len(keys) == 0 {
		reason := "the patient has no usable identifier of the connection's match strategy " + string(strategy.By) + ": " + whyNone(patient, strategy)
		if strategy.By == cura.MatchMRN {
			// A hospital gives everybody an MRN. Whoever has none is an odd one, and where nobody has, the system is set wrong: a new
			// profile for each would be to match nobody, without a word.
			return Decision{Outcome: Ambiguous, Reason: reason}
		}
		return unmatched(strategy, reason)
	}
	ids := make([]cura.ProfileID, len(candidates))
	for i, c := range candidates {
		ids[i] = c.Profile
	}
	slices.Sort(ids)
	review := func(reason string) Decision { return Decision{Outcome: Ambiguous, Candidates: ids, Reason: reason} }
	switch {
	case len(candidates) == 0 && strategy.By == cura.MatchCuraID:
		return review("no profile has the Cura id that the EHR gives")
	case len(candidates) == 0:
		return unmatched(strategy, "no profile carries the identifier")
	case len(candidates) > 1:
		return review(whyMany(candidates))
	}
	c := candidates[0]
	if c.TakenBy != "" {
		return review("another patient of this connection is linked to the profile already")
	}
	switch doubt, compared := personIn(patient).compare(personOf(c)); {
	case doubt != "":
		return review("the identifier is the same, the birth date or the family name is not: " + doubt)
	case !compared:
		return review("nothing but the identifier to go by: no birth date and no family name to compare")
	}
	return Decision{Outcome: Matched, Profile: c.Profile, Candidates: ids, Reason: "identifier, birth date and family name agree"}
}

// unmatched is the decision about a patient for whom nobody is found.
func unmatched(strategy cura.MatchStrategy, reason string) Decision {
	if strategy.Unmatched == cura.UnmatchedReview {
		return Decision{Outcome: Ambiguous, Reason: reason}
	}
	return Decision{Outcome: New, Reason: reason}
}

// whyMany says in words what it means that several profiles carry a patient's identifier.
func whyMany(candidates []Candidate) string {
	taken := 0
	for i, c := range candidates {
		if c.TakenBy != "" {
			taken++
		}
		for _, other := range candidates[:i] {
			if doubt, _ := personOf(c).compare(personOf(other)); doubt != "" {
				return "more than one profile carries the identifier, and they are not of one person: it is shared"
			}
		}
	}
	if taken > 1 {
		return "more than one profile carries the identifier, and several are linked to patients of this connection: it is shared"
	}
	return "more than one profile carries the identifier"
}

// Agree says in words what speaks against two profiles being of one person, and whether there was a birth date or a family name
// to compare.
func Agree(a, b *cura.Profile) (doubt string, compared bool) {
	return personIn(a).compare(personIn(b))
}

// person is what people are told apart by, besides identifiers. Any of it may be unknown.
type person struct {
	birth            string
	families, givens []string
}

func personIn(p *cura.Profile) person {
	if p == nil {
		return person{}
	}
	return person{birth: birthDate(p), families: families(p), givens: givens(p)}
}

func personOf(c Candidate) person {
	p := person{birth: c.BirthDate, givens: strings.Fields(c.Given)}
	for _, family := range append([]string{c.Family}, c.OtherFamilies...) {
		if family != "" {
			p.families = append(p.families, family)
		}
	}
	return p
}

func birthDate(p *cura.Profile) string {
	if p.BirthDate == nil {
		return ""
	}
	return p.BirthDate.Text
}

// compare says in words what speaks against two being one person, and whether there was a birth date or a family name to
// compare: an identifier alone links nobody, since a mistyped one would show a patient somebody else's record. A partial birth
// date agrees with a fuller one that it begins. A family name that has changed is common: it is no doubt where the birth date
// agrees whole, unless the given names are others too.
func (p person) compare(q person) (doubt string, compared bool) {
	births := p.birth != "" && q.birth != ""
	if births && !strings.HasPrefix(p.birth, q.birth) && !strings.HasPrefix(q.birth, p.birth) {
		return "the birth dates differ", true
	}
	if len(p.families) == 0 || len(q.families) == 0 {
		return "", births
	}
	if sharesName(p.families, q.families) {
		return "", true
	}
	othersToo := len(p.givens) > 0 && len(q.givens) > 0 && !sharesName(p.givens, q.givens)
	if whole := births && p.birth == q.birth && len(p.birth) == len(time.DateOnly); whole && !othersToo {
		return "", true
	}
	return "the family names differ", true
}

package match

import (
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// MaxIdentifier is the length in bytes, system and value together, above which an identifier is neither stored for look-up
// nor matched by: an index can't hold it.
const MaxIdentifier = 1000

// KeysAt are the patient's identifiers of the strategy's system that may be matched by at a time: values as the EHR writes
// them but for the blanks around them, each once. Leading zeros and case count; Spellings gives what is the same value. Left
// out is what says nothing about who somebody is: a value that is missing, a placeholder, or against its system's form; one
// whose use is old or temp, or whose period has ended; and what couldn't be found again. The type doesn't matter, since EHRs
// give it in words of their own; an identifier without a system is none of any.
func KeysAt(profile *cura.Profile, strategy cura.MatchStrategy, now time.Time) []string {
	var keys, seen []string
	for _, id := range profile.Identifiers {
		if flawOf(id, strategy.System, now) != sound {
			continue
		}
		value := strings.TrimSpace(id.Value)
		if same := Spellings(strategy.System, value)[0]; !slices.Contains(seen, same) {
			keys, seen = append(keys, value), append(seen, same)
		}
	}
	return keys
}

// Keys are KeysAt for who doesn't know the time: that a period has ended isn't noticed.
func Keys(profile *cura.Profile, strategy cura.MatchStrategy) []string {
	return KeysAt(profile, strategy, time.Time{})
}

// flaw is why an identifier isn't matched by. The later ones say more to a person who wonders why.
type flaw int

const (
	sound flaw = iota
	foreign
	missing
	unstorable
	retired
	shared
	invalid
)

// flawOf says why an identifier isn't matched by in system.
func flawOf(id cura.Identifier, system string, now time.Time) flaw {
	value := strings.TrimSpace(id.Value)
	switch {
	case system == "" || !slices.Contains(Systems(system), id.System):
		return foreign
	case value == "":
		return missing
	case len(id.System)+len(id.Value) > MaxIdentifier || !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl):
		return unstorable
	case placeholder(value):
		return shared
	case !valid(system, value):
		return invalid
	case id.Use == "old" || id.Use == "temp" || ended(id.Period, now):
		return retired
	}
	return sound
}

// ended reports whether a period is over: when all of the span that its end may mean has passed.
func ended(p *cura.Period, now time.Time) bool {
	return p != nil && p.End != nil && !p.End.End.After(now)
}

// placeholder reports whether value is one that is typed where there is none, and so is shared by many: a word for none, a
// masked value, one digit over and over, or digits in the order of the keyboard.
func placeholder(value string) bool {
	plain := strings.ToLower(strings.Map(func(r rune) rune {
		if strings.ContainsRune(" -./", r) {
			return -1
		}
		return r
	}, value))
	switch plain {
	case "", "unknown", "unk", "none", "no", "nil", "na", "null", "notavailable", "notapplicable", "test", "?":
		return true
	}
	if strings.ContainsRune(plain, '*') || strings.HasPrefix(plain, "xxxxx") && strings.Trim(plain, "x0123456789") == "" {
		return true
	}
	if strings.Trim(plain, "0123456789") != "" {
		return false
	}
	// A short number of one digit can be somebody's; zeros and nines are what is typed where a number is asked for.
	least := 5
	if plain[0] == '0' || plain[0] == '9' {
		least = 3
	}
	if len(plain) >= least && strings.Trim(plain, plain[:1]) == "" {
		return true
	}
	inOrder := slices.ContainsFunc([]string{"01234567890", "09876543210"}, func(row string) bool { return strings.Contains(row, plain) })
	return len(plain) >= 7 && inOrder
}

// whyNone says in words why a patient has no key, by what is wrong with those identifiers that come nearest to one.
func whyNone(patient *cura.Profile, strategy cura.MatchStrategy) string {
	worst := foreign
	for _, id := range patient.Identifiers {
		f := flawOf(id, strategy.System, time.Time{})
		if f == sound {
			f = retired // at no time but now
		}
		worst = max(worst, f)
	}
	kind := map[cura.MatchBy]string{cura.MatchMRN: "MRN", cura.MatchNationalID: "national id", cura.MatchCuraID: "Cura id"}[strategy.By]
	switch worst {
	case invalid:
		return "its " + kind + " isn't valid"
	case shared:
		return "its " + kind + " is a placeholder that many share"
	case retired:
		return "its " + kind + " isn't in force: old, temporary, or its period has ended"
	case unstorable:
		return "its " + kind + " is too long, or has characters that no identifier has"
	case missing:
		return "its " + kind + " has no value"
	case sound, foreign:
	}
	return "it has no " + kind + " of the system"
}

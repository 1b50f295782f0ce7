package match_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/match"
)

var mrn = cura.MatchStrategy{By: cura.MatchMRN, System: "urn:mrn"}

func profile(birth, family string, ids ...cura.Identifier) *cura.Profile {
	p := &cura.Profile{Identifiers: ids}
	if birth != "" {
		p.BirthDate = &cura.Moment{Text: birth}
	}
	if family != "" {
		p.Name = &cura.Name{Display: family, Family: family}
	}
	return p
}

func TestKeysAreExactValuesOfTheSystem(t *testing.T) {
	t.Parallel()
	got := match.Keys(profile("", "",
		cura.Identifier{System: "urn:mrn", Value: "  0012 "},
		cura.Identifier{System: "urn:mrn", Value: "12"},
		cura.Identifier{System: "urn:other", Value: "99"},
		cura.Identifier{System: "urn:mrn", Value: ""},
		cura.Identifier{System: "urn:mrn", Value: "7", Use: "old"},
		cura.Identifier{System: "urn:mrn", Value: "000-00-0000"},
		cura.Identifier{System: "urn:mrn", Value: "999999"},
		cura.Identifier{System: "urn:mrn", Value: "Unknown"},
		cura.Identifier{System: "urn:mrn", Value: "0"},
	), mrn)
	require.Equal(t, []string{"0012", "12", "0"}, got, "leading zeros count; placeholders and retired ones never match")
}

// TestKeysLeaveOutWhatIsNotStoredForLookUp: nobody would find the profile by it the next time.
func TestKeysLeaveOutWhatIsNotStoredForLookUp(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("x", match.MaxIdentifier-len("urn:mrn"))
	got := match.Keys(profile("", "",
		cura.Identifier{System: "urn:mrn", Value: longest},
		cura.Identifier{System: "urn:mrn", Value: longest + "x"},
		cura.Identifier{System: "urn:mrn", Value: longest[1:] + "ä"},
		cura.Identifier{System: "urn:mrn", Value: longest[1:] + "  "},
	), mrn)
	require.Equal(t, []string{longest}, got)
}

func TestDecisions(t *testing.T) {
	t.Parallel()
	one := match.Candidate{Profile: "p1", BirthDate: "1980-02-03", Family: "Meyer"}
	two := match.Candidate{Profile: "p2", BirthDate: "1980-02-03", Family: "Meyer"}
	taken := one
	taken.TakenBy = "other"
	for name, c := range map[string]struct {
		patient    *cura.Profile
		keys       []string
		candidates []match.Candidate
		want       match.Outcome
	}{
		"no identifier to match by":          {profile("1980-02-03", "Meyer"), nil, nil, match.Ambiguous},
		"nobody carries it":                  {profile("1980-02-03", "Meyer"), []string{"1"}, nil, match.New},
		"one profile, all agrees":            {profile("1980-02-03", "meyer"), []string{"1"}, []match.Candidate{one}, match.Matched},
		"two profiles":                       {profile("1980-02-03", "Meyer"), []string{"1"}, []match.Candidate{one, two}, match.Ambiguous},
		"another birth date":                 {profile("1981-02-03", "Meyer"), []string{"1"}, []match.Candidate{one}, match.Ambiguous},
		"a partial birth date that agrees":   {profile("1980-02", "Meyer"), []string{"1"}, []match.Candidate{one}, match.Matched},
		"a partial birth date that doesn't":  {profile("1980-03", "Meyer"), []string{"1"}, []match.Candidate{one}, match.Ambiguous},
		"a new family name, same birth date": {profile("1980-02-03", "Maier"), []string{"1"}, []match.Candidate{one}, match.Matched},
		"another name, no birth date":        {profile("", "Schulz"), []string{"1"}, []match.Candidate{one}, match.Ambiguous},
		"the same name, no birth date":       {profile("", "MEYER"), []string{"1"}, []match.Candidate{one}, match.Matched},
		"nothing to compare":                 {profile("", ""), []string{"1"}, []match.Candidate{one}, match.Ambiguous},
		"nothing to compare with":            {profile("1980-02-03", "Meyer"), []string{"1"}, []match.Candidate{{Profile: "p3"}}, match.Ambiguous},
		"each side knows something else":     {profile("1980-02-03", ""), []string{"1"}, []match.Candidate{{Profile: "p3", Family: "Meyer"}}, match.Ambiguous},
		"linked to another patient":          {profile("1980-02-03", "Meyer"), []string{"1"}, []match.Candidate{taken}, match.Ambiguous},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := match.Decide(c.patient, c.keys, mrn, c.candidates)
			require.Equal(t, c.want, d.Outcome, d.Reason)
			require.NotEmpty(t, d.Reason)
			require.Len(t, d.Candidates, len(c.candidates))
		})
	}
}

func TestAnUnknownCuraIDIsNeverANewProfile(t *testing.T) {
	t.Parallel()
	d := match.Decide(profile("", ""), []string{"x"}, cura.MatchStrategy{By: cura.MatchCuraID, System: "urn:cura"}, nil)
	require.Equal(t, match.Ambiguous, d.Outcome)
}

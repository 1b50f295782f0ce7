package match_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

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

func TestDecisions(t *testing.T) {
	t.Parallel()
	one := match.Candidate{Profile: "p1", BirthDate: "1980-02-03", Family: "Meyer"}
	two := match.Candidate{Profile: "p2", BirthDate: "1980-02-03", Family: "Meyer"}
	stranger := match.Candidate{Profile: "p3", BirthDate: "1931-12-24", Family: "Okafor"}
	taken, takenToo := one, two
	taken.TakenBy, takenToo.TakenBy = "other", "another"
	for name, c := range map[string]struct {
		patient    *cura.Profile
		keys       []string
		candidates []match.Candidate
		want       match.Outcome
		because    string
	}{
		"no identifier to match by":          {profile("1980-02-03", "Meyer"), nil, nil, match.Ambiguous, "no usable identifier"},
		"nobody carries it":                  {profile("1980-02-03", "Meyer"), []string{"1"}, nil, match.New, "no profile carries"},
		"one profile, all agrees":            {profile("1980-02-03", "meyer"), []string{"1"}, []match.Candidate{one}, match.Matched, "agree"},
		"two profiles":                       {profile("1980-02-03", "Meyer"), []string{"1"}, []match.Candidate{one, two}, match.Ambiguous, "more than one profile"},
		"two profiles, not of one person":    {profile("1980-02-03", "Meyer"), []string{"1"}, []match.Candidate{one, stranger}, match.Ambiguous, "not of one person: it is shared"},
		"two profiles, both linked":          {profile("1980-02-03", "Meyer"), []string{"1"}, []match.Candidate{taken, takenToo}, match.Ambiguous, "several are linked"},
		"another birth date":                 {profile("1981-02-03", "Meyer"), []string{"1"}, []match.Candidate{one}, match.Ambiguous, "the birth dates differ"},
		"a partial birth date that agrees":   {profile("1980-02", "Meyer"), []string{"1"}, []match.Candidate{one}, match.Matched, ""},
		"a partial birth date that doesn't":  {profile("1980-03", "Meyer"), []string{"1"}, []match.Candidate{one}, match.Ambiguous, "the birth dates differ"},
		"a partial one and another name":     {profile("1980", "Maier"), []string{"1"}, []match.Candidate{one}, match.Ambiguous, "the family names differ"},
		"a new family name, same birth date": {profile("1980-02-03", "Maier"), []string{"1"}, []match.Candidate{one}, match.Matched, ""},
		"another name, no birth date":        {profile("", "Schulz"), []string{"1"}, []match.Candidate{one}, match.Ambiguous, "the family names differ"},
		"the same name, no birth date":       {profile("", "MEYER"), []string{"1"}, []match.Candidate{one}, match.Matched, ""},
		"nothing to compare":                 {profile("", ""), []string{"1"}, []match.Candidate{one}, match.Ambiguous, "nothing but the identifier"},
		"nothing to compare with":            {profile("1980-02-03", "Meyer"), []string{"1"}, []match.Candidate{{Profile: "p3"}}, match.Ambiguous, "nothing but the identifier"},
		"each side knows something else":     {profile("1980-02-03", ""), []string{"1"}, []match.Candidate{{Profile: "p3", Family: "Meyer"}}, match.Ambiguous, "nothing but the identifier"},
		"linked to another patient":          {profile("1980-02-03", "Meyer"), []string{"1"}, []match.Candidate{taken}, match.Ambiguous, "another patient of this connection"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := match.Decide(c.patient, c.keys, mrn, c.candidates)
			require.Equal(t, c.want, d.Outcome, d.Reason)
			require.NotEmpty(t, d.Reason)
			require.Contains(t, d.Reason, c.because)
			require.Len(t, d.Candidates, len(c.candidates))
			for _, phi := range []string{"1980", "1931", "Meyer", "Okafor", "Schulz"} {
				require.NotContains(t, d.Reason, phi)
			}
		})
	}
}

// TestWhoIsNotFoundGetsAProfileOrAReviewByPolicy: the policy is about those for whom nobody is found, and about nobody else.
func TestWhoIsNotFoundGetsAProfileOrAReviewByPolicy(t *testing.T) {
	t.Parallel()
	one := match.Candidate{Profile: "p1", BirthDate: "1980-02-03", Family: "Meyer"}
	two := match.Candidate{Profile: "p2", BirthDate: "1980-02-03", Family: "Meyer"}
	found := profile("1980-02-03", "Meyer")
	for name, c := range map[string]struct {
		by                       cura.MatchBy
		keys                     []string
		candidates               []match.Candidate
		byDefault, byNew, review match.Outcome
	}{
		"nobody carries the identifier": {cura.MatchMRN, []string{"1"}, nil, match.New, match.New, match.Ambiguous},
		"no usable national id":         {cura.MatchNationalID, nil, nil, match.New, match.New, match.Ambiguous},
		"no usable MRN":                 {cura.MatchMRN, nil, nil, match.Ambiguous, match.Ambiguous, match.Ambiguous},
		"no Cura id":                    {cura.MatchCuraID, nil, nil, match.New, match.New, match.Ambiguous},
		"a Cura id that nobody has":     {cura.MatchCuraID, []string{"1"}, nil, match.Ambiguous, match.Ambiguous, match.Ambiguous},
		"one profile":                   {cura.MatchMRN, []string{"1"}, []match.Candidate{one}, match.Matched, match.Matched, match.Matched},
		"two profiles":                  {cura.MatchMRN, []string{"1"}, []match.Candidate{one, two}, match.Ambiguous, match.Ambiguous, match.Ambiguous},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for policy, want := range map[cura.Unmatched]match.Outcome{"": c.byDefault, cura.UnmatchedNew: c.byNew, cura.UnmatchedReview: c.review} {
				d := match.Decide(found, c.keys, cura.MatchStrategy{By: c.by, System: "urn:x", Unmatched: policy}, c.candidates)
				require.Equal(t, want, d.Outcome, "policy %q", policy)
			}
		})
	}
}

// TestFamilyNames: a name is the same in another spelling, and a name of before counts. There is no birth date to go by here.
func TestFamilyNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		patient, profile string
		same             bool
	}{
		{"Meyer", "MEYER", true},
		{"Müller", "Mueller", true},
		{"Müller", "Muller", true},
		{"Mu\u0308ller", "Müller", true}, // the accent as a character of its own
		{"Sørensen", "Soerensen", true},
		{"Åkesson", "Akesson", true},
		{"Groß", "GROSS", true},
		{"Bień-Żurawska", "Bien Zurawska", true},
		{"Nguyễn", "Nguyen", true},
		{"Ōno", "Ono", true},
		{"O'Brien", "O’Brien", true},
		{"O'Brien", "OBRIEN", true},
		{"MacDonald", "Mac Donald", true},
		{"Meyer-Schulz", "Meyer", true},
		{"García Márquez", "Garcia", true},
		{"van den Berg", "Berg", true},
		{"Παπαδόπουλος", "ΠΑΠΑΔΟΠΟΥΛΟΣ", true},
		{"Соловьёв", "Соловьев", true},
		{"山田", "山田", true},
		{"-", "-", true},
		{"Meyer", "Meier", false},
		{"Meyer", "Schulz", false},
		{"Meyer-Schulz", "Meyer-Vogt", false},
		{"Bergmann", "Berg", false},
		{"山田", "山本", false},
		{"-", "Meyer", false},
	} {
		t.Run(c.patient+" and "+c.profile, func(t *testing.T) {
			t.Parallel()
			want := match.Ambiguous
			if c.same {
				want = match.Matched
			}
			for _, pair := range [][2]string{{c.patient, c.profile}, {c.profile, c.patient}} {
				d := match.Decide(profile("", pair[0]), []string{"1"}, mrn, []match.Candidate{{Profile: "p", Family: pair[1]}})
				require.Equal(t, want, d.Outcome, d.Reason)
			}
		})
	}
}

// TestAFamilyNameThatChanged: at a wedding the birth date stays, and mostly the given name. Where both names are others it is
// another person, whose birthday is the same by chance.
func TestAFamilyNameThatChanged(t *testing.T) {
	t.Parallel()
	patient := profile("1980-02-03", "Schulz")
	patient.Name.Given = []string{"Anna", "Maria"}
	wed := profile("", "Schulz")
	wed.OtherNames = []cura.Name{{Use: "maiden", Family: "Meyer"}}
	for name, c := range map[string]struct {
		patient   *cura.Profile
		candidate match.Candidate
		want      match.Outcome
	}{
		"the given name stayed":                  {patient, match.Candidate{BirthDate: "1980-02-03", Family: "Meyer", Given: "Anna"}, match.Matched},
		"one given name of two stayed":           {patient, match.Candidate{BirthDate: "1980-02-03", Family: "Meyer", Given: "Lise María"}, match.Matched},
		"no given name is known":                 {patient, match.Candidate{BirthDate: "1980-02-03", Family: "Meyer"}, match.Matched},
		"the given name is another too":          {patient, match.Candidate{BirthDate: "1980-02-03", Family: "Meyer", Given: "Björn"}, match.Ambiguous},
		"the same family name, a nickname":       {patient, match.Candidate{BirthDate: "1980-02-03", Family: "Schulz", Given: "Anni"}, match.Matched},
		"the profile has her maiden name":        {wed, match.Candidate{Family: "Meyer"}, match.Matched},
		"the patient has her maiden name":        {profile("", "Meyer"), match.Candidate{Family: "Schulz", OtherFamilies: []string{"", "Meyer"}}, match.Matched},
		"neither name of the one is the other's": {wed, match.Candidate{Family: "Vogt", OtherFamilies: []string{"Braun"}}, match.Ambiguous},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.candidate.Profile = "p"
			d := match.Decide(c.patient, []string{"1"}, mrn, []match.Candidate{c.candidate})
			require.Equal(t, c.want, d.Outcome, d.Reason)
		})
	}
}

func TestAnUnknownCuraIDIsNeverANewProfile(t *testing.T) {
	t.Parallel()
	d := match.Decide(profile("", ""), []string{"x"}, cura.MatchStrategy{By: cura.MatchCuraID, System: "urn:cura"}, nil)
	require.Equal(t, match.Ambiguous, d.Outcome)
}

// drawn is a patient and those who carry one of its identifiers, as draw draws them: mostly alike.
type drawn struct {
	patient    *cura.Profile
	strategy   cura.MatchStrategy
	candidates []match.Candidate
}

func draw(t *rapid.T) drawn {
	births := rapid.SampledFrom([]string{"", "1980", "1980-02", "1980-02-03", "1980-03-02", "1931"})
	names := rapid.SampledFrom([]string{"", "Müller", "mueller", "Schulz", "Müller-Schulz", "Okafor", "-"})
	values := rapid.SampledFrom([]string{"", "1", "01", " 1 ", "0000", "unknown", "9434765919", "943 476 5919", "9434765918", "078-05-1120", "212-45-6789"})
	systems := rapid.SampledFrom([]string{"urn:mrn", "https://fhir.nhs.uk/Id/nhs-number", "http://hl7.org/fhir/sid/us-ssn", ""})
	d := drawn{
		strategy: cura.MatchStrategy{
			By:        rapid.SampledFrom([]cura.MatchBy{cura.MatchMRN, cura.MatchNationalID, cura.MatchCuraID}).Draw(t, "by"),
			System:    rapid.SampledFrom([]string{"urn:mrn", "https://fhir.nhs.uk/Id/nhs-number", "http://hl7.org/fhir/sid/us-ssn"}).Draw(t, "system"),
			Unmatched: rapid.SampledFrom([]cura.Unmatched{"", cura.UnmatchedNew, cura.UnmatchedReview}).Draw(t, "unmatched"),
		},
		patient: profile(births.Draw(t, "birth"), names.Draw(t, "family")),
	}
	if d.patient.Name != nil && rapid.Bool().Draw(t, "has a given name") {
		d.patient.Name.Given = []string{"Anna"}
	}
	for range rapid.IntRange(0, 5).Draw(t, "identifiers") {
		d.patient.Identifiers = append(d.patient.Identifiers, cura.Identifier{
			System: systems.Draw(t, "identifier system"), Value: values.Draw(t, "value"), Use: rapid.SampledFrom([]string{"", "usual", "old", "temp"}).Draw(t, "use"),
		})
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "candidates") {
		d.candidates = append(d.candidates, match.Candidate{
			Profile: cura.ProfileID(fmt.Sprintf("p%d", i)), BirthDate: births.Draw(t, "their birth"), Family: names.Draw(t, "their family"),
			Given:   rapid.SampledFrom([]string{"", "Anna", "Björn"}).Draw(t, "their given"),
			TakenBy: rapid.SampledFrom([]string{"", "", "", "other"}).Draw(t, "taken by"),
		})
	}
	return d
}

func (d drawn) decide() match.Decision {
	return match.Decide(d.patient, match.Keys(d.patient, d.strategy), d.strategy, d.candidates)
}

// TestTheOrderOfIdentifiersAndCandidatesDecidesNothing: servers give them in any.
func TestTheOrderOfIdentifiersAndCandidatesDecidesNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d := draw(t)
		before := d.decide()
		patient := *d.patient
		other := drawn{&patient, d.strategy, rapid.Permutation(d.candidates).Draw(t, "candidates in another order")}
		patient.Identifiers = rapid.Permutation(d.patient.Identifiers).Draw(t, "identifiers in another order")
		require.Equal(t, before, other.decide())
	})
}

// TestNobodyIsLinkedAgainstAContradiction: a link needs a key, one profile alone, which is nobody else's, and a birth date or a
// family name that agrees, with nothing against it.
func TestNobodyIsLinkedAgainstAContradiction(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d := draw(t)
		decision := d.decide()
		if decision.Outcome != match.Matched {
			require.Empty(t, decision.Profile)
			return
		}
		require.NotEmpty(t, match.Keys(d.patient, d.strategy))
		require.Len(t, d.candidates, 1)
		c := d.candidates[0]
		require.Equal(t, c.Profile, decision.Profile)
		require.Empty(t, c.TakenBy)
		if d.patient.BirthDate != nil && c.BirthDate != "" {
			short := min(len(d.patient.BirthDate.Text), len(c.BirthDate))
			require.Equal(t, d.patient.BirthDate.Text[:short], c.BirthDate[:short])
		} else {
			require.NotNil(t, d.patient.Name)
			require.NotEmpty(t, c.Family)
		}
	})
}

// TestAPolicyOfReviewNeverMakesAProfile whoever comes.
func TestAPolicyOfReviewNeverMakesAProfile(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d := draw(t)
		d.strategy.Unmatched = cura.UnmatchedReview
		require.NotEqual(t, match.New, d.decide().Outcome)
	})
}

// TestReasonsHoldNothingOfThePatient: they are shown, logged and kept.
func TestReasonsHoldNothingOfThePatient(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d := draw(t)
		reason := d.decide().Reason
		for _, phi := range []string{"1980", "1931", "ller", "Schulz", "Okafor", "Anna", "943", "078", "212"} {
			require.NotContains(t, reason, phi)
		}
	})
}

// BenchmarkDecide is what matching costs for one patient besides the look-up.
func BenchmarkDecide(b *testing.B) {
	patient := profile("1980-02-03", "Müller-Schulz",
		cura.Identifier{System: "urn:other", Value: "1"}, cura.Identifier{System: "https://fhir.nhs.uk/Id/nhs-number", Value: "943 476 5919"})
	nhs := cura.MatchStrategy{By: cura.MatchNationalID, System: "https://fhir.nhs.uk/Id/nhs-number"}
	candidates := []match.Candidate{{Profile: "p", BirthDate: "1980-02-03", Family: "Mueller Schulz"}}
	b.ReportAllocs()
	for b.Loop() {
		keys := match.Keys(patient, nhs)
		if d := match.Decide(patient, keys, nhs, candidates); d.Outcome != match.Matched || !slices.Equal(keys, []string{"943 476 5919"}) {
			b.Fatal(d.Reason)
		}
	}
}

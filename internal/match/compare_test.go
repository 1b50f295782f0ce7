package match_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/match"
)

func date(text string) *cura.Moment {
	start, _ := time.Parse(time.DateOnly, text)
	return &cura.Moment{Text: text, Precision: cura.PrecisionDay, Start: start, End: start.AddDate(0, 0, 1)}
}

// TestCompareSaysAllThereIs: each element of a profile, in words, beside one that says nothing.
func TestCompareSaysAllThereIs(t *testing.T) {
	t.Parallel()
	yes, no := true, false
	full := &cura.Profile{
		Name: &cura.Name{
			Display: "Dr. Ada M. Byron OBE", Use: "official", Prefix: []string{"Dr."}, Given: []string{"Ada", "M."}, Family: "Byron", Suffix: []string{"OBE"},
			Period: &cura.Period{Start: date("2001-01-01")},
		},
		OtherNames: []cura.Name{
			{Display: "Ada Noel", Given: []string{"Ada"}, Family: "Noel", Use: "maiden", Period: &cura.Period{End: date("2000-12-31")}},
			{Display: "Countess of Lovelace", Given: []string{"Ada"}},
		},
		BirthDate: date("1980-02-28"), Gender: "female", Deceased: &no, DeceasedAt: date("2050-01-01"), Active: &yes,
		Telecom: []cura.ContactPoint{
			{System: "phone", Value: "555 0100", Use: "home", Rank: 1}, {Value: "ada@example.org", System: "email"}, {System: "phone", Value: "555 0100", Use: "home", Rank: 1},
		},
		Addresses: []cura.Address{
			{Lines: []string{"1 Main St", "Flat 2"}, City: "Springfield", PostalCode: "12345", Use: "home", Period: &cura.Period{Start: date("2001-01-01"), End: date("2002-01-01")}},
			{Text: "c/o Babbage", City: "London", Type: "postal"},
		},
		Identifiers: []cura.Identifier{{System: "urn:mrn", Value: "0042", Use: "usual", Type: cura.Concept{Codings: []cura.Coding{{Code: "MR"}}}}},
		Links:       []cura.ProfileLink{{Type: "replaced-by", PatientEHRID: "p2", PatientBase: "https://ehr.example"}},
	}
	want := []match.Element{
		{Path: "name.display", EHR: "Dr. Ada M. Byron OBE"},
		{Path: "name.use", EHR: "official"},
		{Path: "name.prefix", EHR: "Dr."},
		{Path: "name.given", EHR: "Ada M."},
		{Path: "name.family", EHR: "Byron"},
		{Path: "name.suffix", EHR: "OBE"},
		{Path: "name.period", EHR: "since 2001-01-01"},
		{Path: "other_names", EHR: "Ada Noel (family Noel) (use maiden) (in force until 2000-12-31)\nCountess of Lovelace (given Ada)"},
		{Path: "birth_date", EHR: "1980-02-28"},
		{Path: "gender", EHR: "female"},
		{Path: "deceased", EHR: "no"},
		{Path: "deceased_at", EHR: "2050-01-01"},
		{Path: "active", EHR: "yes"},
		{Path: "telecom", EHR: "email ada@example.org\nphone 555 0100 (use home) (rank 1)"},
		{Path: "addresses", EHR: "1 Main St, Flat 2, Springfield, 12345 (use home) (in force 2001-01-01 to 2002-01-01)\nc/o Babbage (parts London) (type postal)"},
		{Path: "identifiers", EHR: "urn:mrn 0042 (type MR) (use usual)"},
		{Path: "links", EHR: "replaced-by p2 (at https://ehr.example)"},
	}
	for i := range want {
		want[i].Differs = true
	}
	require.Equal(t, want, match.Compare(full, nil))

	mirrored := match.Compare(nil, full)
	for i, e := range want {
		require.Equal(t, match.Element{Path: e.Path, Cura: e.EHR, Differs: true}, mirrored[i])
	}
	for _, e := range match.Compare(nil, &cura.Profile{Name: &cura.Name{}}) {
		require.Equal(t, match.Element{Path: e.Path}, e, "a side that is nil says as little as an empty one")
	}
}

func TestSameContent(t *testing.T) {
	t.Parallel()
	yes, no := true, false
	for name, tc := range map[string]struct {
		a, b cura.Profile
		same bool
	}{
		"nothing":           {cura.Profile{}, cura.Profile{}, true},
		"identifiers":       {cura.Profile{Identifiers: []cura.Identifier{{Value: "1"}}}, cura.Profile{}, true},
		"links":             {cura.Profile{Links: []cura.ProfileLink{{Type: "seealso"}}}, cura.Profile{}, true},
		"gender":            {cura.Profile{Gender: "other"}, cura.Profile{Gender: "unknown"}, false},
		"said and not said": {cura.Profile{Deceased: &no}, cura.Profile{}, false},
		"yes and no":        {cura.Profile{Active: &no}, cura.Profile{Active: &yes}, false},
		"a fuller date":     {cura.Profile{BirthDate: date("1980-02-28")}, cura.Profile{BirthDate: &cura.Moment{Text: "1980-02"}}, false},
		"order of entries": {
			cura.Profile{Telecom: []cura.ContactPoint{{Value: "1"}, {Value: "2"}}},
			cura.Profile{Telecom: []cura.ContactPoint{{Value: "2"}, {Value: "1"}}},
			true,
		},
		"the family's part of a former name": {
			cura.Profile{OtherNames: []cura.Name{{Display: "A B C", Given: []string{"A"}, Family: "B C"}}},
			cura.Profile{OtherNames: []cura.Name{{Display: "A B C", Given: []string{"A", "B"}, Family: "C"}}},
			false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tc.same, match.SameContent(&tc.a, &tc.b))
			require.Equal(t, tc.same, match.SameContent(&tc.b, &tc.a))
		})
	}
}

// anyProfile draws profiles that are often alike.
func anyProfile(t *rapid.T, label string) *cura.Profile {
	text := rapid.SampledFrom([]string{"", "a", "b", "a b"})
	some := rapid.SliceOfN(text, 0, 2)
	flag := rapid.SampledFrom([]*bool{nil, new(bool)})
	moment := func(name string) *cura.Moment {
		if text := text.Draw(t, label+name); text != "" {
			return &cura.Moment{Text: text}
		}
		return nil
	}
	name := func(name string) cura.Name {
		return cura.Name{
			Display: text.Draw(t, label+name+".display"), Use: text.Draw(t, label+name+".use"), Family: text.Draw(t, label+name+".family"),
			Given: some.Draw(t, label+name+".given"), Period: &cura.Period{Start: moment(name + ".start"), End: moment(name + ".end")},
		}
	}
	p := &cura.Profile{
		BirthDate: moment("birth"), Gender: text.Draw(t, label+"gender"), Deceased: flag.Draw(t, label+"deceased"), Active: flag.Draw(t, label+"active"),
		DeceasedAt: moment("deceased_at"),
	}
	if rapid.Bool().Draw(t, label+"named") {
		n := name("name")
		p.Name = &n
	}
	for range rapid.IntRange(0, 2).Draw(t, label+"entries") {
		p.OtherNames = append(p.OtherNames, name("other"))
		p.Telecom = append(p.Telecom, cura.ContactPoint{System: text.Draw(t, label+"system"), Value: text.Draw(t, label+"contact")})
		p.Addresses = append(p.Addresses, cura.Address{Text: text.Draw(t, label+"address"), Lines: some.Draw(t, label+"lines")})
		p.Identifiers = append(p.Identifiers, cura.Identifier{System: "s", Value: text.Draw(t, label+"identifier")})
		p.Links = append(p.Links, cura.ProfileLink{Type: "refer", PatientEHRID: text.Draw(t, label+"link")})
	}
	return p
}

func TestCompareProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyProfile(t, "a "), anyProfile(t, "b ")
		for _, e := range match.Compare(a, a) {
			require.False(t, e.Differs, e.Path)
			require.Equal(t, e.EHR, e.Cura)
		}
		shown := false
		turned := match.Compare(b, a)
		for i, e := range match.Compare(a, b) {
			shown = shown || e.Differs && !match.OfSource(e.Path)
			require.Equal(t, e.EHR != e.Cura, e.Differs)
			require.Equal(t, match.Element{Path: e.Path, EHR: e.Cura, Cura: e.EHR, Differs: e.Differs}, turned[i])
		}
		require.Equal(t, !shown, match.SameContent(a, b))
	})
}

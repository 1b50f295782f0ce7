package activities_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fhir"
	"github.com/cura-health/ehr-sync/internal/match"
	"github.com/cura-health/ehr-sync/internal/store"
)

const nhsSystem = "https://fhir.nhs.uk/Id/nhs-number"

// newMatching gives pages of patients of a connection that matches by strategy.
func newMatching(t *testing.T, strategy cura.MatchStrategy) *pages {
	t.Helper()
	p := newPages(t, cura.Patient)
	p.h.change(t, p.h.target, func(c *cura.Connection) { c.Match = strategy })
	p.Intake = activities.NewIntake(p.h.a, p.pass, p.h.target, p.h.connection(t))
	return p
}

// second are pages of another connection of the same hospital and strategy.
func (p *pages) second(t *testing.T) *pages {
	t.Helper()
	twin := p.h.twin(t)
	pass := store.Pass{Connection: twin.Connection, Type: cura.Patient, Run: p.h.beginFor(t, twin, cura.RunBackfill)}
	return &pages{p.h, pass, activities.NewIntake(p.h.a, pass, twin, p.h.connection(t))}
}

// numbered is a Patient with identifiers, given as system and value by turns.
func numbered(t *testing.T, id, family string, identifiers ...string) fhir.Entry {
	t.Helper()
	var list []string
	for pair := range slices.Chunk(identifiers, 2) {
		list = append(list, `{"system":"`+pair[0]+`","value":"`+pair[1]+`"}`)
	}
	return entry(t, `{"resourceType":"Patient","id":"`+id+`","birthDate":"1980-01-01","name":[{"family":"`+family+`"}],"identifier":[`+strings.Join(list, ",")+`]}`)
}

// TestAnIdentifierIsFoundInAnotherSpelling: one hospital writes an NHS number with blanks, another without.
func TestAnIdentifierIsFoundInAnotherSpelling(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ system, theirs, other, ours string }{
		"blanks in an NHS number":          {nhsSystem, "943 476 5919", nhsSystem, "9434765919"},
		"an NHS number without them":       {nhsSystem, "9434765919", nhsSystem, "943-476-5919"},
		"an SSN under its OID, and dashes": {"http://hl7.org/fhir/sid/us-ssn", "212-45-6789", "urn:oid:2.16.840.1.113883.4.1", "212456789"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newMatching(t, cura.MatchStrategy{By: cura.MatchNationalID, System: c.system})
			first := p.prepared(t, numbered(t, "p", "Müller", c.system, c.theirs))
			require.Equal(t, []store.Outcome{store.Stored}, p.settled(t, first))
			require.Equal(t, string(match.New), first[0].MatchedBy)
			p.write(t, first)

			second := p.second(t)
			theirs := second.prepared(t, numbered(t, "q", "Mueller", c.other, c.ours))
			// Both say nothing of when they were updated, so that a person decides whose version to show; but they were found.
			require.Equal(t, []store.Outcome{store.InReview}, second.settled(t, theirs))
			require.Equal(t, []cura.ProfileID{first[0].Profile}, theirs[0].Candidates)
			require.Contains(t, theirs[0].ReviewReason, "another source's version")
		})
	}
}

// TestWhoIsntFoundWaitsForAPersonByPolicy: with a usable identifier or without.
func TestWhoIsntFoundWaitsForAPersonByPolicy(t *testing.T) {
	t.Parallel()
	entries := func(t *testing.T) []fhir.Entry {
		t.Helper()
		return []fhir.Entry{
			numbered(t, "valid", "A", nhsSystem, "9434765919"), numbered(t, "mistyped", "B", nhsSystem, "9434765918"),
			numbered(t, "placeholder", "C", nhsSystem, "0000000000"), numbered(t, "none", "D"),
		}
	}
	reasons := []string{"no profile carries", "its national id isn't valid", "a placeholder that many share", "it has no national id"}
	t.Run("new", func(t *testing.T) {
		t.Parallel()
		p := newMatching(t, cura.MatchStrategy{By: cura.MatchNationalID, System: nhsSystem})
		items := p.prepared(t, entries(t)...)
		require.Equal(t, []store.Outcome{store.Stored, store.Stored, store.Stored, store.Stored}, p.settled(t, items))
		for i, keys := range [][]string{{"9434765919", "943 476 5919", "943-476-5919"}, nil, nil, nil} {
			require.Equal(t, keys, items[i].MatchKeys)
			require.Equal(t, string(match.New), items[i].MatchedBy)
		}
		p.write(t, items)
		require.EqualValues(t, 4, p.h.stored(t, "SELECT count(*) FROM cura.profiles"))
	})
	t.Run("review", func(t *testing.T) {
		t.Parallel()
		p := newMatching(t, cura.MatchStrategy{By: cura.MatchNationalID, System: nhsSystem, Unmatched: cura.UnmatchedReview})
		items := p.prepared(t, entries(t)...)
		require.Equal(t, []store.Outcome{store.InReview, store.InReview, store.InReview, store.InReview}, p.settled(t, items))
		for i, reason := range reasons {
			require.Contains(t, items[i].ReviewReason, reason)
			require.NotContains(t, items[i].ReviewReason, "943476")
		}
		p.write(t, items)
		require.Zero(t, p.h.stored(t, "SELECT count(*) FROM cura.profiles"))
	})
}

// TestTwoPatientsOfAPageNeverShareAProfile, by whichever of its identifiers each of them finds it.
func TestTwoPatientsOfAPageNeverShareAProfile(t *testing.T) {
	t.Parallel()
	p := newMatching(t, cura.MatchStrategy{By: cura.MatchMRN, System: "urn:mrn"})
	both := p.prepared(t, entry(t, `{"resourceType":"Patient","id":"p","meta":{"lastUpdated":"2026-01-01T00:00:00Z"},"birthDate":"1980-01-01",
		"name":[{"family":"A"}],"identifier":[{"system":"urn:mrn","value":"M1"},{"system":"urn:mrn","value":"M2"}]}`))
	require.Equal(t, []store.Outcome{store.Stored}, p.settled(t, both))
	p.write(t, both)

	second := p.second(t)
	page := func(id, mrn string) fhir.Entry {
		return entry(t, `{"resourceType":"Patient","id":"`+id+`","meta":{"lastUpdated":"2026-01-02T00:00:00Z"},"birthDate":"1980-01-01",
			"name":[{"family":"A"}],"identifier":[{"system":"urn:mrn","value":"`+mrn+`"}]}`)
	}
	items := second.prepared(t, page("x", "M1"), page("y", "M2"), page("z", "M3"), page("zz", "M3"))
	require.Equal(t, []store.Outcome{store.Stored, store.InReview, store.Stored, store.InReview}, second.settled(t, items))
	require.Equal(t, both[0].Profile, items[0].Profile)
	require.Equal(t, []cura.ProfileID{both[0].Profile}, items[1].Candidates)
	require.Equal(t, []cura.ProfileID{items[2].Profile}, items[3].Candidates)
	for _, it := range []store.Item{items[1], items[3]} {
		require.Contains(t, it.ReviewReason, "another patient of this connection")
	}
}

// TestNamesOfAProfileCount: by a maiden name that Cura keeps she is known; under another given name too it is somebody else.
func TestNamesOfAProfileCount(t *testing.T) {
	t.Parallel()
	person := func(id, birth, names string) fhir.Entry {
		return entry(t, `{"resourceType":"Patient","id":"`+id+`","meta":{"lastUpdated":"2026-01-0`+id+`T00:00:00Z"},`+birth+`"name":[`+names+`],"identifier":[{"system":"urn:mrn","value":"M1"}]}`)
	}
	for name, c := range map[string]struct {
		birth, ours, theirs string
		want                store.Outcome
	}{
		"a maiden name":               {``, `{"family":"Schulz"},{"use":"maiden","family":"Meyer"}`, `{"family":"Meyer"}`, store.Stored},
		"neither name":                {``, `{"family":"Schulz"},{"use":"maiden","family":"Meyer"}`, `{"family":"Vogt"}`, store.InReview},
		"a new name, the given stays": {`"birthDate":"1980-02-03",`, `{"family":"Meyer","given":["Anna"]}`, `{"family":"Vogt","given":["Anna"]}`, store.Stored},
		"another name altogether":     {`"birthDate":"1980-02-03",`, `{"family":"Meyer","given":["Anna"]}`, `{"family":"Vogt","given":["Björn"]}`, store.InReview},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newMatching(t, cura.MatchStrategy{By: cura.MatchMRN, System: "urn:mrn"})
			first := p.prepared(t, person("1", c.birth, c.ours))
			require.Equal(t, []store.Outcome{store.Stored}, p.settled(t, first))
			p.write(t, first)
			second := p.second(t)
			theirs := second.prepared(t, person("2", c.birth, c.theirs))
			require.Equal(t, []store.Outcome{c.want}, second.settled(t, theirs), theirs[0].ReviewReason)
		})
	}
}

package match_test

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/match"
)

const (
	nhs    = "https://fhir.nhs.uk/Id/nhs-number"
	ssn    = "http://hl7.org/fhir/sid/us-ssn"
	ssnOID = "urn:oid:2.16.840.1.113883.4.1"
	mbi    = "http://hl7.org/fhir/sid/us-mbi"
	npi    = "http://hl7.org/fhir/sid/us-npi"
)

func TestKeysAreExactValuesOfTheSystem(t *testing.T) {
	t.Parallel()
	got := match.Keys(profile("", "",
		cura.Identifier{System: "urn:mrn", Value: "  0012 "},
		cura.Identifier{System: "urn:mrn", Value: "12"},
		cura.Identifier{System: "urn:mrn", Value: "12", Use: "official"},
		cura.Identifier{System: "urn:mrn", Value: "a12"},
		cura.Identifier{System: "urn:mrn", Value: "A12"},
		cura.Identifier{System: "urn:MRN", Value: "98"},
		cura.Identifier{System: "urn:other", Value: "99"},
		cura.Identifier{Value: "97"},
		cura.Identifier{System: "urn:mrn", Value: ""},
		cura.Identifier{System: "urn:mrn", Value: "7", Use: "old"},
		cura.Identifier{System: "urn:mrn", Value: "8", Use: "temp"},
		cura.Identifier{System: "urn:mrn", Value: "000-00-0000"},
		cura.Identifier{System: "urn:mrn", Value: "999999"},
		cura.Identifier{System: "urn:mrn", Value: "Unknown"},
		cura.Identifier{System: "urn:mrn", Value: "0"},
	), mrn)
	require.Equal(t, []string{"0012", "12", "a12", "A12", "0"}, got, "leading zeros and case count; each value once; placeholders and retired ones never match")
}

// TestTheSystemTellsWhatAnIdentifierIs, not its type: EHRs code types as they like, or give words of their own alone.
func TestTheSystemTellsWhatAnIdentifierIs(t *testing.T) {
	t.Parallel()
	coded := func(code string) cura.Concept {
		return cura.Concept{Codings: []cura.Coding{{System: "http://terminology.hl7.org/CodeSystem/v2-0203", Code: code}}}
	}
	got := match.Keys(profile("", "",
		cura.Identifier{System: "urn:mrn", Value: "1", Type: coded("MR")},
		cura.Identifier{System: "urn:mrn", Value: "2", Type: cura.Concept{Text: "MRN"}},
		cura.Identifier{System: "urn:mrn", Value: "3", Type: cura.Concept{Text: "Medical record number"}},
		cura.Identifier{System: "urn:mrn", Value: "4", Type: coded("PI")},
		cura.Identifier{System: "urn:mrn", Value: "5"},
		cura.Identifier{System: "urn:clinic", Value: "6", Type: coded("MR")},
		cura.Identifier{Value: "7", Type: coded("MR")},
	), mrn)
	require.Equal(t, []string{"1", "2", "3", "4", "5"}, got)
	require.Empty(t, match.Keys(profile("", "", cura.Identifier{Value: "7"}), cura.MatchStrategy{By: cura.MatchMRN}), "no system is no system")
}

func TestAnIdentifierWhosePeriodHasEndedIsNoKey(t *testing.T) {
	t.Parallel()
	day := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	until := &cura.Period{End: &cura.Moment{Text: "2026-03-01", Start: day, End: day.AddDate(0, 0, 1)}}
	p := profile("", "", cura.Identifier{System: "urn:mrn", Value: "1", Period: until}, cura.Identifier{System: "urn:mrn", Value: "2", Period: &cura.Period{}})
	require.Equal(t, []string{"1", "2"}, match.KeysAt(p, mrn, day.Add(23*time.Hour)), "the last day counts")
	require.Equal(t, []string{"2"}, match.KeysAt(p, mrn, day.AddDate(0, 0, 1)))
	require.Equal(t, []string{"1", "2"}, match.Keys(p, mrn), "who doesn't know the time can't tell")
}

func TestPlaceholdersAreNoKeys(t *testing.T) {
	t.Parallel()
	for value, usable := range map[string]bool{
		"000": false, "0000000": false, "999-99-9999": false, "11111": false, "22222222": false, "123456789": false, "1234567": false,
		"0123456789": false, "1234567890": false, "987654321": false, "12345-6789": false, "unknown": false, "UNK": false, "None": false,
		"N/A": false, "n.a.": false, "null": false, "not available": false, "-": false, "---": false, "?": false, "***-**-1234": false,
		"xxx-xx-0000": false, "XXXXXXX": false,
		"0": true, "00": true, "7": true, "111": true, "100": true, "12345": true, "001234567": true, "Z6129": true, "E1": true, "NA1": true,
		"1234568": true, "xxx": true,
	} {
		keys := match.Keys(profile("", "", cura.Identifier{System: "urn:mrn", Value: value}), mrn)
		require.Equal(t, usable, len(keys) == 1, "%q", value)
	}
}

// TestKeysLeaveOutWhatIsNotStoredForLookUp: nobody would find the profile by it the next time.
func TestKeysLeaveOutWhatIsNotStoredForLookUp(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("x", match.MaxIdentifier-len("urn:mrn")-1) + "y"
	got := match.Keys(profile("", "",
		cura.Identifier{System: "urn:mrn", Value: longest},
		cura.Identifier{System: "urn:mrn", Value: longest + "x"},
		cura.Identifier{System: "urn:mrn", Value: longest[1:] + "ä"},
		cura.Identifier{System: "urn:mrn", Value: longest[1:] + "  "},
		cura.Identifier{System: "urn:mrn", Value: "a\x00b"},
		cura.Identifier{System: "urn:mrn", Value: "a\xffb"},
	), mrn)
	require.Equal(t, []string{longest}, got)
}

// TestNationalIdsKeepToTheirForm: what a registry never gives to anybody is a slip of the hand, or made up.
func TestNationalIdsKeepToTheirForm(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		system, value string
		usable        bool
	}{
		"NHS number":                       {nhs, "9434765919", true},
		"NHS number with blanks":           {nhs, "943 476 5919", true},
		"NHS number with dashes":           {nhs, "943-476-5919", true},
		"NHS number with blanks around":    {nhs, "  9434765919 ", true},
		"NHS number, kept for tests":       {nhs, "9990000018", true},
		"NHS number, the check digit is 0": {nhs, "4010232137", true},
		"NHS number, mistyped":             {nhs, "9434765918", false},
		"NHS number, two digits swapped":   {nhs, "9434756919", false},
		"NHS number, the check is 10":      {nhs, "1000000010", false},
		"NHS number, too short":            {nhs, "943476591", false},
		"NHS number, too long":             {nhs, "94347659190", false},
		"NHS number, letters":              {nhs, "943476591A", false},
		"NHS number, digits of elsewhere":  {nhs, "٩٤٣٤٧٦٥٩١٩", false},
		"NHS number, one digit throughout": {nhs, "1111111111", false},
		"SSN":                              {ssn, "212-45-6789", true},
		"SSN without dashes":               {ssn, "212456789", true},
		"SSN by its OID":                   {ssnOID, "212-45-6789", true},
		"SSN of area 000":                  {ssn, "000-45-6789", false},
		"SSN of area 666":                  {ssn, "666-45-6789", false},
		"SSN of area 899, the last":        {ssn, "899-45-6789", true},
		"SSN of area 900, the first ITIN":  {ssn, "900-70-6789", false},
		"SSN of area 999":                  {ssn, "999-45-6789", false},
		"SSN of group 00":                  {ssn, "212-00-6789", false},
		"SSN of serial 0000":               {ssn, "212-45-0000", false},
		"SSN of a wallet":                  {ssn, "078-05-1120", false},
		"SSN of a pamphlet":                {ssn, "219-09-9999", false},
		"SSN of a keyboard":                {ssn, "123-45-6789", false},
		"SSN, masked":                      {ssn, "xxx-xx-6789", false},
		"SSN, its last four digits":        {ssn, "6789", false},
		"MBI":                              {mbi, "2TE4TE5MK73", true},
		"MBI with dashes, in small":        {mbi, "2te4-te5-mk73", true},
		"MBI with a letter it never has":   {mbi, "2SE4TE5MK73", false},
		"MBI beginning with 0":             {mbi, "0TE4TE5MK73", false},
		"MBI of the specimen card":         {mbi, "1EG4-TE5-MK73", false},
		"NPI, a doctor's":                  {npi, "1234567893", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			strategy := cura.MatchStrategy{By: cura.MatchNationalID, System: c.system}
			p := profile("1980-02-03", "Meyer", cura.Identifier{System: c.system, Value: c.value})
			keys := match.Keys(p, strategy)
			require.Equal(t, c.usable, len(keys) == 1)
			d := match.Decide(p, keys, strategy, nil)
			require.Equal(t, match.New, d.Outcome)
			require.NotContains(t, d.Reason, strings.TrimSpace(c.value))
		})
	}
}

// TestNobodyIsMatchedByWhatIsNoKey, whoever carries the same; the reason says what is wrong, of several identifiers what comes
// nearest to being right.
func TestNobodyIsMatchedByWhatIsNoKey(t *testing.T) {
	t.Parallel()
	twin := []match.Candidate{{Profile: "p", BirthDate: "1980-02-03", Family: "Meyer"}}
	ended := &cura.Period{End: &cura.Moment{Text: "2009", End: time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC)}}
	for name, c := range map[string]struct {
		identifiers []cura.Identifier
		because     string
	}{
		"none":                         {nil, "it has no national id of the system"},
		"of another system":            {[]cura.Identifier{{System: "urn:mrn", Value: "1"}}, "it has no national id of the system"},
		"without a value":              {[]cura.Identifier{{System: nhs}}, "its national id has no value"},
		"too long":                     {[]cura.Identifier{{System: nhs, Value: strings.Repeat("1", 2000)}}, "its national id is too long"},
		"old":                          {[]cura.Identifier{{System: nhs, Value: "9434765919", Use: "old"}}, "its national id isn't in force"},
		"ended":                        {[]cura.Identifier{{System: nhs, Value: "9434765919", Period: ended}}, "its national id isn't in force"},
		"a placeholder":                {[]cura.Identifier{{System: nhs, Value: "0000000000"}}, "its national id is a placeholder"},
		"invalid":                      {[]cura.Identifier{{System: nhs, Value: "9434765918"}}, "its national id isn't valid"},
		"invalid and old":              {[]cura.Identifier{{System: nhs, Value: "9434765918", Use: "old"}}, "its national id isn't valid"},
		"a placeholder and an old one": {[]cura.Identifier{{System: nhs, Value: "9434765919", Use: "old"}, {System: nhs, Value: "unknown"}}, "its national id is a placeholder"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := profile("1980-02-03", "Meyer", c.identifiers...)
			for policy, want := range map[cura.Unmatched]match.Outcome{cura.UnmatchedNew: match.New, cura.UnmatchedReview: match.Ambiguous} {
				strategy := cura.MatchStrategy{By: cura.MatchNationalID, System: nhs, Unmatched: policy}
				d := match.Decide(p, match.KeysAt(p, strategy, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)), strategy, twin)
				require.Equal(t, want, d.Outcome)
				require.Contains(t, d.Reason, c.because)
			}
		})
	}
}

// TestSpellings: what a system's own form makes equal is found whoever wrote it how; of other systems nothing is equal.
func TestSpellings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		system, value string
		want          []string
	}{
		{"urn:mrn", "0012-34", []string{"0012-34"}},
		{nhs, "943 476 5919", []string{"9434765919", "943 476 5919", "943-476-5919"}},
		{nhs, "94347 65919", []string{"9434765919", "943 476 5919", "943-476-5919", "94347 65919"}},
		{ssn, "212-45-6789", []string{"212456789", "212 45 6789", "212-45-6789"}},
		{mbi, "2te4te5mk73", []string{"2TE4TE5MK73", "2TE4 TE5 MK73", "2TE4-TE5-MK73", "2te4te5mk73"}},
		{nhs, "none of these", []string{"none of these"}},
	} {
		require.Equal(t, c.want, match.Spellings(c.system, c.value))
	}
	require.Equal(t, []string{"urn:mrn"}, match.Systems("urn:mrn"))
	require.Equal(t, []string{ssnOID, ssn}, match.Systems(ssnOID), "the URI and the OID name one system")

	twice := profile("", "", cura.Identifier{System: nhs, Value: "943 476 5919"}, cura.Identifier{System: nhs, Value: "9434765919"})
	require.Equal(t, []string{"943 476 5919"}, match.Keys(twice, cura.MatchStrategy{By: cura.MatchNationalID, System: nhs}), "one key")
	byOID := profile("", "", cura.Identifier{System: ssnOID, Value: "212456789"})
	require.Equal(t, []string{"212456789"}, match.Keys(byOID, cura.MatchStrategy{By: cura.MatchNationalID, System: ssn}))
}

// FuzzKeys: whatever an EHR writes, a key is a value that can be stored and found again.
func FuzzKeys(f *testing.F) {
	for _, system := range []string{"urn:mrn", nhs, ssn, ssnOID, mbi, npi, ""} {
		for _, value := range []string{"", " 0012 ", "943 476 5919", "212-45-6789", "2TE4-TE5-MK73", "---", "xxx-xx-0000", "\x00", "\xff", "ſ", "É"} {
			f.Add(system, value, "usual")
		}
	}
	f.Fuzz(func(t *testing.T, system, value, use string) {
		strategy := cura.MatchStrategy{By: cura.MatchNationalID, System: system}
		of := func(value string) []string {
			return match.Keys(profile("", "", cura.Identifier{System: system, Value: value, Use: use}), strategy)
		}
		keys := of(value)
		require.LessOrEqual(t, len(keys), 1)
		for _, key := range keys {
			require.Equal(t, strings.TrimSpace(value), key)
			require.NotEmpty(t, key)
			require.True(t, utf8.ValidString(key))
			require.NotContains(t, key, "\x00")
			spellings := match.Spellings(system, key)
			require.Contains(t, spellings, key)
			for _, spelling := range spellings {
				require.Len(t, of(spelling), 1, "every spelling of a key is one")
				require.Equal(t, spellings[0], match.Spellings(system, spelling)[0], "and of the same")
			}
		}
		d := match.Decide(profile("", ""), keys, strategy, nil)
		require.Equal(t, match.New, d.Outcome)
	})
}

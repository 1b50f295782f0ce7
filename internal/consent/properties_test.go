package consent_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cura-health/ehr-sync/internal/consent"
	"github.com/cura-health/ehr-sync/internal/cura"
)

// element draws one value of each dimension, of which some can't be evaluated.
func element(name string) *rapid.Generator[any] {
	values := map[string][]string{
		"period":        {`{"start":"2026-03-10"}`, `{"end":"2026-03-09"}`, `{"start":"2026-03-12","end":"2026-03-14"}`, `{"start":"x"}`},
		"actor":         {`[{"role":{"coding":[{"system":"$ROLE","code":"IRCP"}]}}]`, `[{"role":{"coding":[{"system":"$ROLE","code":"IRCP"}]},"reference":{"reference":"Organization/2"}}]`},
		"action":        {`[{"coding":[{"system":"$ACTION","code":"disclose"}]}]`, `[{"coding":[{"system":"$ACTION","code":"collect"}]}]`, `[{"text":"x"}]`},
		"securityLabel": {`[{"system":"$LABEL","code":"ETH"}]`, `[{"system":"$LABEL","code":"HIV"}]`, `[{"system":"$LEVEL","code":"N"},{"system":"$LEVEL","code":"R"}]`, `[{"system":"x","code":"x"}]`},
		"purpose":       {`[{"system":"$PURPOSE","code":"TREAT"}]`, `[{"system":"$PURPOSE","code":"HPAYMT"}]`, `[{"system":"$PURPOSE","code":"x"}]`},
		"class":         {`[{"system":"$TYPES","code":"DocumentReference"}]`, `[{"system":"$TYPES","code":"Condition"}]`, `[{"system":"$TYPES","code":"x"}]`},
		"data":          {`[{"meaning":"instance","reference":{"reference":"Condition/1"}}]`},
		"unknown":       {`1`},
	}[name]
	return rapid.Custom(func(t *rapid.T) any {
		var value any
		if err := json.Unmarshal([]byte(systems().Replace(rapid.SampledFrom(values).Draw(t, name))), &value); err != nil {
			panic(err)
		}
		return value
	})
}

// provision draws a provision, some levels deep.
func provision(levels int) *rapid.Generator[map[string]any] {
	return rapid.Custom(func(t *rapid.T) map[string]any {
		p := map[string]any{}
		if typ := rapid.SampledFrom([]string{"permit", "deny", "permit", "deny", ""}).Draw(t, "type"); typ != "" {
			p["type"] = typ
		}
		names := []string{"period", "actor", "action", "securityLabel", "purpose", "class", "class", "data", "unknown"}
		for _, name := range rapid.SliceOfN(rapid.SampledFrom(names), 0, 2).Draw(t, "names") {
			p[name] = element(name).Draw(t, "value")
		}
		if levels > 0 {
			var nested []any
			for _, child := range rapid.SliceOfN(provision(levels-1), 0, 3).Draw(t, "nested") {
				nested = append(nested, child)
			}
			if nested != nil {
				p["provision"] = nested
			}
		}
		return p
	})
}

// situation is a request, the consents about it, and the provisions that these hold.
type situation struct {
	request    consent.Request
	provisions []map[string]any
	policies   []string
}

func situations() *rapid.Generator[situation] {
	return rapid.Custom(func(t *rapid.T) situation {
		s := situation{request: note(), provisions: rapid.SliceOfN(provision(2), 1, 3).Draw(t, "provisions")}
		s.request.Labels = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"N", "R", "ETH", "SUD", "HIV"}), 0, 2, rapid.ID[string]).Draw(t, "labels")
		s.request.Part2 = rapid.IntRange(0, 4).Draw(t, "part2") == 0
		for range s.provisions {
			s.policies = append(s.policies, rapid.SampledFrom([]string{"OPTIN", "OPTOUT", ""}).Draw(t, "policy"))
		}
		return s
	})
}

func (s situation) consents() []consent.Consent {
	var all []consent.Consent
	for i, p := range s.provisions {
		raw, err := json.Marshal(p)
		if err != nil {
			panic(err)
		}
		all = append(all, active(strconv.Itoa(i+1), s.policies[i], string(raw)))
	}
	return all
}

func (s situation) decide(at time.Time) consent.Decision {
	return consent.Decide(s.request, s.consents(), at)
}

// all lists a provision and those within it.
func all(p map[string]any) []map[string]any {
	list := []map[string]any{p}
	nested, _ := p["provision"].([]any)
	for _, item := range nested {
		if child, isObject := item.(map[string]any); isObject {
			list = append(list, all(child)...)
		}
	}
	return list
}

// TestADenialNeverAllows: a denial added anywhere, as a consent or as an exception, never turns a no into a yes.
func TestADenialNeverAllows(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := situations().Draw(t, "situation")
		before := s.decide(noon())
		denial := map[string]any{"type": "deny"}
		if rapid.Bool().Draw(t, "limited") {
			denial["class"] = element("class").Draw(t, "class")
		}
		if rapid.Bool().Draw(t, "as a consent") {
			s.provisions = append(s.provisions, denial)
			s.policies = append(s.policies, "")
		} else {
			var places []map[string]any
			for _, p := range s.provisions {
				places = append(places, all(p)...)
			}
			place := rapid.SampledFrom(places).Draw(t, "place")
			nested, _ := place["provision"].([]any)
			place["provision"] = append(nested, denial)
		}
		if s.decide(noon()).Allow {
			require.True(t, before.Allow, "%+v", before.Rules)
		}
	})
}

// TestADenialOfEverythingDenies, whatever else there is.
func TestADenialOfEverythingDenies(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := situations().Draw(t, "situation")
		s.provisions, s.policies = append(s.provisions, map[string]any{"type": "deny"}), append(s.policies, "")
		require.Equal(t, consent.Denied, s.decide(noon()).Code)
	})
}

// TestOrderDoesNotMatter: neither that of consents nor that of provisions.
func TestOrderDoesNotMatter(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := situations().Draw(t, "situation")
		want := s.decide(noon())
		for _, root := range s.provisions {
			for _, p := range all(root) {
				if nested, isList := p["provision"].([]any); isList {
					p["provision"] = rapid.Permutation(nested).Draw(t, "provisions")
				}
			}
		}
		consents := rapid.Permutation(s.consents()).Draw(t, "consents")
		got := consent.Decide(s.request, consents, noon())
		want.Rules, got.Rules = nil, nil
		require.Equal(t, want, got)
	})
}

// TestWhatCanNotBeEvaluatedNeverAllows: what nobody understands, put anywhere, never turns a no into a yes.
func TestWhatCanNotBeEvaluatedNeverAllows(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := situations().Draw(t, "situation")
		before := s.decide(noon())
		var places []map[string]any
		for _, p := range s.provisions {
			places = append(places, all(p)...)
		}
		place := rapid.SampledFrom(places).Draw(t, "place")
		place[rapid.SampledFrom([]string{"modifierExtension", "newElement", "_type"}).Draw(t, "name")] = []any{}
		after := s.decide(noon())
		if after.Allow {
			require.True(t, before.Allow, "%+v", before.Rules)
		}
	})
}

// TestNothingChangesBeforeUntil: a decision holds until the instant that it names, and every decision until Next.
func TestNothingChangesBeforeUntil(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := situations().Draw(t, "situation")
		now := s.decide(noon())
		later := noon().Add(time.Duration(rapid.Int64Range(0, int64(10*24*time.Hour)).Draw(t, "later")))
		next := consent.Next(s.consents(), noon())
		if now.Until.IsZero() || later.Before(now.Until) {
			require.Equal(t, now.Code, s.decide(later).Code)
		}
		if next.IsZero() || later.Before(next) {
			require.Equal(t, now.Code, s.decide(later).Code)
		} else {
			require.True(t, next.After(noon()))
		}
	})
}

// TestWithoutConsentsNothingIsAllowed.
func TestWithoutConsentsNothingIsAllowed(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := situations().Draw(t, "situation")
		s.provisions = nil
		require.Equal(t, consent.NoConsent, s.decide(noon()).Code)
	})
}

// FuzzDecide: whatever stands in a provision, nothing panics, no text of it is shown, and it is only a permit in words that
// every reader of JSON takes for one that allows.
func FuzzDecide(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("testdata", "hl7-*.json"))
	require.NoError(f, err)
	require.NotEmpty(f, files)
	for _, file := range files {
		raw, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add([]byte(read(f, "1", string(raw)).Entry.Provision), "OPTIN", "ETH")
	}
	for _, p := range []string{
		`{"type":"permit"}`, `{"type":"permit","type":"deny"}`, `{"Type":"permit"}`, nested(17), `{"type":"permit","provision":[{"type":"deny"}]}`,
		systems().Replace(`{"type":"permit","securityLabel":[{"system":"$LABEL","code":"ETH"}],"period":{"end":"9999-12-31"}}`),
		string(consent.Grant(consent.Terms{From: noon(), Labels: []string{"R"}, Kinds: []cura.ArtefactKind{cura.Note}}).Provision),
		`{"type":"permit","data":[{}]}`, `{"type":"permit","period":{"start":"2026-03-10T24:00:00Z"}}`, `nul`, "\xff", `{"provision":[[]]}`,
	} {
		f.Add([]byte(p), "", "R")
	}
	f.Fuzz(func(t *testing.T, raw []byte, policy, label string) {
		c := active("1", policy, "")
		c.Entry.Provision = raw
		for _, r := range []consent.Request{note(), labelled(note(), label), pull(cura.Observation)} {
			d := consent.Decide(r, []consent.Consent{c}, noon())
			require.Equal(t, d.Code == consent.Permitted, d.Allow)
			require.NotEmpty(t, d.Reason)
			if !d.Until.IsZero() {
				require.True(t, d.Until.After(noon()))
			}
			if d.Allow {
				require.True(t, len(raw) == 0 || json.Valid(raw))
				require.True(t, policy == "OPTIN" || bytes.Contains(unescaped(raw), []byte("permit")))
			}
			require.Equal(t, d, consent.Decide(r, []consent.Consent{c}, noon()), "it is pure")

			// Nothing that is added to it takes a denial, a withdrawal or a modifier away.
			deny := active("2", "", `{"type":"deny"}`)
			require.Equal(t, consent.Denied, consent.Decide(r, []consent.Consent{c, deny}, noon()).Code)
			modified := c
			modified.ModifierExtension = true
			require.False(t, consent.Decide(r, []consent.Consent{modified}, noon()).Allow)
			withdrawn := c
			withdrawn.Entry.Status = "inactive"
			require.Equal(t, consent.NotActive, consent.Decide(r, []consent.Consent{withdrawn}, noon()).Code)

			// It is shown only in the words of the package.
			for _, rule := range d.Rules {
				require.True(t, slices.Contains([]string{"", "permit", "deny", "unknown"}, rule.Effect))
				require.LessOrEqual(t, len(rule.Why), 80)
			}
		}
	})
}

// unescaped is JSON with its escapes resolved: "permi\u0074" is a permit.
func unescaped(raw []byte) []byte {
	var value any
	if json.Unmarshal(raw, &value) != nil {
		return nil
	}
	return fmt.Appendf(nil, "%v", value)
}

package consent_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/consent"
	"github.com/cura-health/ehr-sync/internal/cura"
)

// TestLabels: a bare permit isn't enough for what is sensitive.
func TestLabels(t *testing.T) {
	t.Parallel()
	part2 := func(r consent.Request) consent.Request {
		r.Part2 = true
		return r
	}
	naming := func(codings string) string {
		return `{"type":"permit","provision":[{"type":"permit","securityLabel":[` + codings + `]}]}`
	}
	denying := func(codings string) string {
		return `{"type":"permit","provision":[{"type":"deny","securityLabel":[` + codings + `]}]}`
	}
	const (
		bare = `{"type":"permit"}`
		eth  = `{"system":"$LABEL","code":"ETH"}`
		hiv  = `{"system":"$LABEL","code":"HIV"}`
		psy  = `{"system":"$LABEL","code":"PSY"}`
		n    = `{"system":"$LEVEL","code":"N"}`
		r    = `{"system":"$LEVEL","code":"R"}`
		v    = `{"system":"$LEVEL","code":"V"}`
	)
	for _, tt := range []struct {
		name, provision string
		request         consent.Request
		want            consent.Code
	}{
		{"normal", bare, labelled(note(), "N"), consent.Permitted},
		{"less than normal", bare, labelled(note(), "L"), consent.Permitted},
		{"restricted", bare, labelled(note(), "R"), consent.Sensitive},
		{"very restricted", bare, labelled(note(), "V"), consent.Sensitive},
		{"a label", bare, labelled(note(), "SDV"), consent.Sensitive},
		{"a label that isn't known", bare, labelled(note(), "XYZ"), consent.Sensitive},
		{"psychotherapy", bare, labelled(note(), "PSYTHPN"), consent.Psychotherapy},
		{"of several the hardest", bare, part2(labelled(note(), "HIV", "PSYTHPN")), consent.Psychotherapy},

		{"named", naming(eth), labelled(note(), "ETH"), consent.Permitted},
		{"and what has no label is permitted as before", naming(eth), note(), consent.Permitted},
		{"another is named", naming(eth), labelled(note(), "HIV"), consent.Sensitive},
		{"each must be", naming(eth), labelled(note(), "ETH", "HIV"), consent.Sensitive},
		{"together", naming(eth + "," + hiv), labelled(note(), "ETH", "HIV"), consent.Permitted},
		{"by two provisions", `{"type":"permit","provision":[{"type":"permit","securityLabel":[` + eth + `]},{"type":"permit","securityLabel":[` + hiv + `]}]}`, labelled(note(), "ETH", "HIV"), consent.Permitted},
		{"by the root", `{"type":"permit","securityLabel":[` + eth + `]}`, labelled(note(), "ETH"), consent.Permitted},
		{"by the root, which then is about nothing else", `{"type":"permit","securityLabel":[` + eth + `]}`, note(), consent.NoMatchingProvision},
		{"by a permit around the one that decides", `{"type":"permit","securityLabel":[` + eth + `],"provision":[{"type":"permit"}]}`, labelled(note(), "ETH"), consent.Permitted},
		{"not by one that a denial has taken back", `{"type":"permit","securityLabel":[` + eth + `],"provision":[{"type":"deny","provision":[{"type":"permit"}]}]}`, labelled(note(), "ETH"), consent.Sensitive},
		{"not by a permit of something else", `{"type":"permit","provision":[{"type":"permit","securityLabel":[` + eth + `],"class":[{"system":"$TYPES","code":"Condition"}]}]}`, labelled(note(), "ETH"), consent.Sensitive},
		{"not by one that can't be evaluated", `{"type":"permit","provision":[{"type":"permit","securityLabel":[` + eth + `],"action":[{"text":"fax"}]}]}`, labelled(note(), "ETH"), consent.Sensitive},
		{"a level", naming(r), labelled(note(), "R"), consent.Permitted},
		{"the level above isn't named by it", naming(r), labelled(note(), "V"), consent.Sensitive},
		{"psychiatry doesn't name psychotherapy", naming(psy), labelled(note(), "PSYTHPN"), consent.Psychotherapy},
		{"psychotherapy named itself", naming(`{"system":"$LABEL","code":"PSYTHPN"}`), labelled(note(), "PSYTHPN"), consent.Permitted},
		{"a code of another system names nothing", naming(`{"system":"urn:local","code":"ETH"}`), labelled(note(), "ETH"), consent.Sensitive},
		{"nor one of none", naming(`{"code":"ETH"}`), labelled(note(), "ETH"), consent.Sensitive},

		{"42 CFR Part 2: what has no label inherits it", bare, part2(note()), consent.Part2},
		{"a label doesn't take it away", naming(hiv), part2(labelled(note(), "HIV")), consent.Part2},
		{"nor does a normal one", bare, part2(labelled(note(), "N")), consent.Part2},
		{"named by its subject", naming(eth), part2(note()), consent.Permitted},
		{"named as the law", naming(`{"system":"$LABEL","code":"42CFRPart2"}`), part2(note()), consent.Permitted},
		{"a label under it must be named as well", naming(eth), part2(labelled(note(), "HIV")), consent.Sensitive},
		{"a denial of its subject", denying(eth), part2(note()), consent.Denied},

		{"denied", denying(eth), labelled(note(), "ETH"), consent.Denied},
		{"denied, and it hasn't that label", denying(eth), note(), consent.Permitted},
		{"a label that overlaps", denying(eth), labelled(note(), "SUD"), consent.CannotEvaluate},
		{"a label that isn't known", denying(`{"system":"$LABEL","code":"XYZ"}`), note(), consent.CannotEvaluate},
		{"which the content has", denying(`{"system":"$LABEL","code":"XYZ"}`), labelled(note(), "XYZ"), consent.Denied},
		{"of a system that isn't known", denying(`{"system":"urn:local","code":"x"}`), note(), consent.CannotEvaluate},
		{"a label of the content that isn't known may be it", denying(eth), labelled(note(), "XYZ"), consent.CannotEvaluate},
		{"a level denied", denying(r), labelled(note(), "R"), consent.Denied},
		{"and the level above", denying(r), labelled(note(), "V"), consent.CannotEvaluate},
		{"but not those below", denying(v), labelled(note(), "N"), consent.Permitted},
		{"what has no label is normal", denying(n), note(), consent.Denied},
		{"what is sensitive may be restricted", denying(r), labelled(note(), "HIV"), consent.CannotEvaluate},
		{"a permit of what is normal", `{"type":"permit","securityLabel":[` + n + `]}`, note(), consent.Permitted},
		{"is none of what is sensitive", `{"type":"permit","securityLabel":[` + n + `]}`, labelled(note(), "HIV"), consent.Sensitive},
		{"nor of what is restricted", `{"type":"permit","securityLabel":[` + n + `]}`, labelled(note(), "R"), consent.CannotEvaluate},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := consent.Decide(tt.request, []consent.Consent{active("1", "", tt.provision)}, noon())
			require.Equal(t, tt.want, d.Code, "%+v", d.Rules)
			require.Equal(t, tt.want == consent.Permitted, d.Allow)
		})
	}
}

// TestLabelsOfSeveralConsents: the proof is the consent that names the label, though an older one permits too.
func TestLabelsOfSeveralConsents(t *testing.T) {
	t.Parallel()
	bare := active("1", "", `{"type":"permit"}`)
	naming := active("2", "", `{"type":"permit","securityLabel":[{"system":"$LABEL","code":"SUD"}]}`)
	d := consent.Decide(labelled(note(), "SUD"), []consent.Consent{bare, naming}, noon())
	require.True(t, d.Allow)
	require.Equal(t, "2", d.ConsentID)
	hiv := active("3", "", `{"type":"permit","securityLabel":[{"system":"$LABEL","code":"HIV"}]}`)
	require.True(t, consent.Decide(labelled(note(), "SUD", "HIV"), []consent.Consent{naming, hiv}, noon()).Allow, "one names one, one the other")
	d = consent.Decide(labelled(note(), "HIV"), []consent.Consent{bare, naming}, noon())
	require.Equal(t, consent.Sensitive, d.Code)
	require.Empty(t, d.ConsentID)
	require.Equal(t, consent.Rule{Path: "securityLabel", Effect: "deny", Matched: true, Why: "no permit names HIV"}, d.Rules[len(d.Rules)-1])
}

// TestNotice: 42 CFR 2.32 has a statement and the consent's scope go along with each disclosure of such records.
func TestNotice(t *testing.T) {
	t.Parallel()
	from, until := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	granted := []consent.Consent{{ID: "31", Source: "cura", Entry: consent.Grant(consent.Terms{From: from, Until: until, Labels: []string{"SUD"}})}}
	d := consent.Decide(labelled(note(), "SUD"), granted, noon())
	require.True(t, d.Allow)
	require.Equal(t, `42 CFR part 2 prohibits unauthorized use or disclosure of these records.
Scope of the patient's consent (entry 31 of the consent log): it permits disclosing this note to this recipient for the purpose TREAT, as a record labelled SUD, from 2026-01-01T00:00:00Z, until 2027-01-01T00:00:00Z or until it is revoked.`, d.Notice)

	open := []consent.Consent{{ID: "32", Source: "cura", Entry: consent.Grant(consent.Terms{Labels: []string{"42CFRPart2"}})}}
	r := note()
	r.Part2 = true
	d = consent.Decide(r, open, noon())
	require.Equal(t, `42 CFR part 2 prohibits unauthorized use or disclosure of these records.
Scope of the patient's consent (entry 32 of the consent log): it permits disclosing this note to this recipient for the purpose TREAT, as a record labelled 42CFRPart2, until it is revoked.`, d.Notice)

	require.Empty(t, consent.Decide(note(), open, noon()).Notice, "of other records none")
	require.Empty(t, consent.Decide(labelled(note(), "SUD"), nil, noon()).Notice, "nothing goes out")
	r = pull(cura.Observation)
	r.Part2 = true
	d = consent.Decide(r, open, noon())
	require.True(t, d.Allow)
	require.Empty(t, d.Notice, "nothing goes out with a pull")
}

package consent_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/consent"
	"github.com/cura-health/ehr-sync/internal/cura"
)

// noon is when the tests decide, unless they say otherwise.
func noon() time.Time { return time.Date(2026, time.March, 10, 12, 0, 0, 0, time.UTC) }

// note asks for the disclosure of a progress note.
func note() consent.Request {
	return consent.Request{
		Action: consent.Disclose, Kind: cura.Note, Codes: []cura.Coding{{System: "http://loinc.org", Code: "11506-3"}}, DataFrom: noon(),
	}
}

// diagnosis asks for the disclosure of a diagnosis.
func diagnosis(icd string) consent.Request {
	return consent.Request{
		Action: consent.Disclose, Kind: cura.Diagnosis, Codes: []cura.Coding{{System: "http://hl7.org/fhir/sid/icd-10-cm", Code: icd}},
		DataFrom: noon(),
	}
}

// pull asks for a pull of types.
func pull(types ...cura.ResourceType) consent.Request {
	return consent.Request{Action: consent.Collect, Types: types}
}

// labelled adds sensitivity labels to a request.
func labelled(r consent.Request, labels ...string) consent.Request {
	r.Labels = labels
	return r
}

// resource is what the log keeps of an R4 Consent.
type resource struct {
	Status     string          `json:"status"`
	Scope      concept         `json:"scope"`
	PolicyRule concept         `json:"policyRule"`
	Provision  json.RawMessage `json:"provision"`
}

type concept struct {
	Coding []struct {
		System string `json:"system"`
		Code   string `json:"code"`
	} `json:"coding"`
}

func (c concept) cura() cura.Concept {
	var all cura.Concept
	for _, coding := range c.Coding {
		all.Codings = append(all.Codings, cura.Coding{System: coding.System, Code: coding.Code})
	}
	return all
}

// read reads a Consent in R4 JSON.
func read(t require.TestingT, id, raw string) consent.Consent {
	var r resource
	require.NoError(t, json.Unmarshal([]byte(raw), &r))
	return consent.Consent{ID: id, Source: "ehr", Entry: cura.ConsentEntry{
		Status: r.Status, Scope: r.Scope.cura(), PolicyRule: r.PolicyRule.cura(), Provision: r.Provision,
	}}
}

// active is an active privacy consent with a policy rule, which may be empty, and a provision in R4 JSON. In both,
// $NAME stands for a code system.
func active(id, policy, provision string) consent.Consent {
	c := consent.Consent{ID: id, Source: "ehr", Entry: cura.ConsentEntry{
		Status: "active", Scope: scope("patient-privacy"), Provision: json.RawMessage(systems().Replace(provision)),
	}}
	if policy != "" {
		c.Entry.PolicyRule = cura.Concept{Codings: []cura.Coding{{System: "http://terminology.hl7.org/CodeSystem/v3-ActCode", Code: policy}}}
	}
	return c
}

func scope(code string) cura.Concept {
	return cura.Concept{Codings: []cura.Coding{{System: "http://terminology.hl7.org/CodeSystem/consentscope", Code: code}}}
}

func systems() *strings.Replacer {
	const hl7 = "http://terminology.hl7.org/CodeSystem/"
	return strings.NewReplacer("$ACTION", hl7+"consentaction", "$LABEL", hl7+"v3-ActCode", "$LEVEL", hl7+"v3-Confidentiality",
		"$ROLE", hl7+"v3-ParticipationType", "$PURPOSE", hl7+"v3-ActReason", "$TYPES", "http://hl7.org/fhir/resource-types", "$LOINC", "http://loinc.org",
		"$ICD", "http://hl7.org/fhir/sid/icd-10-cm", "$SNOMED", "http://snomed.info/sct")
}

// TestRules goes through DOMAIN §7, a trap a line. Each consent is active, of patient-privacy, and has an id of its place.
func TestRules(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		policy    string
		provision string
		request   consent.Request
		want      consent.Code
	}{
		// Base rule
		{"the root's type, though R4 has none there", "", `{"type":"permit"}`, note(), consent.Permitted},
		{"the root's type denies", "", `{"type":"deny"}`, note(), consent.Denied},
		{"without one the policy rule: opted in", "OPTIN", `{}`, note(), consent.Permitted},
		{"opted out", "OPTOUT", `{}`, note(), consent.Denied},
		{"no provision at all", "OPTIN", ``, note(), consent.Permitted},
		{"the root's type goes before the policy rule", "OPTOUT", `{"type":"permit"}`, note(), consent.Permitted},
		{"neither", "", `{}`, note(), consent.CannotEvaluate},
		{"a policy rule that isn't known", "OPTINR", `{}`, note(), consent.CannotEvaluate},
		{"a type that isn't one", "OPTIN", `{"type":"Permit"}`, note(), consent.CannotEvaluate},

		// Exceptions
		{"a permit in an opt-out", "OPTOUT", `{"provision":[{"type":"permit","class":[{"system":"$TYPES","code":"DocumentReference"}]}]}`, note(), consent.Permitted},
		{"that is about something else", "OPTOUT", `{"provision":[{"type":"permit","class":[{"system":"$TYPES","code":"DocumentReference"}]}]}`, diagnosis("I10"), consent.Denied},
		{"a denial in an opt-in", "OPTIN", `{"provision":[{"type":"deny","class":[{"system":"$TYPES","code":"DocumentReference"}]}]}`, note(), consent.Denied},
		{"that is about something else", "OPTIN", `{"provision":[{"type":"deny","class":[{"system":"$TYPES","code":"DocumentReference"}]}]}`, diagnosis("I10"), consent.Permitted},
		{"the deepest decides", "OPTOUT", `{"provision":[{"type":"permit","provision":[{"type":"deny","provision":[{"type":"permit"}]}]}]}`, note(), consent.Permitted},
		{"among siblings a denial does", "OPTOUT", `{"provision":[{"type":"permit"},{"type":"deny"},{"type":"permit"}]}`, note(), consent.Denied},
		{"an exception to what doesn't match isn't reached", "OPTIN", `{"provision":[{"type":"permit","class":[{"system":"$TYPES","code":"Condition"}],"provision":[{"type":"deny"}]}]}`, note(), consent.Permitted},
		{"a nested provision without a type", "OPTIN", `{"provision":[{}]}`, note(), consent.CannotEvaluate},

		// What a root lists restricts what it says
		{"a permit of something else", "", `{"type":"permit","class":[{"system":"$TYPES","code":"Condition"}]}`, note(), consent.NoMatchingProvision},
		{"a denial of something else", "", `{"type":"deny","class":[{"system":"$TYPES","code":"Condition"}]}`, note(), consent.NoMatchingProvision},
		{"all that is listed must match", "", `{"type":"permit","class":[{"system":"$TYPES","code":"DocumentReference"}],"purpose":[{"system":"$PURPOSE","code":"HPAYMT"}]}`, note(), consent.NoMatchingProvision},
		{"one of each list is enough", "", `{"type":"permit","class":[{"system":"$TYPES","code":"Condition"},{"system":"$TYPES","code":"DocumentReference"}]}`, note(), consent.Permitted},

		// Period
		{"within", "", `{"type":"permit","period":{"start":"2026-03-10T12:00:00Z","end":"2026-03-10"}}`, note(), consent.Permitted},
		{"not yet", "", `{"type":"permit","period":{"start":"2026-03-10T12:00:01Z"}}`, note(), consent.NotYet},
		{"expired", "", `{"type":"permit","period":{"end":"2026-03-09"}}`, note(), consent.Expired},
		{"the end is within: a month", "", `{"type":"permit","period":{"end":"2026-03"}}`, note(), consent.Permitted},
		{"with a zone", "", `{"type":"permit","period":{"end":"2026-03-10T13:59:59+02:00"}}`, note(), consent.Expired},
		{"a denial expires as well", "", `{"type":"deny","period":{"end":"2026-03-09"}}`, note(), consent.Expired},
		{"of an exception", "OPTIN", `{"provision":[{"type":"deny","period":{"end":"2026-03-09"}}]}`, note(), consent.Permitted},
		{"one that can't be read permits nothing", "", `{"type":"permit","period":{"start":"10.03.2026"}}`, note(), consent.CannotEvaluate},
		{"and denies", "", `{"type":"deny","period":{"start":"10.03.2026"}}`, note(), consent.CannotEvaluate},
		{"that ends before it starts", "", `{"type":"permit","period":{"start":"2026-03-11","end":"2026-03-09"}}`, note(), consent.CannotEvaluate},
		{"to the minute", "", `{"type":"permit","period":{"end":"2026-03-10T12:00Z"}}`, note(), consent.Permitted},
		{"to a fraction of a second", "", `{"type":"permit","period":{"start":"2026-03-10T12:00:00.001Z"}}`, note(), consent.NotYet},
		{"beyond the calendar", "", `{"type":"permit","period":{"start":"9999-12-31T23:59:59.9999999Z"}}`, note(), consent.NotYet},
		{"a number", "", `{"type":"permit","period":{"start":2026}}`, note(), consent.CannotEvaluate},
		{"a text", "", `{"type":"permit","period":"2026"}`, note(), consent.CannotEvaluate},
		{"a time without a zone", "", `{"type":"permit","period":{"start":"2026-03-09T12:00:00"}}`, note(), consent.CannotEvaluate},
		{"a value that is masked", "", `{"type":"permit","period":{"_end":{"extension":[]}}}`, note(), consent.CannotEvaluate},

		// Action
		{"what is permitted is a disclosure", "", `{"type":"permit","action":[{"coding":[{"system":"$ACTION","code":"disclose"}]}]}`, note(), consent.Permitted},
		{"which isn't a pull", "", `{"type":"permit","action":[{"coding":[{"system":"$ACTION","code":"disclose"}]}]}`, pull(cura.Observation), consent.NoMatchingProvision},
		{"a pull", "", `{"type":"permit","action":[{"coding":[{"system":"$ACTION","code":"collect"}]}]}`, pull(cura.Observation), consent.Permitted},
		{"access alone permits neither", "", `{"type":"permit","action":[{"coding":[{"system":"$ACTION","code":"access"}]}]}`, note(), consent.CannotEvaluate},
		{"and denied it may deny both", "", `{"type":"deny","action":[{"coding":[{"system":"$ACTION","code":"access"}]}]}`, pull(cura.Observation), consent.CannotEvaluate},
		{"one that isn't known", "", `{"type":"permit","action":[{"coding":[{"system":"$ACTION","code":"sell"}]}]}`, note(), consent.CannotEvaluate},
		{"denied, one that isn't known", "OPTIN", `{"provision":[{"type":"deny","action":[{"coding":[{"system":"urn:local","code":"x"}]}]}]}`, note(), consent.CannotEvaluate},
		{"a purpose of another system", "OPTIN", `{"provision":[{"type":"deny","purpose":[{"system":"urn:local","code":"TREAT"}]}]}`, note(), consent.CannotEvaluate},
		{"in words alone", "OPTIN", `{"provision":[{"type":"deny","action":[{"text":"fax"}]}]}`, note(), consent.CannotEvaluate},
		{"without a system", "", `{"type":"permit","action":[{"coding":[{"code":"disclose"}]}]}`, note(), consent.CannotEvaluate},
		{"a permit that can't be told adds nothing to another", "OPTOUT", `{"provision":[{"type":"permit","action":[{"text":"fax"}]},{"type":"permit"}]}`, note(), consent.Permitted},

		// Purpose
		{"treatment, which is what is asked", "", `{"type":"permit","purpose":[{"system":"$PURPOSE","code":"TREAT"}]}`, note(), consent.Permitted},
		{"payment", "", `{"type":"permit","purpose":[{"system":"$PURPOSE","code":"HPAYMT"}]}`, note(), consent.NoMatchingProvision},
		{"emergencies alone", "", `{"type":"permit","purpose":[{"system":"$PURPOSE","code":"ETREAT"}]}`, note(), consent.CannotEvaluate},
		{"one that isn't known", "OPTIN", `{"provision":[{"type":"deny","purpose":[{"system":"$PURPOSE","code":"XYZ"}]}]}`, note(), consent.CannotEvaluate},

		// Class and code
		{"a kind of document", "OPTIN", `{"provision":[{"type":"deny","class":[{"system":"$LOINC","code":"11506-3"}]}]}`, note(), consent.Denied},
		{"another kind of document", "OPTIN", `{"provision":[{"type":"deny","class":[{"system":"$LOINC","code":"18842-5"}]}]}`, note(), consent.Permitted},
		{"one that may take it in", "OPTIN", `{"provision":[{"type":"deny","class":[{"system":"$LOINC","code":"34109-9"}]}]}`, note(), consent.CannotEvaluate},
		{"a class of another system", "OPTIN", `{"provision":[{"type":"deny","class":[{"system":"urn:ietf:bcp:13","code":"application/hl7-cda+xml"}]}]}`, note(), consent.CannotEvaluate},
		{"a resource type that R4 doesn't know", "OPTIN", `{"provision":[{"type":"deny","class":[{"system":"$TYPES","code":"ClinicalNote"}]}]}`, note(), consent.CannotEvaluate},
		{"a code of the content", "OPTIN", `{"provision":[{"type":"deny","code":[{"coding":[{"system":"$ICD","code":"F10.20"}]}]}]}`, diagnosis("F10.20"), consent.Denied},
		{"a code takes in those beneath it", "OPTIN", `{"provision":[{"type":"deny","code":[{"coding":[{"system":"$ICD","code":"F10"}]}]}]}`, diagnosis("F10.20"), consent.Denied},
		{"and content may mean one beneath", "OPTIN", `{"provision":[{"type":"deny","code":[{"coding":[{"system":"$ICD","code":"F10.20"}]}]}]}`, diagnosis("F10"), consent.CannotEvaluate},
		{"another edition of ICD may mean the same", "OPTIN", `{"provision":[{"type":"deny","code":[{"coding":[{"system":"http://hl7.org/fhir/sid/icd-10","code":"F10"}]}]}]}`, diagnosis("F10.20"), consent.CannotEvaluate},
		{"a code of another system in content that has some", "OPTIN", `{"provision":[{"type":"deny","code":[{"coding":[{"system":"$ICD","code":"F10"}]}]}]}`, note(), consent.Permitted},
		{"a code of no system means nothing, even where both have none", "OPTIN", `{"provision":[{"type":"deny","code":[{"coding":[{"code":"7"}]}]}]}`, consent.Request{Action: consent.Disclose, Kind: cura.Diagnosis, Codes: []cura.Coding{{Code: "7"}}}, consent.CannotEvaluate},
		{"a range isn't a code", "OPTIN", `{"provision":[{"type":"deny","code":[{"coding":[{"system":"$ICD","code":"F10-F19"}]}]}]}`, diagnosis("F10.20"), consent.CannotEvaluate},
		{"another code", "OPTIN", `{"provision":[{"type":"deny","code":[{"coding":[{"system":"$ICD","code":"F10.20"}]}]}]}`, diagnosis("I10"), consent.Permitted},
		{"of a system that isn't known", "OPTIN", `{"provision":[{"type":"deny","code":[{"coding":[{"system":"urn:local","code":"7"}]}]}]}`, diagnosis("I10"), consent.CannotEvaluate},
		{"the content's codes aren't known", "OPTIN", `{"provision":[{"type":"deny","code":[{"coding":[{"system":"$SNOMED","code":"7200002"}]}]}]}`, consent.Request{Action: consent.Disclose, Kind: cura.Note}, consent.CannotEvaluate},
		{"a pull of nothing in particular", "", `{"type":"permit","class":[{"system":"$TYPES","code":"Observation"}]}`, pull(), consent.CannotEvaluate},
		{"of several types each must be permitted", "", `{"type":"permit","class":[{"system":"$TYPES","code":"Observation"}]}`, pull(cura.Observation, cura.Encounter), consent.CannotEvaluate},

		// Data
		{"authored in time", "", `{"type":"permit","dataPeriod":{"start":"2026"}}`, note(), consent.Permitted},
		{"authored before", "OPTIN", `{"provision":[{"type":"deny","dataPeriod":{"end":"2025"}}]}`, note(), consent.Permitted},
		{"nobody knows when", "OPTIN", `{"provision":[{"type":"deny","dataPeriod":{"end":"2025"}}]}`, pull(cura.Observation), consent.CannotEvaluate},
		{"a resource of the EHR's", "OPTIN", `{"provision":[{"type":"deny","data":[{"meaning":"instance","reference":{"reference":"Condition/7"}}]}]}`, note(), consent.CannotEvaluate},

		// What isn't understood
		{"a modifier extension", "OPTIN", `{"modifierExtension":[{"url":"http://x.example","valueBoolean":true}]}`, note(), consent.CannotEvaluate},
		{"in an exception", "OPTIN", `{"provision":[{"type":"permit","modifierExtension":[{"url":"http://x.example","valueBoolean":true}]}]}`, note(), consent.CannotEvaluate},
		{"in an actor", "", `{"type":"permit","actor":[{"modifierExtension":[],"role":{"coding":[{"system":"$ROLE","code":"IRCP"}]}}]}`, note(), consent.CannotEvaluate},
		{"an extension, which changes nothing by R4", "OPTIN", `{"id":"1","extension":[{"url":"http://x.example","valueBoolean":true}]}`, note(), consent.Permitted},
		{"an element of a later FHIR", "OPTIN", `{"expression":{"language":"text/cql"}}`, note(), consent.CannotEvaluate},
		{"a name in another case", "OPTIN", `{"Type":"deny"}`, note(), consent.CannotEvaluate},
		{"an empty list", "OPTIN", `{"provision":[{"type":"deny","class":[]}]}`, note(), consent.CannotEvaluate},
		{"null", "OPTIN", `{"provision":[{"type":"deny","class":null}]}`, note(), consent.CannotEvaluate},
		{"a name twice", "", `{"type":"deny","type":"permit"}`, note(), consent.CannotEvaluate},
		{"no JSON", "OPTIN", `{"type":"permit"`, note(), consent.CannotEvaluate},
		{"two values", "OPTIN", `{"type":"permit"} {}`, note(), consent.CannotEvaluate},
		{"not an object", "OPTIN", `[]`, note(), consent.CannotEvaluate},
		{"null alone", "OPTIN", `null`, note(), consent.CannotEvaluate},
		{"provisions that aren't objects", "OPTIN", `{"provision":["permit"]}`, note(), consent.CannotEvaluate},
		{"16 levels", "", nested(16), note(), consent.Permitted},
		{"17 levels", "", nested(17), note(), consent.CannotEvaluate},
		{"2,000 provisions", "OPTIN", `{"provision":[` + strings.Repeat(`{"type":"permit"},`, 1998) + `{"type":"permit"}]}`, note(), consent.Permitted},
		{"2,001 provisions", "OPTIN", `{"provision":[` + strings.Repeat(`{"type":"permit"},`, 1999) + `{"type":"permit"}]}`, note(), consent.CannotEvaluate},
		{"JSON as deep as it gets", "OPTIN", strings.Repeat("[", 100_000), note(), consent.CannotEvaluate},
		{"what can't match doesn't hurt, whatever else is unknown", "OPTIN", `{"provision":[{"type":"deny","action":[{"text":"fax"}],"class":[{"system":"$TYPES","code":"Condition"}]}]}`, note(), consent.Permitted},

		// The request
		{"an action that isn't one", "OPTIN", ``, consent.Request{Action: "sell", Kind: cura.Note}, consent.CannotEvaluate},
		{"a kind that isn't one", "OPTIN", ``, consent.Request{Action: consent.Disclose}, consent.CannotEvaluate},
		{"a consent event is decided about as the rest", "", `{"type":"permit","class":[{"system":"$TYPES","code":"Consent"}]}`, consent.Request{Action: consent.Disclose, Kind: cura.ConsentEvent}, consent.Permitted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := consent.Decide(tt.request, []consent.Consent{active("1", tt.policy, tt.provision)}, noon())
			require.Equal(t, tt.want, d.Code, "%+v", d.Rules)
			require.Equal(t, tt.want == consent.Permitted, d.Allow)
			require.NotEmpty(t, d.Reason)
		})
	}
}

// nested is a permit of so many levels.
func nested(levels int) string {
	return strings.Repeat(`{"type":"permit","provision":[`, levels-1) + `{"type":"permit"}` + strings.Repeat("]}", levels-1)
}

func TestActors(t *testing.T) {
	t.Parallel()
	const recipient = `"role":{"coding":[{"system":"$ROLE","code":"IRCP"}]}`
	for _, tt := range []struct {
		name, actor  string
		recipients   []string
		permit, deny consent.Code
	}{
		{"whoever receives", `{` + recipient + `}`, nil, consent.Permitted, consent.Denied},
		{"the hospital", `{` + recipient + `,"reference":{"reference":"Organization/1"}}`, []string{"Organization/1"}, consent.Permitted, consent.Denied},
		{"a version of it", `{` + recipient + `,"reference":{"reference":"Organization/1/_history/2"}}`, []string{"Organization/1"}, consent.Permitted, consent.Denied},
		{"another organization", `{` + recipient + `,"reference":{"reference":"Organization/2"}}`, []string{"Organization/1"}, consent.NoMatchingProvision, consent.NoMatchingProvision},
		{"the patient", `{` + recipient + `,"reference":{"reference":"Patient/1"}}`, nil, consent.NoMatchingProvision, consent.NoMatchingProvision},
		{"a nurse, who may be the hospital's", `{` + recipient + `,"reference":{"reference":"Practitioner/1"}}`, []string{"Organization/1"}, consent.CannotEvaluate, consent.CannotEvaluate},
		{"an organization, and the hospital isn't known", `{` + recipient + `,"reference":{"reference":"Organization/2"}}`, nil, consent.CannotEvaluate, consent.CannotEvaluate},
		{"elsewhere", `{` + recipient + `,"reference":{"reference":"https://other.example/Organization/2"}}`, []string{"Organization/1"}, consent.CannotEvaluate, consent.CannotEvaluate},
		{"contained", `{` + recipient + `,"reference":{"reference":"#1"}}`, []string{"Organization/1"}, consent.CannotEvaluate, consent.CannotEvaluate},
		{"with more than R4 knows", `{` + recipient + `,"reference":{"reference":"Organization/1","resolved":true}}`, []string{"Organization/1"}, consent.CannotEvaluate, consent.CannotEvaluate},
		{"by name", `{` + recipient + `,"reference":{"display":"The hospital"}}`, []string{"Organization/1"}, consent.CannotEvaluate, consent.CannotEvaluate},
		{"in another role", `{"role":{"coding":[{"system":"$ROLE","code":"CST"}]}}`, nil, consent.CannotEvaluate, consent.CannotEvaluate},
		{"in no role", `{"reference":{"reference":"Organization/1"}}`, []string{"Organization/1"}, consent.CannotEvaluate, consent.CannotEvaluate},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := note()
			r.RecipientEHRIDs = tt.recipients
			for effect, want := range map[string]consent.Code{"permit": tt.permit, "deny": tt.deny} {
				c := active("1", "", `{"type":"`+effect+`","actor":[`+tt.actor+`]}`)
				d := consent.Decide(r, []consent.Consent{c}, noon())
				require.Equal(t, want, d.Code, "%s %+v", effect, d.Rules)
			}
		})
	}
}

// TestAnEntryWithoutAProvision: then the type and the period of the entry are all that is known of it.
func TestAnEntryWithoutAProvision(t *testing.T) {
	t.Parallel()
	c := active("1", "", "")
	c.Entry.RootType = "permit"
	c.Entry.Period = &cura.Period{Start: &cura.Moment{Text: "2026-03-10"}, End: &cura.Moment{Text: "2026-03-10"}}
	require.Equal(t, consent.Permitted, consent.Decide(note(), []consent.Consent{c}, noon()).Code)
	require.Equal(t, consent.Expired, consent.Decide(note(), []consent.Consent{c}, noon().AddDate(0, 0, 1)).Code)
	c.Entry.Provision = json.RawMessage(`{"type":"deny"}`)
	require.Equal(t, consent.Denied, consent.Decide(note(), []consent.Consent{c}, noon()).Code, "the provision goes before them")
}

// TestAPullIsToCura: the hospital's own references don't name Cura, and what does isn't known.
func TestAPullIsToCura(t *testing.T) {
	t.Parallel()
	r := pull(cura.Observation)
	r.RecipientEHRIDs = []string{"Organization/1"}
	c := active("1", "", `{"type":"permit","actor":[{"role":{"coding":[{"system":"$ROLE","code":"IRCP"}]},"reference":{"reference":"Organization/1"}}]}`)
	require.Equal(t, consent.CannotEvaluate, consent.Decide(r, []consent.Consent{c}, noon()).Code)
}

func TestConsentsThatDoNotCount(t *testing.T) {
	t.Parallel()
	permit := func(change func(*consent.Consent)) []consent.Consent {
		c := active("1", "", `{"type":"permit"}`)
		change(&c)
		return []consent.Consent{c}
	}
	for _, tt := range []struct {
		name     string
		consents []consent.Consent
		want     consent.Code
	}{
		{"none", nil, consent.NoConsent},
		{"entered in error", permit(func(c *consent.Consent) { c.EnteredInError = true }), consent.NotActive},
		{"inactive", permit(func(c *consent.Consent) { c.Entry.Status = "inactive" }), consent.NotActive},
		{"rejected", permit(func(c *consent.Consent) { c.Entry.Status = "rejected" }), consent.NotActive},
		{"proposed", permit(func(c *consent.Consent) { c.Entry.Status = "proposed" }), consent.NotActive},
		{"draft", permit(func(c *consent.Consent) { c.Entry.Status = "draft" }), consent.NotActive},
		{"no status", permit(func(c *consent.Consent) { c.Entry.Status = "" }), consent.NotActive},
		{"about research", permit(func(c *consent.Consent) { c.Entry.Scope = scope("research") }), consent.NoConsent},
		{"a directive", permit(func(c *consent.Consent) { c.Entry.Scope = scope("adr") }), consent.NoConsent},
		{"to treatment", permit(func(c *consent.Consent) { c.Entry.Scope = scope("treatment") }), consent.NoConsent},
		{"no scope that is known", permit(func(c *consent.Consent) { c.Entry.Scope = cura.Concept{Text: "privacy"} }), consent.CannotEvaluate},
		{"a modifier extension", permit(func(c *consent.Consent) { c.ModifierExtension = true }), consent.CannotEvaluate},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := consent.Decide(note(), tt.consents, noon())
			require.Equal(t, tt.want, d.Code)
			require.False(t, d.Allow)
			if len(tt.consents) > 0 {
				require.NotEmpty(t, d.Rules, "says why it doesn't count")
			}
		})
	}
	require.Equal(t, consent.CannotEvaluate, consent.Decide(note(), permit(func(*consent.Consent) {}), time.Time{}).Code, "no clock, no decision")
}

func TestSeveralConsents(t *testing.T) {
	t.Parallel()
	permit := func(id string) consent.Consent { return active(id, "", `{"type":"permit"}`) }
	deny := func(id string) consent.Consent { return active(id, "", `{"type":"deny"}`) }
	elsewhere := func(id string) consent.Consent {
		return active(id, "", `{"type":"deny","class":[{"system":"$TYPES","code":"Condition"}]}`)
	}
	unclear := func(id string) consent.Consent { return active(id, "", `{"type":"deny","action":[{"text":"fax"}]}`) }
	withdrawn := func(id string) consent.Consent {
		c := deny(id)
		c.Entry.Status = "inactive"
		return c
	}
	for _, tt := range []struct {
		name     string
		consents []consent.Consent
		want     consent.Code
		id       string
	}{
		{"a denial beats permits", []consent.Consent{permit("1"), deny("9"), permit("10"), deny("12")}, consent.Denied, "9"},
		{"of permits the oldest is the one", []consent.Consent{permit("10"), permit("9")}, consent.Permitted, "9"},
		{"a denial of something else doesn't", []consent.Consent{permit("1"), elsewhere("2")}, consent.Permitted, "1"},
		{"one that may deny does", []consent.Consent{permit("1"), unclear("2")}, consent.CannotEvaluate, "2"},
		{"a denial that is withdrawn doesn't", []consent.Consent{permit("1"), withdrawn("2")}, consent.Permitted, "1"},
		{"nothing that is about it", []consent.Consent{elsewhere("1"), withdrawn("2")}, consent.NoMatchingProvision, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := consent.Decide(note(), tt.consents, noon())
			require.Equal(t, tt.want, d.Code)
			require.Equal(t, tt.id, d.ConsentID)
		})
	}
}

func TestUntilIsTheNextBound(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, provision string
		want            time.Time
	}{
		{"none", `{"type":"permit"}`, time.Time{}},
		{"the end of the consent, exclusive", `{"type":"permit","period":{"start":"2026-01-01","end":"2026-03-31"}}`, time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)},
		{"its start", `{"type":"permit","period":{"start":"2026-04-01","end":"2026-05-01"}}`, time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)},
		{"it has ended", `{"type":"permit","period":{"end":"2026-01-01"}}`, time.Time{}},
		{"an exception's start", `{"type":"permit","period":{"end":"2026-12"},"provision":[{"type":"deny","period":{"start":"2026-03-11T08:00:00Z"}}]}`, time.Date(2026, 3, 11, 8, 0, 0, 0, time.UTC)},
		{"never ends", `{"type":"permit","period":{"end":"9999-12-31"}}`, time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC)},
		{"the period of data is no matter of time", `{"type":"permit","dataPeriod":{"end":"2027"}}`, time.Time{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tt.want, consent.Decide(note(), []consent.Consent{active("1", "", tt.provision)}, noon()).Until)
		})
	}
}

// TestRulesExplain: the steps, with codes and paths only.
func TestRulesExplain(t *testing.T) {
	t.Parallel()
	secret := `"S3cret"`
	c := active("7", "OPTOUT", `{"provision":[
		{"type":"permit","class":[{"system":"$TYPES","code":"Condition","display":`+secret+`}]},
		{"type":"permit","provision":[{"type":"deny","action":[{"text":`+secret+`}]}]},
		{"type":"permit",`+secret+`:1},
		{"type":"permit","modifierExtension":[]}]}`)
	research := active("8", "", `{"type":"permit"}`)
	research.Entry.Scope = scope("research")
	d := consent.Decide(note(), []consent.Consent{c, research}, noon())
	require.Equal(t, []consent.Rule{
		{Consent: "7", Path: "policyRule", Effect: "deny", Matched: true, Why: "it is the base rule, since the provision has no type"},
		{Consent: "7", Path: "provision", Effect: "deny", Matched: true, Why: "all that it lists matches"},
		{Consent: "7", Path: "provision.provision[0]", Effect: "permit", Matched: false, Why: "class doesn't match"},
		{Consent: "7", Path: "provision.provision[1]", Effect: "permit", Matched: true, Why: "all that it lists matches"},
		{Consent: "7", Path: "provision.provision[1].provision[0]", Effect: "deny", Matched: true, Why: "action can't be evaluated"},
		{Consent: "7", Path: "provision.provision[2]", Effect: "unknown", Matched: true, Why: "it has an element that R4 doesn't know"},
		{Consent: "7", Path: "provision.provision[3]", Effect: "unknown", Matched: true, Why: "a modifier extension may change the meaning of it"},
		{Consent: "8", Path: "scope", Effect: "", Matched: false, Why: "its scope isn't patient-privacy: it doesn't speak about this"},
	}, d.Rules)
	shown, err := json.Marshal(d)
	require.NoError(t, err)
	require.NotContains(t, string(shown), "S3cret")
}

// TestHL7Examples reads R4's own examples. Most speak of actors in roles that say nothing about who receives.
func TestHL7Examples(t *testing.T) {
	t.Parallel()
	june := time.Date(2015, time.June, 1, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name string
		at   time.Time
		want consent.Code
	}{
		{"basic", june, consent.Permitted},
		{"basic", noon(), consent.Expired},
		{"Emergency", june, consent.CannotEvaluate},
		{"Out", june, consent.CannotEvaluate},
		{"grantor", june, consent.CannotEvaluate},
		{"notAuthor", june, consent.CannotEvaluate},
		{"notOrg", june, consent.CannotEvaluate},
		{"notThem", june, consent.CannotEvaluate},
		{"notThis", june, consent.CannotEvaluate},
		{"notTime", june, consent.Expired},
		{"pkb", june, consent.CannotEvaluate},
		{"signature", june, consent.NotYet},
		{"signature", time.Date(2016, time.June, 1, 0, 0, 0, 0, time.UTC), consent.CannotEvaluate},
		{"smartonfhir", noon(), consent.Expired},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			raw, err := os.ReadFile(filepath.Join("testdata", "hl7-"+tt.name+".json"))
			require.NoError(t, err)
			d := consent.Decide(note(), []consent.Consent{read(t, "1", string(raw))}, tt.at)
			require.Equal(t, tt.want, d.Code, "%+v", d.Rules)
		})
	}
}

package mappings

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/fault"
)

// broken is a file of overrides with faults, and what must be said about them.
type broken struct {
	name, text string
	want       []string
}

const (
	obs = "resource: Observation, "
	glu = `from: {system: "urn:s", code: GLU}`
	toB = `, to: {system: "urn:s", code: b}`
)

func brokenOverrides() []broken {
	code := func(entry string) string { return "version: 1\ncodes:\n  - {" + entry + "}\n" }
	unit := func(entry string) string { return "version: 1\nunits:\n  - {" + obs + entry + "}\n" }
	return []broken{
		{"empty", "", []string{"1: the file is empty; starter mapping init prints one to begin with"}},
		{"only a comment", "# none\n", []string{"1: the file is empty; starter mapping init prints one to begin with"}},
		{"broken YAML", "version: 1\ncodes: [\n  - }", []string{"2: the YAML can't be read from here on"}},
		{"a tab", "version: 1\nname:\n\tuse: []", []string{"3: the YAML can't be read from here on"}},
		{"not UTF-8", "version: 1\nname: {use: [usual]} # \xff", []string{"2: isn't UTF-8 from here on: save the file as UTF-8"}},
		{"UTF-16", "\xff\xfev\x00e\x00", []string{"1: isn't UTF-8 from here on: save the file as UTF-8"}},
		{"two documents", "version: 1\n---\nversion: 2\n", []string{"2: the file holds more than one document"}},
		{"a broken second document", "version: 1\n---\n}", []string{"2: the YAML can't be read from here on"}},
		{"a list", "- version: 1", []string{"1: must be a group of keys"}},
		{"no version", "name: {use: [usual]}", []string{"1: version: missing: give a whole number from 1 to 999999, a higher one with each change"}},
		{"a version that isn't one", "version: 1.5", []string{"1: version: isn't a version: give a whole number from 1 to 999999, a higher one with each change"}},
		{"a version as a text", `version: "1"`, []string{"1: version: isn't a version: "}},
		{"version 0", "version: 0", []string{"1: version: isn't a version: "}},
		{"an unknown part", "version: 1\nunit: []", []string{`2: there is no key "unit" here; there are version, identifiers, name, codes, units, categories, types`}},
		{"a key twice", "version: 1\nversion: 2", []string{"2: version: stands already on line 1"}},
		{"a key that isn't a text", "version: 1\n? [a]\n: b", []string{"2: a key must be a text"}},
		{"control characters", "version: 1\n\"a\\u001b\\n\": 1", []string{`2: there is no key "a\x1b\n" here`}},
		{"an alias", "version: 1\nname: &n {use: [usual]}\ntypes: *n", []string{"3: types: aliases aren't followed: write out what is meant"}},
		{"a merge", "version: 1\n<<: {}", []string{`2: there is no key "<<" here`}},

		{"rename: no URI", "version: 1\nidentifiers:\n  rename:\n    a: mrn", []string{`4: identifiers.rename."a": leads to what isn't an absolute URI, such as http://hl7.org/fhir/sid/us-ssn or urn:oid:1.2.3`}},
		{"rename: Cura's own", "version: 1\nidentifiers: {rename: {a: \"" + IdentifierSystem + "\"}}", []string{`2: identifiers.rename."a": names the system of what Cura writes`}},
		{"rename: a list", "version: 1\nidentifiers: {rename: []}", []string{"2: identifiers.rename: must be a group of keys"}},
		{"rename: nothing", "version: 1\nidentifiers:\n  rename:\n    a:\n    b: {}\n    '': urn:x", []string{`4: identifiers.rename."a": must be a text`, `5: identifiers.rename."b": must be a text`, "6: identifiers.rename: is empty"}},
		{"rename: a cycle", "version: 1\nidentifiers:\n  rename:\n    \"urn:a\": \"urn:b\"\n    \"urn:b\": \"urn:a\"\n    \"urn:c\": \"urn:a\"", []string{"4: identifiers.rename: the chain of lines 4, 5 leads back to itself: remove one of them"}},
		{"rename: another key", "version: 1\nidentifiers: {remane: {}}", []string{`2: identifiers: there is no key "remane" here; there are rename`}},

		{"name: a use that isn't one", "version: 1\nname: {use: [usual, formal]}", []string{`2: name.use[1]: "formal" isn't one of usual, official, temp, nickname, anonymous, old, maiden, none`}},
		{"name: twice", "version: 1\nname: {use: [none, usual, none]}", []string{"2: name.use[2]: stands here twice"}},
		{"name: no list", "version: 1\nname: {use: usual}", []string{"2: name.use: must be a list"}},

		{"code: no group", "version: 1\ncodes: [GLU]", []string{"2: codes[0]: must be a group of keys"}},
		{"code: nothing", code(""), []string{
			"3: codes[0].resource: missing: give one of AllergyIntolerance, MedicationRequest, MedicationStatement, Observation, Encounter",
			"3: codes[0].from: missing: give the system and the code that the EHR sends", "3: codes[0].to: missing: give the system and the code that are meant",
		}},
		{"code: an unknown key", code(obs + glu + toB + ", too: x"), []string{`3: codes[0]: there is no key "too" here; there are resource, field, from, to`}},
		{"code: of patients", code("resource: Patient, " + glu + toB), []string{`3: codes[0].resource: "Patient" isn't one of AllergyIntolerance`}},
		{"code: an unknown target field", code(obs + "field: cod, " + glu + toB), []string{`3: codes[0].field: "cod" isn't one of code, value, interpretations, method, body_site`}},
		{"code: a field is needed", code("resource: Encounter, " + glu + toB), []string{"3: codes[0].field: missing: give one of class, types, service_type, priority, reasons, participants.roles, discharge"}},
		{"code: no code", code(obs + `from: {system: "urn:s"}, to: {}`), []string{"3: codes[0].from.code: missing", "3: codes[0].to.system: missing", "3: codes[0].to.code: missing"}},
		{"code: two lines", code(obs + `from: {code: "a\nb"}` + toB), []string{"3: codes[0].from.code: " + lineText}},
		{"code: a check digit", code(obs + glu + `, to: {system: "http://loinc.org", code: 2345-6}`), []string{"3: codes[0].to.code: isn't a LOINC code: its check digit or its form is wrong"}},
		{"code: SNOMED's check digit", code(obs + glu + `, to: {system: "http://snomed.info/sct", code: 716186004}`), []string{"3: codes[0].to.code: isn't the id of a SNOMED CT concept"}},
		{"code: an OID", code(obs + glu + `, to: {system: "urn:oid:2.16.840.1.113883.6.1", code: 2345-7}`), []string{"3: codes[0].to.system: is the OID of a system that R4 names by a URL: write http://loinc.org"}},
		{"code: no URI", code(obs + glu + `, to: {system: LOINC, code: 2345-7}`), []string{"3: codes[0].to.system: isn't an absolute URI"}},
		{"code: a cycle", `version: 1
codes:
  - resource: Observation
    from: {system: "urn:s", code: a}
    to: {system: "urn:s", code: b}
  - resource: Observation
    from: {system: "urn:s", code: c}
    to: {system: "urn:s", code: a}
  - resource: Observation
    from: {system: "urn:s", code: b}
    to: {system: "urn:s", code: a}
`, []string{"3: the chain of lines 3, 9 leads back to itself: remove one of them"}},
		{"code: into itself", code(obs + glu + `, to: {system: "urn:s", code: GLU}`), []string{"3: leads back to itself: change or remove it"}},
		{"code: twice", code(obs+glu+toB) + "  - {" + obs + glu + `, to: {system: "urn:s", code: c}}`, []string{"4: codes[1]: translates the same code as line 3"}},

		{"unit: nothing", unit(""), []string{
			"3: units[0].code: missing: name the code whose unit it is, or say any", "3: units[0].from: missing", "3: units[0].to: missing",
			"3: units[0].factor: missing: give the factor that leads to the unit meant, or same: true where it is only written in another way",
		}},
		{"unit: no conversion", unit("code: any, from: mg%, to: mg/dL"), []string{"3: units[0].factor: missing: give the factor"}},
		{"unit: of drugs", "version: 1\nunits: [{resource: MedicationRequest, code: any, from: a, to: b, factor: 1}]", []string{`2: units[0].resource: "MedicationRequest" isn't one of Observation`}},
		{"unit: both", unit("code: any, from: a, to: b, same: true, factor: 1"), []string{"3: units[0].same: the same unit has no factor and no offset"}},
		{"unit: same: false", unit("code: any, from: a, to: b, same: false"), []string{"3: units[0].same: must be true, or be left out"}},
		{"unit: only an offset", unit("code: any, from: a, to: b, offset: 1"), []string{"3: units[0].factor: missing"}},
		{"unit: 0", unit("code: any, from: a, to: b, factor: 0"), []string{"3: units[0].factor: must be more than 0"}},
		{"unit: less than 0", unit("code: any, from: a, to: b, factor: -1"), []string{"3: units[0].factor: must be more than 0"}},
		{"unit: no decimal", unit("code: any, from: a, to: b, factor: 1e3, offset: 1/3"), []string{"3: units[0].factor: isn't a decimal", "3: units[0].offset: isn't a decimal"}},
		{"unit: too long", unit("code: any, from: a, to: b, factor: 1.1234567890123456"), []string{"3: units[0].factor: isn't a decimal, such as 10 or 0.0555, with at most 15 digits on either side of the point"}},
		{"unit: no UCUM", unit("code: any, from: a, to: mg pro dL, same: true"), []string{"3: units[0].to: isn't a UCUM code"}},
		{"unit: a code in words", unit("code: GLU, from: a, to: b, factor: 1"), []string{"3: units[0].code: must be any, or a group of system and code"}},
		{"unit: into itself", unit("code: any, from: a, to: a, factor: 2"), []string{"3: units[0]: converts a unit into itself"}},
		{"unit: twice", unit("code: any, from: a, to: b, factor: 2") + "  - {" + obs + "code: any, from: a, to: c, factor: 2}", []string{"4: units[1]: converts the same unit as line 3"}},
		{"unit: a chain", unit("code: any, from: a, to: b, factor: 2") + "  - {" + obs + "code: {code: x}, from: b, to: c, factor: 2}", []string{"3: units[0]: leads to a unit that line 4 leads on from"}},
		{"unit: a cycle", unit("code: any, from: a, to: b, factor: 2") + "  - {" + obs + "code: any, from: b, to: a, factor: 0.5}", []string{"3: units[0]: leads to a unit that line 4", "4: units[1]: leads to a unit that line 3"}},

		{"category: another type", "version: 1\ncategories: {Consent: []}", []string{`2: categories: there is no key "Consent" here; there are Observation`}},
		{"category: unknown", "version: 1\ncategories:\n  Observation:\n    - {from: {code: L}, to: lab}", []string{`4: categories.Observation[0].to: "lab" isn't one of social-history, vital-signs, imaging, laboratory`}},
		{"category: twice", "version: 1\ncategories:\n  Observation:\n    - {from: {code: L}, to: exam}\n    - {from: {code: L}, to: exam}", []string{"5: categories.Observation[1]: translates the same code as line 4"}},

		{"type: patients", "version: 1\ntypes: {exclude: [Patient]}", []string{"2: types.exclude[0]: patients can't be left out: everything hangs on them"}},
		{"type: unknown", "version: 1\ntypes: {exclude: [Condition]}", []string{`2: types.exclude[0]: "Condition" isn't one of Patient, AllergyIntolerance`}},
		{"type: twice", "version: 1\ntypes: {exclude: [Consent, Consent]}", []string{"2: types.exclude[1]: stands here twice"}},
	}
}

// Everything that is wrong is named by file, line and key, all at once.
func TestParseOverridesNamesEveryFault(t *testing.T) {
	t.Parallel()
	for _, tt := range brokenOverrides() {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o, err := ParseOverrides("site.yaml", []byte(tt.text))
			require.Nil(t, o)
			require.True(t, fault.Is(err, fault.Config))
			require.Contains(t, err.Error(), "starter mapping check FILE")
			require.Equal(t, len(tt.want), strings.Count(err.Error(), "site.yaml:"), err.Error())
			for _, want := range tt.want {
				require.Contains(t, err.Error(), "site.yaml:"+want)
			}
		})
	}
}

func TestParseOverridesLimits(t *testing.T) {
	t.Parallel()
	many := func(n int) []byte {
		var b bytes.Buffer
		b.WriteString("version: 1\nidentifiers:\n  rename:\n")
		for i := range n {
			fmt.Fprintf(&b, "    urn:a:%d: urn:a:%d\n", i, i+1)
		}
		return b.Bytes()
	}
	o, err := ParseOverrides("site.yaml", many(maxEntries))
	require.NoError(t, err, "a chain as long as can be")
	require.Equal(t, maxEntries, o.Counts().Identifiers)
	require.Equal(t, fmt.Sprintf("urn:a:%d", maxEntries), o.systems["urn:a:0"])

	_, err = ParseOverrides("site.yaml", many(maxEntries+1))
	require.ErrorContains(t, err, "site.yaml:10004: the file has more than 10000 rules")

	_, err = ParseOverrides("site.yaml", bytes.Repeat([]byte("#"), MaxOverrides+1))
	require.ErrorContains(t, err, "site.yaml:1: the file has more than 1048576 bytes")

	_, err = ParseOverrides("site.yaml", []byte("version: 1\n"+strings.Repeat("? a\n", 100)))
	require.ErrorContains(t, err, "and 50 more", "as many as can be read")
}

// The section is made from the tables: it must not go stale, and every key that the example has is in it.
func TestOverridesDocument(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	require.NoError(t, WriteOverrides(&b))
	whole, err := os.ReadFile("MAPPINGS.md")
	require.NoError(t, err)
	require.Contains(t, string(whole), b.String(), "MAPPINGS.md is stale: go generate ./mappings")
}

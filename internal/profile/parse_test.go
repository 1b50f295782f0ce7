package profile_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/profile"
)

// own is a hospital's own profile, the base of the tables below. Line numbers there count from here.
const own = `name: epic2
scopes: v1
headers:
  X-Site: north
query: {tenant: "${tenant}"}
params: [tenant]
requests_per_minute: 250
page_size: 50
concurrency: 2
paging_hosts: [https://fhir.internal:8443]
find: match
find_by_post: true
types:
  Patient:
    strategy: snapshot
    why: The vendor's page says so.
  Observation:
    strategy: roster
    page_size: 200
    categories: [laboratory, "http://terminology.hl7.org/CodeSystem/observation-category|vital-signs"]
    params: {status: final}
    why: The vendor's page says so.
`

func TestParse(t *testing.T) {
	t.Parallel()
	p := parsed(t, own)
	require.Equal(t, "epic2", p.Title, "the name, where there is no title")
	require.Equal(t, map[string]string{"X-Site": "north"}, p.Headers)
	require.Equal(t, []string{"https://fhir.internal:8443"}, p.PagingHosts)
	require.Equal(t, 250, p.RequestsPerMinute)
	require.Equal(t, 2, p.Concurrency)
	require.Equal(t, profile.FindByMatch, p.Find)
	require.Len(t, p.Types[cura.Observation].Categories, 2)
	_, ok := p.Rules(cura.Consent)
	require.False(t, ok)

	least := parsed(t, "name: own\nscopes: none\ntypes: {Patient: {strategy: system, why: So it is.}}")
	require.Equal(t, profile.FindByIdentifier, least.Find)
	require.Equal(t, 4, least.Concurrency)
	require.Zero(t, least.PageSize)
}

// TestParseRefuses replaces a piece of own, and looks for line, field and words.
func TestParseRefuses(t *testing.T) {
	t.Parallel()
	types := strings.Index(own, "types:")
	require.Positive(t, types)
	cases := map[string]struct{ piece, with, want string }{
		"strategy":             {"strategy: roster", "strategy: rooster", `epic2.yaml:18: types.Observation.strategy: "rooster" isn't one of system, roster, snapshot`},
		"no strategy":          {"    strategy: roster\n", "", `epic2.yaml:17: types.Observation.strategy: it is missing: give one of system, roster, snapshot`},
		"roster of patients":   {"strategy: snapshot", "strategy: roster", `epic2.yaml:15: types.Patient.strategy: patients are read as a whole system or one by one by id`},
		"unknown type":         {"  Observation:", "  Observations:", `epic2.yaml:17: types.Observations: it isn't one of the types that Cura pulls: Patient, `},
		"no types":             {own[types:], "", `epic2.yaml:1: types: it is missing`},
		"no Patient":           {"  Patient:", "  Encounter:", `epic2.yaml:13: types: Patient is missing`},
		"no why":               {"    why: The vendor's page says so.\n", "", `epic2.yaml:14: types.Patient.why: it is missing`},
		"unknown field":        {"find: match", "fnd: match", `epic2.yaml:11: fnd: there is no field "fnd" here`},
		"unknown field inside": {"    page_size: 200", "    size: 200", `epic2.yaml:19: types.Observation.size: there is no field "size" here`},
		"field twice":          {"scopes: v1", "name: epic3", `epic2.yaml:2: name: it stands already on line 1`},
		"no scopes":            {"scopes: v1\n", "", `epic2.yaml:1: scopes: it is missing: give one of none, v1, v2`},
		"scopes":               {"scopes: v1", "scopes: v3", `epic2.yaml:2: scopes: "v3" isn't one of none, v1, v2`},
		"find":                 {"find: match", "find: guess", `epic2.yaml:11: find: "guess" isn't one of identifier, match`},
		"name":                 {"name: epic2", "name: Epic 2", `epic2.yaml:1: name: "Epic 2" isn't a name`},
		"a text for a number":  {"page_size: 50", "page_size: many", `epic2.yaml:8: page_size: a text can't stand here; it must be a whole number`},
		"a text for a group":   {"headers:\n  X-Site: north", "headers: north\n", `epic2.yaml:3: headers: a text can't stand here; it must be a group of fields`},
		"a group for a list":   {"params: [tenant]", "params: {a: b}", `epic2.yaml:6: params: a group of fields can't stand here; it must be a list`},
		"a list for a text":    {"scopes: v1", "scopes: [v1]", `epic2.yaml:2: scopes: a list can't stand here; it must be a text`},
		"a text for a yes":     {"find_by_post: true", "find_by_post: perhaps", `epic2.yaml:12: find_by_post: a text can't stand here; it must be true or false`},
		"page size":            {"page_size: 50", "page_size: 0", `epic2.yaml:8: page_size: 0 isn't between 1 and 1000`},
		"page size of a type":  {"page_size: 200", "page_size: 1001", `epic2.yaml:19: types.Observation.page_size: 1001 isn't between 1 and 1000`},
		"concurrency":          {"concurrency: 2", "concurrency: -2", `epic2.yaml:9: concurrency: -2 isn't between 0 and 64`},
		"requests":             {"minute: 250", "minute: 1000000", `epic2.yaml:7: requests_per_minute: 1000000 isn't between 0 and 100000`},
		"authorization":        {"X-Site: north", "authorization: secret", `epic2.yaml:4: headers.authorization: this header is Cura's own to set`},
		"header's name":        {"X-Site: north", "'X Site': secret", `epic2.yaml:4: headers.X Site: it isn't a header's name`},
		"header's value":       {"X-Site: north", `X-Site: "secret\nX-Evil: 1"`, `epic2.yaml:4: headers.X-Site: its value is empty, or has characters that can't stand in a header`},
		"no value":             {"X-Site: north", "X-Site: ''", `epic2.yaml:4: headers.X-Site: its value is empty`},
		"paging host, http":    {"[https://fhir.internal:8443]", "[http://fhir.internal]", `epic2.yaml:10: paging_hosts.0: it isn't an https origin`},
		"paging host, path":    {"[https://fhir.internal:8443]", "[https://fhir.internal/fhir]", `epic2.yaml:10: paging_hosts.0: it isn't an https origin`},
		"paging host, user":    {"[https://fhir.internal:8443]", "['https://u:secret@fhir.internal']", `epic2.yaml:10: paging_hosts.0: it isn't an https origin`},
		"a list of categories": {"[laboratory,", "['laboratory,exam',", `epic2.yaml:20: types.Observation.categories.0: "laboratory,exam" isn't one category`},
		"a category twice":     {"[laboratory,", "[laboratory, laboratory,", `epic2.yaml:20: types.Observation.categories.1: "laboratory" stands here twice`},
		"category both ways":   {"{status: final}", "{category: exam}", `epic2.yaml:21: types.Observation.params.category: give it either here or in categories`},
		"our own parameter":    {"{status: final}", "{patient: '1'}", `epic2.yaml:21: types.Observation.params.patient: this parameter is Cura's own to set`},
		"parameter's name":     {"{status: final}", "{'a&b': '1'}", `epic2.yaml:21: types.Observation.params.a&b: it isn't a parameter's name`},
		"placeholder, unknown": {"north", "'${site}'", `epic2.yaml:4: headers.X-Site: its placeholder "site" isn't among params`},
		"placeholder, open":    {"north", "'${tenant'", `epic2.yaml:4: headers.X-Site: its placeholder "tenant" isn't among params`},
		"placeholder, unused":  {"[tenant]", "[tenant, site]", `epic2.yaml:6: params.1: no value holds ${site}`},
		"placeholder, twice":   {"[tenant]", "[tenant, tenant]", `epic2.yaml:6: params.1: "tenant" stands here twice`},
		"broken YAML":          {"page_size: 50", "page_size: [50", `the YAML can't be read from here on`},
		"a tab":                {"  X-Site: north", "\tX-Site: north", `epic2.yaml:4: the YAML can't be read from here on`},
		"an unknown anchor":    {"find: match", "find: *nothing", `epic2.yaml:1: the YAML can't be read from here on`},
		"two documents":        {"name: epic2", "name: epic2\n---\nname: epic3", `the file holds more than one document`},
		"only a list":          {own, "- a\n- b\n", `epic2.yaml:1: a list can't stand here; it must be a group of fields`},
		"nothing":              {own, "", `epic2.yaml:1: the file is empty`},
		"only a comment":       {own, "# later\n", `epic2.yaml:1: the file is empty`},
		"far too much":         {own, strings.Repeat("#\n", 40_000), `epic2.yaml:1: the file has more than 65536 bytes`},
		"a binary":             {own, "\x00\x01\x02", `epic2.yaml:1: the YAML can't be read from here on`},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Contains(t, own, test.piece)
			_, err := profile.Parse("epic2.yaml", []byte(strings.Replace(own, test.piece, test.with, 1)))
			require.True(t, fault.Is(err, fault.Config), err)
			require.ErrorContains(t, err, test.want)
			require.ErrorContains(t, err, "starter profiles")
			require.NotContains(t, err.Error(), "secret", "values are never repeated")
		})
	}
}

func TestParseNamesEverythingThatIsWrong(t *testing.T) {
	t.Parallel()
	_, err := profile.Parse("x.yaml", []byte("name: x\nscopes: v3\ntypes:\n  Patient:\n    strategy: rooster\n    page_size: 0\n    why: x\n"))
	require.ErrorContains(t, err, `x.yaml:2: scopes: "v3" isn't one of none, v1, v2; x.yaml:5: types.Patient.strategy: "rooster" isn't one of system, roster, snapshot; x.yaml:6: types.Patient.page_size: 0 isn't between 1 and 1000.`)
	_, err = profile.Parse("x.yaml", []byte("types:\n"+strings.Repeat("  A: {}\n", 30)))
	require.ErrorContains(t, err, "and 19 more")
}

// TestParseNeverPanics: whatever stands in a file, it is a profile that passes its own checks, or an error that names the
// file and a line.
func TestParseNeverPanics(t *testing.T) {
	t.Parallel()
	named := regexp.MustCompile(`hospital\.yaml:\d+: `)
	pieces := []string{
		"name: ", "scopes: ", "types:\n", "  Patient: ", "strategy: ", "system", "why: ", "{", "}", "[", "]", "\n", "  ", ": ", "- ", "&a ", "*a", "<<: ", "${x}",
		"params: ", "headers: ", "!!int ", "|", "'", "\"", "---\n", "#", "\t", "0", "1e9", "~", "? ", "%YAML 1.1\n", "\x00", "ü", "page_size: ", "v1", "x",
	}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(
			rapid.String(),
			rapid.Map(rapid.SliceOf(rapid.SampledFrom(pieces)), func(parts []string) string { return strings.Join(parts, "") }),
			rapid.Custom(func(t *rapid.T) string { // own, with a piece cut out and another put in
				from := rapid.IntRange(0, len(own)).Draw(t, "from")
				to := rapid.IntRange(from, min(from+20, len(own))).Draw(t, "to")
				return own[:from] + rapid.SampledFrom(pieces).Draw(t, "piece") + own[to:]
			}),
		).Draw(t, "text")
		p, err := profile.Parse("hospital.yaml", []byte(text))
		if err != nil {
			require.True(t, fault.Is(err, fault.Config))
			require.Regexp(t, named, err.Error())
			return
		}
		require.Contains(t, p.Types, cura.Patient)
		for typ, rules := range p.Types {
			require.True(t, typ.Pulled())
			require.True(t, rules.Strategy.Known())
			require.NotEmpty(t, rules.Slices(nil))
		}
	})
}

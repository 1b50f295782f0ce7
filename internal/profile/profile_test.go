package profile_test

import (
	"flag"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/profile"
)

var update = flag.Bool("update", false, "write the golden tables anew")

func builtin(t *testing.T, name string) *profile.Profile {
	t.Helper()
	p, err := profile.Builtin(name)
	require.NoError(t, err)
	return p
}

// TestVendors compares what each built-in profile asks of its vendor's server with the table in testdata.
func TestVendors(t *testing.T) {
	t.Parallel()
	for _, name := range profile.Names() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join("testdata", name+".txt")
			got := table(builtin(t, name))
			if *update {
				require.NoError(t, os.WriteFile(file, []byte(got), 0o600))
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, string(want), got)
		})
	}
}

// table writes a profile as the requests it makes.
func table(p *profile.Profile) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", p.Name, p.Title)
	fmt.Fprintf(&b, "scopes: %s\n", strings.Join(p.ScopesFor([]cura.ResourceType{cura.Patient, cura.Observation}), " "))
	fmt.Fprintf(&b, "find: %s, by POST: %t\n", p.Find, p.FindByPost)
	fmt.Fprintf(&b, "with every request: %v %v, to fill in: %v\n", p.Headers, p.Query, p.Params)
	fmt.Fprintf(&b, "requests a minute: %d, at once: %d\n", p.RequestsPerMinute, p.Concurrency)
	for _, typ := range cura.ResourceTypes() {
		rules, ok := p.Rules(typ)
		if !ok {
			continue
		}
		choice := profile.Choose(p, typ, profile.Evidence{}, "")
		fmt.Fprintf(&b, "\n%s: %s, at most %d a page\n", typ, choice.Strategy, p.PageSizeFor(typ, 0))
		for _, slice := range rules.Slices(nil) {
			fmt.Fprintf(&b, "  ?%s\n", slice.Encode())
		}
		fmt.Fprintf(&b, "  why: %s\n  can miss: %s\n", choice.Reason, choice.CanMiss)
	}
	fmt.Fprintf(&b, "\nscopes to write: %s\n", strings.Join(p.WriteScopes(cura.ArtefactKinds()), " "))
	for _, kind := range cura.ArtefactKinds() {
		w, ok := p.Write(kind)
		if !ok {
			fmt.Fprintf(&b, "%s: isn't written\n", kind)
			continue
		}
		fmt.Fprintf(&b, "%s: %s, content types %v, categories %v, encounter required: %t, period's end: %t\n",
			kind, w.Resource, w.ContentTypes, w.Categories, w.EncounterRequired, w.PeriodEnd)
		fmt.Fprintf(&b, "  conditional: %t, stores identifier: %t, read back by: %s, held: %t, update: %t, by If-Match: %t\n  why: %s\n",
			w.ConditionalCreate, w.StoresIdentifier, w.ReadBack, w.Held, w.Update, w.IfMatch, w.Why)
	}
	return b.String()
}

func TestBuiltin(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{"athena", "epic", "generic", "hapi", "medplum", "oracle"}, profile.Names())
	for _, name := range profile.Names() {
		p := builtin(t, name)
		require.Equal(t, name, p.Name, "the file's name is the profile's")
		for _, typ := range cura.ResourceTypes() {
			require.Contains(t, p.Types, typ)
		}
	}
	for _, name := range []string{"cerner", "", "Epic", "../generic", "epic.yaml"} {
		_, err := profile.Builtin(name)
		require.True(t, fault.Is(err, fault.Config))
		require.ErrorContains(t, err, "isn't one of athena, epic, generic, hapi, medplum, oracle")
		require.ErrorContains(t, err, "starter profiles")
	}
}

// TestFactsAreCited: a data file without its sources can't be checked against them.
func TestFactsAreCited(t *testing.T) {
	t.Parallel()
	for _, name := range profile.Names() {
		text, err := os.ReadFile(filepath.Join("data", name+".yaml"))
		require.NoError(t, err)
		for i, line := range strings.Split(string(text), "\n") {
			key, _, _ := strings.Cut(strings.TrimSpace(line), ":")
			if slices.Contains([]string{"scopes", "page_size", "find_by_post", "params", "why", "requests_per_minute", "query"}, key) && name != "hapi" {
				require.Regexp(t, `DOMAIN|such as|can_miss|>-`, line, "%s.yaml:%d", name, i+1)
			}
		}
		for typ, rules := range builtin(t, name).Types {
			require.Contains(t, rules.Why, "DOMAIN §", "%s %s", name, typ)
		}
		for kind, write := range builtin(t, name).Writes {
			require.Contains(t, write.Why, "DOMAIN §", "%s %s", name, kind)
		}
	}
}

func TestScopesFor(t *testing.T) {
	t.Parallel()
	types := []cura.ResourceType{cura.Patient, cura.Observation}
	for mode, want := range map[profile.ScopeMode][]string{
		profile.ScopesNone: nil,
		profile.ScopesV1:   {"system/Patient.read", "system/Observation.read"},
		profile.ScopesV2:   {"system/Patient.rs", "system/Observation.rs"},
	} {
		require.Equal(t, want, (&profile.Profile{Scopes: mode}).ScopesFor(types))
	}
}

func TestSlices(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		rules      profile.Rules
		notOffered []string
		want       []url.Values
	}{
		"nothing to name": {profile.Rules{}, nil, []url.Values{{}}},
		"parameters":      {profile.Rules{Params: map[string]string{"intent": "order"}}, []string{"x"}, []url.Values{{"intent": {"order"}}}},
		"categories": {
			profile.Rules{Categories: []string{"a", "b"}, Params: map[string]string{"status": "final"}},
			nil,
			[]url.Values{{"category": {"a"}, "status": {"final"}}, {"category": {"b"}, "status": {"final"}}},
		},
		"one isn't offered":  {profile.Rules{Categories: []string{"a", "b"}}, []string{"a"}, []url.Values{{"category": {"b"}}}},
		"none of them is":    {profile.Rules{Categories: []string{"a", "b"}}, []string{"b", "a"}, []url.Values{}},
		"another isn't ours": {profile.Rules{Categories: []string{"a"}}, []string{"c"}, []url.Values{{"category": {"a"}}}},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.want, test.rules.Slices(test.notOffered))
		})
	}
}

func TestPageSizeFor(t *testing.T) {
	t.Parallel()
	p := &profile.Profile{PageSize: 100, Types: map[cura.ResourceType]profile.Rules{cura.Patient: {PageSize: 20}, cura.Observation: {PageSize: 200}}}
	require.Equal(t, 20, p.PageSizeFor(cura.Patient, 500))
	require.Equal(t, 7, p.PageSizeFor(cura.Patient, 7))
	require.Equal(t, 200, p.PageSizeFor(cura.Observation, 0), "the type's own may be more than the profile's")
	require.Equal(t, 100, p.PageSizeFor(cura.Encounter, 0))
	require.Equal(t, 500, (&profile.Profile{}).PageSizeFor(cura.Encounter, 500))
	require.Equal(t, 0, (&profile.Profile{}).PageSizeFor(cura.Encounter, -1), "the caller's own is taken then")
}

func TestFill(t *testing.T) {
	t.Parallel()
	athena := builtin(t, "athena")
	filled, err := athena.Fill(map[string]string{"practice": "Organization/a-1.Practice-7"})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"ah-practice": "Organization/a-1.Practice-7"}, filled.Query)
	require.Empty(t, filled.Params)
	require.Equal(t, map[string]string{"ah-practice": "${practice}"}, athena.Query, "the profile itself stays as it is")
	again, err := filled.Fill(nil)
	require.NoError(t, err, "a filled profile needs nothing more")
	require.Equal(t, filled.Query, again.Query)

	everywhere := parsed(t, strings.Join([]string{
		"name: own", "scopes: none", "params: [a, b]", "headers: {X-A: 'A ${a}'}", "query: {q: '${a}-${b}'}",
		"types:", "  Patient:", "    strategy: system", "    why: So it is.", "    params: {p: '${b}'}",
	}, "\n"))
	filled, err = everywhere.Fill(map[string]string{"a": "1", "b": "2"})
	require.NoError(t, err)
	require.Equal(t, "A 1", filled.Headers["X-A"])
	require.Equal(t, "1-2", filled.Query["q"])
	require.Equal(t, "2", filled.Types[cura.Patient].Params["p"])
}

func TestFillRefuses(t *testing.T) {
	t.Parallel()
	athena := builtin(t, "athena")
	cases := map[string]struct {
		values map[string]string
		detail string
	}{
		"nothing":         {nil, "the profile athena needs practice"},
		"another":         {map[string]string{"practice": "1", "clinic": "2"}, `the profile athena has no parameter "clinic"`},
		"an empty one":    {map[string]string{"practice": ""}, "the value of practice is empty"},
		"a line break":    {map[string]string{"practice": "secret\r\nX-Evil: 1"}, "can't stand in a header"},
		"another's place": {map[string]string{"practice": "${practice}"}, "can't stand in a header"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := athena.Fill(test.values)
			require.True(t, fault.Is(err, fault.Config))
			require.ErrorContains(t, err, test.detail)
			require.NotContains(t, err.Error(), "secret")
		})
	}
}

func parsed(t *testing.T, text string) *profile.Profile {
	t.Helper()
	p, err := profile.Parse("own.yaml", []byte(text))
	require.NoError(t, err)
	return p
}

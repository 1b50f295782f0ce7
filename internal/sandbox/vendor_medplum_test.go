package sandbox

import (
	"net/http"
	"net/url"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// DOMAIN §2: _offset up to a depth, at most 1000 a page.
func TestMedplumOffset(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Vendor: "medplum", Patients: 2, Resources: 1300})
	c := clientOf(t, s)
	r := c.get("/Observation?_count=5000")
	require.Len(t, r.ids(t), 1000)
	require.Nil(t, r.bundle(t).Total, "DOMAIN §2: total may be absent")
	next, err := url.Parse(r.link(t, "next"))
	require.NoError(t, err)
	require.Equal(t, "/fhir/Observation", next.Path)
	require.Equal(t, "1000", next.Query().Get("_offset"))

	knobs(t, s, Faults{PageDepth: 600})
	r = c.get("/Observation?_count=500")
	r = c.get(r.link(t, "next"))
	require.Len(t, r.ids(t), 500, "up to the depth")
	next, err = url.Parse(r.link(t, "next"))
	require.NoError(t, err)
	require.Equal(t, "1000", next.Query().Get("_offset"), "a link past it is given all the same")
	r = c.get(next.String())
	require.Equal(t, http.StatusBadRequest, r.status)
	require.Equal(t, "invalid", r.issue(t))
	require.Contains(t, string(r.raw), "offset")

	knobs(t, s, Faults{})
	c.check(t, []refusal{
		{"DOMAIN §2: 10,000", "/Observation?_offset=10000", 200, ""},
		{"DOMAIN §2: not beyond 10,000", "/Observation?_offset=10001", 400, "invalid"},
		{"a negative offset", "/Observation?_offset=-1", 400, "invalid"},
		{"no cursor", "/Observation?_sort=_lastUpdated&_cursor=x!", 400, "invalid"},
	})
}

// DOMAIN §2: _cursor in the order of _lastUpdated, without a depth.
func TestMedplumCursor(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Vendor: "medplum", Patients: 3})
	knobs(t, s, Faults{PageDepth: 1})
	c := clientOf(t, s)
	for _, query := range []string{"/Observation?_sort=_lastUpdated&_count=7", "/Observation?_sort=_lastUpdated&_count=3&patient=" + s.store.first("Patient")} {
		r := c.get(query)
		require.Contains(t, r.link(t, "next"), "_cursor=")
		require.NotContains(t, r.link(t, "next"), "_offset=")
		pages := c.walk(query)
		all := slices.Concat(pages...)
		require.Greater(t, len(pages), 2)
		require.Len(t, slices.Compact(slices.Sorted(slices.Values(all))), len(all), "no row twice")
	}

	// What changes behind the cursor comes once more, and nothing is left out.
	r := c.get("/Observation?_sort=_lastUpdated&_count=5")
	first := r.ids(t)
	raw := source(t, s)["Observation"][first[0]]
	require.NoError(t, s.Put(raw))
	seen := slices.Concat(append(c.walk(r.link(t, "next")), first)...)
	require.Len(t, seen, s.Counts()["Observation"]+1)
	require.Equal(t, first[0], seen[len(seen)-len(first)-1], "at the end")
}

// DOMAIN §2: a page by offset is a search of its own; what changes in between shifts rows.
func TestMedplumPagesAreLive(t *testing.T) {
	t.Parallel()
	s := hospitalOf(t, "medplum")
	c := clientOf(t, s)
	require.Equal(t, [][]string{{"o3", "o4"}, {"o1", "o2"}}, c.walk("/Observation?_count=2"), "in the order of change")
	next := c.get("/Observation?_count=2").link(t, "next")
	require.NoError(t, s.Delete("Observation", "o3"))
	require.Equal(t, []string{"o2"}, c.get(next).ids(t), "o1 was skipped")
	require.NoError(t, s.Put([]byte(`{"resourceType":"Observation","id":"o4"}`)))
	require.Equal(t, []string{"o4"}, c.get(next).ids(t), "o4 was repeated")
	latest := c.get("/Observation?_count=2&_sort=-_lastUpdated")
	require.Equal(t, []string{"o4", "o2"}, latest.ids(t))
	require.NoError(t, s.Put([]byte(`{"resourceType":"Observation","id":"o5"}`)))
	require.Equal(t, []string{"o2", "o1"}, c.get(latest.link(t, "next")).ids(t), "a new one shifts them the other way")
	require.Equal(t, [][]string{{"o1", "o2"}, {"o4", "o5"}}, c.walk("/Observation?_count=2&_sort=_id"))
}

func TestMedplumPagingKnobs(t *testing.T) {
	t.Parallel()
	tests := []struct {
		rule   string
		faults Faults
		want   [][]string
	}{
		{"DOMAIN §2: an empty page with a next link is legal", Faults{EmptyPage: true}, [][]string{{}, {"o3", "o4"}, {"o1", "o2"}}},
		{"DOMAIN §2: the same id on several pages", Faults{DuplicateRows: true}, [][]string{{"o3", "o4"}, {"o4", "o1", "o2"}}},
		{"a row at a page's boundary left out", Faults{SkipRows: true}, [][]string{{"o3", "o4"}, {"o2"}}},
	}
	for _, query := range []string{"/Observation?_count=2", "/Observation?_count=2&_sort=_lastUpdated"} {
		for _, tt := range tests {
			t.Run(tt.rule+" "+query, func(t *testing.T) {
				t.Parallel()
				s := hospitalOf(t, "medplum")
				knobs(t, s, tt.faults)
				c := clientOf(t, s)
				require.Equal(t, tt.want, c.walk(query))
				knobs(t, s, Faults{PageExpiresAfterUses: 1})
				next := c.get(query).link(t, "next")
				require.Equal(t, http.StatusOK, c.get(next).status)
				r := c.get(next)
				require.Equal(t, http.StatusGone, r.status)
				require.Equal(t, "expired", r.issue(t))
			})
		}
	}
}

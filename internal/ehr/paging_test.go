package ehr_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// pages follows a chain to its end and gives the ids served, and the error that ended it.
func pages(t *testing.T, c *ehr.Client, typ cura.ResourceType) (ids []string, count int, err error) {
	t.Helper()
	q := ehr.Query{Type: typ}
	for {
		page, err := c.Search(t.Context(), q)
		if err != nil {
			return ids, count, err
		}
		count++
		for _, e := range page.Entries {
			ids = append(ids, e.ID)
		}
		if q.Next = page.Next; q.Next == "" {
			return ids, count, nil
		}
	}
}

func TestSearchFollowsNextLinks(t *testing.T) {
	t.Parallel()
	cases := map[string]func(h *hospital) string{
		"absolute":         func(h *hospital) string { return h.URL + "/fhir/Patient?page=2" },
		"at the base":      func(h *hospital) string { return h.URL + "/fhir?_getpages=abc&page=2" },
		"relative, type":   func(*hospital) string { return "Patient?page=2" },
		"relative, query":  func(*hospital) string { return "?page=2" },
		"rooted":           func(*hospital) string { return "/fhir/next/abc?page=2" },
		"fragment":         func(h *hospital) string { return h.URL + "/fhir/Patient?page=2#part" },
		"host in capitals": func(h *hospital) string { return strings.Replace(h.URL, "https", "HTTPS", 1) + "/fhir/Patient?page=2" },
	}
	for name, next := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			answer := func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Query().Get("page") {
				case "":
					text(http.StatusOK, searchset(match("Patient", "p1"), link("next", next(h))))(w, r)
				case "2": // an empty page with a next link is no end
					text(http.StatusOK, searchset("", link("next", h.URL+"/fhir/Patient?page=3")))(w, r)
				default:
					text(http.StatusOK, searchset(match("Patient", "p2")))(w, r)
				}
			}
			for _, path := range []string{"/fhir", "/fhir/Patient", "/fhir/next/abc"} {
				h.on(path, answer)
			}
			ids, count, err := pages(t, h.client(t), cura.Patient)
			require.NoError(t, err)
			require.Equal(t, []string{"p1", "p2"}, ids)
			require.Equal(t, 3, count)
		})
	}
}

func TestSearchCursorSurvivesARestart(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	h.on("/fhir/Patient", text(http.StatusOK, searchset(match("Patient", "p1"), link("next", h.URL+"/fhir/more"))))
	h.on("/fhir/more", text(http.StatusOK, searchset(match("Patient", "p2"))))
	page, err := h.client(t).Search(t.Context(), ehr.Query{Type: cura.Patient})
	require.NoError(t, err)
	page, err = h.client(t).Search(t.Context(), ehr.Query{Type: cura.Patient, Next: page.Next})
	require.NoError(t, err)
	require.Equal(t, "p2", page.Entries[0].ID)
}

func TestSearchNextLinkLeavesTheOrigin(t *testing.T) {
	t.Parallel()
	elsewhere := newHospital(t)
	cases := map[string]func(h *hospital) string{
		"another host":     func(*hospital) string { return elsewhere.URL + "/fhir/Patient?page=2" },
		"no scheme":        func(*hospital) string { return strings.TrimPrefix(elsewhere.URL, "https:") + "/fhir/Patient" },
		"plain http":       func(h *hospital) string { return strings.Replace(h.URL, "https", "http", 1) + "/fhir/Patient" },
		"another path":     func(h *hospital) string { return h.URL + "/admin" },
		"a longer segment": func(h *hospital) string { return h.URL + "/fhirs/Patient" },
		"up and out":       func(h *hospital) string { return h.URL + "/fhir/../admin" },
		"encoded dots":     func(h *hospital) string { return h.URL + "/fhir/%2e%2e/admin" },
		"user": func(h *hospital) string {
			return strings.Replace(h.URL, "https://", "https://u:p@", 1) + "/fhir/Patient"
		},
		"no host": func(*hospital) string { return "javascript:alert(1)" },
	}
	for name, next := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			h.on("/fhir/Patient", text(http.StatusOK, searchset(match("Patient", "p1"), link("next", next(h)))))
			c := h.client(t)

			_, err := c.Search(t.Context(), ehr.Query{Type: cura.Patient})
			f := requireFault(t, err, fault.Protocol)
			require.Contains(t, f.Detail, "next link leaves the connection's origin")
			require.NotEmpty(t, f.Fix)
			require.Len(t, h.asked("/fhir/Patient"), 1)

			// What is stored is checked again: it was the server's word once, and the base may have moved since. No server
			// is to blame then, and the query can begin again.
			_, err = c.Search(t.Context(), ehr.Query{Type: cura.Patient, Next: "1  " + next(h)})
			require.NotEmpty(t, requireFault(t, err, fault.Expired).Fix)
			require.Len(t, h.asked("/fhir/Patient"), 1)
			require.Empty(t, h.asked("/admin"))
		})
	}
	t.Cleanup(func() { require.Empty(t, elsewhere.asked(""), "nothing is sent elsewhere") })
}

// TestSearchPagingHosts: a server behind a gateway writes its links as it is called inside. The profile names that origin,
// and the link is followed at the base's.
func TestSearchPagingHosts(t *testing.T) {
	t.Parallel()
	elsewhere := newHospital(t)
	cases := map[string]struct {
		next string
		ok   bool
	}{
		"the paging host":           {"https://fhir.internal:8443/fhir/Patient?page=2", true},
		"in capitals":               {"https://FHIR.internal:8443/fhir/Patient?page=2", true},
		"another port":              {"https://fhir.internal/fhir/Patient?page=2", false},
		"plain http":                {"http://fhir.internal:8443/fhir/Patient?page=2", false},
		"a path outside the base":   {"https://fhir.internal:8443/admin", false},
		"up and out":                {"https://fhir.internal:8443/fhir/../admin", false},
		"a user":                    {"https://u:p@fhir.internal:8443/fhir/Patient?page=2", false},
		"a host that is on no list": {elsewhere.URL + "/fhir/Patient?page=2", false},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			h.on("/fhir/Patient", func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Query().Has("page") {
					text(http.StatusOK, searchset(match("Patient", "p2")))(w, r)
					return
				}
				text(http.StatusOK, searchset(match("Patient", "p1"), link("next", test.next)))(w, r)
			})
			p := *builtin(t, "generic")
			p.PagingHosts = []string{"https://fhir.internal:8443"}
			ids, _, err := pages(t, h.client(t, withProfile(&p)), cura.Patient)
			if !test.ok {
				requireFault(t, err, fault.Protocol)
				require.Len(t, h.asked("/fhir/Patient"), 1)
				return
			}
			require.NoError(t, err)
			require.Equal(t, []string{"p1", "p2"}, ids)
		})
	}
	t.Cleanup(func() { require.Empty(t, elsewhere.asked(""), "nothing is sent elsewhere") })
}

// TestSearchNextLinkBeyondADepth: the same answer that refuses a search's parameters ends a chain of the server's own links.
func TestSearchNextLinkBeyondADepth(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		answer http.HandlerFunc
		kind   fault.Kind
	}{
		"400":                      {text(400, outcome("error", "invalid")), fault.Depth},
		"400, not supported":       {text(400, outcome("error", "not-supported")), fault.Depth},
		"422":                      {text(422, ""), fault.Depth},
		"400, a lock":              {text(400, outcome("error", "lock-error")), fault.Transient},
		"400, throttled":           {text(400, outcome("error", "throttled")), fault.Throttled},
		"400, too costly":          {text(400, outcome("error", "too-costly")), fault.Protocol},
		"404, forgotten":           {text(404, ""), fault.Expired},
		"403":                      {text(403, ""), fault.Scope},
		"500, which may pass":      {text(500, ""), fault.Transient},
		"405, which links aren't":  {text(405, ""), fault.Unsupported},
		"200 with a refusal of it": {text(200, outcome("error", "invalid")), fault.Depth},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			h.on("/fhir/Patient", text(http.StatusOK, searchset(match("Patient", "p1"), link("next", "/fhir/deep"))))
			h.on("/fhir/deep", test.answer)
			_, _, err := pages(t, h.client(t), cura.Patient)
			requireFault(t, err, test.kind)
			require.NotErrorIs(t, err, ehr.ErrRefused, "the search itself wasn't refused")
		})
	}
}

func TestSearchUnreadableCursor(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	for _, next := range []string{"x", "1 a", "0 a " + h.URL + "/fhir", "a b c", "1 a %zz"} {
		_, err := h.client(t).Search(t.Context(), ehr.Query{Type: cura.Patient, Next: next})
		requireFault(t, err, fault.Expired)
	}
	require.Empty(t, h.asked(""))
}

func TestSearchEndlessNextLinks(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		next   func(page int) int
		detail string
	}{
		"the same page":    {func(int) int { return 1 }, "run in a loop"},
		"a loop of three":  {func(page int) int { return page%3 + 1 }, "run in a loop"},
		"a loop after ten": {func(page int) int { return 10 + (page+1)%4 }, "run in a loop"},
		"always new":       {func(page int) int { return page + 1 }, "haven't ended after 40 pages"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			h.on("/fhir/Patient", func(w http.ResponseWriter, r *http.Request) {
				page := 0
				_, _ = fmt.Sscan(r.URL.Query().Get("page"), &page)
				text(http.StatusOK, searchset("", link("next", fmt.Sprintf("%s/fhir/Patient?page=%d", h.URL, test.next(page)))))(w, r)
			})
			_, _, err := pages(t, h.client(t, func(cfg *ehr.Config) { cfg.MaxPages = 40 }), cura.Patient)
			f := requireFault(t, err, fault.Protocol)
			require.Contains(t, f.Detail, test.detail)
			require.NotEmpty(t, f.Fix)
		})
	}
}

func TestSearchExpiredNextLink(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusNotFound, http.StatusGone} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			h.on("/fhir/Patient", text(http.StatusOK, searchset(match("Patient", "p1"), link("next", "/fhir/gone"))))
			h.on("/fhir/gone", text(status, ""))
			ids, _, err := pages(t, h.client(t), cura.Patient)
			requireFault(t, err, fault.Expired)
			require.Equal(t, []string{"p1"}, ids)
		})
	}
}

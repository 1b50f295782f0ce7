package ehr_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/fault"
)

const artefacts = "https://cura.example/artefact"

// held is a written note as an EHR gives it back.
func held(id, patient, value string) string {
	return fmt.Sprintf(`{"search":{"mode":"match"},"resource":{"resourceType":"DocumentReference","id":%q,"meta":{"versionId":"2","lastUpdated":"2026-11-23T16:00:00.5Z"},`+
		`"identifier":[{"system":"urn:other","value":"x"},{"system":%q,"value":%q}],"subject":{"reference":"Patient/%s"}}}`, id, artefacts, value, patient)
}

func TestFindByOurIdentifier(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		answer http.HandlerFunc
		ids    []string
		kind   fault.Kind
	}{
		"none":                 {text(200, searchset("")), nil, ""},
		"one":                  {text(200, searchset(held("n-17", "p1", "CURA-1.1"))), []string{"n-17"}, ""},
		"one, on two pages":    {text(200, searchset(held("n-17", "p1", "CURA-1.1")+","+held("n-17", "p1", "CURA-1.1"))), []string{"n-17"}, ""},
		"two":                  {text(200, searchset(held("n-17", "p1", "CURA-1.1")+","+held("n-18", "p1", "CURA-1.1"))), []string{"n-17", "n-18"}, ""},
		"another's":            {text(200, searchset(held("n-17", "p1", "CURA-1.2"))), nil, fault.Unsupported},
		"without any":          {text(200, searchset(match("DocumentReference", "n-17"))), nil, fault.Unsupported},
		"the identifier fell":  {text(200, searchset("", link("self", "DocumentReference?_count=100"))), nil, fault.Unsupported},
		"the search isn't one": {text(400, ""), nil, fault.Config},
		"the scope isn't had":  {text(403, ""), nil, fault.Scope},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			h.on(notes, test.answer)
			found, err := h.client(t).FindByIdentifier(t.Context(), "DocumentReference", artefacts, "CURA-1.1")
			require.Equal(t, artefacts+"|CURA-1.1", h.asked(notes)[0].URL.Query().Get("identifier"))
			if test.kind != "" {
				f := requireFault(t, err, test.kind)
				require.NotEmpty(t, f.Fix)
				require.NotContains(t, err.Error(), "CURA-1")
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.ids, writtenIDs(found))
			for _, w := range found {
				require.Equal(t, "2", w.Version)
				require.Equal(t, `W/"2"`, w.ETag)
				require.Equal(t, time.Date(2026, 11, 23, 16, 0, 0, 5e8, time.UTC), w.LastUpdated)
				require.Contains(t, string(w.Resource), `"Patient/p1"`)
			}
		})
	}
}

func writtenIDs(found []ehr.Written) []string {
	var ids []string
	for _, w := range found {
		ids = append(ids, w.ID)
	}
	return ids
}

// TestReadBack begins with the narrowest search and widens it for a server that refuses.
func TestReadBack(t *testing.T) {
	t.Parallel()
	since := time.Date(2026, 11, 23, 16, 0, 0, 0, time.UTC)
	const bound = "ge2026-11-23T15:55:00.000Z"
	all := searchset(held("n-17", "p1", "CURA-1.1") + "," + held("n-18", "p1", "CURA-1.2") + "," + match("Patient", "p1"))
	cases := map[string]struct {
		refused []string // parameters that the server doesn't take
		asked   []string
	}{
		"takes all":                      {nil, []string{"p1 e1 " + bound}},
		"takes no _lastUpdated":          {[]string{"_lastUpdated"}, []string{"p1 e1 " + bound, "p1 e1 "}},
		"takes no encounter either":      {[]string{"_lastUpdated", "encounter"}, []string{"p1 e1 " + bound, "p1 e1 ", "p1  "}},
		"takes no search by patient too": {[]string{"patient"}, []string{"p1 e1 " + bound, "p1 e1 ", "p1  "}},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			h.on(notes, func(w http.ResponseWriter, r *http.Request) {
				for _, name := range test.refused {
					if r.URL.Query().Has(name) {
						text(http.StatusBadRequest, "")(w, r)
						return
					}
				}
				text(http.StatusOK, all)(w, r)
			})
			found, err := h.client(t).ReadBack(t.Context(), "DocumentReference", "p1", "e1", since)
			var asked []string
			for _, r := range h.asked(notes) {
				q := r.URL.Query()
				asked = append(asked, strings.Join([]string{q.Get("patient"), q.Get("encounter"), q.Get("_lastUpdated")}, " "))
			}
			require.Equal(t, test.asked, asked)
			if len(test.refused) == 1 && test.refused[0] == "patient" {
				requireFault(t, err, fault.Config)
				return
			}
			require.NoError(t, err)
			require.Equal(t, []string{"n-17", "n-18"}, writtenIDs(found))
		})
	}
}

func TestReadBackGivesNobodyElses(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	c := h.client(t)
	h.on(notes, text(200, searchset(held("n-17", "p1", "x")+","+held("n-18", "p2", "x"))))
	_, err := c.ReadBack(t.Context(), "DocumentReference", "p1", "", time.Now())
	requireFault(t, err, fault.Unsupported)
	h.on(notes, text(200, searchset("", link("self", "DocumentReference?_count=100"))))
	_, err = c.ReadBack(t.Context(), "DocumentReference", "p1", "", time.Now())
	requireFault(t, err, fault.Unsupported)
	before := len(h.asked(""))
	_, err = c.ReadBack(t.Context(), "DocumentReference", "p1&x=y", "", time.Now())
	requireFault(t, err, fault.Data)
	require.Len(t, h.asked(""), before)
}

// TestReadBackIsCapped: to stop after so many and say "not there" would be a guess.
func TestReadBackIsCapped(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	h.on(notes, func(w http.ResponseWriter, r *http.Request) {
		var page int
		_, _ = fmt.Sscan(r.URL.Query().Get("page"), &page)
		var entries []string
		for i := range 250 {
			entries = append(entries, held(fmt.Sprintf("n-%d-%d", page, i), "p1", "x"))
		}
		text(200, searchset(strings.Join(entries, ","), link("next", fmt.Sprintf("DocumentReference?page=%d", page+1))))(w, r)
	})
	_, err := h.client(t).ReadBack(t.Context(), "DocumentReference", "p1", "", time.Now())
	f := requireFault(t, err, fault.Unsupported)
	require.Contains(t, f.Detail, "more than 1000")
	require.Len(t, h.asked(notes), 4)
}

func TestReadWritten(t *testing.T) {
	t.Parallel()
	whole := `{"resourceType":"DocumentReference","id":"n-17","meta":{"versionId":"2"}}`
	cases := map[string]struct {
		answer http.HandlerFunc
		etag   string
		kind   fault.Kind
		cause  error
	}{
		"with a tag":    {text(200, whole, "ETag", `W/"3"`), `W/"3"`, "", nil},
		"without a tag": {text(200, whole), `W/"2"`, "", nil},
		"gone":          {text(410, ""), "", fault.NotFound, ehr.ErrGone},
		"not there":     {text(404, ""), "", fault.NotFound, nil},
		"not ours":      {text(403, ""), "", fault.Scope, nil},
		"another":       {text(200, strings.Replace(whole, "n-17", "n-18", 1)), "", fault.Protocol, nil},
		"half of one":   {halfAnswer, "", fault.Transient, nil},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			h.on(notes+"/n-17", test.answer)
			got, err := h.client(t).ReadWritten(t.Context(), "DocumentReference", "n-17")
			if test.kind != "" {
				requireFault(t, err, test.kind)
				require.True(t, test.cause == nil || errors.Is(err, test.cause))
				return
			}
			require.NoError(t, err)
			require.Equal(t, ehr.Written{ID: "n-17", Version: "2", ETag: test.etag, Resource: []byte(whole)}, got)
		})
	}
}

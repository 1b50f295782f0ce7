package ehr

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/fhir"
)

// FuzzNextLink: whatever a server writes as a next link, and whatever stands in a stored cursor, leads nowhere but under
// the FHIR base, or is a fault without a word of it.
func FuzzNextLink(f *testing.F) {
	for _, next := range []string{
		"https://ehr.example/fhir/Patient?page=2", "https://ehr.example:443/fhir?_getpages=1", "?page=2", "Patient?page=2", "//evil.example/fhir",
		"https://fhir.internal:8443/fhir/x", "https://ehr.example@evil.example/fhir", "https://ehr.example/fhir/../admin", "/fhir/%2e%2e/admin",
		`https://ehr.example\@evil.example/fhir`, "javascript:alert(1)", "https:fhir", "/fhir/x y", "https://ehr.example/fhir/%", "1 a https://evil.example/fhir",
		"HTTPS://EHR.EXAMPLE/fhir", "https://ehr.example:0443/fhir", "https://[::1]/fhir", "https://ehr.example/fhir/..;/admin", "\thttps://evil.example",
	} {
		f.Add(next)
	}
	base, err := url.Parse("https://ehr.example/fhir")
	require.NoError(f, err)
	c := &Client{base: base, cfg: Config{}.withDefaults(), paging: pagingOrigins([]string{"https://fhir.internal:8443"})}
	r := request{errand: errandSearch, op: "searching Patient", typ: "Patient", url: base.JoinPath("Patient")}
	f.Fuzz(func(t *testing.T, next string) {
		stored, err := c.nextCursor(r, cursor{}, next)
		if err != nil {
			require.True(t, fault.Is(err, fault.Protocol), err)
			stored = "1  " + next // as if an older release had stored it
		}
		at, err := c.parseCursor(r.op, stored)
		if err != nil {
			require.True(t, fault.Is(err, fault.Expired), err)
			return
		}
		// Looked at as text and parsed anew, as the transport would.
		sent, err := url.Parse(at.link.String())
		require.NoError(t, err)
		require.Equal(t, "https", strings.ToLower(sent.Scheme))
		require.Equal(t, "ehr.example", strings.ToLower(sent.Hostname()))
		require.Contains(t, []string{"", "443"}, sent.Port())
		require.Nil(t, sent.User)
		require.True(t, sent.Path == "/fhir" || strings.HasPrefix(sent.Path, "/fhir/"), sent.Path)
		require.NotContains(t, strings.Split(sent.Path, "/"), "..")
	})
}

// FuzzLocation: whatever a server writes as the Location of what it has taken, the id is one of FHIR's of that type under
// the FHIR base, or none.
func FuzzLocation(f *testing.F) {
	for _, location := range []string{
		"", "DocumentReference/n-17", "DocumentReference/n-17/_history/1", "/fhir/DocumentReference/n-17", "https://ehr.example:443/fhir/DocumentReference/n-17/_history/2",
		"https://fhir.internal:8443/fhir/DocumentReference/n-17", "https://evil.example/fhir/DocumentReference/n-17", "//evil.example/fhir/DocumentReference/n-17",
		"Patient/n-17", "DocumentReference", "DocumentReference/", "DocumentReference/../Patient/1", "DocumentReference/%2e%2e", "DocumentReference/a%2Fb", "DocumentReference/a b",
		"DocumentReference/n-17/_history", "DocumentReference/n-17/_history/", "DocumentReference/n-17/x/1", "DocumentReference/n-17?x=y", "DocumentReference/n-17#1", "n-17",
		"https://user@ehr.example/fhir/DocumentReference/n-17", "https:DocumentReference/n-17", "\\\\evil\\DocumentReference\\1", "http://ehr.example/fhir/DocumentReference/n-17", "%",
	} {
		f.Add(location)
	}
	base, err := url.Parse("https://ehr.example/fhir")
	require.NoError(f, err)
	c := &Client{base: base, cfg: Config{}.withDefaults(), paging: pagingOrigins([]string{"https://fhir.internal:8443"})}
	f.Fuzz(func(t *testing.T, location string) {
		id, version := c.parseLocation("DocumentReference", location)
		if id == "" {
			require.Empty(t, version)
			return
		}
		require.True(t, fhir.IsID(id))
		require.True(t, version == "" || fhir.IsID(version))
		at, err := url.Parse(location)
		require.NoError(t, err)
		require.True(t, at.Host == "" || slices.Contains([]string{"ehr.example", "fhir.internal"}, strings.ToLower(at.Hostname())), at.Host)
		want := "DocumentReference/" + id
		if version != "" {
			want += "/_history/" + version
		}
		require.True(t, strings.HasSuffix(at.Path, want), at.Path)
	})
}

// FuzzRetryAfter: whatever a server asks for, the wait is none or within bounds, and a plain sane number is taken as it is.
func FuzzRetryAfter(f *testing.F) {
	for _, value := range []string{
		"", "0", "5", "1800", "1801", "-1", "1.5", "1795449690", "1795449690500", "Mon, 23 Nov 2026 16:01:30 GMT", "soon", "1e3", "NaN", "+7", "0x10", "٣",
		"Sun, 06 Nov 1994 08:49:37 GMT", "9999999999999999999999", "-9999999999999999999999", " 3 ", "3, 4",
	} {
		f.Add(value, "Mon, 23 Nov 2026 16:00:00 GMT")
		f.Add(value, "")
	}
	now := time.Date(2026, 11, 23, 16, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, value, date string) {
		h := http.Header{"Retry-After": {value}, "Date": {date}}
		asked := readRetryAfter(h, now)
		if asked.wait != 0 {
			require.GreaterOrEqual(t, asked.wait, minRetryAfter)
			require.LessOrEqual(t, asked.wait, maxRetryAfter)
		} else {
			require.Equal(t, strings.TrimSpace(value) != "", asked.absurd, "what is said and not used is called absurd")
		}
		if number := strings.TrimSpace(value); len(number) <= 3 && number != "" && strings.Trim(number, "0123456789") == "" {
			want, err := time.ParseDuration(number + "s")
			require.NoError(t, err)
			require.Equal(t, askedWait{wait: max(want, time.Second)}, asked)
		}
		require.Equal(t, asked.absurd, asked.note() != "")
	})
}

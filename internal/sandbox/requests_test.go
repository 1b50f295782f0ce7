package sandbox

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestKindsOfRequests(t *testing.T) {
	t.Parallel()
	s := hospital(t)
	next := fetch(t, s, "/Observation?_count=2").link(t, "next")
	for path, want := range map[string][2]string{
		"/oauth/token": {"token", ""}, "/fhir/metadata": {"metadata", ""},
		"/fhir/.well-known/smart-configuration": {"smart-configuration", ""}, "/fhir/Patient": {"search", "Patient"},
		"/fhir/Patient/_search": {"search", "Patient"}, "/fhir/Patient/p1": {"read", "Patient"}, "/fhir/Patient/$match": {"match", "Patient"},
		"/fhir/Patient/p1/_history": {"history", "Patient"}, "/fhir/Patient/p1/_history/1": {"history", "Patient"},
		"/fhir/Unknown/p1": {"read", ""}, "/fhir/Patient/a/b/c": {"other", "Patient"}, "/elsewhere": {"other", ""},
		"/fhir?_page=guessed": {"page", ""}, next: {"page", "Observation"},
	} {
		kind, typ := s.kindOf(httptest.NewRequest(http.MethodGet, path, nil))
		require.Equal(t, want, [2]string{kind, typ}, path)
	}
}

func TestTrafficIsBounded(t *testing.T) {
	t.Parallel()
	var l requestLog
	begun := newClock().now()
	for i := range 3 * maxMinutes {
		l.add(Request{At: begun.Add(time.Duration(i) * time.Minute), Kind: kindRead})
		require.LessOrEqual(t, len(l.traffic), maxMinutes+1)
	}
	require.Equal(t, begun.Add((3*maxMinutes-1)*time.Minute), l.counted()[maxMinutes].Minute)
}

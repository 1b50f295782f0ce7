package ehr

import (
	"net/url"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cura-health/ehr-sync/internal/fault"
)

func TestBelow(t *testing.T) {
	t.Parallel()
	cases := []struct {
		base, link string
		want       bool
	}{
		{"https://ehr.example/fhir", "https://ehr.example/fhir", true},
		{"https://ehr.example/fhir", "https://ehr.example/fhir/", true},
		{"https://ehr.example/fhir", "https://ehr.example:443/fhir/Patient", true},
		{"https://ehr.example:443/fhir", "https://EHR.example/fhir/Patient", true},
		{"http://localhost:80/fhir", "http://localhost/fhir", true},
		{"https://ehr.example", "https://ehr.example/anything", true},
		{"https://ehr.example", "https://ehr.example?_getpages=1", true},
		{"https://ehr.example/fhir", "https://ehr.example:8443/fhir", false},
		{"https://ehr.example/fhir", "http://ehr.example/fhir", false},
		{"https://ehr.example/fhir", "https://ehr.example.evil/fhir", false},
		{"https://ehr.example/fhir", "https://ehr.example/fhirx", false},
		{"https://ehr.example/fhir", "https://ehr.example/FHIR", false},
		{"https://ehr.example/fhir", "https://ehr.example/", false},
		{"https://ehr.example/fhir", "https://ehr.example/fhir/%2e%2e/x", false},
		{"https://ehr.example/fhir", "https://ehr.example/fhir/..%2fx", false},
		{"https://ehr.example/fhir", `https://ehr.example/fhir/..\x`, false},
		{"https://ehr.example/fhir", "https://u@ehr.example/fhir", false},
	}
	for _, test := range cases {
		t.Run(test.link, func(t *testing.T) {
			t.Parallel()
			base, err := url.Parse(test.base)
			require.NoError(t, err)
			link, err := url.Parse(test.link)
			require.NoError(t, err)
			require.Equal(t, test.want, below(base, link))
		})
	}
}

func TestSameDomain(t *testing.T) {
	t.Parallel()
	cases := []struct {
		base, token string
		want        bool
	}{
		{"ehr.example", "ehr.example", true},
		{"fhir.hospital.example", "auth.hospital.example", true},
		{"fhir.hospital.example", "hospital.example", true},
		{"hospital.example", "auth.hospital.example", true},
		{"fhir.a.hospital.example", "Auth.b.Hospital.example", true},
		{"fhir.trust.nhs.uk", "auth.trust.nhs.uk", true},
		{"10.1.2.3", "10.1.2.3", true},
		{"fhir.hospital.example", "hospital.example.evil", false},
		{"fhir.hospital.example", "evilhospital.example", false},
		{"fhir.trust.nhs.uk", "auth.other.nhs.uk", false},
		{"trust.co.uk", "evil.co.uk", false},
		{"trust.co.uk", "co.uk", false},
		{"co.uk", "evil.co.uk", false},
		{"10.1.2.3", "10.9.2.3", false},
		{"10.1.2.3", "x.2.3", false},
		{"localhost", "evil.localhost", false},
	}
	for _, test := range cases {
		t.Run(test.base+" "+test.token, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.want, sameDomain(test.base, test.token))
		})
	}
}

// TestCursorFindsEveryLoop walks chains of any length into loops of any length: each is found, within three times around
// and the way in, and not before a link has come twice.
func TestCursorFindsEveryLoop(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		way, loop := rapid.IntRange(0, 60).Draw(t, "way"), rapid.IntRange(1, 60).Draw(t, "loop")
		c := &Client{base: &url.URL{Scheme: "https", Host: "ehr.example"}}
		var at cursor
		for page := 0; ; page++ {
			n := page
			if n >= way {
				n = way + (page-way)%loop
			}
			link := c.base.JoinPath(strconv.Itoa(n))
			next, err := at.follow("searching", link, 1000)
			if err != nil {
				require.True(t, fault.Is(err, fault.Protocol))
				require.GreaterOrEqual(t, page, way+loop, "too early")
				require.LessOrEqual(t, page, 3*(way+loop)+2, "too late")
				return
			}
			// As if after a restart: only the text is kept.
			at, err = c.parseCursor("searching", next.String())
			require.NoError(t, err)
		}
	})
}

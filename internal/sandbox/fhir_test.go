package sandbox

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRead(t *testing.T) {
	t.Parallel()
	s := hospital(t)
	r := fetch(t, s, "/Patient/p1")
	require.Equal(t, http.StatusOK, r.status)
	sameBytes(t, patientA, r.raw)
	require.Equal(t, `W/"3"`, r.header.Get("ETag"))                                        // R4 §3.1.0.1.3
	require.Equal(t, "Sun, 10 Mar 2024 10:00:00 GMT", r.header.Get("Last-Modified"))       // R4 §3.1.0.2 read
	require.Equal(t, "application/fhir+json; charset=utf-8", r.header.Get("Content-Type")) // R4 §3.1.0.1.11
	require.Equal(t, "no-store", r.header.Get("Cache-Control"))
	require.NotEmpty(t, r.header.Get("X-Request-Id"))
	_, err := time.Parse(http.TimeFormat, r.header.Get("Date"))
	require.NoError(t, err)

	r = fetch(t, s, "/Patient/nobody")
	require.Equal(t, http.StatusNotFound, r.status)
	require.Equal(t, "not-found", r.issue(t))

	require.NoError(t, s.Delete("Patient", "p1"))
	r = fetch(t, s, "/Patient/p1")
	require.Equal(t, http.StatusGone, r.status, "R4 §3.1.0.2: 410 for a resource that was deleted")
	require.Equal(t, "deleted", r.issue(t))
	require.Equal(t, `W/"4"`, r.header.Get("ETag"))
	require.Equal(t, []string{"p2"}, fetch(t, s, "/Patient").ids(t))
	require.Equal(t, 1, s.Counts()["Patient"])
	require.ErrorIs(t, s.Delete("Patient", "p1"), errNotFound)
}

// R4 §2.24.0.1: the precision of a decimal is significant.
func TestNumbersKeepTheirDigits(t *testing.T) {
	t.Parallel()
	s := serving(t, `{ "resourceType":"Observation", "id":"o", "valueQuantity":{"value":5.40,"x":1e2,"y":12345678901234567890.10} }`)
	for _, path := range []string{"/Observation/o", "/Observation"} {
		require.Contains(t, string(fetch(t, s, path).raw), `{"value":5.40,"x":1e2,"y":12345678901234567890.10}`)
	}
	require.NoError(t, s.Put([]byte(`{"resourceType":"Observation","id":"o","valueQuantity":{"value":0.0100}}`)))
	require.Contains(t, string(fetch(t, s, "/Observation/o").raw), `"value":0.0100`)
}

func TestVersions(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := start(t, Config{Now: clock.now})
	put := func(status string) {
		require.NoError(t, s.Put([]byte(`{"resourceType":"Observation","id":"o","meta":{"tag":[{"code":"kept"}]},"status":"`+status+`"}`)))
	}
	put("preliminary")
	put("final") // within the same millisecond of the clock
	require.NoError(t, s.Delete("Observation", "o"))
	put("amended")

	r := fetch(t, s, "/Observation/o")
	require.Equal(t, "amended", r.get(t, "status"))
	require.Equal(t, "4", r.get(t, "meta", "versionId"))
	require.NotNil(t, r.get(t, "meta", "tag"), "the rest of meta stays")

	// R4 §3.1.0.3 vread.
	require.Equal(t, "preliminary", fetch(t, s, "/Observation/o/_history/1").get(t, "status"))
	require.Equal(t, "final", fetch(t, s, "/Observation/o/_history/2").get(t, "status"))
	require.Equal(t, http.StatusGone, fetch(t, s, "/Observation/o/_history/3").status)
	require.Equal(t, http.StatusNotFound, fetch(t, s, "/Observation/o/_history/9").status)

	// R4 §3.1.0.8 history: the newest first, a deletion without a resource.
	r = fetch(t, s, "/Observation/o/_history")
	b := r.bundle(t)
	require.Equal(t, "history", b.Type)
	require.Equal(t, 4, *b.Total)
	var methods, versions []string
	last := "9999"
	for _, e := range b.Entry {
		methods = append(methods, e.Request["method"])
		versions = append(versions, e.Resource.Meta.VersionID)
		require.Less(t, e.Response["lastModified"], last, "lastUpdated grows with every write")
		last = e.Response["lastModified"]
	}
	require.Equal(t, []string{"PUT", "DELETE", "PUT", "PUT"}, methods)
	require.Equal(t, []string{"4", "", "2", "1"}, versions)
	require.Equal(t, http.StatusNotFound, fetch(t, s, "/Observation/nobody/_history").status)
}

func TestAccept(t *testing.T) {
	t.Parallel()
	s := hospital(t)
	tests := []struct {
		accept, format string
		status         int
	}{
		// R4 §3.1.0.1.11 and RFC 9110 §12.5.1.
		{"", "", 200},
		{"application/fhir+json", "", 200},
		{"application/json", "", 200},
		{"*/*", "", 200},
		{"text/html, application/*;q=0.5", "", 200},
		{"application/fhir+json; fhirVersion=4.0", "", 200},
		{"application/fhir+json; fhirVersion=3.0", "", 406}, // R4 §3.1.0.1.12
		{"application/fhir+xml", "", 406},
		{"text/html", "", 406},
		{"application/json;q=0", "", 406},
		{"application/fhir+xml", "json", 200}, // _format overrides Accept
		{"application/json", "xml", 406},
		{"", "application/fhir%2Bjson", 200},
	}
	for _, tt := range tests {
		t.Run(tt.accept+" "+tt.format, func(t *testing.T) {
			t.Parallel()
			for _, path := range []string{"/Patient", "/metadata"} {
				if tt.format != "" {
					path += "?_format=" + tt.format
				}
				r := fetch(t, s, path, "Accept", tt.accept)
				require.Equal(t, tt.status, r.status)
				if tt.status == 406 {
					require.Equal(t, "not-supported", r.issue(t))
				}
			}
		})
	}
}

func TestOtherAddressesAndMethods(t *testing.T) {
	t.Parallel()
	s := hospital(t)
	h := bearer(t, s)
	root := strings.TrimSuffix(s.BaseURL(), "/fhir")
	require.Equal(t, http.StatusNotFound, send(t, plain(), http.MethodGet, root+"/", nil, h).status)
	require.Equal(t, http.StatusNotFound, send(t, plain(), http.MethodGet, s.BaseURL()+"/Patient/p1/x/y", nil, h).status)
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
		r := send(t, plain(), method, s.BaseURL()+"/Patient/p1", strings.NewReader("{}"), h)
		require.Equal(t, http.StatusMethodNotAllowed, r.status) // RFC 9110 §15.5.6
		require.Equal(t, "GET, HEAD", r.header.Get("Allow"))
		require.Equal(t, "not-supported", r.issue(t))
	}
	require.Equal(t, http.StatusOK, send(t, plain(), http.MethodHead, s.BaseURL()+"/Patient/p1", nil, h).status)
}

// R4 §3.1.0.9 and the CapabilityStatement: what is listed is what is offered.
func TestMetadata(t *testing.T) {
	t.Parallel()
	s := hospital(t)
	r := send(t, plain(), http.MethodGet, s.BaseURL()+"/metadata", nil, nil) // no token is needed
	require.Equal(t, http.StatusOK, r.status)
	require.Equal(t, "CapabilityStatement", r.get(t, "resourceType"))
	require.Equal(t, "4.0.1", r.get(t, "fhirVersion"))
	require.Equal(t, "instance", r.get(t, "kind"))
	resources := capabilities(t, r)
	require.Equal(t, []string{"_id", "_lastUpdated", "category", "code", "date", "identifier", "patient", "subject"}, resources["Observation"])
	require.Equal(t, []string{"_id", "_lastUpdated", "birthdate", "family", "gender", "given", "identifier"}, resources["Patient"])
	require.Contains(t, resources, "Encounter", "a type without data yet is offered all the same")
	for typ, params := range resources {
		for _, name := range params {
			value := "x"
			if paramType(name) == "date" {
				value = "2024"
			}
			r := fetch(t, s, "/"+typ+"?"+name+"="+value, "Prefer", "handling=strict")
			require.Equal(t, http.StatusOK, r.status, "%s?%s is listed", typ, name)
		}
	}
}

// capabilities lists the search parameters per type of a CapabilityStatement.
func capabilities(t *testing.T, r response) map[string][]string {
	t.Helper()
	var statement struct {
		Rest []struct {
			Resource []struct {
				Type        string `json:"type"`
				SearchParam []struct {
					Name string `json:"name"`
				} `json:"searchParam"`
			} `json:"resource"`
		} `json:"rest"`
	}
	require.NoError(t, json.Unmarshal(r.raw, &statement), "body: %.300s", r.raw)
	require.Len(t, statement.Rest, 1)
	out := map[string][]string{}
	for _, resource := range statement.Rest[0].Resource {
		for _, p := range resource.SearchParam {
			out[resource.Type] = append(out[resource.Type], p.Name)
		}
	}
	return out
}

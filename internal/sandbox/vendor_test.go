package sandbox

import (
	"bufio"
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// hospitalOf is a small EHR with a vendor's manners, whose every resource is known.
func hospitalOf(t *testing.T, vendor string, more ...string) *Server {
	t.Helper()
	return start(t, Config{Vendor: vendor, DataDir: folder(t, map[string]string{
		"data.ndjson": strings.Join(append(hospitalData(), more...), "\n"),
	})})
}

// client asks a sandbox as its vendor wants it: explicit scopes, Accept, and a practice.
type client struct {
	t      *testing.T
	server *Server
	header map[string]string
}

func clientOf(t *testing.T, s *Server) client {
	t.Helper()
	var scopes []string
	for _, typ := range s.servedTypes() {
		scopes = append(scopes, "system/"+typ+".read")
	}
	h := bearerFor(t, s, strings.Join(scopes, " "))
	h["Accept"] = "application/fhir+json"
	return client{t, s, h}
}

// address puts the practice into an address below the base, or a next link.
func (c client) address(path string) string {
	if !strings.HasPrefix(path, "http") {
		path = c.server.BaseURL() + path
	}
	u, err := url.Parse(path)
	require.NoError(c.t, err)
	if query := u.Query(); c.server.vendor.name == "athena" && !query.Has(practiceParam) {
		query.Set(practiceParam, "Organization/a-1.Practice-12")
		u.RawQuery = query.Encode()
	}
	return u.String()
}

func (c client) get(path string) response {
	c.t.Helper()
	return send(c.t, plain(), http.MethodGet, c.address(path), nil, c.header)
}

// walk gives the ids of each page of a search.
func (c client) walk(path string) (pages [][]string) {
	c.t.Helper()
	for path != "" {
		require.Less(c.t, len(pages), 1000, "the chain of pages ends")
		r := c.get(path)
		pages = append(pages, r.ids(c.t))
		path = r.link(c.t, "next")
	}
	return pages
}

// refusal is a search, or a read, and what it answers; code is that of the OperationOutcome, "" for a success.
type refusal struct {
	rule, path string
	status     int
	code       string
}

func (c client) check(t *testing.T, tests []refusal) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.rule+" "+tt.path, func(t *testing.T) {
			t.Parallel()
			r := send(t, plain(), http.MethodGet, c.address(tt.path), nil, c.header)
			require.Equal(t, tt.status, r.status, "body: %.300s", r.raw)
			if tt.code != "" {
				require.Equal(t, tt.code, r.issue(t))
			}
		})
	}
}

func TestUnknownVendor(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"cerner", "Epic", "generic"} {
		_, err := Start(t.Context(), Config{Insecure: true, Vendor: name})
		require.ErrorContains(t, err, "choose one of athena, epic, hapi, medplum, oracle")
	}
}

// source reads what GET /source says, by type and id.
func source(t *testing.T, s *Server) map[string]map[string]json.RawMessage {
	t.Helper()
	r := control(t, s, http.MethodGet, "/source", "")
	require.Equal(t, http.StatusOK, r.status)
	var direct bytes.Buffer
	require.NoError(t, s.Source(&direct))
	sameBytes(t, direct.String(), r.raw)
	out := map[string]map[string]json.RawMessage{}
	lines := bufio.NewScanner(&direct)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		raw := bytes.Clone(lines.Bytes())
		require.True(t, json.Valid(raw), "%s", raw)
		typ := getText(raw, "resourceType")
		if out[typ] == nil {
			out[typ] = map[string]json.RawMessage{}
		}
		require.NotContains(t, out[typ], getText(raw, "id"), "each comes once")
		out[typ][getText(raw, "id")] = raw
	}
	require.NoError(t, lines.Err())
	return out
}

// What a vendor's searches bring together, each as the vendor demands it, is what the source has.
func TestEveryVendorServesItsSource(t *testing.T) {
	t.Parallel()
	for _, vendor := range append(Vendors(), "") {
		t.Run("vendor "+vendor, func(t *testing.T) {
			t.Parallel()
			s := start(t, Config{Vendor: vendor, Patients: 12})
			c := clientOf(t, s)
			_, err := s.Rehearse(t.Context())
			require.NoError(t, err)
			require.NoError(t, s.Delete("Encounter", s.store.first("Encounter")))
			truth := source(t, s)
			counts := map[string]int{}
			for typ, all := range truth {
				counts[typ] = len(all)
			}
			require.Equal(t, s.Counts(), counts)
			for typ := range truth {
				if typ == groupType {
					continue
				}
				found := map[string]bool{}
				for _, query := range everything(s, typ, slices.Sorted(maps.Keys(truth["Patient"]))) {
					for _, page := range c.walk(query) {
						for _, id := range page {
							found[id] = true
						}
					}
				}
				require.Equal(t, slices.Sorted(maps.Keys(truth[typ])), slices.Sorted(maps.Keys(found)), typ)
			}
			for typ, all := range truth {
				for id, raw := range all {
					sameBytes(t, string(raw), c.get("/"+typ+"/"+id).raw)
					break
				}
			}
		})
	}
}

// A data folder may hold resources laid out over many lines.
func TestSourceIsALineEach(t *testing.T) {
	t.Parallel()
	s := serving(t, "{\n  \"resourceType\": \"Basic\",\r\n  \"id\": \"b\", \"x\": 1.50\n}", patientA)
	knobs(t, s, Faults{Malformed: map[string]float64{"Patient": 1}})
	truth := source(t, s)
	require.Equal(t, "1.50", string(get(truth["Basic"]["b"], "x")))
	require.Equal(t, "13/07/1985", getText(truth["Patient"]["p1"], "birthDate"), "as it is served, malformed too")
}

// everything lists the searches that bring all of a type.
func everything(s *Server, typ string, patients []string) []string {
	if s.vendor.demands == nil || !slices.Contains(append(catalog(typ), map[bool]string{true: "patient"}[typ == "Patient"]), "patient") {
		return []string{"/" + typ}
	}
	var out []string
	for _, id := range patients {
		switch {
		case typ == "Patient":
			out = append(out, "/Patient?_id="+id)
		case typ == "Observation" && s.vendor.name == "epic":
			for _, category := range []string{"vital-signs", "laboratory", "social-history", "survey"} {
				out = append(out, "/Observation?patient="+id+"&category="+category)
			}
		case typ == "MedicationRequest":
			out = append(out, "/MedicationRequest?intent=order&patient="+id)
		default:
			out = append(out, "/"+typ+"?patient="+id)
		}
	}
	return out
}

// DOMAIN §2, rosters: a Group is read by its id, which no API tells.
func TestRosterGroup(t *testing.T) {
	t.Parallel()
	for _, vendor := range append(Vendors(), "") {
		t.Run("vendor "+vendor, func(t *testing.T) {
			t.Parallel()
			s := start(t, Config{Vendor: vendor, Patients: 21})
			c := clientOf(t, s)
			r := c.get("/Group/" + RosterGroup)
			require.Equal(t, http.StatusOK, r.status, "body: %.300s", r.raw)
			members, ok := r.get(t, "member").([]any)
			require.True(t, ok)
			require.Len(t, members, 19, "every tenth of the 21 is left out")
			patients := source(t, s)["Patient"]
			for _, at := range elements(get(r.raw, "member")) {
				member := get(r.raw, "member")[at.start:at.end]
				require.Contains(t, patients, strings.TrimPrefix(getText(get(member, "entity"), "reference"), "Patient/"), "by the id as served")
			}
			r = c.get("/Group?_id=" + RosterGroup)
			require.Equal(t, http.StatusBadRequest, r.status)
			require.Equal(t, "not-supported", r.issue(t))
			require.Empty(t, capabilities(t, c.get("/metadata"))[groupType])
		})
	}
}

func TestRosterGroupAsTold(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Patients: 3, Seed: 1})
	id := s.store.first("Patient")
	s = start(t, Config{Patients: 3, Seed: 1, Group: []string{id}})
	roster := func() string { return string(get(fetch(t, s, "/Group/"+RosterGroup).raw, "member")) }
	sameBytes(t, `[{"entity":{"reference":"Patient/`+id+`"}}]`, []byte(roster()))
	require.NoError(t, s.Put([]byte(`{"resourceType":"Group","id":"cura-roster","type":"person","actual":true}`)))
	require.Empty(t, roster(), "members change as any resource does")

	own := `{"resourceType":"Group","id":"cura-roster","type":"person","actual":true,"name":"own"}`
	s = serving(t, patientA, own)
	require.Equal(t, "own", fetch(t, s, "/Group/"+RosterGroup).get(t, "name"), "that of a data folder stays")
	s = serving(t, `{"resourceType":"Basic","id":"b"}`)
	require.Equal(t, http.StatusNotFound, fetch(t, s, "/Group/"+RosterGroup).status, "without patients there is none")
}

// What the CapabilityStatement lists is understood, and what it doesn't list isn't.
func TestMetadataOfVendors(t *testing.T) {
	t.Parallel()
	names := map[string]string{
		"athena": "athenahealth athenaOne", "epic": "Epic", "hapi": "HAPI FHIR Server", "medplum": "Medplum", "oracle": "Oracle Health Millennium",
	}
	for _, vendor := range Vendors() {
		t.Run(vendor, func(t *testing.T) {
			t.Parallel()
			s := hospitalOf(t, vendor)
			c := clientOf(t, s)
			r := c.get("/metadata")
			require.Equal(t, names[vendor], r.get(t, "software", "name"))
			listed := capabilities(t, r)
			require.Contains(t, listed, "Observation")
			for typ, params := range listed {
				q := &query{typ: typ, given: url.Values{}, honoured: url.Values{}}
				for _, name := range params {
					value := map[bool]string{true: "ge2024-01-01T00:00:00Z", false: "x"}[paramType(strings.Replace(name, "_lastupdated", "_lastUpdated", 1)) == "date"]
					known, p := q.add(s.vendor, name, value, Faults{}, s.now())
					require.Nil(t, p, "%s.%s", typ, name)
					require.True(t, known, "%s.%s", typ, name)
				}
			}
			incremental := slices.ContainsFunc(listed["Observation"], func(n string) bool { return strings.EqualFold(n, "_lastUpdated") })
			require.Equal(t, vendor != "epic" && vendor != "athena", incremental, "DOMAIN §0.2, §2")
			versions := strings.Contains(string(r.raw), `"code":"vread"`)
			require.Equal(t, vendor != "epic" && vendor != "athena", versions)
		})
	}
}

// DOMAIN §2: deletions are 410 where versions are kept, else 404.
func TestDeletedAtVendors(t *testing.T) {
	t.Parallel()
	for vendor, status := range map[string]int{"epic": 404, "athena": 404, "oracle": 410, "medplum": 410, "hapi": 410} {
		t.Run(vendor, func(t *testing.T) {
			t.Parallel()
			s := start(t, Config{Vendor: vendor})
			id := s.store.first("AllergyIntolerance")
			r := control(t, s, http.MethodPost, "/changes", `{"delete":"AllergyIntolerance/`+id+`"}`)
			require.Equal(t, http.StatusOK, r.status, "by the id as served")
			r = clientOf(t, s).get("/AllergyIntolerance/" + id)
			require.Equal(t, status, r.status)
			require.Equal(t, map[int]string{404: "not-found", 410: "deleted"}[status], r.issue(t))
			require.NotContains(t, source(t, s)["AllergyIntolerance"], id)
		})
	}
}

// DOMAIN §5: a page with one resource that can't be rendered is a 500; ids alone come where they are offered.
func TestIDsOnlyOfPoison(t *testing.T) {
	t.Parallel()
	for vendor, offered := range map[string]bool{"": true, "epic": false, "athena": false, "oracle": true, "medplum": true, "hapi": true} {
		t.Run("vendor "+vendor, func(t *testing.T) {
			t.Parallel()
			s := hospitalOf(t, vendor)
			patient, poison := s.store.servedID("Patient", "p1"), s.store.servedID("Observation", "o3")
			knobs(t, s, Faults{Poison: []string{"Observation/" + poison}})
			c := clientOf(t, s)
			query := "/Observation?category=laboratory&patient=" + patient
			require.Equal(t, http.StatusInternalServerError, c.get(query).status)
			require.Equal(t, http.StatusInternalServerError, c.get("/Observation/"+poison).status)
			require.Contains(t, source(t, s)["Observation"], poison, "the source has it all the same")
			r := c.get(query + "&_elements=id")
			if !offered {
				require.Equal(t, http.StatusInternalServerError, r.status, "_elements is ignored")
				return
			}
			require.Contains(t, r.ids(t), poison)
			require.Contains(t, r.link(t, "self"), "_elements=id")
			require.NotContains(t, string(r.raw), "subject")
			require.NotEmpty(t, r.bundle(t).Entry[0].Resource.Meta.LastUpdated)
		})
	}
}

// DOMAIN §2: the general stores count; elsewhere _summary is unknown, and so ignored (R4 §3.1.1.3.1).
func TestCountAtVendors(t *testing.T) {
	t.Parallel()
	for vendor, offered := range map[string]bool{"": true, "epic": false, "athena": false, "oracle": false, "medplum": true, "hapi": true} {
		t.Run("vendor "+vendor, func(t *testing.T) {
			t.Parallel()
			s := hospitalOf(t, vendor)
			r := clientOf(t, s).get("/Observation?category=laboratory&_summary=count&patient=" + s.store.servedID("Patient", "p1"))
			if offered {
				require.Equal(t, 2, *r.bundle(t).Total)
				require.Empty(t, r.bundle(t).Entry)
				require.Contains(t, r.link(t, "self"), "_summary=count")
				return
			}
			require.Len(t, r.ids(t), 2)
			require.NotContains(t, r.link(t, "self"), "_summary")
		})
	}
}

// writeRule is a write and what it answers; code is that of the OperationOutcome, "" for a success, and text is in it.
type writeRule struct {
	rule, typ string
	body      []byte
	status    int
	code      string
	text      string
}

func (w writer) checkWrites(t *testing.T, tests []writeRule) {
	t.Helper()
	for _, tt := range tests {
		r := w.post(tt.typ, tt.body)
		require.Equal(t, tt.status, r.status, "DOMAIN §4: %s; body: %.300s", tt.rule, r.raw)
		if tt.code != "" {
			require.Equal(t, tt.code, r.issue(t), tt.rule)
			require.Contains(t, string(r.raw), tt.text, tt.rule)
		}
	}
}

// DOMAIN §4: the CapabilityStatement tells what may be written, and whether conditionally.
func TestMetadataOfWrites(t *testing.T) {
	t.Parallel()
	all := map[string]string{
		"Condition": "create update conditional", "Consent": "create update conditional", "DocumentReference": "create update conditional",
		"Procedure": "create update conditional",
	}
	for vendor, want := range map[string]map[string]string{
		"": all, "hapi": all, "medplum": all, "athena": {},
		"epic":   {"Condition": "create", "DocumentReference": "create"},
		"oracle": {"Condition": "create update", "DocumentReference": "create update", "Procedure": "create"},
	} {
		t.Run("vendor "+vendor, func(t *testing.T) {
			t.Parallel()
			s := hospitalOf(t, vendor)
			var statement struct {
				Rest []struct {
					Resource []struct {
						Type        string `json:"type"`
						Conditional bool   `json:"conditionalCreate"`
						Interaction []struct {
							Code string `json:"code"`
						} `json:"interaction"`
					} `json:"resource"`
				} `json:"rest"`
			}
			raw := clientOf(t, s).get("/metadata").raw
			require.NoError(t, json.Unmarshal(raw, &statement))
			got := map[string]string{}
			for _, resource := range statement.Rest[0].Resource {
				var words []string
				for _, i := range resource.Interaction {
					if i.Code == "create" || i.Code == "update" {
						words = append(words, i.Code)
					}
					if vendor == "epic" && resource.Type == "DocumentReference" {
						require.Equal(t, "create", i.Code, "nothing is read back")
					}
				}
				if resource.Conditional {
					words = append(words, "conditional")
				}
				if len(words) > 0 {
					got[resource.Type] = strings.Join(words, " ")
				}
			}
			require.Equal(t, want, got)
			smart := send(t, plain(), http.MethodGet, s.BaseURL()+"/.well-known/smart-configuration", nil, nil)
			require.Equal(t, len(want) > 0, strings.Contains(string(smart.raw), "system/*.write"))
		})
	}
	granted := askToken(t, hospitalOf(t, "epic"), "").get(t, "scope")
	require.Contains(t, granted, "system/DocumentReference.write")
	require.NotContains(t, granted, "system/DocumentReference.read")
	require.NotContains(t, granted, "system/Consent.write")
}

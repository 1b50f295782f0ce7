package sandbox

import (
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// writer writes to a sandbox as its vendor wants it.
type writer struct {
	client

	patient, encounter, others string // "Type/id" as served; others is another patient's encounter
}

// writerOf is a hospital with two patients and an encounter each, and a client that may write to it.
func writerOf(t *testing.T, vendor string) writer {
	t.Helper()
	return writerTo(t, hospitalOf(
		t, vendor,
		`{"resourceType":"Encounter","id":"e1","status":"finished","subject":{"reference":"Patient/p1"}}`,
		`{"resourceType":"Encounter","id":"e2","status":"finished","subject":{"reference":"Patient/p2"}}`,
	))
}

func writerTo(t *testing.T, s *Server) writer {
	t.Helper()
	scopes := []string{"system/Patient.read"}
	for _, typ := range append(writableTypes(), "Encounter") {
		scopes = append(scopes, "system/"+typ+".read", "system/"+typ+".write")
	}
	h := bearerFor(t, s, strings.Join(scopes, " "))
	h["Accept"], h["Content-Type"] = "application/fhir+json", "application/fhir+json"
	served := func(typ, id string) string { return typ + "/" + s.store.servedID(typ, id) }
	return writer{client{t, s, h}, served("Patient", "p1"), served("Encounter", "e1"), served("Encounter", "e2")}
}

func (w writer) post(typ string, body []byte, header ...string) response {
	w.t.Helper()
	return w.do(http.MethodPost, "/"+typ, body, header...)
}

func (w writer) do(method, path string, body []byte, header ...string) response {
	w.t.Helper()
	return send(w.t, plain(), method, w.address(path), strings.NewReader(string(body)), w.headers(header...))
}

func (w writer) headers(more ...string) map[string]string {
	out := maps.Clone(w.header)
	for i := 0; i+1 < len(more); i += 2 {
		out[more[i]] = more[i+1]
	}
	return out
}

// edit changes one member of a resource.
type edit func([]byte) []byte

func having(key, value string) edit {
	return func(raw []byte) []byte { return set(raw, key, []byte(value), "resourceType") }
}

func lacking(key string) edit { return func(raw []byte) []byte { return drop(raw, key) } }

func edited(raw string, edits []edit) []byte {
	out := []byte(raw)
	for _, e := range edits {
		out = e(out)
	}
	return out
}

// note is a note that every vendor takes that takes notes.
func (w writer) note(identifier string, edits ...edit) []byte {
	return edited(`{"resourceType":"DocumentReference","identifier":[{"system":"urn:cura","value":"`+identifier+`"}],`+
		`"status":"current","docStatus":"final","type":{"coding":[{"system":"http://loinc.org","code":"11506-3"}]},`+
		`"category":[{"coding":[{"code":"clinical-note"}]}],"subject":{"reference":"`+w.patient+`"},"date":"2026-03-01T10:00:00Z",`+
		`"content":[{"attachment":{"contentType":"text/plain; charset=utf-8","data":"SGVsbG8="}}],`+
		`"context":{"encounter":[{"reference":"`+w.encounter+`"}],"period":{"end":"2026-03-01T10:00:00Z"}}}`, edits)
}

func (w writer) diagnosis(edits ...edit) []byte {
	return edited(`{"resourceType":"Condition","identifier":[{"system":"urn:cura","value":"d"}],"clinicalStatus":{"coding":[{"code":"active"}]},`+
		`"verificationStatus":{"coding":[{"code":"provisional"}]},"category":[{"coding":[{"code":"problem-list-item"}]}],`+
		`"code":{"coding":[{"system":"http://hl7.org/fhir/sid/icd-10-cm","code":"I10","display":"Hypertension"}]},`+
		`"subject":{"reference":"`+w.patient+`"},"encounter":{"reference":"`+w.encounter+`"},"recordedDate":"2026-03-01"}`, edits)
}

func (w writer) procedure(edits ...edit) []byte {
	return edited(`{"resourceType":"Procedure","identifier":[{"system":"urn:cura","value":"x"}],"status":"completed",`+
		`"code":{"coding":[{"system":"http://www.ama-assn.org/go/cpt","code":"99213"}]},"subject":{"reference":"`+w.patient+`"},`+
		`"encounter":{"reference":"`+w.encounter+`"},"performedDateTime":"2026-03-01"}`, edits)
}

func (w writer) consent(edits ...edit) []byte {
	return edited(`{"resourceType":"Consent","identifier":[{"system":"urn:cura","value":"c"}],"status":"active","scope":{"text":"privacy"},`+
		`"category":[{"coding":[{"system":"http://loinc.org","code":"59284-0"}]}],"patient":{"reference":"`+w.patient+`"},`+
		`"dateTime":"2026-03-01","policyRule":{"coding":[{"code":"OPTIN"}]}}`, edits)
}

// written is the type and id of the resource that an answer's Location names.
func (r response) written(t *testing.T) string {
	t.Helper()
	local := localReference(r.header.Get("Location"))
	require.NotEmpty(t, local, "Location: %q, body: %.300s", r.header.Get("Location"), r.raw)
	return local
}

func TestCreate(t *testing.T) {
	t.Parallel()
	for _, vendor := range []string{"", "hapi", "medplum"} {
		t.Run("vendor "+vendor, func(t *testing.T) {
			t.Parallel()
			w := writerOf(t, vendor)
			for typ, body := range map[string][]byte{
				"DocumentReference": w.note("n", having("id", `"mine"`), having("meta", `{"tag":[{"code":"kept"}]}`)), "Condition": w.diagnosis(),
				"Procedure": w.procedure(), "Consent": w.consent(),
			} {
				r := w.post(typ, body)
				require.Equal(t, http.StatusCreated, r.status, "body: %s", r.raw)
				require.Equal(t, `W/"1"`, r.header.Get("ETag"))
				require.NotEmpty(t, r.header.Get("Last-Modified"))
				// R4 §3.1.0.8: the server gives the id, and the Location has the version.
				target := r.written(t)
				require.Equal(t, w.server.BaseURL()+"/"+target+"/_history/1", r.header.Get("Location"))
				require.NotContains(t, target, "mine")
				require.Equal(t, "1", r.get(t, "meta", "versionId"), "without Prefer: the resource")
				read := w.get("/" + target)
				require.Equal(t, string(r.raw), string(read.raw))
				require.Equal(t, http.StatusOK, w.get(r.header.Get("Location")).status, "vread")

				r = w.post(typ, body, "Prefer", "return=minimal") // R4 §3.1.0.1.6
				require.Equal(t, http.StatusCreated, r.status)
				require.Empty(t, r.raw)
				require.NotEqual(t, target, r.written(t), "again is another")
				require.Len(t, w.server.Written(typ), 2)
			}
			require.Contains(t, string(w.server.Written("DocumentReference")[0]), `"tag":[{"code":"kept"}]`)
		})
	}
}

// R4 §3.1.0.8.1: none is 201, one is 200, several are 412.
func TestConditionalCreate(t *testing.T) {
	t.Parallel()
	w := writerOf(t, "")
	condition := "identifier=" + url.QueryEscape("urn:cura|n")
	ask := func(header ...string) response {
		return w.post("DocumentReference", w.note("n"), append(header, "If-None-Exist", condition)...)
	}
	first := ask()
	require.Equal(t, http.StatusCreated, first.status)
	again := ask("Prefer", "return=minimal")
	require.Equal(t, http.StatusOK, again.status)
	require.Empty(t, again.raw)
	require.Equal(t, first.header.Get("Location"), again.header.Get("Location"))
	require.Equal(t, `W/"1"`, again.header.Get("ETag"))
	require.Len(t, w.server.Written("DocumentReference"), 1)

	require.Equal(t, http.StatusCreated, w.post("DocumentReference", w.note("n")).status)
	r := ask()
	require.Equal(t, http.StatusPreconditionFailed, r.status)
	require.Equal(t, "multiple-matches", r.issue(t))
	condition = "nonsense=1"
	require.Equal(t, http.StatusBadRequest, ask().status, "a condition that isn't understood is no condition")
	condition = "%zz"
	require.Equal(t, http.StatusPreconditionFailed, ask().status)
	require.Len(t, w.server.Written("DocumentReference"), 2)

	// What waits for its commit or its sign-off is found too: a server looks into its own index.
	for _, f := range []Faults{{Writes: WriteFaults{Hold: true}}, {LateCommitSeconds: 3600}} {
		w = writerOf(t, "")
		knobs(t, w.server, f)
		condition = "identifier=" + url.QueryEscape("urn:cura|n")
		location := ask().written(t)
		require.Equal(t, http.StatusNotFound, w.get("/"+location).status)
		r = ask()
		require.Equal(t, http.StatusOK, r.status)
		require.Equal(t, location, r.written(t))
	}
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	w := writerOf(t, "")
	target := w.post("DocumentReference", w.note("n")).written(t)
	id := strings.TrimPrefix(target, "DocumentReference/")
	withdrawn := w.note("n", having("id", `"`+id+`"`), having("status", `"entered-in-error"`))
	r := w.do(http.MethodPut, "/"+target, withdrawn, "If-Match", `W/"1"`)
	require.Equal(t, http.StatusOK, r.status, "body: %s", r.raw)
	require.Equal(t, `W/"2"`, r.header.Get("ETag"))
	require.Equal(t, "entered-in-error", w.get("/"+target).get(t, "status"))
	require.Equal(t, "current", w.get("/"+target+"/_history/1").get(t, "status"))

	for _, tt := range []struct {
		rule, path string
		body       []byte
		match      string
		status     int
		code       string
	}{
		{"R4 §3.1.0.5: a stale If-Match", target, withdrawn, `W/"1"`, 412, "conflict"},
		{"R4 §3.1.0.4: no If-Match", target, withdrawn, "", 200, ""},
		{"R4 §3.1.0.4: the id is that of the address", target, w.note("n"), "", 400, "invalid"},
		{"R4 §3.1.0.4.2: no create by update", "DocumentReference/mine", w.note("n", having("id", `"mine"`)), "", 405, "not-supported"},
		{"content is looked at", target, w.note("n", having("id", `"`+id+`"`), having("status", `"final"`)), "", 422, "value"},
		{"a type that isn't written", w.patient, []byte(`{"resourceType":"Patient","id":"p1"}`), "", 405, "not-supported"},
	} {
		var header []string
		if tt.match != "" {
			header = []string{"If-Match", tt.match}
		}
		r := w.do(http.MethodPut, "/"+tt.path, tt.body, header...)
		require.Equal(t, tt.status, r.status, "%s; body: %s", tt.rule, r.raw)
		if tt.code != "" {
			require.Equal(t, tt.code, r.issue(t), tt.rule)
		}
	}
	require.NoError(t, w.server.Delete("DocumentReference", id))
	require.Equal(t, http.StatusGone, w.do(http.MethodPut, "/"+target, withdrawn).status)
	require.Empty(t, w.server.Written("DocumentReference"))
	require.Equal(t, http.StatusMethodNotAllowed, w.do(http.MethodPatch, "/"+target, withdrawn).status)
	require.Equal(t, http.StatusMethodNotAllowed, w.do(http.MethodDelete, "/"+target, nil).status)
}

// What is refused says which element is wrong, and is not stored.
func TestContentIsChecked(t *testing.T) {
	t.Parallel()
	w := writerOf(t, "")
	tests := []struct {
		rule, typ  string
		body       []byte
		status     int
		code       string
		expression string
	}{
		{"JSON", "DocumentReference", []byte(`{"resourceType":`), 400, "structure", ""},
		{"an object", "DocumentReference", []byte(`[]`), 400, "structure", ""},
		{"R4 §3.1.0.8: the type of the address", "Condition", w.procedure(), 400, "invalid", "resourceType"},
		{"R4 DocumentReference.status 1..1", "DocumentReference", w.note("n", lacking("status")), 422, "required", "DocumentReference.status"},
		{"R4 DocumentReference.content 1..*", "DocumentReference", w.note("n", having("content", "[]")), 422, "required", "DocumentReference.content"},
		{"R4: content is a list", "DocumentReference", w.note("n", having("content", "{}")), 422, "required", "DocumentReference.content"},
		{"R4: content is a list", "DocumentReference", w.note("n", having("content", `{"attachment":{"data":""}}`)), 422, "structure", "DocumentReference.content"},
		{"an attachment has data", "DocumentReference", w.note("n", having("content", `[{"attachment":{"contentType":"text/plain"}}]`)), 422, "required", "DocumentReference.content[0].attachment"},
		{"in base64", "DocumentReference", w.note("n", having("content", `[{"attachment":{"contentType":"text/plain","data":"?"}}]`)), 422, "value", "DocumentReference.content[0].attachment.data"},
		{"of a type", "DocumentReference", w.note("n", having("content", `[{"attachment":{"data":"SGVsbG8="}}]`)), 422, "required", "DocumentReference.content[0].attachment.contentType"},
		{"R4 docStatus: required binding", "DocumentReference", w.note("n", having("docStatus", `"signed"`)), 422, "value", "DocumentReference.docStatus"},
		{"US Core: subject", "DocumentReference", w.note("n", lacking("subject")), 422, "required", "DocumentReference.subject"},
		{"the patient is there", "DocumentReference", w.note("n", having("subject", `{"reference":"Patient/nobody"}`)), 422, "not-found", "DocumentReference.subject"},
		{"a patient", "DocumentReference", w.note("n", having("subject", `{"reference":"Observation/o1"}`)), 422, "not-found", "DocumentReference.subject"},
		{"of this server", "DocumentReference", w.note("n", having("subject", `{"reference":"https://elsewhere.example/fhir/Patient/p1"}`)), 422, "not-found", "DocumentReference.subject"},
		{"the encounter is there", "DocumentReference", w.note("n", having("context", `{"encounter":[{"reference":"Encounter/none"}]}`)), 422, "not-found", "DocumentReference.context.encounter"},
		{"and that patient's", "DocumentReference", w.note("n", having("context", `{"encounter":[{"reference":"Encounter/e2"}]}`)), 422, "business-rule", "DocumentReference.context.encounter"},
		{"also of a Condition", "Condition", w.diagnosis(having("encounter", `{"reference":"Encounter/e2"}`)), 422, "business-rule", "Condition.encounter"},
		{"R4 con-3", "Condition", w.diagnosis(lacking("clinicalStatus")), 422, "invariant", "Condition.clinicalStatus"},
		{"R4 con-5", "Condition", w.diagnosis(having("verificationStatus", `{"coding":[{"code":"entered-in-error"}]}`)), 422, "invariant", "Condition.clinicalStatus"},
		{"R4 clinicalStatus: required binding", "Condition", w.diagnosis(having("clinicalStatus", `{"coding":[{"code":"bad"}]}`)), 422, "value", "Condition.clinicalStatus"},
		{"US Core: code", "Condition", w.diagnosis(lacking("code")), 422, "required", "Condition.code"},
		{"R4 Procedure.status 1..1", "Procedure", w.procedure(lacking("status")), 422, "required", "Procedure.status"},
		{"R4 Consent.scope 1..1", "Consent", w.consent(lacking("scope")), 422, "required", "Consent.scope"},
		{"R4 Consent.category 1..*", "Consent", w.consent(lacking("category")), 422, "required", "Consent.category"},
		{"R4 ppc-1", "Consent", w.consent(lacking("policyRule")), 422, "invariant", "Consent"},
		{"the patient of a Consent", "Consent", w.consent(having("patient", `{"reference":"Patient/nobody"}`)), 422, "not-found", "Consent.patient"},
	}
	for _, tt := range tests {
		t.Run(tt.rule+" "+tt.expression, func(t *testing.T) {
			t.Parallel()
			r := w.post(tt.typ, tt.body)
			require.Equal(t, tt.status, r.status, "body: %s", r.raw)
			require.Equal(t, tt.code, r.issue(t))
			if tt.expression != "" {
				require.Contains(t, string(r.raw), `"expression":["`+tt.expression+`"]`)
			}
			require.Empty(t, r.header.Get("Location"))
		})
	}
	t.Cleanup(func() {
		for _, typ := range writableTypes() {
			require.Empty(t, w.server.Written(typ))
		}
	})
	r := w.post("DocumentReference", w.note("n"), "Content-Type", "text/plain")
	require.Equal(t, http.StatusUnsupportedMediaType, r.status)
	r = w.post("DocumentReference", make([]byte, maxWrite+1))
	require.Equal(t, http.StatusRequestEntityTooLarge, r.status)
	require.Equal(t, "too-costly", r.issue(t))
}

// SMART App Launch 2.x, scopes: c creates, u updates; .write is cud (v1).
func TestWritesNeedTheirScope(t *testing.T) {
	t.Parallel()
	w := writerOf(t, "")
	target := w.post("DocumentReference", w.note("n")).written(t)
	body := w.note("n", having("id", `"`+strings.TrimPrefix(target, "DocumentReference/")+`"`))
	for _, tt := range []struct {
		scope          string
		create, update int
	}{
		{"system/DocumentReference.cu", 201, 200},
		{"system/DocumentReference.cruds", 201, 200},
		{"system/DocumentReference.write", 201, 200},
		{"system/*.write", 201, 200},
		{"system/DocumentReference.c", 201, 403},
		{"system/DocumentReference.u", 403, 200},
		{"system/DocumentReference.rs", 403, 403},
		{"system/Condition.cu", 403, 403},
	} {
		t.Run(tt.scope, func(t *testing.T) {
			t.Parallel()
			h := bearerFor(t, w.server, tt.scope)
			r := w.post("DocumentReference", w.note("n"), "Authorization", h["Authorization"])
			require.Equal(t, tt.create, r.status)
			if r.status == 403 {
				require.Equal(t, "forbidden", r.issue(t))
				require.Contains(t, r.header.Get("WWW-Authenticate"), `error="insufficient_scope"`)
			}
			require.Equal(t, tt.update, w.do(http.MethodPut, "/"+target, body, "Authorization", h["Authorization"]).status)
		})
	}
	require.Equal(t, http.StatusUnauthorized, w.post("DocumentReference", w.note("n"), "Authorization", "Bearer made-up").status)
	knobs(t, w.server, Faults{MissingTypes: []string{"Condition"}})
	require.Equal(t, http.StatusNotFound, w.post("Condition", w.diagnosis()).status)
}

func TestSearchForWhatWasWritten(t *testing.T) {
	t.Parallel()
	w := writerOf(t, "")
	find := func(query string) []string { return w.get("/" + query).ids(t) }
	ids := map[string]string{}
	for typ, body := range map[string][]byte{
		"DocumentReference": w.note("n"), "Condition": w.diagnosis(), "Procedure": w.procedure(), "Consent": w.consent(),
	} {
		_, ids[typ], _ = strings.Cut(w.post(typ, body).written(t), "/")
	}
	for _, tt := range []struct {
		query string
		found bool
	}{
		{"DocumentReference?_id=" + ids["DocumentReference"], true},
		{"DocumentReference?identifier=urn:cura%7Cn", true},
		{"DocumentReference?identifier=urn:cura%7Cm", false},
		{"DocumentReference?identifier=n", true},
		{"DocumentReference?identifier=urn:cura%7Cn&patient=p2", false},
		{"DocumentReference?patient=p1&encounter=e1&type=11506-3&date=ge2026-03-01T10:00:00Z", true},
		{"DocumentReference?patient=p1&encounter=Encounter/e2", false},
		{"DocumentReference?encounter=" + url.QueryEscape(w.server.BaseURL()+"/Encounter/e1"), true},
		{"DocumentReference?type=http://loinc.org%7C11506-3&category=clinical-note&status=current", true},
		{"DocumentReference?type=11488-4", false},
		{"DocumentReference?status=entered-in-error", false},
		{"DocumentReference?_lastUpdated=ge2026", true},
		{"Condition?patient=p1&code=I10&encounter=e1&clinical-status=active&recorded-date=2026-03-01", true},
		{"Condition?clinical-status=resolved", false},
		{"Procedure?patient=p1&code=99213&encounter=e1&status=completed&date=2026-03", true},
		{"Consent?patient=p1&status=active&date=2026-03-01&identifier=urn:cura%7Cc", true},
		{"Consent?status=inactive", false},
	} {
		typ, _, _ := strings.Cut(tt.query, "?")
		want := []string{}
		if tt.found {
			want = []string{ids[typ]}
		}
		require.Equal(t, want, find(tt.query), tt.query)
	}

	// What is pulled is in the source; the rest is not, for Cura doesn't read it.
	truth := source(t, w.server)
	require.Contains(t, truth["Consent"], ids["Consent"])
	require.NotContains(t, truth, "DocumentReference")
	require.NotContains(t, truth, "Condition")
}

func TestWritesSurviveARestart(t *testing.T) {
	t.Parallel()
	for _, vendor := range []string{"", "epic"} {
		t.Run("vendor "+vendor, func(t *testing.T) {
			t.Parallel()
			cfg := Config{Vendor: vendor, StateDir: t.TempDir(), DataDir: folder(t, map[string]string{
				"a": patientA + `{"resourceType":"Encounter","id":"e1","subject":{"reference":"Patient/p1"}}`,
			})}
			s := run(t, cfg)
			w := writerTo(t, s)
			require.Equal(t, http.StatusCreated, w.post("DocumentReference", w.note("n")).status)
			knobs(t, s, Faults{Writes: WriteFaults{Hold: true}})
			held := w.post("Condition", w.diagnosis()).written(t)
			before := append(s.Written("DocumentReference"), s.Written("Condition")...)
			require.Len(t, before, 2)
			require.NoError(t, s.Close())

			s = run(t, cfg)
			require.Equal(t, before, append(s.Written("DocumentReference"), s.Written("Condition")...))
			w = writerTo(t, s)
			require.Equal(t, http.StatusNotFound, w.get("/"+held).status, "it still waits")
			n, err := s.FileHeld()
			require.NoError(t, err)
			require.Equal(t, 1, n)
			filed := string(w.get("/" + held).raw)
			require.Contains(t, filed, "I10")
			require.NoError(t, s.Close())

			s = run(t, cfg)
			require.Equal(t, filed, string(writerTo(t, s).get("/"+held).raw), "and was filed")
			require.NotContains(t, source(t, s), "Condition", "it is still known to be written")
			require.NoError(t, s.Close())
		})
	}
}

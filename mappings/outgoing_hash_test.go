package mappings

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// drawArtefact draws an artefact of any kind, with texts that have all that texts can have. Not every one passes CheckArtefact.
func drawArtefact(t *rapid.T) write {
	known := rapid.SampledFrom([]string{"Ada Example", `Åsa <O'Neil> & "Söhne"`, "\u200b\U0001F600"})
	line := rapid.OneOf(known, known, known, known, rapid.StringN(0, 20, 60))
	pick := func(name string, of ...string) string { return rapid.SampledFrom(of).Draw(t, name) }
	drawn := write{to: Outgoing{PatientEHRID: "pat-1", PeriodEnd: rapid.Bool().Draw(t, "period end"), Notice: pick("notice", "", part2)}}
	switch rapid.SampledFrom(cura.ArtefactKinds()).Draw(t, "kind") {
	case cura.Note:
		drawn.to.Resource = "DocumentReference"
		drawn.artefact = noteOf(pick("content type", "text/plain", "text/html"), rapid.String().Draw(t, "text"))
		drawn.artefact.Note.Title = line.Draw(t, "title")
		drawn.artefact.Note.Type = pick("type", "11506-3", "34117-2", "11490-0")
	case cura.Diagnosis:
		drawn.to.Resource = "Condition"
		codings := []cura.Coding{{System: systemICD10CM, Code: pick("ICD", "E11.9", "I10"), Display: line.Draw(t, "display")}}
		if rapid.Bool().Draw(t, "translated") {
			codings = append(codings, diabetesSCT)
		}
		drawn.artefact = diagnosisOf(pick("category", "encounter-diagnosis", "problem-list-item"), codings...)
		drawn.artefact.Diagnosis.Onset = pick("onset", "", "2019", "2019-05-04", "2019-05-04T10:00:00.5-05:00", "2019-05-04T10:00:00-05:00")
	case cura.Procedure:
		drawn.to.Resource = "Procedure"
		drawn.artefact = procedureOf(cura.Coding{System: systemCPT, Code: pick("CPT", "99213", "99214")})
		drawn.artefact.Procedure.Performed = pick("performed", "2019", "2019-05-04T10:00:00-05:00")
		drawn.artefact.Procedure.Code.Text = line.Draw(t, "text")
	case cura.ConsentEvent:
		drawn.to.Resource = pick("resource", "Consent", "DocumentReference")
		drawn.artefact = consentEventOf(pick("event", "granted", "revoked", "expired", "changed"))
		drawn.artefact.ConsentEvent.Epoch = rapid.Int64Range(0, 3).Draw(t, "epoch")
	}
	drawn.artefact.Author.Name = line.Draw(t, "author")
	return drawn
}

// served gives a written resource as a server gives it back: with all that ContentHash must not mind.
func served(t require.TestingT, body []byte) []byte {
	var res map[string]any
	require.NoError(t, json.Unmarshal(body, &res))
	for _, dropped := range []string{"identifier", "author", "recorder", "description", "note", "securityLabel", "subject", "relatesTo", "recordedDate", "docStatus"} {
		delete(res, dropped)
	}
	res["id"] = "server-1"
	res["meta"] = map[string]any{"versionId": "7", "lastUpdated": "2026-11-23T15:00:00.000Z"}
	res["text"] = map[string]any{"status": "generated", "div": `<div xmlns="http://www.w3.org/1999/xhtml">generated</div>`}
	if res["resourceType"] == "Condition" {
		// As Epic does; what was entered in error stays so.
		if !bytes.Contains(body, []byte(`"entered-in-error"`)) {
			res["verificationStatus"] = map[string]any{"coding": []any{map[string]any{"code": "provisional"}}}
		}
	}
	for _, element := range []string{"onsetDateTime", "performedDateTime", "dateTime"} {
		text, _ := res[element].(string)
		if at, err := time.Parse(time.RFC3339, text); err == nil {
			res[element] = at.In(time.FixedZone("", 9*3600)).Format("2006-01-02T15:04:05-07:00")
		}
	}
	for _, element := range []string{"code", "type"} {
		if concept, ok := res[element].(map[string]any); ok {
			restateCodings(t, concept)
		}
	}
	contents, _ := res["content"].([]any)
	for _, content := range contents {
		attachment := member(t, content, "attachment")
		if data, ok := attachment["data"].(string); ok {
			attachment["data"] = recoded(t, data)
		}
		delete(attachment, "hash")
		delete(attachment, "size")
		attachment["contentType"] = "text/plain"
	}
	// The members come out sorted by name, and <, > and & escaped.
	out, err := json.MarshalIndent(res, "", "\t")
	require.NoError(t, err)
	return out
}

// member gives a member of an object that is one itself.
func member(t require.TestingT, of any, name string) map[string]any {
	object, ok := of.(map[string]any)
	require.True(t, ok)
	inner, ok := object[name].(map[string]any)
	require.True(t, ok)
	return inner
}

// restateCodings reverses codings, drops their displays and names their systems by OID.
func restateCodings(t require.TestingT, concept map[string]any) {
	codings, _ := concept["coding"].([]any)
	slices.Reverse(codings)
	for _, c := range codings {
		coding, ok := c.(map[string]any)
		require.True(t, ok)
		delete(coding, "display")
		for _, form := range codeForms() {
			if coding["system"] == form.system {
				coding["system"] = form.oid
			}
		}
	}
	if len(codings) > 0 {
		delete(concept, "text")
	}
}

// recoded writes text with the line ends of another system, and its base64 in indented lines without padding.
func recoded(t require.TestingT, data string) string {
	decoded, err := base64.StdEncoding.DecodeString(data)
	require.NoError(t, err)
	if !bytes.HasPrefix(decoded, []byte(pdfMagic)) {
		decoded = bytes.ReplaceAll(normalLineEnds(decoded), []byte("\n"), []byte("\r\n"))
	}
	text := base64.StdEncoding.EncodeToString(decoded)
	var lines []string
	for len(text) > 76 {
		lines, text = append(lines, text[:76]), text[76:]
	}
	return strings.TrimRight(strings.Join(append(lines, text), "\r\n "), "=")
}

func hashOf(t require.TestingT, w write) [32]byte {
	body, err := Outbound(w.artefact, w.to)
	require.NoError(t, err)
	hash, err := ContentHash(body)
	require.NoError(t, err)
	return hash
}

// What a server makes of a resource doesn't change its hash; what the resource says does. And whatever passes CheckArtefact is
// written as valid R4.
func TestContentHashProperties(t *testing.T) {
	t.Parallel()
	v, err := validator()
	require.NoError(t, err)
	rapid.Check(t, func(t *rapid.T) {
		w := drawArtefact(t)
		if CheckArtefact(w.artefact, signed()) != nil {
			return
		}
		body, err := Outbound(w.artefact, w.to)
		require.NoError(t, err)
		require.NoError(t, v.Validate(body))
		hash, err := ContentHash(body)
		require.NoError(t, err)
		again, err := ContentHash(served(t, body))
		require.NoError(t, err)
		require.Equal(t, hash, again)

		next := w
		next.artefact = with(w.artefact, func(a *cura.Artefact) {
			a.Author.Name, a.Version, a.EncounterEHRID, a.AuthoredAt = "Someone Else", 9, "other", signed().Add(-time.Hour)
		})
		require.Equal(t, hash, hashOf(t, next), "another version that says the same")

		for name, change := range changes(w.artefact) {
			next.artefact = with(w.artefact, change)
			require.NotEqual(t, hash, hashOf(t, next), name)
		}
		next.to.WrittenEHRID = "written-1"
		next.artefact = with(w.artefact, retracting)
		require.NotEqual(t, hash, hashOf(t, next), "withdrawn")
	})
}

// changes are what makes an artefact say something else.
func changes(a cura.Artefact) map[string]func(*cura.Artefact) {
	switch a.Kind {
	case cura.Note:
		return map[string]func(*cura.Artefact){
			"text": func(a *cura.Artefact) { a.Note.Text += "." },
			"type": func(a *cura.Artefact) { a.Note.Type = "18842-5" },
		}
	case cura.Diagnosis:
		other := "encounter-diagnosis"
		if a.Diagnosis.Category == other {
			other = "problem-list-item"
		}
		return map[string]func(*cura.Artefact){
			"code": func(a *cura.Artefact) {
				a.Diagnosis.Code.Codings = []cura.Coding{{System: systemICD10CM, Code: "E10.9"}}
			},
			"another code": func(a *cura.Artefact) {
				a.Diagnosis.Code.Codings = append(slices.Clone(a.Diagnosis.Code.Codings), cura.Coding{System: "urn:x", Code: "1"})
			},
			"category": func(a *cura.Artefact) { a.Diagnosis.Category = other },
			"onset":    func(a *cura.Artefact) { a.Diagnosis.Onset = "2019-05-04T10:00:01-05:00" },
		}
	case cura.Procedure:
		return map[string]func(*cura.Artefact){
			"code":      func(a *cura.Artefact) { a.Procedure.Code.Codings = []cura.Coding{{System: systemCPT, Code: "99215"}} },
			"performed": func(a *cura.Artefact) { a.Procedure.Performed = "2019-05-04" },
		}
	case cura.ConsentEvent:
		return map[string]func(*cura.Artefact){
			"epoch": func(a *cura.Artefact) { a.ConsentEvent.Epoch = 99 },
			"time":  func(a *cura.Artefact) { a.ConsentEvent.At = a.ConsentEvent.At.Add(-time.Hour) },
		}
	}
	return nil
}

// Every variant is known again, and no two variants that say different things are taken for one.
func TestContentHashOfVariants(t *testing.T) {
	t.Parallel()
	// These say what another variant says, in another state or for another server.
	same := []string{"note-draft", "note-by-practitioner", "note-labels", "note-times", "note-oracle", "note-plain-listed", "note-replaces", "note-replaces-what-the-ehr-lacks"}
	names := map[[32]byte]string{}
	for _, w := range writes() {
		body, err := Outbound(w.artefact, w.to)
		require.NoError(t, err)
		hash, err := ContentHash(body)
		require.NoError(t, err)
		again, err := ContentHash(served(t, body))
		require.NoError(t, err)
		require.Equal(t, hash, again, w.name)
		if slices.Contains(same, w.name) {
			require.Equal(t, "note", names[hash], w.name)
			continue
		}
		require.Empty(t, names[hash], w.name)
		names[hash] = w.name
	}
}

// What the EHR has withdrawn isn't there any more, though it still says the same.
func TestContentHashOfWithdrawn(t *testing.T) {
	t.Parallel()
	for _, w := range writes() {
		if w.artefact.Retracts {
			continue
		}
		body, err := Outbound(w.artefact, w.to)
		require.NoError(t, err)
		var res map[string]any
		require.NoError(t, json.Unmarshal(body, &res))
		if w.to.Resource == "Condition" {
			res["verificationStatus"] = codeOf("http://terminology.hl7.org/CodeSystem/condition-ver-status", "entered-in-error")
		} else {
			res["status"] = "entered-in-error"
		}
		withdrawn, err := json.Marshal(res)
		require.NoError(t, err)
		hash, err := ContentHash(withdrawn)
		require.NoError(t, err)
		require.NotEqual(t, hashOf(t, w), hash, w.name)
	}
}

func TestContentHashRejects(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, raw, path string }{
		{"broken JSON", `{"resourceType":"Condition","id":"secret`, ""},
		{"a type that Cura doesn't write", `{"resourceType":"Patient","id":"secret"}`, "resourceType"},
		{"a document elsewhere", `{"resourceType":"DocumentReference","content":[{"attachment":{"url":"Binary/secret"}}]}`, "DocumentReference.content[0].attachment.url"},
		{"broken base64", `{"resourceType":"DocumentReference","content":[{"attachment":{"data":"secret!"}}]}`, "DocumentReference.content[0].attachment.data"},
		{"a JSON kind that doesn't belong", `{"resourceType":"Procedure","code":"secret"}`, "code"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			hash, err := ContentHash([]byte(tt.raw))
			require.Zero(t, hash)
			var rejected *RejectedError
			require.ErrorAs(t, err, &rejected)
			require.Len(t, rejected.Reasons, 1)
			require.Equal(t, tt.path, rejected.Reasons[0].Path)
			require.NotContains(t, err.Error(), "secret", "no value may be told")
		})
	}
}

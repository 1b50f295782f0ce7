package mappings

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// signed is when the artefacts of these tests were signed.
func signed() time.Time { return time.Date(2026, time.November, 23, 14, 5, 6, 789_000_000, time.UTC) }

// artefactOf begins an artefact that needs only its content.
func artefactOf(kind cura.ArtefactKind) cura.Artefact {
	return cura.Artefact{
		Kind: kind, ID: "visit-17." + string(kind), Version: 1, AuthoredAt: signed(), EncounterEHRID: "enc-1",
		Author: cura.Author{Name: "Ada Example", Role: cura.RoleClinician},
	}
}

func noteOf(contentType, text string) cura.Artefact {
	a := artefactOf(cura.Note)
	a.Note = &cura.NoteContent{Type: "11506-3", Title: "Progress note", ContentType: contentType, Text: text}
	return a
}

func diagnosisOf(category string, codings ...cura.Coding) cura.Artefact {
	a := artefactOf(cura.Diagnosis)
	a.Diagnosis = &cura.DiagnosisContent{
		Code: cura.Concept{Codings: codings}, Category: category, ClinicalStatus: "active", VerificationStatus: "confirmed", Onset: "2026-11",
	}
	return a
}

func procedureOf(codings ...cura.Coding) cura.Artefact {
	a := artefactOf(cura.Procedure)
	a.Procedure = &cura.ProcedureContent{Code: cura.Concept{Codings: codings}, Status: "completed", Performed: "2026-11-23T08:15:00-05:00"}
	return a
}

func consentEventOf(event string) cura.Artefact {
	a := artefactOf(cura.ConsentEvent)
	a.EncounterEHRID = ""
	a.ConsentEvent = &cura.ConsentContent{Event: event, At: signed().Add(-time.Minute), Epoch: 7}
	return a
}

// with changes a copy of an artefact.
func with(a cura.Artefact, changes ...func(*cura.Artefact)) cura.Artefact {
	if a.Note != nil {
		note := *a.Note
		a.Note = &note
	}
	if a.Diagnosis != nil {
		diagnosis := *a.Diagnosis
		a.Diagnosis = &diagnosis
	}
	if a.Procedure != nil {
		procedure := *a.Procedure
		a.Procedure = &procedure
	}
	if a.ConsentEvent != nil {
		event := *a.ConsentEvent
		a.ConsentEvent = &event
	}
	for _, change := range changes {
		change(&a)
	}
	return a
}

func labelled(labels ...string) func(*cura.Artefact) {
	return func(a *cura.Artefact) { a.Labels = labels }
}

func replacing(a *cura.Artefact) { a.Version, a.Replaces = 3, 2 }

func retracting(a *cura.Artefact) {
	replacing(a)
	a.Retracts, a.Note, a.Diagnosis, a.Procedure, a.ConsentEvent = true, nil, nil, nil, nil
}

func document(a *cura.Artefact, contentType, data string) {
	a.Note.ContentType, a.Note.Text, a.Note.Data = contentType, "", []byte(data)
}

var (
	diabetes    = cura.Coding{System: systemICD10CM, Code: "E11.9", Display: "Type 2 diabetes mellitus without complications"}
	diabetesSCT = cura.Coding{System: systemSNOMED, Code: "44054006", Display: "Diabetes mellitus type 2"}
)

const part2 = "42 CFR part 2 prohibits unauthorized use or disclosure of these records."

// write is an artefact with what its resource needs beside it.
type write struct {
	name     string
	artefact cura.Artefact
	to       Outgoing
}

// writes are the kinds of artefact in the variants that their resources have. Outgoing.PatientEHRID is the same in all.
func writes() []write {
	note := noteOf("text/plain", "Feels better.\nNo fever.\n")
	docs := Outgoing{Resource: "DocumentReference"}
	conditions, procedures, consents := Outgoing{Resource: "Condition"}, Outgoing{Resource: "Procedure"}, Outgoing{Resource: "Consent"}
	noticed := func(to Outgoing) Outgoing { to.Notice = part2; return to }
	held := func(to Outgoing) Outgoing { to.WrittenEHRID = "written-2"; return to }
	all := []write{
		{"note", note, docs},
		{"note-draft", with(note, func(a *cura.Artefact) { a.Note.Draft, a.Note.Title, a.EncounterEHRID = true, "", "" }), docs},
		{"note-by-practitioner", with(note, func(a *cura.Artefact) { a.Author.PractitionerEHRID = "prac-1" }), docs},
		{"note-labels", with(note, labelled("R", "SUD", "R")), docs},
		{"note-notice", with(note, labelled("R", "SUD")), noticed(docs)},
		{"note-html", noteOf("text/html", "<p>Feels better.</p>"), docs},
		{"note-html-notice", noteOf("text/html", `<!DOCTYPE html><html><head><title>x</title></head><body class="a>b"><p>Feels better.</p></body></html>`), noticed(docs)},
		{"note-html-fragment-notice", noteOf("text/html", "<!-- <body> --><p>Feels better.</p>"), noticed(docs)},
		{"note-pdf-notice", with(note, func(a *cura.Artefact) { document(a, "application/pdf", "%PDF-1.7\r\n%\xe2\xe3\xcf\xd3\r\n") }), noticed(docs)},
		{"note-rtf", noteOf("text/rtf", `{\rtf1\ansi Feels better.}`), docs},
		{"note-xml", with(note, func(a *cura.Artefact) { document(a, "application/xml", "<ClinicalDocument/>") }), docs},
		{"note-other-loinc", with(note, func(a *cura.Artefact) { a.Note.Type = "11490-0" }), docs},
		{"note-times", with(note, func(a *cura.Artefact) {
			a.Note.Start = signed().Add(-time.Hour).In(time.FixedZone("", -5*3600))
			a.Note.End = signed()
		}), docs},
		{"note-oracle", with(note, func(a *cura.Artefact) { a.Note.Start = signed().Add(time.Hour) }), Outgoing{
			Resource: "DocumentReference", PeriodEnd: true, IdentifierSystem: "urn:oid:2.16.840.1.113883.3.9999",
			ContentTypes: []string{"application/pdf", "text/plain;charset=utf-8"},
		}},
		{"note-plain-listed", note, Outgoing{Resource: "DocumentReference", ContentTypes: []string{"application/pdf", "text/plain"}}},
		{"note-replaces", with(note, replacing), held(docs)},
		{"note-replaces-what-the-ehr-lacks", with(note, replacing), docs},
		{"note-retraction", with(note, retracting), held(docs)},
		{"note-retraction-without-text", with(note, retracting), held(Outgoing{Resource: "DocumentReference", PeriodEnd: true, ContentTypes: []string{"application/pdf"}})},
		{"diagnosis-of-encounter", diagnosisOf("encounter-diagnosis", diabetes), conditions},
		{"diagnosis-for-problem-list", with(diagnosisOf("problem-list-item", diabetes, diabetesSCT), func(a *cura.Artefact) {
			a.Diagnosis.Code.Text, a.EncounterEHRID, a.Diagnosis.Onset = "Type 2 diabetes", "", ""
		}), conditions},
		{"diagnosis-notice", with(diagnosisOf("encounter-diagnosis", cura.Coding{System: systemICD10CM, Code: "F11.20"}), labelled("R", "SUD")), noticed(conditions)},
		{"diagnosis-update", with(diagnosisOf("problem-list-item", diabetes), replacing, func(a *cura.Artefact) { a.Diagnosis.ClinicalStatus = "resolved" }), held(conditions)},
		{"diagnosis-retraction", with(diagnosisOf("problem-list-item", diabetes), retracting), held(conditions)},
		{"procedure-cpt", procedureOf(cura.Coding{System: systemCPT, Code: "99213"}), procedures},
		{"procedure-codes", procedureOf(
			cura.Coding{System: systemHCPCS, Code: "G0108"}, cura.Coding{System: systemSNOMED, Code: "80146002"}, cura.Coding{System: systemICD10PCS, Code: "0DTJ4ZZ"},
		), procedures},
		{"procedure-not-done", with(procedureOf(cura.Coding{System: systemCPT, Code: "99213"}), func(a *cura.Artefact) { a.Procedure.Status, a.Procedure.Performed = "not-done", "" }), noticed(procedures)},
		{"procedure-retraction", with(procedureOf(diabetes), retracting), held(procedures)},
		{"consent-granted", consentEventOf("granted"), consents},
		{"consent-revoked", with(consentEventOf("revoked"), labelled("R")), consents},
		{"consent-expired", consentEventOf("expired"), consents},
		{"consent-changed", consentEventOf("changed"), noticed(consents)},
		{"consent-retraction", with(consentEventOf("changed"), retracting), held(consents)},
		{"consent-revoked-document", consentEventOf("revoked"), docs},
		{"consent-changed-document", with(consentEventOf("changed"), func(a *cura.Artefact) { a.EncounterEHRID = "enc-1" }), noticed(docs)},
	}
	for i := range all {
		all[i].to.PatientEHRID = "pat-1"
	}
	return all
}

// shown is what is written, as its golden file shows it: the attachment a second time, to read.
type shown struct {
	Resource   json.RawMessage `json:"resource"`
	Attachment string          `json:"attachment,omitempty"`
}

func TestOutboundGolden(t *testing.T) {
	t.Parallel()
	v, err := validator()
	require.NoError(t, err)
	for _, w := range writes() {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			require.NoError(t, CheckArtefact(w.artefact, signed()))
			raw, err := Outbound(w.artefact, w.to)
			require.NoError(t, err)
			require.NoError(t, v.Validate(raw))
			again, err := Outbound(w.artefact, w.to)
			require.NoError(t, err)
			require.Equal(t, raw, again, "the same artefact is always written the same way")

			var text bytes.Buffer
			encoder := json.NewEncoder(&text)
			encoder.SetEscapeHTML(false)
			encoder.SetIndent("", "  ")
			require.NoError(t, encoder.Encode(shown{Resource: raw, Attachment: attachmentOf(t, raw)}))
			file := filepath.Join("testdata", "outgoing", w.name+".golden.json")
			if *update {
				require.NoError(t, os.WriteFile(file, text.Bytes(), 0o644))
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err, "write it with: go test ./mappings -update")
			require.Equal(t, string(want), text.String())
		})
	}
}

// attachmentOf decodes the attachment of a document.
func attachmentOf(t *testing.T, raw []byte) string {
	t.Helper()
	var doc readBack
	require.NoError(t, json.Unmarshal(raw, &doc))
	if len(doc.Content) == 0 {
		return ""
	}
	require.Len(t, doc.Content, 1)
	data, err := base64.StdEncoding.DecodeString(doc.Content[0].Attachment.Data)
	require.NoError(t, err)
	return string(data)
}

// A retraction and a consent event may go out without consent, so neither holds anything clinical.
func TestOutboundWithoutConsentHoldsNothingClinical(t *testing.T) {
	t.Parallel()
	for _, w := range writes() {
		if !w.artefact.Retracts && w.artefact.Kind != cura.ConsentEvent {
			continue
		}
		require.Empty(t, CodesOf(w.artefact), w.name)
		raw, err := Outbound(w.artefact, w.to)
		require.NoError(t, err)
		for _, clinical := range []string{systemActCode + `","code":"S`, systemICD10CM, systemSNOMED, systemCPT, "Feels better", "E11.9"} {
			require.NotContains(t, string(raw)+attachmentOf(t, raw), clinical, w.name)
		}
	}
}

func TestOutboundRejects(t *testing.T) {
	t.Parallel()
	note := noteOf("text/plain", "secret")
	docs := Outgoing{Resource: "DocumentReference", PatientEHRID: "secret-1"}
	to := func(change func(*Outgoing)) Outgoing {
		out := docs
		change(&out)
		return out
	}
	for _, tt := range []struct {
		name     string
		artefact cura.Artefact
		to       Outgoing
		path     string
	}{
		{"what CheckArtefact refuses", with(note, func(a *cura.Artefact) { a.Note.Text = " " }), docs, "note.text"},
		{"a type of another kind", note, to(func(o *Outgoing) { o.Resource = "Condition" }), "resourceType"},
		{"a type that Cura doesn't write", note, to(func(o *Outgoing) { o.Resource = "secret" }), "resourceType"},
		{"no patient", note, to(func(o *Outgoing) { o.PatientEHRID = "" }), "DocumentReference.subject"},
		{"a patient who changes the URL", note, to(func(o *Outgoing) { o.PatientEHRID = "../secret" }), "DocumentReference.subject"},
		{"no patient of a consent", consentEventOf("revoked"), Outgoing{Resource: "Consent"}, "Consent.patient"},
		{"an identifier system that isn't a URI", note, to(func(o *Outgoing) { o.IdentifierSystem = "secret" }), "DocumentReference.identifier.system"},
		{"a retraction of what isn't known at the EHR", with(note, retracting), docs, "DocumentReference.id"},
		{"a resource to change without a version to replace", note, to(func(o *Outgoing) { o.WrittenEHRID = "secret" }), "DocumentReference.id"},
		{"an id to change that isn't one", with(note, replacing), to(func(o *Outgoing) { o.WrittenEHRID = "secret/1" }), "DocumentReference.id"},
		{"a content type that the EHR doesn't take", note, to(func(o *Outgoing) { o.ContentTypes = []string{"application/pdf"} }), "DocumentReference.content[0].attachment.contentType"},
		{"a blank notice", note, to(func(o *Outgoing) { o.Notice = " " }), "DocumentReference.description"},
		{"a notice with control characters", diagnosisOf("problem-list-item", diabetes), Outgoing{Resource: "Condition", PatientEHRID: "1", Notice: "secret\x00"}, "Condition.note.text"},
		{"a notice that makes the note too long", noteOf("text/plain", string(bytes.Repeat([]byte("x"), MaxNote))), to(func(o *Outgoing) { o.Notice = part2 }), "DocumentReference.content[0].attachment.data"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			raw, err := Outbound(tt.artefact, tt.to)
			require.Nil(t, raw)
			var rejected *RejectedError
			require.ErrorAs(t, err, &rejected)
			require.Len(t, rejected.Reasons, 1)
			require.Equal(t, tt.path, rejected.Reasons[0].Path)
			require.NotContains(t, err.Error(), "secret", "no value may be told")
		})
	}
}

// No two versions of any artefacts share an identifier, and an identifier never changes.
func TestIdentifierOf(t *testing.T) {
	t.Parallel()
	require.Equal(t, "visit-17.3", IdentifierOf(cura.Artefact{ID: "visit-17", Version: 3}))
	require.Equal(t, "visit-17.3.1", IdentifierOf(cura.Artefact{ID: "visit-17.3", Version: 1}))
}

func TestCodesOf(t *testing.T) {
	t.Parallel()
	require.Equal(t, []cura.Coding{{System: systemLOINC, Code: "11506-3", Display: "Progress note"}}, CodesOf(noteOf("text/plain", "x")))
	require.Equal(t, []cura.Coding{diabetes, diabetesSCT}, CodesOf(diagnosisOf("problem-list-item", diabetes, diabetesSCT)))
	require.Equal(t, []cura.Coding{{System: systemCPT, Code: "99213"}}, CodesOf(procedureOf(cura.Coding{System: systemCPT, Code: "99213"})))
	require.Empty(t, CodesOf(consentEventOf("granted")))
}

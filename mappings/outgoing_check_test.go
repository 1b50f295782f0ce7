package mappings

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
)

func TestCheckArtefact(t *testing.T) {
	t.Parallel()
	note := noteOf("text/plain", "Feels better.")
	diagnosis := diagnosisOf("problem-list-item", diabetes, diabetesSCT)
	procedure := procedureOf(cura.Coding{System: systemCPT, Code: "99213"})
	event := consentEventOf("revoked")
	coding := func(system, code string) func(*cura.Artefact) {
		return func(a *cura.Artefact) {
			codings := []cura.Coding{diabetes, {System: system, Code: code}}
			a.Diagnosis.Code.Codings = codings
		}
	}
	for _, tt := range []struct {
		name   string
		of     cura.Artefact
		change func(*cura.Artefact)
		paths  []string // none: it passes
	}{
		{"a note", note, func(*cura.Artefact) {}, nil},
		{"a diagnosis", diagnosis, func(*cura.Artefact) {}, nil},
		{"a procedure", procedure, func(*cura.Artefact) {}, nil},
		{"a consent event", event, func(*cura.Artefact) {}, nil},
		{"a retraction", note, retracting, nil},
		{"everything missing", cura.Artefact{}, func(*cura.Artefact) {}, []string{"artefact", "version", "author.name", "author.role", "authored_at", "kind"}},

		{"an unknown kind", note, func(a *cura.Artefact) { a.Kind = "secret" }, []string{"kind"}},
		{"no content", note, func(a *cura.Artefact) { a.Note = nil }, []string{"note"}},
		{"two contents", note, func(a *cura.Artefact) { a.Diagnosis = diagnosis.Diagnosis }, []string{"diagnosis"}},
		{"the content of another kind", note, func(a *cura.Artefact) { a.Note, a.Procedure = nil, procedure.Procedure }, []string{"note", "procedure"}},
		{"a retraction with content", note, func(a *cura.Artefact) { replacing(a); a.Retracts = true }, []string{"note"}},

		{"an id with other characters", note, func(a *cura.Artefact) { a.ID = "secret/1" }, []string{"artefact"}},
		{"an id with a line end", note, func(a *cura.Artefact) { a.ID = "secret\n" }, []string{"artefact"}},
		{"an id of 64 characters", note, func(a *cura.Artefact) { a.ID = strings.Repeat("a", 64) }, nil},
		{"an id of 65 characters", note, func(a *cura.Artefact) { a.ID = strings.Repeat("a", 65) }, []string{"artefact"}},
		{"version 0", note, func(a *cura.Artefact) { a.Version = 0 }, []string{"version"}},
		{"replaces itself", note, func(a *cura.Artefact) { a.Version, a.Replaces = 2, 2 }, []string{"replaces"}},
		{"replaces a negative version", note, func(a *cura.Artefact) { a.Replaces = -1 }, []string{"replaces"}},
		{"retracts nothing", note, func(a *cura.Artefact) { retracting(a); a.Replaces = 0 }, []string{"replaces"}},

		{"an author without a name", note, func(a *cura.Artefact) { a.Author.Name = "" }, []string{"author.name"}},
		{"an author with a blank name", note, func(a *cura.Artefact) { a.Author.Name = " " }, []string{"author.name"}},
		{"an author without a role", note, func(a *cura.Artefact) { a.Author.Role = "" }, []string{"author.role"}},
		{"an author with an unknown role", note, func(a *cura.Artefact) { a.Author.Role = "secret" }, []string{"author.role"}},
		{"a reference in place of the author's id", note, func(a *cura.Artefact) { a.Author.PractitionerEHRID = "Practitioner/secret" }, []string{"author.practitioner"}},
		{"a reference in place of an encounter's id", note, func(a *cura.Artefact) { a.EncounterEHRID = "Encounter/secret" }, []string{"encounter"}},
		{"not signed", note, func(a *cura.Artefact) { a.AuthoredAt = time.Time{} }, []string{"authored_at"}},
		{"signed a little ahead of our clock", note, func(a *cura.Artefact) { a.AuthoredAt = signed().Add(maxAhead) }, nil},
		{"signed in the future", note, func(a *cura.Artefact) { a.AuthoredAt = signed().Add(maxAhead + time.Second) }, []string{"authored_at"}},
		{"signed before there were computers", note, func(a *cura.Artefact) { a.AuthoredAt = time.Date(1066, 10, 14, 0, 0, 0, 0, time.UTC) }, []string{"authored_at"}},
		{"all labels", note, labelled("R", "V", "ETH", "SUD", "PSY", "PSYTHPN", "HIV", "SDV"), nil},
		{"unknown labels", note, labelled("R", "hiv", "secret"), []string{"labels[1]", "labels[2]"}},

		{"no type of note", note, func(a *cura.Artefact) { a.Note.Type = "" }, []string{"note.type"}},
		{"a LOINC code that is mistyped", note, func(a *cura.Artefact) { a.Note.Type = "11506-4" }, []string{"note.type"}},
		{"a LOINC code that Cura has no name for", note, func(a *cura.Artefact) { a.Note.Type = "11490-0" }, nil},
		{"a name in place of a LOINC code", note, func(a *cura.Artefact) { a.Note.Type = "secret" }, []string{"note.type"}},
		{"a title of two lines", note, func(a *cura.Artefact) { a.Note.Title = "secret\nsecret" }, []string{"note.title"}},
		{"a title that is too long", note, func(a *cura.Artefact) { a.Note.Title = strings.Repeat("s", 256) }, []string{"note.title"}},
		{"an empty note", note, func(a *cura.Artefact) { a.Note.Text = "" }, []string{"note.text"}},
		{"a blank note", note, func(a *cura.Artefact) { a.Note.Text = "\ufeff \u00a0\r\n" }, []string{"note.text"}},
		{"text and data", note, func(a *cura.Artefact) { a.Note.Data = []byte("secret") }, []string{"note.data"}},
		{"a note of 5 MiB", note, func(a *cura.Artefact) { a.Note.Text = strings.Repeat("x", MaxNote) }, nil},
		{"a note above 5 MiB", note, func(a *cura.Artefact) { a.Note.Text = strings.Repeat("x", MaxNote+1) }, []string{"note.text"}},
		{"data above 5 MiB", note, func(a *cura.Artefact) { document(a, "application/pdf", "%PDF-"+strings.Repeat("x", MaxNote)) }, []string{"note.data"}},
		{"no content type", note, func(a *cura.Artefact) { a.Note.ContentType = "" }, []string{"note.content_type"}},
		{"a content type that no EHR takes", note, func(a *cura.Artefact) { a.Note.ContentType = "application/msword" }, []string{"note.content_type"}},
		{"a content type with parameters", note, func(a *cura.Artefact) { a.Note.ContentType = "text/plain; charset=latin1" }, []string{"note.content_type"}},
		{"a PDF", note, func(a *cura.Artefact) { document(a, "application/pdf", "%PDF-1.7\n\x00\xff") }, nil},
		{"a PDF that isn't one", note, func(a *cura.Artefact) { document(a, "application/pdf", "secret") }, []string{"note.data"}},
		{"a PDF as a string", note, func(a *cura.Artefact) { a.Note.ContentType, a.Note.Text = "application/pdf", "%PDF-1.7" }, []string{"note.text"}},
		{"a PDF called text", note, func(a *cura.Artefact) { document(a, "text/plain", "%PDF-1.7") }, []string{"note.data"}},
		{"text as data", note, func(a *cura.Artefact) { document(a, "text/plain", "Feels better.") }, nil},
		{"text that isn't UTF-8", note, func(a *cura.Artefact) { document(a, "text/plain", "secr\xe9t") }, []string{"note.data"}},
		{"text with NUL", note, func(a *cura.Artefact) { a.Note.Text = "secret\x00" }, []string{"note.text"}},
		{"RTF that isn't", note, func(a *cura.Artefact) { a.Note.ContentType = "text/rtf" }, []string{"note.text"}},
		{"XML that isn't", note, func(a *cura.Artefact) { a.Note.ContentType = "application/xml" }, []string{"note.text"}},
		{"XML", note, func(a *cura.Artefact) { a.Note.ContentType, a.Note.Text = "text/xml", "\ufeff\n<a/>" }, nil},
		{"an end without a start", note, func(a *cura.Artefact) { a.Note.End = signed() }, nil},
		{"an end before its start", note, func(a *cura.Artefact) { a.Note.Start, a.Note.End = signed(), signed().Add(-1) }, []string{"note.end"}},

		{"no codes", diagnosis, func(a *cura.Artefact) { a.Diagnosis.Code = cura.Concept{Text: "secret"} }, []string{"diagnosis.code.codings"}},
		{"local codes alone", diagnosis, func(a *cura.Artefact) { a.Diagnosis.Code.Codings = []cura.Coding{{System: "urn:secret", Code: "1"}} }, []string{"diagnosis.code.codings"}},
		{"a local code beside", diagnosis, coding("https://cura.health/codes", "dm.2"), nil},
		{"a code without its system", diagnosis, coding("", "E11.9"), []string{"diagnosis.code.codings[1].system"}},
		{"a system that isn't a URI", diagnosis, coding("ICD-10", "E11.9"), []string{"diagnosis.code.codings[1].system"}},
		{"an OID where R4 has a URL", diagnosis, coding("urn:oid:2.16.840.1.113883.6.90", "E11.9"), []string{"diagnosis.code.codings[1].system"}},
		{"a system without a code", diagnosis, coding(systemSNOMED, ""), []string{"diagnosis.code.codings[1].code"}},
		{"a code with a blank", diagnosis, coding("urn:x", "secret 1"), []string{"diagnosis.code.codings[1].code"}},
		{"ICD-10-CM in small letters", diagnosis, coding(systemICD10CM, "e11.9"), []string{"diagnosis.code.codings[1].code"}},
		{"ICD-10-CM without the point", diagnosis, coding(systemICD10CM, "E119"), []string{"diagnosis.code.codings[1].code"}},
		{"ICD-10-CM with a point and nothing after it", diagnosis, coding(systemICD10CM, "E11."), []string{"diagnosis.code.codings[1].code"}},
		{"ICD-10-CM with five after the point", diagnosis, coding(systemICD10CM, "S72.001AA"), []string{"diagnosis.code.codings[1].code"}},
		{"ICD-10-CM of seven characters", diagnosis, coding(systemICD10CM, "S72.001A"), nil},
		{"ICD-10-CM with a letter in third place", diagnosis, coding(systemICD10CM, "C4A.9"), nil},
		{"ICD-10-CM of three characters", diagnosis, coding(systemICD10CM, "I10"), nil},
		{"SNOMED CT that is mistyped", diagnosis, coding(systemSNOMED, "44054007"), []string{"diagnosis.code.codings[1].code"}},
		{"SNOMED CT of a description", diagnosis, coding(systemSNOMED, "754786011"), []string{"diagnosis.code.codings[1].code"}},
		{"SNOMED CT of an extension", diagnosis, coding(systemSNOMED, "999000011000000103"), nil},
		{"a text with a line end", diagnosis, func(a *cura.Artefact) { a.Diagnosis.Code.Text = "secret\n2" }, []string{"diagnosis.code.text"}},
		{"a display and a version that are blank", diagnosis, func(a *cura.Artefact) {
			a.Diagnosis.Code.Codings = []cura.Coding{{System: systemICD10CM, Code: "I10", Display: " ", Version: "\t"}}
		}, []string{"diagnosis.code.codings[0].version", "diagnosis.code.codings[0].display"}},
		{"no category and no status", diagnosis, func(a *cura.Artefact) {
			a.Diagnosis.Category, a.Diagnosis.ClinicalStatus, a.Diagnosis.VerificationStatus = "", "", ""
		}, []string{"diagnosis.category", "diagnosis.clinical_status", "diagnosis.verification_status"}},
		{"category and status in capitals", diagnosis, func(a *cura.Artefact) {
			a.Diagnosis.Category, a.Diagnosis.ClinicalStatus, a.Diagnosis.VerificationStatus = "Problem", "Active", "entered-in-error"
		}, []string{"diagnosis.category", "diagnosis.clinical_status", "diagnosis.verification_status"}},
		{"an onset of a year", diagnosis, func(a *cura.Artefact) { a.Diagnosis.Onset = "2019" }, nil},
		{"an onset that no calendar has", diagnosis, func(a *cura.Artefact) { a.Diagnosis.Onset = "2026-02-29" }, []string{"diagnosis.onset"}},
		{"an onset as people write it", diagnosis, func(a *cura.Artefact) { a.Diagnosis.Onset = "11/23/2026" }, []string{"diagnosis.onset"}},

		{"a procedure without its code", procedure, func(a *cura.Artefact) { a.Procedure.Code = cura.Concept{} }, []string{"procedure.code.codings"}},
		{"a diagnosis in place of a procedure", procedure, func(a *cura.Artefact) { a.Procedure.Code.Codings = []cura.Coding{diabetes} }, []string{"procedure.code.codings"}},
		{"CPT of four digits", procedure, func(a *cura.Artefact) { a.Procedure.Code.Codings[0].Code = "9921" }, []string{"procedure.code.codings[0].code"}},
		{"CPT category II", procedure, func(a *cura.Artefact) { a.Procedure.Code.Codings[0].Code = "4010F" }, nil},
		{"HCPCS under CPT's system", procedure, func(a *cura.Artefact) { a.Procedure.Code.Codings[0].Code = "G0108" }, []string{"procedure.code.codings[0].code"}},
		{"HCPCS", procedure, func(a *cura.Artefact) { a.Procedure.Code.Codings[0] = cura.Coding{System: systemHCPCS, Code: "G0108"} }, nil},
		{"HCPCS in small letters", procedure, func(a *cura.Artefact) { a.Procedure.Code.Codings[0] = cura.Coding{System: systemHCPCS, Code: "g0108"} }, []string{"procedure.code.codings[0].code"}},
		{"ICD-10-PCS with an O", procedure, func(a *cura.Artefact) {
			a.Procedure.Code.Codings[0] = cura.Coding{System: systemICD10PCS, Code: "ODTJ4ZZ"}
		}, []string{"procedure.code.codings[0].code"}},
		{"a status that isn't R4's", procedure, func(a *cura.Artefact) { a.Procedure.Status = "done" }, []string{"procedure.status"}},
		{"entered-in-error without a retraction", procedure, func(a *cura.Artefact) { a.Procedure.Status = "entered-in-error" }, []string{"procedure.status"}},
		{"completed without a date", procedure, func(a *cura.Artefact) { a.Procedure.Performed = "" }, []string{"procedure.performed"}},
		{"a time without seconds", procedure, func(a *cura.Artefact) { a.Procedure.Performed = "2026-11-23T08:15Z" }, []string{"procedure.performed"}},
		{"a time without its zone", procedure, func(a *cura.Artefact) { a.Procedure.Performed = "2026-11-23T08:15:00" }, []string{"procedure.performed"}},

		{"an event that isn't one", event, func(a *cura.Artefact) { a.ConsentEvent.Event = "secret" }, []string{"consent_event.event"}},
		{"an event without its time", event, func(a *cura.Artefact) { a.ConsentEvent.At = time.Time{} }, []string{"consent_event.at"}},
		{"an event that is to come", event, func(a *cura.Artefact) { a.ConsentEvent.At = signed().Add(time.Hour) }, []string{"consent_event.at"}},
		{"an event of a negative epoch", event, func(a *cura.Artefact) { a.ConsentEvent.Epoch = -1 }, []string{"consent_event.epoch"}},
		{"an event that tells what it is about", event, labelled("R", "HIV"), []string{"labels[1]"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			of := tt.of
			if of.Procedure != nil {
				of.Procedure = &cura.ProcedureContent{Code: cura.Concept{Codings: append([]cura.Coding(nil), of.Procedure.Code.Codings...)}, Status: of.Procedure.Status, Performed: of.Procedure.Performed}
			}
			err := CheckArtefact(with(of, tt.change), signed())
			if tt.paths == nil {
				require.NoError(t, err)
				return
			}
			var rejected *RejectedError
			require.ErrorAs(t, err, &rejected)
			var paths []string
			for _, r := range rejected.Reasons {
				paths = append(paths, r.Path)
			}
			require.Equal(t, tt.paths, paths)
			require.NotContains(t, err.Error(), "secret", "no value may be told")
		})
	}
}

// Every text says what it is about; the artefact's own paths are those of its JSON.
func TestCheckArtefactText(t *testing.T) {
	t.Parallel()
	a := diagnosisOf("problem-list-item", cura.Coding{Code: "E11.9"})
	require.EqualError(t, CheckArtefact(a, signed()), "artefact can't be mapped: diagnosis.code.codings[0].system: missing: a code means nothing without its system; "+
		"diagnosis.code.codings: missing: it needs an ICD-10-CM or SNOMED CT code, with its system")
}

// The check digits are those of published codes; any other digit in their place is wrong.
func TestCheckDigits(t *testing.T) {
	t.Parallel()
	for _, c := range noteTypes() {
		require.True(t, isLOINC(c.Code), c.Code)
	}
	for _, a := range analytes() {
		require.True(t, isLOINC(a.Code), a.Code)
	}
	for _, n := range negativeAssertions() {
		require.True(t, isSNOMED(n.Code), n.Code)
	}
	for code, valid := range map[string]func(string) bool{"11506-3": isLOINC, "85354-9": isLOINC, "44054006": isSNOMED, "1003774007": isSNOMED} {
		for digit := '0'; digit <= '9'; digit++ {
			other := code[:len(code)-1] + string(digit)
			require.Equal(t, other == code, valid(other), other)
		}
	}
	for _, code := range []string{"", "-", "11506", "11506-", "-3", "011506-3", "11506-33", "44054006"} {
		require.False(t, isLOINC(code), code)
	}
	for _, code := range []string{"", "0", "44054", "04405400600", "4405400a", "11506-3", strings.Repeat("1", 19)} {
		require.False(t, isSNOMED(code), code)
	}
}

// FuzzCheckArtefact feeds artefacts as files hold them: what passes is written, valid and known again.
func FuzzCheckArtefact(f *testing.F) {
	for _, w := range writes() {
		raw, err := json.Marshal(w.artefact)
		require.NoError(f, err)
		f.Add(raw)
	}
	v, err := validator()
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, raw []byte) {
		var a cura.Artefact
		if json.Unmarshal(raw, &a) != nil {
			return
		}
		if err := CheckArtefact(a, signed()); err != nil {
			var rejected *RejectedError
			require.ErrorAs(t, err, &rejected)
			require.NotEmpty(t, rejected.Reasons)
			return
		}
		for _, resource := range resourcesOf(a.Kind) {
			for _, notice := range []string{"", part2} {
				to := Outgoing{Resource: resource, PatientEHRID: "pat-1", Notice: notice, PeriodEnd: true}
				if a.Replaces > 0 {
					to.WrittenEHRID = "written-1"
				}
				body, err := Outbound(a, to)
				require.NoError(t, err)
				require.NoError(t, v.Validate(body), "%s", body)
				_, err = ContentHash(body)
				require.NoError(t, err)
			}
		}
	})
}

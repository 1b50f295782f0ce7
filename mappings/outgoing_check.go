package mappings

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fhir"
)

// typeArtefact stands in RejectedError.Type for what isn't a resource yet.
const typeArtefact cura.ResourceType = "artefact"

// maxAhead is how far the clock of the application that signs may be ahead of ours.
const maxAhead = 5 * time.Minute

// CheckArtefact tells what is wrong with an artefact before it is queued; at is now. The error is a *RejectedError whose paths are
// those of the artefact's JSON, such as note.text or diagnosis.code.codings[0].code; it holds no value. What passes can be written
// by Outbound to a server that takes its kind and its content type.
func CheckArtefact(a cura.Artefact, at time.Time) error {
	m := mapper{typ: typeArtefact, reasons: checkContent(a)}
	latest := at.Add(maxAhead)
	if a.AuthoredAt.After(latest) {
		m.reject("authored_at", "lies in the future: check the clock of the application that signs")
	}
	if a.ConsentEvent != nil && a.ConsentEvent.At.After(latest) {
		m.reject("consent_event.at", "lies in the future: a consent event tells of a change that has happened")
	}
	if len(m.reasons) > 0 {
		return &RejectedError{Type: typeArtefact, Reasons: m.reasons}
	}
	return nil
}

// checkContent is CheckArtefact for what needs no clock.
func checkContent(a cura.Artefact) []Reason {
	m := mapper{typ: typeArtefact}
	m.checkName(a)
	m.checkAuthor(a.Author)
	m.checkTime("authored_at", a.AuthoredAt, true)
	if a.EncounterEHRID != "" && !fhir.IsID(a.EncounterEHRID) {
		m.reject("encounter", "isn't the id of an Encounter: give the id alone, without Encounter/ before it")
	}
	m.checkLabels(a)
	m.checkKind(a)
	if a.Note != nil {
		m.checkNote(a.Note)
	}
	if a.Diagnosis != nil {
		m.checkDiagnosis(a.Diagnosis)
	}
	if a.Procedure != nil {
		m.checkProcedure(a.Procedure)
	}
	if a.ConsentEvent != nil {
		m.checkConsentEvent(a.ConsentEvent)
	}
	return m.reasons
}

// artefactID is the form of Artefact.ID.
var artefactID = regexp.MustCompile(`^[A-Za-z0-9.-]{1,64}$`)

func (m *mapper) checkName(a cura.Artefact) {
	if !artefactID.MatchString(a.ID) {
		m.reject("artefact", `isn't a name of an artefact: it has 1 to 64 letters, digits, "." and "-"`)
	}
	if a.Version < 1 {
		m.reject("version", "must be 1 or more")
	}
	switch {
	case a.Replaces < 0:
		m.reject("replaces", "must be a version before this one, or left out")
	case a.Replaces >= a.Version && a.Replaces != 0:
		m.reject("replaces", "must be a version before this one")
	case a.Replaces == 0 && a.Retracts:
		m.reject("replaces", "missing: a retraction names the version that it withdraws")
	}
}

func (m *mapper) checkAuthor(author cura.Author) {
	switch {
	case author.Name == "":
		m.reject("author.name", "missing: somebody must answer for what is written")
	case !isLine(author.Name):
		m.reject("author.name", lineText)
	}
	switch {
	case author.Role == "":
		m.reject("author.role", "missing: the role decides what its author may push")
	case !author.Role.Known():
		m.reject("author.role", "isn't a role that Cura knows: such as clinician or coder")
	}
	if author.PractitionerEHRID != "" && !fhir.IsID(author.PractitionerEHRID) {
		m.reject("author.practitioner", "isn't the id of a Practitioner: give the id alone, without Practitioner/ before it")
	}
}

func (m *mapper) checkLabels(a cura.Artefact) {
	for i, label := range a.Labels {
		system, known := labelSystem(label)
		switch {
		case !known:
			m.reject(at("labels", i), "isn't a label that Cura knows: R, V, ETH, SUD, PSY, PSYTHPN, HIV or SDV")
		case a.Kind == cura.ConsentEvent && system == systemActCode:
			// HIV beside "consent withdrawn" would tell what the consent was about.
			m.reject(at("labels", i), "tells of the patient's health: a consent event has no clinical content, so leave it out")
		}
	}
}

// checkKind checks that the one content is there that belongs to the kind.
func (m *mapper) checkKind(a cura.Artefact) {
	if !a.Kind.Known() {
		m.reject("kind", "isn't a kind that Cura knows: note, diagnosis, procedure or consent-event")
		return
	}
	contents := []struct {
		kind cura.ArtefactKind
		path string
		set  bool
	}{
		{cura.Note, "note", a.Note != nil},
		{cura.Diagnosis, "diagnosis", a.Diagnosis != nil},
		{cura.Procedure, "procedure", a.Procedure != nil},
		{cura.ConsentEvent, "consent_event", a.ConsentEvent != nil},
	}
	for _, c := range contents {
		switch {
		case c.set && a.Retracts:
			m.reject(c.path, "a retraction has no content: leave it out")
		case c.set && c.kind != a.Kind:
			m.reject(c.path, "doesn't belong to this kind: leave it out")
		case !c.set && c.kind == a.Kind && !a.Retracts:
			m.reject(c.path, "missing: an artefact of this kind needs it")
		}
	}
}

func (m *mapper) checkDiagnosis(d *cura.DiagnosisContent) {
	m.checkConcept("diagnosis.code", d.Code, "an ICD-10-CM or SNOMED CT code", systemICD10CM, systemSNOMED)
	m.checkCode("diagnosis.category", d.Category, "encounter-diagnosis", "problem-list-item")
	m.checkCode("diagnosis.clinical_status", d.ClinicalStatus, "active", "recurrence", "relapse", "inactive", "remission", "resolved")
	m.checkCode("diagnosis.verification_status", d.VerificationStatus, "unconfirmed", "provisional", "differential", "confirmed", "refuted")
	m.checkDateTime("diagnosis.onset", d.Onset)
}

func (m *mapper) checkProcedure(p *cura.ProcedureContent) {
	m.checkConcept("procedure.code", p.Code, "a CPT, HCPCS, SNOMED CT or ICD-10-PCS code", systemCPT, systemHCPCS, systemSNOMED, systemICD10PCS)
	m.checkCode("procedure.status", p.Status, "preparation", "in-progress", "not-done", "on-hold", "stopped", "completed", "unknown")
	if p.Performed == "" && (p.Status == "completed" || p.Status == "in-progress") {
		m.reject("procedure.performed", "missing: what was done has a date (US Core)")
	}
	m.checkDateTime("procedure.performed", p.Performed)
}

func (m *mapper) checkConsentEvent(e *cura.ConsentContent) {
	m.checkCode("consent_event.event", e.Event, "granted", "revoked", "expired", "changed")
	m.checkTime("consent_event.at", e.At, true)
	if e.Epoch < 0 {
		m.reject("consent_event.epoch", "must not be negative")
	}
}

// checkConcept checks a code with its translations. One of them must be of a system that EHRs take for it.
func (m *mapper) checkConcept(path string, c cura.Concept, needed string, systems ...string) {
	if c.Text != "" && !isLine(c.Text) {
		m.reject(path+".text", lineText)
	}
	found := false
	for i, coding := range c.Codings {
		m.checkCoding(at(path+".codings", i), coding)
		found = found || slices.Contains(systems, coding.System)
	}
	if !found {
		m.reject(path+".codings", "missing: it needs "+needed+", with its system")
	}
}

func (m *mapper) checkCoding(path string, c cura.Coding) {
	switch {
	case c.System == "":
		m.reject(path+".system", "missing: a code means nothing without its system")
	case !isSystem(c.System):
		m.reject(path+".system", "isn't an absolute URI, such as "+systemICD10CM)
	}
	switch {
	case c.Code == "":
		m.reject(path+".code", "missing: a text alone can't be filed")
	case !isCode(c.Code):
		m.reject(path+".code", "isn't a code: blanks around it or within, or characters that can't be shown")
	default:
		for _, form := range codeForms() {
			if form.system == c.System && !form.valid(c.Code) {
				m.reject(path+".code", form.text)
			}
			if form.oid == c.System {
				m.reject(path+".system", "is the OID of a system that R4 names by a URL: write "+form.system)
			}
		}
	}
	if c.Version != "" && !isLine(c.Version) {
		m.reject(path+".version", lineText)
	}
	if c.Display != "" && !isLine(c.Display) {
		m.reject(path+".display", lineText)
	}
}

// checkCode checks a code of a value set.
func (m *mapper) checkCode(path, code string, allowed ...string) {
	words := strings.Join(allowed, ", ")
	switch {
	case slices.Contains(allowed, code):
	case code == "":
		m.reject(path, "missing: one of "+words)
	default:
		m.reject(path, "isn't one of "+words)
	}
}

// checkDateTime checks a FHIR dateTime, which may be absent.
func (m *mapper) checkDateTime(path, text string) {
	if text == "" {
		return
	}
	// R4 has no times without seconds (§2.24.0.1), which pulled resources have all the same.
	if moment, ok := parseMoment(text); !ok || moment.Precision == cura.PrecisionMinute || len(text) > len("2006-01-02T15:04:05.000000000+00:00") {
		m.reject(path, "isn't a FHIR date or time: write 2026, 2026-11, 2026-11-23 or 2026-11-23T08:15:00-05:00")
	}
}

// checkTime checks a time that is written as an instant.
func (m *mapper) checkTime(path string, at time.Time, required bool) {
	switch year := at.UTC().Year(); {
	case at.IsZero() && required:
		m.reject(path, "missing: write it as 2026-11-23T08:15:00Z")
	case at.IsZero():
	case year < 1900 || year > 9999:
		m.reject(path, "isn't of a year from 1900 to 9999")
	}
}

const (
	maxLine  = 1000
	lineText = "is blank, too long, or has line ends or characters that can't be shown"
)

// isLine reports whether text is one line that every server takes.
func isLine(text string) bool {
	return isText(text) && len(text) <= maxLine && !strings.ContainsAny(text, "\t\n\r") && strings.TrimSpace(text) == text
}

// isText reports whether text says something and has nothing that R4's strings forbid (§2.24.0.1).
func isText(text string) bool {
	return utf8.ValidString(text) && strings.TrimSpace(text) != "" && !strings.ContainsFunc(text, func(r rune) bool {
		return unicode.IsControl(r) && r != '\t' && r != '\n' && r != '\r'
	})
}

// isCode reports whether text is a code (R4 §2.24.0.1) without blanks in it: no system that Cura writes has any.
func isCode(text string) bool { return isLine(text) && !strings.ContainsFunc(text, unicode.IsSpace) }

// absoluteURI is an absolute URI, of visible ASCII.
var absoluteURI = regexp.MustCompile(`^[a-z][a-z0-9+.-]*:[\x21-\x7e]+$`)

func isSystem(text string) bool { return len(text) <= maxLine && absoluteURI.MatchString(text) }

// maxTitle is what lists of documents show.
const maxTitle = 255

func (m *mapper) checkNote(n *cura.NoteContent) {
	switch {
	case n.Type == "":
		m.reject("note.type", "missing: the LOINC code of the kind of note, such as 11506-3")
	case !isLOINC(n.Type):
		m.reject("note.type", "isn't a LOINC code: its check digit or its form is wrong")
	}
	if n.Title != "" && (!isLine(n.Title) || len(n.Title) > maxTitle) {
		m.reject("note.title", lineText+"; it has 255 bytes at most")
	}
	m.checkTime("note.start", n.Start, false)
	m.checkTime("note.end", n.End, false)
	if !n.Start.IsZero() && !n.End.IsZero() && n.End.Before(n.Start) {
		m.reject("note.end", "lies before note.start")
	}
	path, data := "note.text", n.Text
	if len(n.Data) > 0 {
		path, data = "note.data", string(n.Data)
	}
	switch {
	case n.Text != "" && len(n.Data) > 0:
		m.reject("note.data", "there is a text, too: give one of them")
	case data == "":
		m.reject(path, "missing: the note is empty")
	case len(data) > MaxNote:
		m.reject(path, "has more than "+strconv.Itoa(MaxNote>>20)+" MiB, which EHRs don't take: shorten it, or split it in two notes")
	default:
		m.checkForm(path, n.ContentType, data, n.Text != "")
	}
}

// checkForm checks that data is what its content type says.
func (m *mapper) checkForm(path, contentType, data string, isString bool) {
	const rtfMagic = `{\rtf`
	switch contentType {
	case plain, html, "text/xml", "application/xml", "text/rtf", pdf:
	case "":
		m.reject("note.content_type", "missing: such as text/plain")
		return
	default:
		m.reject("note.content_type", "isn't one of text/plain, text/html, text/xml, application/xml, text/rtf and application/pdf, without parameters")
		return
	}
	if contentType == pdf {
		if isString || !strings.HasPrefix(data, pdfMagic) {
			m.reject(path, "isn't a PDF: put the file's bytes into note.data")
		}
		return
	}
	content := strings.TrimSpace(strings.TrimPrefix(data, "\ufeff"))
	switch {
	case !utf8.ValidString(data):
		m.reject(path, "isn't UTF-8: convert it")
	case strings.Contains(data, "\x00"):
		m.reject(path, "has NUL characters: it isn't text")
	case content == "":
		m.reject(path, "is blank")
	case strings.HasPrefix(data, pdfMagic),
		contentType == "text/rtf" && !strings.HasPrefix(data, rtfMagic),
		strings.HasSuffix(contentType, "/xml") && !strings.HasPrefix(content, "<"):
		m.reject(path, "isn't what note.content_type says")
	}
}

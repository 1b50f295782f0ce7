package mappings

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fhir"
)

// IdentifierSystem is the system of the identifiers that Cura gives to what it writes, where a connection names none.
const IdentifierSystem = "https://cura.health/ehr-sync/artefact"

// TagSystem and TagPushed are the meta.tag of everything that Cura writes, by which a pull knows it where the server keeps tags.
const (
	TagSystem = "https://cura.health/ehr-sync"
	TagPushed = "pushed"
)

// Outgoing is what a written resource needs beside the artefact.
type Outgoing struct {
	// Resource is the FHIR type to write: DocumentReference for a note, Condition for a diagnosis, Procedure for a procedure,
	// Consent or DocumentReference for a consent event.
	Resource string
	// PatientEHRID is the patient's id at the EHR, without "Patient/".
	PatientEHRID string
	// IdentifierSystem is the system of Cura's artefact identifiers; empty: the constant IdentifierSystem.
	IdentifierSystem string
	// Notice is the 42 CFR Part 2 text that must go along; empty: none.
	Notice string
	// WrittenEHRID is the id of the resource that holds the version before (Artefact.Replaces); empty: the EHR holds none. A
	// retraction needs it. A document is created anew and replaces it; any other resource is an update of it and carries its id.
	WrittenEHRID string
	// PeriodEnd says that the server demands context.period.end with a time (DOMAIN §4, Oracle).
	PeriodEnd bool
	// ContentTypes are what the server takes, such as text/plain; empty: any of ours. One with parameters is written as it stands
	// here; else all but PDF get "; charset=utf-8".
	ContentTypes []string
}

// IdentifierOf is the identifier value of an artefact version, ID.Version. It never changes, and no two versions share one: it is
// what If-None-Exist and look-ups go by.
func IdentifierOf(a cura.Artefact) string { return a.ID + "." + strconv.Itoa(a.Version) }

// CodesOf are the clinical codes that consent is decided by: a note's LOINC type, the codings of a diagnosis or a procedure. A
// consent event and a retraction have none.
func CodesOf(a cura.Artefact) []cura.Coding {
	switch {
	case a.Note != nil:
		return []cura.Coding{{System: systemLOINC, Code: a.Note.Type, Display: noteDisplay(a.Note.Type)}}
	case a.Diagnosis != nil:
		return slices.Clone(a.Diagnosis.Code.Codings)
	case a.Procedure != nil:
		return slices.Clone(a.Procedure.Code.Codings)
	}
	return nil
}

// Outbound makes the resource to write: FHIR R4 JSON that fhir.Validator accepts, the same for the same arguments. The error is
// always a *RejectedError: with the paths of CheckArtefact where the artefact itself is wrong, else with the paths of elements.
//
// A retraction makes the same resource entered-in-error and nothing more: it may go out after consent was withdrawn, so it repeats
// no clinical content.
func Outbound(a cura.Artefact, to Outgoing) ([]byte, error) {
	if reasons := checkContent(a); len(reasons) > 0 {
		return nil, &RejectedError{Type: typeArtefact, Reasons: reasons}
	}
	if !slices.Contains(resourcesOf(a.Kind), to.Resource) {
		return nil, &RejectedError{Reasons: []Reason{{Path: "resourceType", Text: "artefacts of this kind aren't written as this type: correct the delivery profile"}}}
	}
	w := writer{mapper: mapper{typ: cura.ResourceType(to.Resource)}, artefact: a, to: to}
	var resource any
	switch to.Resource {
	case "DocumentReference":
		resource = w.document()
	case "Condition":
		resource = w.condition()
	case "Procedure":
		resource = w.procedure()
	case "Consent":
		resource = w.consent()
	}
	if len(w.reasons) > 0 {
		return nil, &RejectedError{Type: w.typ, Reasons: w.reasons}
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(resource); err != nil {
		return nil, &RejectedError{Type: w.typ, Reasons: []Reason{{Text: "can't be written as JSON"}}}
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// resourcesOf lists the types that artefacts of a kind are written as.
func resourcesOf(kind cura.ArtefactKind) []string {
	switch kind {
	case cura.Note:
		return []string{"DocumentReference"}
	case cura.Diagnosis:
		return []string{"Condition"}
	case cura.Procedure:
		return []string{"Procedure"}
	case cura.ConsentEvent:
		return []string{"Consent", "DocumentReference"}
	}
	return nil
}

// writer makes one resource and collects what keeps it from being written.
type writer struct {
	mapper

	artefact cura.Artefact
	to       Outgoing
}

// resource begins a resource with what every one has.
func (w *writer) resource() outResource {
	system := w.to.IdentifierSystem
	if system == "" {
		system = IdentifierSystem
	}
	if !isSystem(system) {
		w.reject(w.path("identifier.system"), "isn't an absolute URI: correct the connection's identifier system")
	}
	res := outResource{
		ResourceType: w.to.Resource,
		Meta:         outMeta{Security: labelCodings(w.artefact.Labels), Tag: []outCoding{{System: TagSystem, Code: TagPushed}}},
		Identifier:   []outIdentifier{{System: system, Value: IdentifierOf(w.artefact)}},
	}
	written := w.to.WrittenEHRID
	switch {
	case written == "" && w.artefact.Retracts:
		w.reject(w.path("id"), "missing: a retraction changes the resource that the EHR holds; look that up first")
	case written != "" && w.artefact.Replaces == 0:
		w.reject(w.path("id"), "the artefact replaces no version, so there is no resource to change")
	case written != "" && !fhir.IsID(written):
		w.reject(w.path("id"), "isn't an id that R4 knows")
	case w.to.Resource != "DocumentReference" || w.artefact.Retracts:
		res.ID = written
	}
	return res
}

// patient refers to the patient.
func (w *writer) patient(element string) outReference {
	if !fhir.IsID(w.to.PatientEHRID) {
		w.reject(w.path(element), "isn't an id of a Patient: link the patient first")
	}
	return outReference{Reference: "Patient/" + w.to.PatientEHRID}
}

// encounter refers to the encounter; nil where the artefact names none.
func (w *writer) encounter() *outReference {
	if w.artefact.EncounterEHRID == "" {
		return nil
	}
	return &outReference{Reference: "Encounter/" + w.artefact.EncounterEHRID}
}

// author refers to who answers for the artefact: by Practitioner where that is known, always with name and role to read.
func (w *writer) author() outReference {
	author := w.artefact.Author
	ref := outReference{Display: author.Name + " (" + string(author.Role) + ")"}
	if author.PractitionerEHRID != "" {
		ref.Reference = "Practitioner/" + author.PractitionerEHRID
	}
	return ref
}

// notes carries the notice in a resource that has annotations.
func (w *writer) notes() []outAnnotation {
	if w.notice("note.text") == "" {
		return nil
	}
	return []outAnnotation{{Text: w.to.Notice}}
}

// notice gives the notice, and rejects one that can't be written in element.
func (w *writer) notice(element string) string {
	if w.to.Notice != "" && (!isText(w.to.Notice) || len(w.to.Notice) > maxNotice) {
		w.reject(w.path(element), "the notice is blank, too long, or isn't clean text: correct the org's notice")
	}
	return w.to.Notice
}

func (w *writer) condition() outCondition {
	const clinical, verification = "http://terminology.hl7.org/CodeSystem/condition-clinical", "http://terminology.hl7.org/CodeSystem/condition-ver-status"
	out := outCondition{
		outResource:  w.resource(),
		Subject:      w.patient("subject"),
		Encounter:    w.encounter(),
		RecordedDate: instantOf(w.artefact.AuthoredAt),
		Recorder:     w.author(),
		Note:         w.notes(),
	}
	if w.artefact.Retracts {
		out.VerificationStatus = codeOf(verification, "entered-in-error")
		out.Code = outConcept{Text: withdrawn}
		return out
	}
	d := w.artefact.Diagnosis
	status := codeOf(clinical, d.ClinicalStatus)
	out.ClinicalStatus = &status
	out.VerificationStatus = codeOf(verification, d.VerificationStatus)
	out.Category = []outConcept{codeOf(systemConditionCategory, d.Category)}
	out.Code = outConceptOf(d.Code)
	out.OnsetDateTime = d.Onset
	return out
}

func (w *writer) procedure() outProcedure {
	out := outProcedure{
		outResource: w.resource(),
		Subject:     w.patient("subject"),
		Encounter:   w.encounter(),
		Recorder:    w.author(),
		Note:        w.notes(),
	}
	if w.artefact.Retracts {
		out.Status = "entered-in-error"
		out.Code = outConcept{Text: withdrawn}
		return out
	}
	p := w.artefact.Procedure
	out.Status = p.Status
	out.Code = outConceptOf(p.Code)
	out.PerformedDateTime = p.Performed
	return out
}

// consent tells of a change. It says neither why nor what the consent covers: what can't be said leaves the rule without a type,
// which decides nothing for a careful reader (DOMAIN §7).
func (w *writer) consent() outConsent {
	out := outConsent{
		outResource: w.resource(),
		Scope:       codeOf("http://terminology.hl7.org/CodeSystem/consentscope", "patient-privacy"),
		Category:    []outConcept{codeOf(systemLOINC, consentDocument)},
		Patient:     w.patient("patient"),
		DateTime:    instantOf(w.artefact.AuthoredAt),
	}
	if notice := w.notice("text"); notice != "" {
		// A Consent has no annotations: what people must read goes into its narrative.
		out.Text = &outNarrative{Status: "additional", Div: `<div xmlns="http://www.w3.org/1999/xhtml">` + paragraphs(notice) + `</div>`}
	}
	if w.artefact.Retracts {
		out.Status = "entered-in-error"
		out.PolicyRule = outConcept{Text: withdrawn}
		return out
	}
	e := w.artefact.ConsentEvent
	out.DateTime = instantOf(e.At)
	// Status says whether it is in force; rule and provision say the same in the two ways that readers know (DOMAIN §7).
	switch e.Event {
	case "granted":
		out.Status, out.PolicyRule, out.Provision = "active", codeOf(systemActCode, "OPTIN"), &outProvision{Type: "permit"}
	case "revoked", "expired":
		out.Status, out.PolicyRule, out.Provision = "inactive", codeOf(systemActCode, "OPTOUT"), &outProvision{Type: "deny"}
	case "changed":
		out.Status = "active"
	}
	out.PolicyRule.Text = changeNumber(e)
	return out
}

// withdrawn stands where R4 or US Core demands a word about a resource that says nothing any more.
const withdrawn = "Withdrawn"

// changeNumber tells one consent event from the next, and no more of it than what has happened.
func changeNumber(e *cura.ConsentContent) string {
	return "Change " + strconv.FormatInt(e.Epoch, 10) + " of the patient's consent at Cura: " + e.Event
}

// instantOf writes a FHIR instant (R4 §2.24.0.1), in UTC.
func instantOf(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05.000Z") }

// paragraphs writes text as XHTML.
func paragraphs(text string) string {
	escaped := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;").Replace(text)
	return "<p>" + strings.ReplaceAll(escaped, "\n", "<br/>") + "</p>"
}

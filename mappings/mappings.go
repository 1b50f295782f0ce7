// Package mappings turns FHIR R4 resources into Cura's records, one file a resource. It is pure: the same bytes always
// give the same record. What it does is documented in MAPPINGS.md, which is made from the tables that drive Preview.
package mappings

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fhir"
	"github.com/cura-health/ehr-sync/internal/fhir/r4"
)

//go:generate go test -run TestMappingsDocument -update .

// Version names this set of mappings. It is recorded with each row, and grows with every change that makes other rows of the same
// resource.
const Version = "1"

// RejectedError says why a resource can't be mapped. Its text holds element paths and fixed words, and no value, so it may be
// shown, logged and audited.
type RejectedError struct {
	// Type is empty where the resource isn't of a type that Cura maps.
	Type cura.ResourceType
	// Reasons is never empty. It is in the order of the elements' mapping.
	Reasons []Reason
}

// Reason is one thing that keeps a resource from being mapped.
type Reason struct {
	// Path names the element, such as Observation.subject; empty for the resource as a whole.
	Path string
	Text string
}

// Error lists the reasons.
func (e *RejectedError) Error() string {
	texts := make([]string, len(e.Reasons))
	for i, r := range e.Reasons {
		texts[i] = r.Text
		if r.Path != "" {
			texts[i] = r.Path + ": " + r.Text
		}
	}
	what := string(e.Type)
	if what == "" {
		what = "resource"
	}
	return what + " can't be mapped: " + strings.Join(texts, "; ")
}

// Map makes Cura's record of a resource of one of cura.ResourceTypes. raw should have passed fhir.Validator: Map checks only
// what it needs itself. The error is always a *RejectedError.
//
// A resource that is entered-in-error is mapped like any other and marked; it may lack what is required otherwise, but for
// its id and its patient.
func Map(raw []byte) (cura.Record, error) {
	return MapWith(raw, nil)
}

// MapWith is Map with a site's own rules on top. They are applied to what the mapping has made; nil changes nothing.
func MapWith(raw []byte, o *Overrides) (cura.Record, error) {
	head, err := fhir.Head(raw)
	if err != nil {
		return cura.Record{}, &RejectedError{Reasons: []Reason{{Text: "the JSON isn't well formed"}}}
	}
	m := mapper{typ: cura.ResourceType(head.Type)}
	var record cura.Record
	switch m.typ {
	case cura.Patient:
		record, err = mapAs(&m, raw, mapPatient)
	case cura.AllergyIntolerance:
		record, err = mapAs(&m, raw, mapAllergy)
	case cura.MedicationRequest:
		record, err = mapAs(&m, raw, mapMedicationRequest)
	case cura.MedicationStatement:
		record, err = mapAs(&m, raw, mapMedicationStatement)
	case cura.Observation:
		record, err = mapAs(&m, raw, mapObservation)
	case cura.Encounter:
		record, err = mapAs(&m, raw, mapEncounter)
	case cura.Consent:
		record, err = mapAs(&m, raw, mapConsent)
	default:
		return cura.Record{}, &RejectedError{Reasons: []Reason{{Path: "resourceType", Text: "Cura maps no resources of this type"}}}
	}
	if err != nil {
		m.reject(m.path(fieldOf(err)), "isn't of the JSON kind that belongs here")
	}
	if o != nil && len(m.reasons) == 0 {
		record = o.apply(&m, record)
	}
	if len(m.reasons) > 0 {
		return cura.Record{}, &RejectedError{Type: m.typ, Reasons: m.reasons}
	}
	return record, nil
}

// mapAs decodes raw and maps it. The error is of the decoding; what the mapping itself refuses is in m.
func mapAs[R any](m *mapper, raw []byte, mapping func(*mapper, *R) cura.Record) (cura.Record, error) {
	var resource R
	if err := json.Unmarshal(raw, &resource); err != nil {
		return cura.Record{}, err
	}
	return mapping(m, &resource), nil
}

// fieldOf gives the element that a decoding error is about. Nothing else of such an error is used: it quotes values.
func fieldOf(err error) string {
	if wrongKind, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return wrongKind.Field
	}
	return ""
}

// mapper collects what one mapping finds.
type mapper struct {
	typ     cura.ResourceType
	reasons []Reason
	// base is the service base of the patient reference, see cura.Record.PatientBase.
	base string
	// withdrawn is set for a resource that is entered-in-error.
	withdrawn bool
}

// path gives an element's path from its name.
func (m *mapper) path(element string) string {
	if element == "" {
		return string(m.typ)
	}
	return string(m.typ) + "." + element
}

func (m *mapper) reject(path, text string) {
	m.reasons = append(m.reasons, Reason{Path: path, Text: text})
}

// record begins a record with what every resource has.
func (m *mapper) record(res *r4.Resource) cura.Record {
	record := cura.Record{Type: m.typ, EHRID: res.ID, VersionID: res.Meta.VersionID, EnteredInError: m.withdrawn}
	if res.ID == "" {
		m.reject(m.path("id"), "missing: without it no later version can be told from a new resource")
	}
	if updated := m.moment("meta.lastUpdated", res.Meta.LastUpdated); updated != nil {
		record.LastUpdated = updated.Start
	}
	return record
}

// recordOf begins a record about a patient, who is named by the reference in element.
func (m *mapper) recordOf(res *r4.Resource, element string, patient r4.Reference) cura.Record {
	record := m.record(res)
	record.PatientEHRID, record.PatientBase = m.patient(element, patient)
	m.base = record.PatientBase
	return record
}

// status checks a status against its value set and notes whether the resource is entered-in-error. It is the first thing to be
// mapped. R4's codes are case-sensitive: a status in capitals that was let pass could hide a withdrawal.
func (m *mapper) status(value string, allowed ...string) string {
	const withdrawn = "entered-in-error"
	m.withdrawn = value == withdrawn
	if !m.withdrawn {
		m.code("status", value, allowed...)
	}
	return value
}

// code checks that a code is one of its value set.
func (m *mapper) code(element, value string, allowed ...string) {
	switch {
	case slices.Contains(allowed, value):
	case value == "":
		m.reject(m.path(element), "required but missing")
	default:
		m.reject(m.path(element), "isn't a code of the required value set")
	}
}

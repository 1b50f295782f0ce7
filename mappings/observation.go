package mappings

import (
	"bytes"
	"encoding/json"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fhir/r4"
)

// mapObservation maps an Observation.
func mapObservation(m *mapper, o *r4.Observation) cura.Record {
	status := o.Status
	if status == "" && o.StatusElement != nil {
		if _, absent := absence(o.StatusElement.Extension); absent {
			status = "unknown"
		}
	}
	m.status(status, "registered", "preliminary", "final", "amended", "corrected", "cancelled", "unknown")
	record := m.recordOf(&o.Resource, "subject", o.Subject)
	out := cura.LabObservation{
		Status:           status,
		Categories:       concepts(o.Category),
		Code:             concept(o.Code),
		Analyte:          analyte(o.Code),
		Value:            m.value("", &o.Value),
		DataAbsentReason: absentReason(o.DataAbsentReason, &o.Value),
		Interpretations:  concepts(o.Interpretation),
		ReferenceRanges:  referenceRanges(o.ReferenceRange),
		Effective:        m.moment("effectiveDateTime", o.EffectiveDateTime),
		EffectivePeriod:  m.period("effectivePeriod", o.EffectivePeriod),
		EffectiveTiming:  timing(o.EffectiveTiming),
		IssuedAt:         m.moment("issued", o.Issued),
		Method:           concept(o.Method),
		BodySite:         concept(o.BodySite),
		EncounterEHRID:   m.id("Encounter", o.Encounter),
		Notes:            notes(o.Note),
	}
	if out.Effective == nil {
		out.Effective = m.moment("effectiveInstant", o.EffectiveInstant)
	}
	for _, member := range o.HasMember {
		if id := m.id(string(cura.Observation), member); id != "" {
			out.MemberEHRIDs = append(out.MemberEHRIDs, id)
		}
	}
	for i := range o.Component {
		c := &o.Component[i]
		out.Components = append(out.Components, cura.ObservationComponent{
			Code:             concept(c.Code),
			Analyte:          analyte(c.Code),
			Value:            m.value(at("component", i)+".", &c.Value),
			DataAbsentReason: absentReason(c.DataAbsentReason, &c.Value),
			Interpretations:  concepts(c.Interpretation),
			ReferenceRanges:  referenceRanges(c.ReferenceRange),
		})
	}
	if len(out.Code.Codings) == 0 && out.Code.Text == "" && !m.withdrawn {
		if _, absent := conceptAbsence(o.Code); !absent {
			m.reject(m.path("code"), "says nothing: neither a coding nor a text")
		}
	}
	record.Observation = &out
	return record
}

// analytes lists the LOINC codes that Cura treats specially.
func analytes() []struct{ Code, Analyte, Meaning string } {
	return []struct{ Code, Analyte, Meaning string }{
		{"4548-4", "hemoglobin-a1c", "Hemoglobin A1c/Hemoglobin.total in Blood"},
		{"17856-6", "hemoglobin-a1c", "the same by HPLC"},
		{"59261-8", "hemoglobin-a1c", "the same by IFCC protocol, in mmol/mol: its unit tells it apart"},
		{"85354-9", "blood-pressure", "Blood pressure panel"},
		{"55284-4", "blood-pressure", "Blood pressure systolic and diastolic (older panel)"},
		{"8480-6", "systolic-blood-pressure", "Systolic blood pressure"},
		{"8462-4", "diastolic-blood-pressure", "Diastolic blood pressure"},
	}
}

// analyte gives the stable name of an observation's code, by any of its LOINC codings.
func analyte(c r4.CodeableConcept) string {
	for _, coding := range c.Coding {
		if coding.System != systemLOINC && coding.System != systemLOINCOID {
			continue
		}
		for _, a := range analytes() {
			if coding.Code == a.Code {
				return a.Analyte
			}
		}
	}
	return ""
}

// value maps value[x]; nil where there is none, or only the reason for its absence. prefix is the path of a component.
func (m *mapper) value(prefix string, v *r4.Value) *cura.ObservationValue {
	var found []cura.ObservationValue
	add := func(is bool, value cura.ObservationValue) {
		if is {
			found = append(found, value)
		}
	}
	if q := quantity(v.ValueQuantity); q != nil && q.Value != "" {
		add(true, cura.ObservationValue{Kind: "quantity", Quantity: q})
	}
	if v.ValueCodeableConcept != nil {
		c := concept(*v.ValueCodeableConcept)
		add(c.Text != "" || len(c.Codings) > 0, cura.ObservationValue{Kind: "concept", Concept: &c})
	}
	if v.ValueString != nil {
		add(true, cura.ObservationValue{Kind: "string", Text: *v.ValueString})
	}
	add(v.ValueBoolean != nil, cura.ObservationValue{Kind: "boolean", Boolean: v.ValueBoolean})
	if v.ValueInteger != nil {
		add(true, cura.ObservationValue{Kind: "integer", Integer: *v.ValueInteger})
	}
	if r := rangeOf(v.ValueRange); r != nil {
		add(true, cura.ObservationValue{Kind: "range", Range: r})
	}
	if r := ratio(v.ValueRatio); r != nil {
		add(true, cura.ObservationValue{Kind: "ratio", Ratio: r})
	}
	if len(v.ValueSampledData) > 0 && !bytes.Equal(v.ValueSampledData, []byte("null")) {
		add(true, cura.ObservationValue{Kind: "sampled-data", Text: compact(v.ValueSampledData)})
	}
	if v.ValueTime != nil {
		add(true, cura.ObservationValue{Kind: "time", Text: *v.ValueTime})
	}
	if v.ValueDateTime != nil {
		at := m.moment(prefix+"valueDateTime", *v.ValueDateTime)
		add(at != nil, cura.ObservationValue{Kind: "date-time", Moment: at})
	}
	if p := m.period(prefix+"valuePeriod", v.ValuePeriod); p != nil {
		add(true, cura.ObservationValue{Kind: "period", Period: p})
	}
	switch len(found) {
	case 0:
		return nil
	case 1:
		return &found[0]
	}
	m.reject(m.path(prefix+"value[x]"), "has more than one value")
	return nil
}

// compact writes JSON without white space.
func compact(raw []byte) string {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return string(raw)
	}
	return b.String()
}

// absentReason gives dataAbsentReason, or else the data-absent-reason extension on the value or inside it.
func absentReason(given r4.CodeableConcept, v *r4.Value) cura.Concept {
	if c := concept(given); c.Text != "" || len(c.Codings) > 0 {
		return c
	}
	if q := v.ValueQuantity; q != nil {
		if c, ok := absence(q.Extension); ok {
			return c
		}
		if c, ok := elementAbsence(q.ValueElement); ok {
			return c
		}
	}
	if v.ValueCodeableConcept != nil {
		if c, ok := conceptAbsence(*v.ValueCodeableConcept); ok {
			return c
		}
	}
	for _, e := range []*r4.Element{
		v.ValueStringElement, v.ValueBooleanElement, v.ValueIntegerElement, v.ValueTimeElement, v.ValueDateTimeElement,
	} {
		if c, ok := elementAbsence(e); ok {
			return c
		}
	}
	return cura.Concept{}
}

func elementAbsence(e *r4.Element) (cura.Concept, bool) {
	if e == nil {
		return cura.Concept{}, false
	}
	return absence(e.Extension)
}

// conceptAbsence looks for the extension on a concept, on its codings and on their codes.
func conceptAbsence(c r4.CodeableConcept) (cura.Concept, bool) {
	if reason, ok := absence(c.Extension); ok {
		return reason, true
	}
	for _, coding := range c.Coding {
		if reason, ok := absence(coding.Extension); ok {
			return reason, true
		}
		if reason, ok := elementAbsence(coding.CodeElement); ok {
			return reason, true
		}
	}
	return cura.Concept{}, false
}

func referenceRanges(from []r4.ObservationReferenceRange) []cura.ReferenceRange {
	var out []cura.ReferenceRange
	for _, r := range from {
		out = append(out, cura.ReferenceRange{
			Low: quantity(r.Low), High: quantity(r.High), Type: concept(r.Type), AppliesTo: concepts(r.AppliesTo),
			Age: rangeOf(r.Age), Text: r.Text,
		})
	}
	return out
}

package mappings

import (
	"slices"

	"github.com/cura-health/ehr-sync/internal/cura"
)

const systemObservationCategory = "http://terminology.hl7.org/CodeSystem/observation-category"

// observationCategories are the codes of HL7's observation-category (R4 §10.1), which US Core's searches go by.
func observationCategories() []cura.Coding {
	return []cura.Coding{
		{Code: "social-history", Display: "Social History"},
		{Code: "vital-signs", Display: "Vital Signs"},
		{Code: "imaging", Display: "Imaging"},
		{Code: "laboratory", Display: "Laboratory"},
		{Code: "procedure", Display: "Procedure"},
		{Code: "survey", Display: "Survey"},
		{Code: "exam", Display: "Exam"},
		{Code: "therapy", Display: "Therapy"},
		{Code: "activity", Display: "Activity"},
	}
}

// codeKey names a code. The system is empty for codings that have none.
type codeKey struct{ system, code string }

// codedAs names the field of a type that a translation is for.
type codedAs struct {
	typ   cura.ResourceType
	field string
}

// translations lead from a code to the one that is meant, chains followed.
type translations map[codeKey]cura.Coding

// codedField is a field that codes can be translated in.
type codedField struct {
	// name is the field's in MAPPINGS.md.
	name string
	// concepts are the concepts of a record that the field stands for, those of an Observation's components among them.
	concepts func(*cura.Record) []*cura.Concept
}

const (
	fieldCode       = "code"
	fieldCategories = "categories"
	fieldClass      = "class"
)

// codedFields lists the fields of a type that codes can be translated in. Patients have none; a Consent is read as the hospital
// wrote it, because a translation could turn a no into a yes. Categories have rules of their own.
func codedFields(t cura.ResourceType) []codedField {
	switch t {
	case cura.AllergyIntolerance:
		return []codedField{
			{fieldCode, func(r *cura.Record) []*cura.Concept { return []*cura.Concept{&r.Allergy.Code} }},
			{"reactions.substance", func(r *cura.Record) []*cura.Concept {
				return each(r.Allergy.Reactions, func(a *cura.AllergyReaction) []*cura.Concept { return []*cura.Concept{&a.Substance} })
			}},
			{"reactions.manifestations", func(r *cura.Record) []*cura.Concept {
				return each(r.Allergy.Reactions, func(a *cura.AllergyReaction) []*cura.Concept { return pointers(a.Manifestations) })
			}},
		}
	case cura.MedicationRequest, cura.MedicationStatement:
		return []codedField{
			{fieldCode, func(r *cura.Record) []*cura.Concept { return []*cura.Concept{&r.Medication.Code} }},
			{"dosages.route", func(r *cura.Record) []*cura.Concept {
				return each(r.Medication.Dosages, func(d *cura.Dosage) []*cura.Concept { return []*cura.Concept{&d.Route} })
			}},
			{"reasons", func(r *cura.Record) []*cura.Concept { return pointers(r.Medication.Reasons) }},
		}
	case cura.Observation:
		return []codedField{
			{fieldCode, func(r *cura.Record) []*cura.Concept {
				return append(each(r.Observation.Components, func(c *cura.ObservationComponent) []*cura.Concept { return []*cura.Concept{&c.Code} }),
					&r.Observation.Code)
			}},
			{"value", func(r *cura.Record) []*cura.Concept {
				return append(each(r.Observation.Components, func(c *cura.ObservationComponent) []*cura.Concept { return codedValue(c.Value) }),
					codedValue(r.Observation.Value)...)
			}},
			{"interpretations", func(r *cura.Record) []*cura.Concept {
				return append(each(r.Observation.Components, func(c *cura.ObservationComponent) []*cura.Concept { return pointers(c.Interpretations) }),
					pointers(r.Observation.Interpretations)...)
			}},
			{"method", func(r *cura.Record) []*cura.Concept { return []*cura.Concept{&r.Observation.Method} }},
			{"body_site", func(r *cura.Record) []*cura.Concept { return []*cura.Concept{&r.Observation.BodySite} }},
		}
	case cura.Encounter:
		return []codedField{
			// One coding, which translate sees to.
			{fieldClass, func(*cura.Record) []*cura.Concept { return nil }},
			{"types", func(r *cura.Record) []*cura.Concept { return pointers(r.Visit.Types) }},
			{"service_type", func(r *cura.Record) []*cura.Concept { return []*cura.Concept{&r.Visit.ServiceType} }},
			{"priority", func(r *cura.Record) []*cura.Concept { return []*cura.Concept{&r.Visit.Priority} }},
			{"reasons", func(r *cura.Record) []*cura.Concept { return pointers(r.Visit.Reasons) }},
			{"participants.roles", func(r *cura.Record) []*cura.Concept {
				return each(r.Visit.Participants, func(p *cura.Participant) []*cura.Concept { return pointers(p.Roles) })
			}},
			{"discharge", func(r *cura.Record) []*cura.Concept { return []*cura.Concept{&r.Visit.Discharge} }},
		}
	case cura.Patient, cura.Consent:
	}
	return nil
}

func each[T any](list []T, concepts func(*T) []*cura.Concept) []*cura.Concept {
	var out []*cura.Concept
	for i := range list {
		out = append(out, concepts(&list[i])...)
	}
	return out
}

func pointers(concepts []cura.Concept) []*cura.Concept {
	return each(concepts, func(c *cura.Concept) []*cura.Concept { return []*cura.Concept{c} })
}

func codedValue(v *cura.ObservationValue) []*cura.Concept {
	if v == nil || v.Concept == nil {
		return nil
	}
	return []*cura.Concept{v.Concept}
}

// translate translates a record's codes, and says anew what follows from them.
func (o *Overrides) translate(record *cura.Record) {
	for _, f := range codedFields(record.Type) {
		if t := o.codes[codedAs{record.Type, f.name}]; t != nil {
			for _, c := range f.concepts(record) {
				t.apply(c)
			}
		}
	}
	switch {
	case record.Allergy != nil:
		record.Allergy.NegativeAssertion = statesNoAllergy(coded(record.Allergy.Code))
	case record.Visit != nil:
		if to, ok := o.codes[codedAs{record.Type, fieldClass}][keyOf(record.Visit.Class)]; ok {
			record.Visit.Class = to
		}
	case record.Observation != nil:
		if t := o.codes[codedAs{record.Type, fieldCategories}]; t != nil {
			for _, c := range pointers(record.Observation.Categories) {
				t.apply(c)
			}
		}
		record.Observation.Analyte = analyte(coded(record.Observation.Code))
		for i := range record.Observation.Components {
			c := &record.Observation.Components[i]
			c.Analyte = analyte(coded(c.Code))
		}
	}
}

// apply puts what the codings of a concept mean before them, each once, in the order of those that it is of. A coding that is
// there already is moved to its place as it is.
func (t translations) apply(c *cura.Concept) {
	var first []cura.Coding
	for _, from := range c.Codings {
		to, ok := t[keyOf(from)]
		if !ok || indexOf(first, to) >= 0 {
			continue
		}
		if i := indexOf(c.Codings, to); i >= 0 {
			to = c.Codings[i]
		}
		first = append(first, to)
	}
	if len(first) == 0 {
		return
	}
	for _, coding := range c.Codings {
		if !slices.Contains(first, coding) {
			first = append(first, coding)
		}
	}
	c.Codings = first
}

func keyOf(c cura.Coding) codeKey { return codeKey{c.System, c.Code} }

// indexOf finds a coding by its system and code.
func indexOf(in []cura.Coding, c cura.Coding) int {
	return slices.IndexFunc(in, func(x cura.Coding) bool { return keyOf(x) == keyOf(c) })
}

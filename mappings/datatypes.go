package mappings

import (
	"strconv"
	"strings"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fhir/r4"
)

// Code systems and extensions that mappings know.
const (
	systemLOINC        = "http://loinc.org"
	systemLOINCOID     = "urn:oid:2.16.840.1.113883.6.1"
	systemSNOMED       = "http://snomed.info/sct"
	systemSNOMEDOID    = "urn:oid:2.16.840.1.113883.6.96"
	systemDataAbsent   = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
	systemVerification = "http://terminology.hl7.org/CodeSystem/allergyintolerance-verification"
	systemClinical     = "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical"
	extDataAbsent      = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
)

func coding(c r4.Coding) cura.Coding {
	return cura.Coding{System: c.System, Version: c.Version, Code: c.Code, Display: c.Display, UserSelected: c.UserSelected}
}

// concept maps a CodeableConcept with all its codings; those that say nothing, as where only an extension is, are dropped.
func concept(c r4.CodeableConcept) cura.Concept {
	out := cura.Concept{Text: c.Text}
	for _, from := range c.Coding {
		if to := coding(from); to != (cura.Coding{}) {
			out.Codings = append(out.Codings, to)
		}
	}
	return out
}

func concepts(cs []r4.CodeableConcept) []cura.Concept {
	var out []cura.Concept
	for _, c := range cs {
		if to := concept(c); to.Text != "" || len(to.Codings) > 0 {
			out = append(out, to)
		}
	}
	return out
}

// codeIn gives the code of the first coding in system, else the first code without a system, else empty.
func codeIn(c r4.CodeableConcept, system string) string {
	var without string
	for _, coding := range c.Coding {
		switch {
		case coding.System == system && coding.Code != "":
			return coding.Code
		case coding.System == "" && without == "":
			without = coding.Code
		}
	}
	return without
}

// word gives the shortest name of a concept: a code, else a display, else its text.
func word(c r4.CodeableConcept) string {
	for _, coding := range c.Coding {
		if coding.Code != "" {
			return coding.Code
		}
	}
	for _, coding := range c.Coding {
		if coding.Display != "" {
			return coding.Display
		}
	}
	return c.Text
}

// words gives the words of concepts, without those that say nothing.
func words(cs ...r4.CodeableConcept) []string {
	var out []string
	for _, c := range cs {
		if w := word(c); w != "" {
			out = append(out, w)
		}
	}
	return out
}

// reasons maps reason codes and, of referenced reasons, their display texts.
func reasons(codes []r4.CodeableConcept, refs []r4.Reference) []cura.Concept {
	out := concepts(codes)
	for _, ref := range refs {
		if ref.Display != "" {
			out = append(out, cura.Concept{Text: ref.Display})
		}
	}
	return out
}

func notes(annotations []r4.Annotation) []string {
	var out []string
	for _, a := range annotations {
		if a.Text != "" {
			out = append(out, a.Text)
		}
	}
	return out
}

// quantity maps a Quantity; nil where it is absent or says nothing.
func quantity(q *r4.Quantity) *cura.Quantity {
	if q == nil {
		return nil
	}
	out := cura.Quantity{Value: q.Value, Comparator: q.Comparator, Unit: q.Unit, System: q.System, Code: q.Code}
	if out == (cura.Quantity{}) {
		return nil
	}
	return &out
}

func rangeOf(r *r4.Range) *cura.Range {
	if r == nil {
		return nil
	}
	out := cura.Range{Low: quantity(r.Low), High: quantity(r.High)}
	if out == (cura.Range{}) {
		return nil
	}
	return &out
}

func ratio(r *r4.Ratio) *cura.Ratio {
	if r == nil {
		return nil
	}
	out := cura.Ratio{Numerator: quantity(r.Numerator), Denominator: quantity(r.Denominator)}
	if out == (cura.Ratio{}) {
		return nil
	}
	return &out
}

// quantityText writes a quantity for people to read.
func quantityText(q *r4.Quantity) string {
	if q == nil {
		return ""
	}
	unit := q.Unit
	if unit == "" {
		unit = q.Code
	}
	return strings.TrimSpace(q.Comparator + q.Value.String() + " " + unit)
}

// spanText writes two ends for people to read.
func spanText(from, to string) string {
	switch {
	case from == "" && to == "":
		return ""
	case to == "":
		return "from " + from
	case from == "":
		return "until " + to
	}
	return from + " to " + to
}

// identifiers maps identifiers that have a value. A value is kept exactly where blanks around it were cut; its zeros stay. Where
// only an extension stands in for the value, as rendered-value does for a masked number, there is nothing to match by.
func (m *mapper) identifiers(from []r4.Identifier) []cura.Identifier {
	var out []cura.Identifier
	for i, id := range from {
		value := strings.TrimSpace(id.Value)
		if value == "" {
			continue
		}
		to := cura.Identifier{
			System: strings.TrimSpace(id.System), Value: value, Use: id.Use, Type: concept(id.Type),
			Period: m.period(at("identifier", i)+".period", id.Period),
		}
		if value != id.Value {
			to.Exact = id.Value
		}
		out = append(out, to)
	}
	return out
}

// at gives the name of an element of a list.
func at(element string, i int) string { return element + "[" + strconv.Itoa(i) + "]" }

// absence gives the reason of a data-absent-reason extension (R4 Extension data-absent-reason).
func absence(extensions []r4.Extension) (cura.Concept, bool) {
	for _, e := range extensions {
		if e.URL == extDataAbsent && e.ValueCode != "" {
			return cura.Concept{Codings: []cura.Coding{{System: systemDataAbsent, Code: e.ValueCode}}}, true
		}
	}
	return cura.Concept{}, false
}

// present drops the empty strings that stand for nulls.
func present(texts []string) []string {
	var out []string
	for _, t := range texts {
		if t = strings.TrimSpace(t); t != "" {
			out = append(out, t)
		}
	}
	return out
}

// timing describes a Timing for people to read: its code, else its schedule in words, else its times.
func timing(t *r4.Timing) string {
	if t == nil {
		return ""
	}
	if t.Code.Text != "" {
		return t.Code.Text
	}
	for _, c := range t.Code.Coding {
		if c.Display != "" {
			return c.Display
		}
	}
	if w := word(t.Code); w != "" {
		return w
	}
	if t.Repeat != nil {
		if text := repeat(*t.Repeat); text != "" {
			return text
		}
	}
	return strings.Join(present(t.Event), ", ")
}

// repeat describes Timing.repeat, such as "1 to 2 times every 8 h".
func repeat(r r4.TimingRepeat) string {
	span := func(low, high string) string {
		if low != "" && high != "" {
			return low + " to " + high
		}
		return low + high
	}
	var parts []string
	switch times := span(r.Frequency.String(), r.FrequencyMax.String()); times {
	case "":
	case "1":
		parts = append(parts, "once")
	default:
		parts = append(parts, times+" times")
	}
	if every := span(r.Period.String(), r.PeriodMax.String()); every != "" {
		parts = append(parts, "every "+every+" "+r.PeriodUnit)
	}
	for _, list := range [][]string{r.When, r.TimeOfDay, r.DayOfWeek} {
		if texts := present(list); len(texts) > 0 {
			parts = append(parts, strings.Join(texts, ","))
		}
	}
	if count := r.Count.String(); count != "" {
		parts = append(parts, "count "+count)
	}
	return strings.Join(parts, " ")
}

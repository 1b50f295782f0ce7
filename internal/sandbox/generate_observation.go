package sandbox

import (
	"encoding/json"
	"slices"
	"time"
)

// analyte is a numeric laboratory result with its usual range.
type analyte struct {
	code, name, unit, ucum string
	low, high              float64 // reference range
	spread                 float64 // how far beyond the range results go
	digits                 int
}

func analytes() []analyte {
	return []analyte{
		{"4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood", "%", "%", 4, 5.6, 4, 2},
		{"2345-7", "Glucose [Mass/volume] in Serum or Plasma", "mg/dL", "mg/dL", 70, 99, 90, 0},
		{"2160-0", "Creatinine [Mass/volume] in Serum or Plasma", "mg/dL", "mg/dL", 0.6, 1.2, 1, 2},
		{"2951-2", "Sodium [Moles/volume] in Serum or Plasma", "mmol/L", "mmol/L", 135, 145, 6, 0},
		{"2823-3", "Potassium [Moles/volume] in Serum or Plasma", "mmol/L", "mmol/L", 3.5, 5.1, 1, 1},
		{"718-7", "Hemoglobin [Mass/volume] in Blood", "g/dL", "g/dL", 12, 16, 3, 1},
		{"2093-3", "Cholesterol [Mass/volume] in Serum or Plasma", "mg/dL", "mg/dL", 125, 200, 80, 0},
	}
}

// observation makes what every Observation has.
func (p *person) observation(category string, code obj, at time.Time) obj {
	return obj{
		{"resourceType", "Observation"},
		{"id", uuid(p.r)},
		{"status", "final"},
		{"category", list{concept(sysTerminology+"observation-category", category, "")}},
		{"code", code},
		{"subject", p.ref()},
		{"encounter", p.encounter()},
		{"effectiveDateTime", moment(at)},
		{"issued", at.Add(3 * time.Hour).Format(instantLayout)},
	}
}

// with gives the object with a member changed.
func (o obj) with(key string, value any) obj {
	out := slices.Clone(o)
	for i := range out {
		if out[i].key == key {
			out[i].value = value
			return out
		}
	}
	return append(out, field{key, value})
}

// numeric makes a laboratory result with its range and interpretation.
func (p *person) numeric(a analyte, at time.Time) obj {
	x := a.low - a.spread/4 + p.r.Float64()*(a.high-a.low+a.spread*1.25)
	flag, word := "N", "Normal"
	switch {
	case x < a.low:
		flag, word = "L", "Low"
	case x > a.high:
		flag, word = "H", "High"
	}
	return append(p.observation("laboratory", concept(sysLOINC, a.code, a.name), at),
		field{"valueQuantity", quantity(decimal(x, a.digits), a.unit, a.ucum)},
		field{"interpretation", list{concept(sysTerminology+"v3-ObservationInterpretation", flag, word)}},
		field{"referenceRange", list{obj{
			{"low", quantity(decimal(a.low, a.digits), a.unit, a.ucum)},
			{"high", quantity(decimal(a.high, a.digits), a.unit, a.ucum)},
		}}},
	)
}

// routineLab makes the nth of a long series of results.
func (p *person) routineLab(n int) obj {
	all := analytes()
	return p.numeric(all[n%len(all)], p.past(n))
}

// routine makes the nth of a long series of Observations: laboratory results, and of every eight one vital sign, one
// answer to a survey and one of social history.
func (p *person) routine(n int) obj {
	switch n % 8 {
	case 3:
		return append(p.observation("vital-signs", concept(sysLOINC, "8867-4", "Heart rate"), p.past(n)),
			field{"valueQuantity", quantity(decimal(58+p.r.Float64()*40, 0), "beats/minute", "/min")})
	case 5:
		return p.survey(n)
	case 7:
		return append(p.observation("social-history", concept(sysLOINC, "74013-4", "Alcoholic drinks per drinking day"), p.past(n)),
			field{"valueQuantity", quantity(decimal(p.r.Float64()*5, 0), "{drinks}/d", "{drinks}/d")})
	default:
		return p.routineLab(n)
	}
}

// survey makes the score of a questionnaire.
func (p *person) survey(n int) obj {
	return append(p.observation("survey", concept(sysLOINC, "55758-7", "Patient Health Questionnaire 2 item (PHQ-2) total score"), p.past(n)),
		field{"valueQuantity", quantity(decimal(p.r.Float64()*6, 0), "{score}", "{score}")})
}

// surveys makes the answers of every third patient.
func surveys(p *person) []obj {
	if p.n%3 != 0 {
		return nil
	}
	return []obj{p.survey(0)}
}

// labs makes the results of a patient: the usual ones, and for some one of the traps (DOMAIN §6).
func labs(p *person) []obj {
	var out []obj
	for i := range 3 + p.r.IntN(3) {
		out = append(out, p.routineLab(i))
	}
	lab := func(code obj) obj { return p.observation("laboratory", code, p.past(0)) }
	switch p.trait() {
	case 0: // below what can be measured
		out = append(out, append(lab(concept(sysLOINC, "10839-9", "Troponin I.cardiac [Mass/volume] in Serum or Plasma")),
			field{"valueQuantity", append(quantity("0.010", "ng/mL", "ng/mL"), field{"comparator", "<"})}))
	case 1: // no value, and why
		out = append(out, append(lab(concept(sysLOINC, "2345-7", "Glucose [Mass/volume] in Serum or Plasma")),
			field{"dataAbsentReason", concept(sysTerminology+"data-absent-reason", "error", "Error")},
			field{"note", list{obj{{"text", "Specimen hemolyzed"}}}}))
	case 2: // a code of the laboratory's own, no LOINC
		out = append(out, append(lab(obj{{"coding", list{coding(sysLocalLab, "LAB-4711", "Vitamin D 25-OH (in house)")}}, {"text", "Vit D"}}),
			field{"valueQuantity", obj{{"value", decimal(18+p.r.Float64()*30, 1)}, {"unit", "ng/ml"}}}))
	case 3:
		out = append(out, append(lab(concept(sysLOINC, "882-1", "ABO and Rh group [Type] in Blood")),
			field{"valueCodeableConcept", concept(sysSNOMED, "278149003", "Blood group A Rh(D) positive")}))
	case 4:
		out = append(out, append(lab(concept(sysLOINC, "5778-6", "Color of Urine")), field{"valueString", "Straw <pale>"}))
	case 5: // A1c in IFCC units
		out = append(out, append(lab(concept(sysLOINC, "59261-8", "Hemoglobin A1c/Hemoglobin.total in Blood by IFCC protocol")),
			field{"valueQuantity", quantity(decimal(31+p.r.Float64()*40, 0), "mmol/mol", "mmol/mol")}))
	case 6:
		out = append(out, p.routineLab(1).with("status", "corrected"))
	case 7:
		out = append(out, p.routineLab(2).with("status", "preliminary"))
	case 8:
		out = append(out, p.routineLab(3).with("status", "entered-in-error"))
	case 9: // more than can be measured
		out = append(out, append(lab(concept(sysLOINC, "33914-3", "Glomerular filtration rate/1.73 sq M.predicted")),
			field{"valueQuantity", append(quantity("60", "mL/min/{1.73_m2}", "mL/min/{1.73_m2}"), field{"comparator", ">"})}))
	case 10:
		out = append(out, append(lab(concept(sysLOINC, "5196-1", "Hepatitis B virus surface Ag [Presence] in Serum")),
			field{"valueBoolean", false}))
	case 11:
		out = append(out, append(lab(concept(sysLOINC, "5767-9", "Appearance of Urine")),
			field{"valueRange", obj{{"low", quantity("1", "{score}", "{score}")}, {"high", quantity("3", "{score}", "{score}")}}}))
	case 12:
		out = append(out, append(lab(concept(sysLOINC, "13951-9", "Hepatitis A virus Ab [Titer] in Serum")),
			field{"valueRatio", obj{{"numerator", obj{{"value", json.Number("1")}}}, {"denominator", obj{{"value", json.Number("128")}}}}}))
	}
	return out
}

// vitals makes vital signs: the blood pressure panel with its components, pulse, weight and temperature.
func vitals(p *person) []obj {
	vital := func(code, name string, at time.Time) obj {
		return p.observation("vital-signs", concept(sysLOINC, code, name), at)
	}
	var out []obj
	for i := range 1 + p.r.IntN(2) {
		at := p.past(i)
		out = append(out, append(vital("85354-9", "Blood pressure panel with all children optional", at),
			field{"component", p.pressure()}))
	}
	at := p.past(0)
	out = append(out,
		append(vital("8867-4", "Heart rate", at), field{"valueQuantity", quantity(decimal(58+p.r.Float64()*40, 0), "beats/minute", "/min")}),
		append(vital("29463-7", "Body weight", at), field{"valueQuantity", quantity(decimal(48+p.r.Float64()*60, 1), "kg", "kg")}),
		append(vital("8310-5", "Body temperature", at), field{"valueQuantity", quantity(decimal(36+p.r.Float64()*2, 1), "Cel", "Cel")}),
	)
	if p.n%4 == 0 {
		smoking := p.observation("social-history", concept(sysLOINC, "72166-2", "Tobacco smoking status"), at)
		out = append(out, append(smoking, field{"valueCodeableConcept", concept(sysSNOMED, "266919005", "Never smoked tobacco")}))
	}
	return out
}

func (p *person) pressure() list {
	systolic := obj{
		{"code", concept(sysLOINC, "8480-6", "Systolic blood pressure")},
		{"valueQuantity", quantity(decimal(104+p.r.Float64()*56, 0), "mmHg", "mm[Hg]")},
	}
	diastolic := obj{
		{"code", concept(sysLOINC, "8462-4", "Diastolic blood pressure")},
		{"valueQuantity", quantity(decimal(60+p.r.Float64()*36, 0), "mmHg", "mm[Hg]")},
	}
	if p.trait() == 10 { // the lower value could not be taken
		diastolic = diastolic.with("valueQuantity", nil)
		diastolic = append(diastolic, field{"dataAbsentReason", concept(sysTerminology+"data-absent-reason", "unknown", "Unknown")})
	}
	return list{systolic, diastolic}
}

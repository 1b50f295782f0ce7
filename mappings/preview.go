package mappings

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// Line is one line of a mapping preview. It holds PHI.
type Line struct {
	// Element is a FHIR element path, such as Patient.name[0].
	Element string `json:"element"`
	// Source is the value of that element in words, empty where it is absent.
	Source string `json:"source"`
	// Field is the Cura field, such as profiles.name; empty for an element that stays in the raw resource alone.
	Field string `json:"field"`
	// Value is the mapped value in words, empty where nothing was mapped.
	Value string `json:"value"`
}

// Preview shows how a resource is mapped, element by element in the order of MAPPINGS.md, with what isn't mapped at the end.
// Its lines hold PHI and are for authorized people only. The error is Map's.
func Preview(raw []byte) ([]Line, error) {
	record, err := Map(raw)
	if err != nil {
		return nil, err
	}
	source, err := decode(raw)
	if err != nil {
		return nil, &RejectedError{Type: record.Type, Reasons: []Reason{{Text: "the JSON isn't well formed"}}}
	}
	mapped, err := fieldsOf(record)
	if err != nil {
		return nil, &RejectedError{Type: record.Type, Reasons: []Reason{{Text: "the record can't be written as JSON"}}}
	}
	t, _ := tableOf(record.Type)
	var lines []Line
	for _, r := range t.Rows {
		lines = append(lines, r.preview(t, source, mapped)...)
	}
	return append(lines, t.unmapped(source)...), nil
}

// preview gives the lines of one row: one a list element where both sides have as many, else one for all.
func (r row) preview(t table, source, mapped any) []Line {
	from := find(source, string(t.Type), r.Element)
	to := find(mapped, t.Into, r.Field)
	if len(from) == 0 || r.Derived && len(to) == 0 {
		return nil
	}
	if len(from) == len(to) {
		lines := make([]Line, len(from))
		for i := range from {
			lines[i] = Line{Element: from[i].path, Source: render(from[i].value), Field: to[i].path, Value: render(to[i].value)}
		}
		return lines
	}
	return []Line{{
		Element: string(t.Type) + "." + r.Element, Source: renderAll(from), Field: t.Into + "." + r.Field, Value: renderAll(to),
	}}
}

// unmapped gives a line for each element at the top of the resource that no row names. The narrative is left out: it says the
// same again, in HTML.
func (t table) unmapped(source any) []Line {
	object, _ := source.(map[string]any)
	var lines []Line
	for _, name := range names(object) {
		known := name == "resourceType" || name == "meta" || name == "text"
		for _, r := range t.Rows {
			first, _, _ := strings.Cut(r.Element, ".")
			known = known || matches(first, name)
		}
		if !known {
			lines = append(lines, Line{Element: string(t.Type) + "." + name, Source: render(object[name])})
		}
	}
	return lines
}

// decode reads JSON and keeps the digits of numbers.
func decode(raw []byte) (any, error) {
	var value any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	err := d.Decode(&value)
	return value, err
}

// fieldsOf gives a record's fields by their JSON names: those of its entity and those that every record has.
func fieldsOf(record cura.Record) (any, error) {
	raw, err := json.Marshal(entity(record))
	if err != nil {
		return nil, err
	}
	value, err := decode(raw)
	if err != nil {
		return nil, err
	}
	fields, _ := value.(map[string]any)
	fields["ehr_id"] = record.EHRID
	fields["patient_ehr_id"] = record.PatientEHRID
	if record.VersionID != "" {
		fields["version_id"] = record.VersionID
	}
	if !record.LastUpdated.IsZero() {
		fields["last_updated"] = record.LastUpdated.Format(time.RFC3339Nano)
	}
	if record.EnteredInError {
		fields["entered_in_error"] = true
	}
	return fields, nil
}

// entity gives the pointer of a record that is set.
func entity(record cura.Record) any {
	switch {
	case record.Profile != nil:
		return record.Profile
	case record.Allergy != nil:
		return record.Allergy
	case record.Medication != nil:
		return record.Medication
	case record.Observation != nil:
		return record.Observation
	case record.Visit != nil:
		return record.Visit
	}
	return record.Consent
}

// place is a value and where it was found.
type place struct {
	path  string
	value any
}

// find walks a path of names, through lists, and gives what lies at its end.
func find(value any, path, rest string) []place {
	if list, ok := value.([]any); ok {
		var found []place
		for i, v := range list {
			found = append(found, find(v, path+"["+strconv.Itoa(i)+"]", rest)...)
		}
		return found
	}
	if rest == "" {
		if value == nil {
			return nil
		}
		return []place{{path, value}}
	}
	first, rest, _ := strings.Cut(rest, ".")
	object, _ := value.(map[string]any)
	var found []place
	for _, name := range names(object) {
		if matches(first, name) {
			found = append(found, find(object[name], path+"."+name, rest)...)
		}
	}
	return found
}

// matches reports whether name is what a row names; value[x] names valueQuantity, valueString and so on.
func matches(pattern, name string) bool {
	stem, isChoice := strings.CutSuffix(pattern, "[x]")
	if !isChoice {
		return pattern == name
	}
	kind, ok := strings.CutPrefix(name, stem)
	return ok && kind != "" && 'A' <= kind[0] && kind[0] <= 'Z'
}

func names(object map[string]any) []string {
	out := make([]string, 0, len(object))
	for name := range object {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func renderAll(places []place) string {
	texts := make([]string, len(places))
	for i, p := range places {
		texts[i] = render(p.value)
	}
	return strings.Join(texts, "; ")
}

// render writes a JSON value for people to read: quantities, moments and concepts in short, anything else member by member.
func render(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		return v
	case []any:
		texts := make([]string, len(v))
		for i := range v {
			texts[i] = render(v[i])
		}
		return strings.Join(texts, ", ")
	case map[string]any:
		return renderObject(v)
	}
	return fmt.Sprint(value) // a number or a boolean
}

func renderObject(v map[string]any) string {
	if text, ok := v["text"].(string); ok && v["precision"] != nil && v["start"] != nil {
		return text + " (" + render(v["precision"]) + ")"
	}
	if number, ok := v["value"].(json.Number); ok {
		unit := render(v["unit"])
		if unit == "" {
			unit = render(v["code"])
		}
		return strings.TrimSpace(render(v["comparator"]) + number.String() + " " + unit)
	}
	if codings, ok := v["coding"].([]any); ok {
		return renderConcept(v["text"], codings)
	}
	if codings, ok := v["codings"].([]any); ok {
		return renderConcept(v["text"], codings)
	}
	texts := make([]string, 0, len(v))
	for _, name := range names(v) {
		text := render(v[name])
		if _, nested := v[name].(map[string]any); nested {
			text = "(" + text + ")"
		}
		if list, ok := v[name].([]any); ok && len(list) > 0 {
			if _, nested := list[0].(map[string]any); nested {
				text = "(" + text + ")"
			}
		}
		texts = append(texts, name+"="+text)
	}
	return strings.Join(texts, " ")
}

// renderConcept writes a concept's text and its codings as display (code, system).
func renderConcept(text any, codings []any) string {
	texts := make([]string, 0, len(codings)+1)
	if t := render(text); t != "" {
		texts = append(texts, t)
	}
	for _, c := range codings {
		coding, _ := c.(map[string]any)
		code := render(coding["code"])
		if system := render(coding["system"]); system != "" {
			code = strings.TrimPrefix(code+", "+system, ", ")
		}
		texts = append(texts, strings.TrimSpace(render(coding["display"])+" ("+code+")"))
	}
	return strings.Join(texts, " | ")
}

package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// RecordJSON is a record as its row holds it: the one entity that is set.
func RecordJSON(r cura.Record) ([]byte, error) {
	switch {
	case r.Profile != nil:
		return json.Marshal(r.Profile)
	case r.Allergy != nil:
		return json.Marshal(r.Allergy)
	case r.Medication != nil:
		return json.Marshal(r.Medication)
	case r.Observation != nil:
		return json.Marshal(r.Observation)
	case r.Visit != nil:
		return json.Marshal(r.Visit)
	}
	return json.Marshal(r.Consent)
}

// ElementChange is an element of a record in which two versions differ. Before and After are values, and PHI; empty where the
// version lacks the element.
type ElementChange struct {
	// Path names it, such as Observation.value.quantity.unit. It leaves out places in lists, so that it holds nothing of a patient
	// and the same element of many records has the same name.
	Path   string `json:"path"`
	Before string `json:"before"`
	After  string `json:"after"`
}

// RecordChanges compares two records of a type as JSON, and gives the elements in which they differ, in the order of their names
// and, within a list, of their places. A list that has become longer or shorter is one element.
func RecordChanges(t cura.ResourceType, before, after []byte) ([]ElementChange, error) {
	if bytes.Equal(before, after) {
		return nil, nil
	}
	was, err := decodeRecord(before)
	if err != nil {
		return nil, err
	}
	is, err := decodeRecord(after)
	if err != nil {
		return nil, err
	}
	return elementChanges(nil, string(t), was, is), nil
}

// decodeRecord keeps the digits of numbers.
func decodeRecord(raw []byte) (value any, err error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&value); err != nil {
		return nil, fmt.Errorf("reading a record: %w", err)
	}
	return value, nil
}

func elementChanges(changes []ElementChange, path string, before, after any) []ElementChange {
	switch was := before.(type) {
	case map[string]any:
		is, ok := after.(map[string]any)
		if !ok {
			break
		}
		all := maps.Clone(was)
		maps.Copy(all, is)
		for _, name := range slices.Sorted(maps.Keys(all)) {
			changes = elementChanges(changes, path+"."+name, was[name], is[name])
		}
		return changes
	case []any:
		is, ok := after.([]any)
		if !ok || len(is) != len(was) {
			break
		}
		for i := range was {
			changes = elementChanges(changes, path, was[i], is[i])
		}
		return changes
	}
	if b, a := inJSON(before), inJSON(after); b != a {
		changes = append(changes, ElementChange{Path: path, Before: b, After: a})
	}
	return changes
}

// inJSON is a value for people to read: a text without quotes, nothing as nothing.
func inJSON(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		return v
	}
	text, err := json.Marshal(value)
	if err != nil {
		return "" // what was decoded from JSON can be encoded again
	}
	return string(text)
}

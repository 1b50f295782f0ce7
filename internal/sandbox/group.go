package sandbox

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

const (
	groupType = "Group"
	// RosterGroup is the id of the Group that every sandbox with patients has.
	RosterGroup = "cura-roster"
	// leftOut: every tenth patient isn't in RosterGroup, so that the roster can be told from all patients.
	leftOut = 10
)

// addRoster adds RosterGroup to the base data: the patients with these ids, as served, or without any all but every
// tenth. A data folder's own Group of that id stays. Members are changed like any resource, by Put. It is read by its id
// and not found by search: the analyst of the hospital tells it (DOMAIN §2, "Rosters").
func (s *store) addRoster(members []string) error {
	var listed list
	add := func(id string) {
		listed = append(listed, obj{{"entity", reference("Patient/" + id)}})
	}
	n := 0
	err := s.each("Patient", func(id string, _ json.RawMessage) bool {
		n++
		if len(members) == 0 && n%leftOut != 0 {
			add(id)
		}
		return true
	})
	if err != nil || n == 0 || len(s.versionsOf(groupType, RosterGroup)) > 0 {
		return err
	}
	for _, id := range slices.Compact(slices.Sorted(slices.Values(members))) {
		add(id)
	}
	base, err := time.Parse(time.RFC3339, generatedBase)
	if err != nil {
		return fmt.Errorf("reading the base instant: %w", err)
	}
	raw, err := encode(obj{
		{"resourceType", groupType},
		{"id", RosterGroup},
		{"active", true},
		{"type", "person"},
		{"actual", true},
		{"name", "Patients that Cura follows"},
		{"quantity", len(listed)},
		{"member", orNil(listed)},
	})
	if err != nil {
		return err
	}
	_, err = s.loadServed(raw, base, generatedStep)
	return err
}

// orNil gives nil for a list without items: R4 §2.6.2, an array is never empty.
func orNil(l list) any {
	if len(l) == 0 {
		return nil
	}
	return l
}

package mappings

import (
	"errors"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// OverrideLine is one line of a preview with overrides. It holds PHI.
type OverrideLine struct {
	// Element and Source are as in Line.
	Element string `json:"element"`
	Source  string `json:"source"`
	// Field is the Cura field; empty for an element that stays in the raw resource alone.
	Field string `json:"field"`
	// Before is the value with the overrides before, After the one with those after; in words, empty where there is none.
	Before string `json:"before"`
	After  string `json:"after"`
}

// OverridePreview is a preview of one resource with the overrides before and with those after. It holds PHI.
type OverridePreview struct {
	Type cura.ResourceType `json:"type"`
	// VersionBefore and VersionAfter are what the row would say that it was mapped by.
	VersionBefore string `json:"version_before"`
	VersionAfter  string `json:"version_after"`
	// Excluded is true where the overrides after take no resources of the type: then After tells what isn't stored.
	Excluded bool           `json:"excluded"`
	Lines    []OverrideLine `json:"lines"`
}

// Changed counts the lines whose values differ.
func (p OverridePreview) Changed() int {
	n := 0
	for _, l := range p.Lines {
		if l.Before != l.After {
			n++
		}
	}
	return n
}

// PreviewWith shows how a resource is mapped with the overrides that were and with those that will be, nil for none, line by line as
// Preview does. The result holds PHI and is for authorized people only. The error is MapWith's, of either.
func PreviewWith(raw []byte, was, willBe *Overrides) (OverridePreview, error) {
	before, err := MapWith(raw, was)
	if err != nil {
		return OverridePreview{}, err
	}
	after, err := MapWith(raw, willBe)
	if err != nil {
		return OverridePreview{}, err
	}
	t, known := tableOf(before.Type)
	source, err := decode(raw)
	fields, errBefore := fieldsOf(before)
	fieldsAfter, errAfter := fieldsOf(after)
	if !known || errors.Join(err, errBefore, errAfter) != nil {
		return OverridePreview{}, &RejectedError{Type: before.Type, Reasons: []Reason{{Text: "can't be shown element by element"}}}
	}
	out := OverridePreview{
		Type: before.Type, VersionBefore: was.Version(), VersionAfter: willBe.Version(), Excluded: willBe.Excludes(before.Type),
	}
	for _, r := range t.Rows {
		out.Lines = append(out.Lines, beside(r.preview(t, source, fields), r.preview(t, source, fieldsAfter))...)
	}
	for _, l := range t.unmapped(source) {
		out.Lines = append(out.Lines, OverrideLine{Element: l.Element, Source: l.Source})
	}
	return out, nil
}

// beside puts the lines of one row side by side. Overrides neither add nor drop what an element becomes, but what follows from a code
// may be there on one side alone.
func beside(before, after []Line) []OverrideLine {
	out := make([]OverrideLine, max(len(before), len(after)))
	for i := range out {
		if i < len(after) {
			out[i] = OverrideLine{Element: after[i].Element, Source: after[i].Source, Field: after[i].Field, After: after[i].Value}
		}
		if i < len(before) {
			out[i].Element, out[i].Source, out[i].Field, out[i].Before = before[i].Element, before[i].Source, before[i].Field, before[i].Value
		}
	}
	return out
}

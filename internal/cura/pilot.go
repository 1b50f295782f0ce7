package cura

// PilotPatient is what became of one patient of a pilot. Its preview holds PHI: it is kept in the sandbox org, shown to
// authorized people, and purged.
type PilotPatient struct {
	Position int `json:"position"`
	// Match is matched, new, ambiguous or rejected.
	Match       string                  `json:"match"`
	MatchReason string                  `json:"match_reason"`
	Counts      map[ResourceType]Counts `json:"counts"`
	// Missing lists the Cura fields that a usable profile needs and this patient lacks.
	Missing []string `json:"missing,omitempty"`
	// Rejected lists the reasons of what was quarantined: element paths, no values.
	Rejected []string `json:"rejected,omitempty"`
	// Notes say how the report is incomplete, and need nobody.
	Notes   []string      `json:"notes,omitempty"`
	Preview []PreviewLine `json:"preview,omitempty"`
}

// Clean reports whether nothing about the patient needs a person.
func (p PilotPatient) Clean() bool {
	if (p.Match != "matched" && p.Match != "new") || len(p.Missing) > 0 || len(p.Rejected) > 0 {
		return false
	}
	return true
}

// PreviewLine is one mapped element: where it came from, and where it went. It holds PHI.
type PreviewLine struct {
	Element string `json:"element"`
	Source  string `json:"source"`
	Field   string `json:"field"`
	Value   string `json:"value"`
}

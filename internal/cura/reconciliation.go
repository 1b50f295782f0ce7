package cura

import "time"

// Reconciliation is how the source and Cura compare in one type.
type Reconciliation struct {
	Type ResourceType `json:"type"`
	// Counted is what the server says it has (_summary=count); nil where it doesn't count.
	Counted *int64 `json:"counted,omitempty"`
	// Source and Cura are the numbers of resources that were compared; tombstones don't count.
	Source int64 `json:"source"`
	Cura   int64 `json:"cura"`
	// Missing are in the source alone, Extra in Cura alone, and Changed differ in content.
	Missing int64 `json:"missing"`
	Extra   int64 `json:"extra"`
	Changed int64 `json:"changed"`
	// Unreadable are resources that the server lists and can't give; they are quarantined.
	Unreadable int64 `json:"unreadable"`
	// Repaired are differences that the run has mended; they don't count among the others.
	Repaired   int64     `json:"repaired"`
	ComparedAt time.Time `json:"compared_at"`
}

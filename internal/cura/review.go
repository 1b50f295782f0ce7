package cura

// ReviewKind is what a person is asked to decide about a patient.
type ReviewKind string

// The kinds of reviews.
const (
	// ReviewMatch: whose the patient is; several profiles may be meant, or none.
	ReviewMatch ReviewKind = "match"
	// ReviewMerge: the EHR has merged the patient into another, who has another profile.
	ReviewMerge ReviewKind = "merge"
	// ReviewSplit: the EHR has taken back a merge that Cura had followed.
	ReviewSplit ReviewKind = "split"
	// ReviewConflict: the EHR's version and the one that Cura shows differ, and it can't be told which is the more recent.
	ReviewConflict ReviewKind = "conflict"
)

// ReviewDecision is what a person has decided.
type ReviewDecision string

// The decisions.
const (
	// KeepEHR: the EHR's version is shown from now on.
	KeepEHR ReviewDecision = "keep-ehr"
	// KeepCura: what Cura shows, and whose the patient is, stays as it is.
	KeepCura ReviewDecision = "keep-cura"
	// DecideMerge: the patient belongs to the profile of the patient that they were merged into.
	DecideMerge ReviewDecision = "merge"
	// DecideLink: the patient belongs to the profile that is named.
	DecideLink ReviewDecision = "link"
	// DecideNew: the patient gets a profile of their own.
	DecideNew ReviewDecision = "new"
)

// Decisions are those that fit a kind of review, in the order in which they are offered.
func (k ReviewKind) Decisions() []ReviewDecision {
	switch k {
	case ReviewMatch:
		return []ReviewDecision{DecideLink, DecideNew}
	case ReviewMerge:
		return []ReviewDecision{DecideMerge, KeepCura}
	case ReviewSplit:
		return []ReviewDecision{DecideLink, DecideNew, KeepCura}
	case ReviewConflict:
		return []ReviewDecision{KeepEHR, KeepCura}
	}
	return nil
}

package cura

// Counts is the sum that must add up for every read: what the EHR served is what became of it.
// Served = Stored + Unchanged + Quarantined + InReview + Withheld. Landed is counted beside it.
type Counts struct {
	// Served is the number of matching entries that the EHR gave, repeats included.
	Served int `json:"served"`
	// Landed is the number of new raw versions kept in the landing.
	Landed int `json:"landed"`
	// Stored became rows of Cura's tables, new or newer.
	Stored int `json:"stored"`
	// Unchanged had landed before with the same content, or were older than what is stored.
	Unchanged int `json:"unchanged"`
	// Quarantined could not be validated or mapped; each has its reason.
	Quarantined int `json:"quarantined"`
	// InReview wait for a person: an ambiguous patient, or a record of one.
	InReview int `json:"in_review"`
	// Withheld were kept out by a policy, such as a patient's refusal.
	Withheld int `json:"withheld"`
}

// Plus is the sum of two counts.
func (c Counts) Plus(d Counts) Counts {
	return Counts{
		Served:      c.Served + d.Served,
		Landed:      c.Landed + d.Landed,
		Stored:      c.Stored + d.Stored,
		Unchanged:   c.Unchanged + d.Unchanged,
		Quarantined: c.Quarantined + d.Quarantined,
		InReview:    c.InReview + d.InReview,
		Withheld:    c.Withheld + d.Withheld,
	}
}

// Balanced reports whether everything served has an outcome.
func (c Counts) Balanced() bool {
	return c.Served == c.Stored+c.Unchanged+c.Quarantined+c.InReview+c.Withheld
}

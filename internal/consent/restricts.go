package consent

import (
	"slices"
	"time"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// Restricts reports whether any of a patient's consents, now or later, denies something or can't be read: whether more than
// permits would be lost if they no longer counted.
func Restricts(consents []Consent, at time.Time) bool {
	return slices.ContainsFunc(consents, func(c Consent) bool { return c.restricts(at) })
}

func (c Consent) restricts(at time.Time) bool {
	over := c.Entry.Period != nil && c.Entry.Period.End != nil && !c.Entry.Period.End.End.After(at)
	if c.EnteredInError || c.Entry.Status != "active" || scopeOf(c.Entry.Scope) == no || over {
		return false
	}
	f, _ := newFacts(Request{Action: Disclose, Kind: cura.Note}, at)
	e := evaluation{facts: f, consent: c}
	root, why := e.provisionOf()
	if c.ModifierExtension || c.Entry.ModifierExtension || why != "" || e.base(root) != permits || unreadable(root) != "" {
		return true
	}
	return slices.ContainsFunc(exceptions(root), restrictive)
}

// restrictive reports whether a nested provision, or one within it, is anything but a permit.
func restrictive(p map[string]any) bool {
	return effectOf(p["type"]) != permits || unreadable(p) != "" || slices.ContainsFunc(exceptions(p), restrictive)
}

package mappings

import (
	"slices"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fhir/r4"
)

// Overrides are a site's own rules on top of the mapping: what its EHR calls a thing, and what Cura calls it. They come from
// ParseOverrides and are read only from then on, by any number of goroutines. Nil Overrides change nothing.
type Overrides struct {
	// number is the file's own version, version what rows say.
	number  int
	version string
	counts  OverrideCounts
	// systems leads from an identifier system to the one that is meant, chains followed.
	systems map[string]string
	// uses are the uses of names that go first; empty is a name without a use.
	uses  []string
	codes map[codedAs]translations
	// units are the conversions by the code that they hold for, and by the unit that they lead from. Those for any code have the
	// key codeKey{}.
	units    map[codeKey]map[string]conversion
	excluded map[cura.ResourceType]bool
}

// OverrideCounts tells how many rules of each kind there are.
type OverrideCounts struct {
	Identifiers int `json:"identifiers"`
	NameUses    int `json:"name_uses"`
	Codes       int `json:"codes"`
	Units       int `json:"units"`
	Categories  int `json:"categories"`
	Excluded    int `json:"excluded"`
}

// Version is what a row says that it was mapped by: the mapping's own version and, with overrides, theirs and the first 8
// hexadecimal digits of their file's SHA-256, such as 1+site.3.9f86d081. So two files that carry the same number are told apart.
func (o *Overrides) Version() string {
	if o == nil {
		return Version
	}
	return o.version
}

// Number is the file's own version, which grows with each change of it; 0 for nil Overrides.
func (o *Overrides) Number() int {
	if o == nil {
		return 0
	}
	return o.number
}

// Counts tells how many rules of each kind there are.
func (o *Overrides) Counts() OverrideCounts {
	if o == nil {
		return OverrideCounts{}
	}
	return o.counts
}

// Excludes reports whether the site takes no resources of that type. MapWith maps them all the same: who reads or maps again asks
// before.
func (o *Overrides) Excludes(t cura.ResourceType) bool {
	return o != nil && o.excluded[t]
}

// Excluded lists the types that the site takes no resources of, in the order of reading.
func (o *Overrides) Excluded() []cura.ResourceType {
	return slices.DeleteFunc(cura.ResourceTypes(), func(t cura.ResourceType) bool { return !o.Excludes(t) })
}

// apply changes a record as the overrides say, and gives it back: so no record needs the heap where there are none. Applied twice
// it changes no more than once. What it can't convert it rejects.
func (o *Overrides) apply(m *mapper, record cura.Record) cura.Record {
	switch {
	case record.Profile != nil:
		o.rename(record.Profile.Identifiers)
		o.chooseName(&record)
	case record.Visit != nil:
		o.rename(record.Visit.Identifiers)
	}
	o.translate(&record)
	if record.Observation != nil {
		o.convertObservation(m, record.Observation)
	}
	return record
}

func (o *Overrides) rename(identifiers []cura.Identifier) {
	for i := range identifiers {
		if to, ok := o.systems[identifiers[i].System]; ok {
			identifiers[i].System = to
		}
	}
}

// chooseName chooses the name to show again, where the site has an order of its own. A name in force still goes before one that
// isn't, and uses that the site doesn't list follow in the mapping's order. The others stay in theirs, the mapping's choice first.
func (o *Overrides) chooseName(record *cura.Record) {
	profile := record.Profile
	if len(o.uses) == 0 || profile.Name == nil {
		return
	}
	type rank struct{ ended, listed, own int }
	rankOf := func(n cura.Name) rank {
		r := rank{listed: slices.Index(o.uses, n.Use), own: nameRank(n, record.LastUpdated)}
		if r.listed < 0 {
			r.listed = len(o.uses)
		}
		if !inForce(n.Period, record.LastUpdated) {
			r.ended = 1
		}
		return r
	}
	before := func(a, b rank) bool {
		return slices.Compare([]int{a.ended, a.listed, a.own}, []int{b.ended, b.listed, b.own}) < 0
	}
	all := append([]cura.Name{*profile.Name}, profile.OtherNames...)
	best := 0
	for i := range all {
		if before(rankOf(all[i]), rankOf(all[best])) {
			best = i
		}
	}
	if best > 0 {
		chosen := all[best]
		profile.Name, profile.OtherNames = &chosen, slices.Delete(all, best, best+1)
	}
}

// coded gives a concept in the form in which the mapping asks what a code means.
func coded(c cura.Concept) r4.CodeableConcept {
	out := r4.CodeableConcept{Text: c.Text}
	for _, from := range c.Codings {
		out.Coding = append(out.Coding, r4.Coding{System: from.System, Code: from.Code})
	}
	return out
}

// nameUses are R4's uses of a name, and what a site's file calls a name without one.
func nameUses() []string {
	return []string{"usual", "official", "temp", "nickname", "anonymous", "old", "maiden", useNone}
}

const useNone = "none"

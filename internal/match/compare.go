package match

import (
	"slices"
	"strconv"
	"strings"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// Element is one element of a profile as two sides have it, in words for a person. The values are PHI.
type Element struct {
	// Path names the element as internal/cura.Profile does in JSON, such as name.family.
	Path string `json:"path"`
	// EHR and Cura are the values; empty where a side says nothing. Of a list each entry is a line, in an order of their own:
	// R4 gives none to names, addresses and the like, and servers change it.
	EHR     string `json:"ehr"`
	Cura    string `json:"cura"`
	Differs bool   `json:"differs"`
}

// Compare puts the EHR's version of a profile and Cura's side by side: every element of it, in an order that is always the same.
// A side that is nil says nothing.
func Compare(ehr, shown *cura.Profile) []Element {
	left, right := describe(ehr), describe(shown)
	elements := make([]Element, len(left))
	for i, l := range left {
		elements[i] = Element{Path: l.path, EHR: l.value, Cura: right[i].value, Differs: l.value != right[i].value}
	}
	return elements
}

// SameContent reports whether two profiles say the same of a person. Identifiers and links don't count: each source has its own.
func SameContent(a, b *cura.Profile) bool {
	return !slices.ContainsFunc(Compare(a, b), func(e Element) bool { return e.Differs && !OfSource(e.Path) })
}

// OfSource reports whether the element with this path is the source's own, and says nothing of the person: identifiers and links.
func OfSource(path string) bool { return path == "identifiers" || path == "links" }

// described is an element of one profile.
type described struct{ path, value string }

func describe(p *cura.Profile) []described {
	if p == nil {
		p = &cura.Profile{}
	}
	name := p.Name
	if name == nil {
		name = &cura.Name{}
	}
	return []described{
		{"name.display", name.Display},
		{"name.use", name.Use},
		{"name.prefix", strings.Join(name.Prefix, " ")},
		{"name.given", strings.Join(name.Given, " ")},
		{"name.family", name.Family},
		{"name.suffix", strings.Join(name.Suffix, " ")},
		{"name.period", period(name.Period)},
		{"other_names", lines(p.OtherNames, nameInWords)},
		{"birth_date", moment(p.BirthDate)},
		{"gender", p.Gender},
		{"deceased", yesOrNo(p.Deceased)},
		{"deceased_at", moment(p.DeceasedAt)},
		{"active", yesOrNo(p.Active)},
		{"telecom", lines(p.Telecom, contactInWords)},
		{"addresses", lines(p.Addresses, addressInWords)},
		{"identifiers", lines(p.Identifiers, identifierInWords)},
		{"links", lines(p.Links, linkInWords)},
	}
}

// lines are the entries of a list in words, sorted; what is said twice is said once.
func lines[T any](entries []T, inWords func(T) string) string {
	var all []string
	for _, e := range entries {
		if text := inWords(e); text != "" {
			all = append(all, text)
		}
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), "\n")
}

// nameInWords tells which part of a name is the family's, and the other parts where the whole isn't made of them.
func nameInWords(n cura.Name) string {
	prefix, given, suffix := strings.Join(n.Prefix, " "), strings.Join(n.Given, " "), strings.Join(n.Suffix, " ")
	text := words(n.Display, noted("family", n.Family))
	if n.Display != words(prefix, given, n.Family, suffix) {
		text = words(text, noted("given", given), noted("prefix", prefix), noted("suffix", suffix))
	}
	return words(text, noted("use", n.Use), noted("in force", period(n.Period)))
}

func contactInWords(c cura.ContactPoint) string {
	rank := ""
	if c.Rank != 0 {
		rank = strconv.Itoa(c.Rank)
	}
	return words(c.System, c.Value, noted("use", c.Use), noted("rank", rank), noted("in force", period(c.Period)))
}

func addressInWords(a cura.Address) string {
	parts := slices.DeleteFunc(append(slices.Clone(a.Lines), a.City, a.District, a.State, a.PostalCode, a.Country), func(part string) bool { return part == "" })
	text := strings.Join(parts, ", ")
	if a.Text != "" && a.Text != text {
		text = words(a.Text, noted("parts", text))
	}
	return words(text, noted("use", a.Use), noted("type", a.Type), noted("in force", period(a.Period)))
}

func identifierInWords(i cura.Identifier) string {
	kind := i.Type.Text
	for _, c := range i.Type.Codings {
		kind = words(kind, c.Code)
	}
	return words(i.System, i.Value, noted("type", kind), noted("use", i.Use), noted("in force", period(i.Period)))
}

func linkInWords(l cura.ProfileLink) string {
	return words(l.Type, l.PatientEHRID, noted("at", l.PatientBase))
}

func moment(m *cura.Moment) string {
	if m == nil {
		return ""
	}
	return m.Text
}

func period(p *cura.Period) string {
	if p == nil {
		return ""
	}
	from, until := moment(p.Start), moment(p.End)
	switch {
	case from != "" && until != "":
		return from + " to " + until
	case from != "":
		return "since " + from
	case until != "":
		return "until " + until
	}
	return ""
}

func yesOrNo(b *bool) string {
	switch {
	case b == nil:
		return ""
	case *b:
		return "yes"
	}
	return "no"
}

// noted is a remark such as "(use home)", where there is something to remark.
func noted(what, value string) string {
	if value == "" {
		return ""
	}
	return "(" + what + " " + value + ")"
}

// words puts those together that say something.
func words(some ...string) string {
	return strings.Join(slices.DeleteFunc(some, func(s string) bool { return s == "" }), " ")
}

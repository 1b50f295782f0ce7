package mappings

import (
	"strings"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fhir"
	"github.com/cura-health/ehr-sync/internal/fhir/r4"
)

// target is what a literal reference leads to (R4 §2.3): a resource of a server.
type target struct {
	// base is the service base of an absolute URL, empty for a relative reference.
	base string
	typ  string
	id   string
}

// parseReference reads Type/id or an absolute URL ending in it, either with /_history/version after it. Anything else isn't
// ok: a fragment, a urn, a search.
func parseReference(text string) (target, bool) {
	if i := strings.LastIndex(text, "/_history/"); i >= 0 {
		text = text[:i]
	}
	rest, id, ok := cutLast(text)
	if !ok || !fhir.IsID(id) {
		return target{}, false
	}
	base, typ, absolute := cutLast(rest)
	if !absolute {
		typ = rest
	}
	switch {
	case !isTypeName(typ):
		return target{}, false
	case absolute && !strings.HasPrefix(base, "https://") && !strings.HasPrefix(base, "http://"):
		return target{}, false
	}
	return target{base: base, typ: typ, id: id}, true
}

// cutLast splits at the last slash.
func cutLast(text string) (before, after string, found bool) {
	i := strings.LastIndexByte(text, '/')
	if i < 0 {
		return "", text, false
	}
	return text[:i], text[i+1:], true
}

func isTypeName(text string) bool {
	for _, b := range []byte(text) {
		switch {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z':
		default:
			return false
		}
	}
	return text != "" && 'A' <= text[0] && text[0] <= 'Z'
}

// patient maps the reference to the patient that a resource is about. A record without a patient belongs to nobody and is
// rejected; so is one of a Group, a Device or a Location.
func (m *mapper) patient(element string, ref r4.Reference) (id, base string) {
	var why string
	to, ok := parseReference(ref.Reference)
	switch {
	case ok && to.typ == string(cura.Patient):
		return to.id, to.base
	case ok:
		why = "subject is not a patient"
	case ref.Reference == "" && ref.Identifier != nil:
		why = "names the patient by an identifier alone, and not by Patient/id"
	case ref.Reference == "" && ref.Display != "":
		why = "names the patient by a display text alone, and not by Patient/id"
	case ref.Reference == "":
		why = "missing: a record without a patient belongs to nobody"
	case strings.HasPrefix(ref.Reference, "#"):
		why = "refers to a contained resource, and not to Patient/id"
	case strings.HasPrefix(ref.Reference, "urn:"):
		why = "refers to a urn, and not to Patient/id"
	default:
		why = "isn't a reference to Patient/id"
	}
	m.reject(m.path(element), why)
	return "", ""
}

// id gives the id of the resource that a reference leads to, where it is of that type and on the server that the patient is
// on; empty otherwise. Ids of another server would name other resources here; the raw resource keeps them.
func (m *mapper) id(typ string, ref r4.Reference) string {
	to, ok := parseReference(ref.Reference)
	if !ok || to.typ != typ || to.base != "" && to.base != m.base {
		return ""
	}
	return to.id
}

// typedID is like id for references that may lead to several types: Type/id.
func (m *mapper) typedID(ref r4.Reference) string {
	to, ok := parseReference(ref.Reference)
	if !ok || to.base != "" && to.base != m.base {
		return ""
	}
	return to.typ + "/" + to.id
}

// label names what a reference leads to for people to read: its display, else its identifier, else Type/id.
func (m *mapper) label(ref r4.Reference) string {
	switch {
	case ref.Display != "":
		return ref.Display
	case ref.Identifier != nil && ref.Identifier.Value != "":
		return strings.TrimSpace(ref.Identifier.Value)
	}
	return m.typedID(ref)
}

// labels names what references lead to, without those that name nothing.
func (m *mapper) labels(refs []r4.Reference) []string {
	var labels []string
	for _, ref := range refs {
		if label := m.label(ref); label != "" {
			labels = append(labels, label)
		}
	}
	return labels
}

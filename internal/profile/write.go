package profile

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// How a write is looked up afterwards, see Write.ReadBack.
const (
	// ReadBackIdentifier searches by the identifier that was written.
	ReadBackIdentifier = "identifier"
	// ReadBackSearch reads the patient's resources of the type and compares what they say.
	ReadBackSearch = "search"
	// ReadBackNone: what was written can't be seen; a person looks it up at the EHR.
	ReadBackNone = "none"
)

// Write is how the vendor's server takes artefacts of a kind (DOMAIN §4).
type Write struct {
	// Resource is the FHIR type that is written: DocumentReference, Condition, Procedure or Consent.
	Resource string `yaml:"resource"`
	// ContentTypes are those of notes that it takes, such as text/plain; empty: any.
	ContentTypes []string `yaml:"content_types"`
	// Categories are those of diagnoses that it takes: encounter-diagnosis, problem-list-item; empty: both.
	Categories []string `yaml:"categories"`
	// EncounterRequired says that it refuses what names no encounter; of diagnoses, an encounter-diagnosis alone.
	EncounterRequired bool `yaml:"encounter_required"`
	// PeriodEnd says that it refuses a note without context.period.end with a time.
	PeriodEnd bool `yaml:"period_end"`
	// ConditionalCreate says that If-None-Exist by identifier works.
	ConditionalCreate bool `yaml:"conditional_create"`
	// StoresIdentifier says that a written identifier is kept and can be searched by.
	StoresIdentifier bool `yaml:"stores_identifier"`
	// ReadBack is how a write is looked up: identifier, search or none.
	ReadBack string `yaml:"read_back"`
	// Held says that writes wait for a person's sign-off at the EHR: accepted isn't filed.
	Held bool `yaml:"held"`
	// Update says that PUT is offered, IfMatch that it wants If-Match.
	Update  bool `yaml:"update"`
	IfMatch bool `yaml:"if_match"`
	// Why is the fact behind it, one sentence with its source.
	Why string `yaml:"why"`
}

// Write gives how artefacts of a kind are written; false where the vendor takes none by FHIR. It is read only.
func (p *Profile) Write(k cura.ArtefactKind) (Write, bool) {
	w, ok := p.Writes[k]
	return w, ok
}

// WriteScopes lists the scopes to ask for in order to write artefacts of the kinds, and to look them up where that is done,
// as the profile spells them: one scope a resource type (version 2), such as system/DocumentReference.crus, or two
// (version 1). Kinds that the vendor doesn't take need none; nil where the profile asks for no scopes.
func (p *Profile) WriteScopes(kinds []cura.ArtefactKind) []string {
	if p.Scopes == ScopesNone {
		return nil
	}
	type need struct{ read, update bool }
	needs := map[string]need{}
	var order []string
	for _, k := range kinds {
		w, ok := p.Write(k)
		if !ok {
			continue
		}
		n, listed := needs[w.Resource]
		if !listed {
			order = append(order, w.Resource)
		}
		needs[w.Resource] = need{read: n.read || w.ReadBack != ReadBackNone, update: n.update || w.Update}
	}
	var scopes []string
	for _, resource := range order {
		scope, n := "system/"+resource, needs[resource]
		if p.Scopes == ScopesV1 {
			if scopes = append(scopes, scope+".write"); n.read {
				scopes = append(scopes, scope+".read")
			}
			continue
		}
		letters := "c" // the order of cruds is the only one that SMART allows
		if n.read {
			letters += "r"
		}
		if n.update {
			letters += "u"
		}
		if n.read {
			letters += "s"
		}
		scopes = append(scopes, scope+"."+letters)
	}
	return scopes
}

// writtenAs names the resources that a kind can be written as.
func writtenAs(k cura.ArtefactKind) []string {
	switch k {
	case cura.Note:
		return []string{"DocumentReference"}
	case cura.Diagnosis:
		return []string{"Condition"}
	case cura.Procedure:
		return []string{"Procedure"}
	case cura.ConsentEvent:
		return []string{"Consent", "DocumentReference"} // many servers' Consent is read only (DOMAIN §0.6)
	default:
		return nil
	}
}

// contentType is a media type without parameters (RFC 9110 §8.3.1), in small letters.
var contentType = regexp.MustCompile(`^[a-z]+/[a-z0-9][a-z0-9.+-]*$`)

func (p *Profile) checkWrites(at *lines) {
	for _, k := range slices.Sorted(maps.Keys(p.Writes)) {
		field := "writes." + string(k)
		if !k.Known() {
			var known []string
			for _, k := range cura.ArtefactKinds() {
				known = append(known, string(k))
			}
			at.field(field, "it isn't one of the kinds that Cura delivers: "+strings.Join(known, ", "))
			continue
		}
		p.Writes[k].check(at, field, k)
	}
}

func (w Write) check(at *lines, field string, k cura.ArtefactKind) {
	oneOf(at, field+".resource", w.Resource, writtenAs(k)...)
	for i, c := range w.ContentTypes {
		switch field := field + ".content_types." + strconv.Itoa(i); {
		case !contentType.MatchString(c):
			at.field(field, quoted(c)+" isn't a media type, such as text/plain, in small letters and without parameters")
		case slices.Index(w.ContentTypes, c) < i:
			at.field(field, quoted(c)+" stands here twice")
		}
	}
	for i, c := range w.Categories {
		field := field + ".categories." + strconv.Itoa(i)
		if oneOf(at, field, c, "encounter-diagnosis", "problem-list-item"); slices.Index(w.Categories, c) < i {
			at.field(field, quoted(c)+" stands here twice")
		}
	}
	if len(w.ContentTypes) > 0 && w.Resource != "DocumentReference" {
		at.field(field+".content_types", "only documents have a content type")
	}
	if w.PeriodEnd && w.Resource != "DocumentReference" {
		at.field(field+".period_end", "only documents have a period")
	}
	if len(w.Categories) > 0 && k != cura.Diagnosis {
		at.field(field+".categories", "only diagnoses have categories here")
	}
	oneOf(at, field+".read_back", w.ReadBack, ReadBackIdentifier, ReadBackSearch, ReadBackNone)
	if w.ReadBack == ReadBackIdentifier && !w.StoresIdentifier {
		at.field(field+".read_back", "identifier needs stores_identifier: true")
	}
	if w.ConditionalCreate && !w.StoresIdentifier {
		at.field(field+".conditional_create", "it is by identifier, and needs stores_identifier: true")
	}
	if w.IfMatch && !w.Update {
		at.field(field+".if_match", "it is for updates, and needs update: true")
	}
	if w.Why == "" {
		at.field(field+".why", "it is missing: say in a sentence why the kind is written so")
	}
}

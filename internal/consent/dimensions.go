package consent

import (
	"slices"
	"strings"
	"time"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// facts are a request, made ready to be matched.
type facts struct {
	Request

	at time.Time
	// types are the resource types that it is about.
	types   []string
	labels  []string
	purpose string
	// level is the content's confidentiality; stated: a label says so.
	level  int
	stated bool
}

// newFacts refuses what isn't a request.
func newFacts(r Request, at time.Time) (*facts, bool) {
	f := &facts{Request: r, at: at, purpose: r.Purpose, level: normal}
	if f.purpose == "" {
		f.purpose = "TREAT"
	}
	switch r.Action {
	case Disclose:
		typ, known := resourceType(r.Kind)
		if !known {
			return nil, false
		}
		f.types = []string{typ}
	case Collect:
		for _, typ := range r.Types {
			f.types = append(f.types, string(typ))
		}
	default:
		return nil, false
	}
	for _, label := range r.Labels {
		if slices.Contains(f.labels, label) {
			continue
		}
		f.labels = append(f.labels, label)
		if level, known := confidentiality(label); known {
			if !f.stated || level > f.level {
				f.level = level
			}
			f.stated = true
		}
	}
	return f, !at.IsZero()
}

// resourceType is what an artefact is written as.
func resourceType(kind cura.ArtefactKind) (string, bool) {
	switch kind {
	case cura.Note:
		return "DocumentReference", true
	case cura.Diagnosis:
		return "Condition", true
	case cura.Procedure:
		return "Procedure", true
	case cura.ConsentEvent:
		return "Consent", true
	}
	return "", false
}

// coding is a Coding as far as it can be matched: one without a system or a code means nothing.
type coding struct{ system, code string }

func codingOf(value any) (coding, bool) {
	fields, isObject := value.(map[string]any)
	if !isObject || !only(fields, "system", "version", "code", "display", "userSelected", "_display") {
		return coding{}, false
	}
	system, _ := fields["system"].(string)
	code, _ := fields["code"].(string)
	return coding{system, code}, system != "" && code != ""
}

// anyOf matches a list as the best of its items does. What isn't a list, or is an empty one, can't be told.
func anyOf(value any, match func(item any) verdict) verdict {
	list, _ := value.([]any)
	if len(list) == 0 {
		return maybe
	}
	best := no
	for _, item := range list {
		best = max(best, match(item))
	}
	return best
}

// anyCoding matches a list of Codings.
func anyCoding(value any, match func(coding) verdict) verdict {
	return anyOf(value, func(item any) verdict {
		c, ok := codingOf(item)
		if !ok {
			return maybe
		}
		return match(c)
	})
}

// concept matches a CodeableConcept, whose codings say the same in several systems. One that is text alone can't be told.
func concept(value any, match func(coding) verdict) verdict {
	fields, isObject := value.(map[string]any)
	if !isObject || !only(fields, "coding", "text", "_text") {
		return maybe
	}
	return anyCoding(fields["coding"], match)
}

// matchActor matches who receives: of a disclosure the hospital, of a pull Cura.
func (f *facts) matchActor(value any) verdict {
	return anyOf(value, func(item any) verdict {
		actor, isObject := item.(map[string]any)
		if !isObject || !only(actor, "role", "reference") {
			return maybe
		}
		role := concept(actor["role"], func(c coding) verdict {
			// Whom the other roles, such as custodian and author, stand for in a disclosure isn't laid down.
			if c.system == systemParticipation && (c.code == "IRCP" || c.code == "PRCP") {
				return yes
			}
			return maybe
		})
		reference, named := actor["reference"]
		if !named {
			return role
		}
		return min(role, f.matchReference(reference))
	})
}

// matchReference tells whether a reference is to who receives.
func (f *facts) matchReference(value any) verdict {
	fields, isObject := value.(map[string]any)
	if !isObject || !only(fields, "reference", "type", "identifier", "display") {
		return maybe
	}
	reference, _ := fields["reference"].(string)
	reference, _, _ = strings.Cut(reference, "/_history/")
	if reference == "" {
		return maybe
	}
	if f.Action == Disclose && slices.Contains(f.RecipientEHRIDs, reference) {
		return yes
	}
	typ, id, _ := strings.Cut(reference, "/")
	if id == "" || strings.Contains(id, "/") {
		return maybe // an absolute URL, or a contained resource
	}
	switch typ {
	case "Patient", "RelatedPerson":
		return no
	case "Organization":
		// Another organization than the hospital can be told only where the hospital's is known in the same form. As for a
		// pull, Cura may be an organization of the EHR's, and which one isn't known.
		if f.Action == Disclose && slices.ContainsFunc(f.RecipientEHRIDs, func(id string) bool { return strings.HasPrefix(id, "Organization/") }) {
			return no
		}
	}
	// Practitioners and groups may be of the hospital: what its EHR holds can't be kept from them.
	return maybe
}

// matchAction matches what is done. Access is part of both actions and permits neither.
func (f *facts) matchAction(value any) verdict {
	return anyOf(value, func(item any) verdict {
		return concept(item, func(c coding) verdict {
			if c.system != systemAction {
				return maybe
			}
			switch c.code {
			case string(f.Action):
				return yes
			case "collect", "use", "disclose", "correct":
				return no
			default:
				return maybe
			}
		})
	})
}

// matchLabel matches the content's sensitivity.
func (f *facts) matchLabel(value any) verdict {
	return anyCoding(value, func(c coding) verdict {
		switch c.system {
		case systemConfidentiality:
			return f.matchConfidentiality(c.code)
		case systemActCode:
			return f.matchSensitivity(c.code)
		default:
			return maybe
		}
	})
}

// matchConfidentiality matches a level. What holds of a level may or may not hold of content above it; and content that is
// sensitive without a level of its own may be above normal.
func (f *facts) matchConfidentiality(code string) verdict {
	level, known := confidentiality(code)
	switch {
	case !known || level < f.level:
		return maybe
	case level == f.level:
		return yes
	case !f.stated && len(f.needs()) > 0:
		return maybe
	default:
		return no
	}
}

// matchSensitivity matches a kind of sensitivity. Of kinds that overlap it can't be told whether one means the other.
func (f *facts) matchSensitivity(code string) verdict {
	if slices.Contains(f.labels, code) || f.Part2 && namesPart2(code) {
		return yes
	}
	if !sensitivity(code) {
		return maybe
	}
	for _, label := range f.needs() {
		if family(label) == family(code) && family(code) != alone {
			return maybe
		}
		if _, isLevel := confidentiality(label); !isLevel && !sensitivity(label) {
			return maybe
		}
	}
	return no
}

// namedLabels are the labels that a provision names.
func namedLabels(value any) []string {
	list, _ := value.([]any)
	var named []string
	for _, item := range list {
		c, ok := codingOf(item)
		if !ok {
			continue
		}
		_, isLevel := confidentiality(c.code)
		if c.system == systemConfidentiality && isLevel || c.system == systemActCode && !isLevel {
			named = append(named, c.code)
		}
	}
	return named
}

// matchPurpose matches what it is for. A purpose takes in those beneath it.
func (f *facts) matchPurpose(value any) verdict {
	return anyCoding(value, func(c coding) verdict {
		if c.system != systemPurpose {
			return maybe
		}
		of, known := purpose(c.code)
		wanted, wantedKnown := purpose(f.purpose)
		switch {
		case c.code == f.purpose || known && wantedKnown && c.code == wanted:
			return yes
		case known && wantedKnown && of != wanted:
			return no
		default:
			return maybe
		}
	})
}

// matchClass matches the kind of resource or document. Of several types each must match.
func (f *facts) matchClass(value any) verdict {
	if len(f.types) == 0 {
		return maybe
	}
	first := f.classOf(value, f.types[0])
	for _, typ := range f.types[1:] {
		if f.classOf(value, typ) != first {
			return maybe
		}
	}
	return first
}

func (f *facts) classOf(value any, typ string) verdict {
	return anyCoding(value, func(c coding) verdict {
		switch {
		case c.system == systemResourceTypes && c.code == typ:
			return yes
		case c.system == systemResourceTypes && r4Type(c.code):
			return no
		case c.system == systemLOINC && slices.ContainsFunc(f.Codes, c.is):
			return yes
		case c.system == systemLOINC && documentType(c.code) && (typ != "DocumentReference" || f.codedIn(systemLOINC)):
			return no
		default:
			return maybe
		}
	})
}

// is reports whether a code of the content is this one.
func (c coding) is(other cura.Coding) bool { return other.System == c.system && other.Code == c.code }

func (f *facts) codedIn(system string) bool {
	return slices.ContainsFunc(f.Codes, func(c cura.Coding) bool { return c.System == system })
}

// matchCode matches the codes of the content: "if this code is found in an instance, then the rule applies" (R4
// Consent.provision.code). Of ICD a code takes in those that it begins; what lies beneath a code in other systems isn't known here.
func (f *facts) matchCode(value any) verdict {
	return anyOf(value, func(item any) verdict {
		return concept(item, func(c coding) verdict {
			switch {
			case slices.ContainsFunc(f.Codes, c.is):
				return yes
			case len(f.Codes) == 0 || !clinicalSystem(c.system):
				return maybe
			case isICD(c.system):
				return f.matchICD(c)
			default:
				return no
			}
		})
	})
}

func (f *facts) matchICD(c coding) verdict {
	named, ok := icd(c.code)
	if !ok {
		return maybe
	}
	best := no
	for _, content := range f.Codes {
		if !isICD(content.System) {
			continue
		}
		code, ok := icd(content.Code)
		beneath := ok && strings.HasPrefix(code, named)
		switch {
		case beneath && content.System == c.system:
			return yes
		case beneath || !ok || strings.HasPrefix(named, code):
			best = maybe // another edition of ICD, or a code that is less exact
		}
	}
	return best
}

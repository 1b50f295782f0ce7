package ehr

import (
	"fmt"
	"slices"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/profile"
)

// deliveries tells of each kind that is to be delivered by FHIR whether the server takes it, as the profile, its metadata
// and the granted scopes say. Nothing is written to try it. A kind that can't be delivered is a warning: the others go on.
func (t *tester) deliveries(granted grant) {
	offered, scopes := t.offered(), parseScopes(granted.scopes)
	for _, kind := range t.kinds {
		found := t.delivery(kind, offered, scopes)
		t.report.Deliveries = append(t.report.Deliveries, found)
		typ := cura.ResourceType(found.Resource)
		if found.OK {
			t.ok(CheckDelivery, typ, string(kind)+": "+found.Why)
			continue
		}
		t.warn(CheckDelivery, typ, string(kind)+": "+found.Why+": this kind can't be delivered by FHIR, the others go on", found.Fix)
	}
}

func (t *tester) delivery(kind cura.ArtefactKind, offered map[string]offeredType, scopes []Scope) cura.DeliveryCheck {
	manual := fmt.Sprintf("choose --deliver %s=manual (starter connection edit)", kind)
	w, ok := t.profile.Write(kind)
	if !ok {
		return cura.DeliveryCheck{Kind: kind, Why: t.profile.Title + " takes no " + plural(kind) + " by FHIR", Fix: "Instead, " + manual}
	}
	found := cura.DeliveryCheck{Kind: kind, Resource: w.Resource}
	typ := cura.ResourceType(w.Resource)
	o, listed := offered[w.Resource]
	// Where no scope of SMART's form was granted, nothing can be told from them (RFC 6749 leaves them to the server).
	allows := func(action string) bool {
		return len(scopes) == 0 || slices.ContainsFunc(scopes, func(s Scope) bool { return s.Covers(typ, action) })
	}
	switch {
	case !listed:
		found.Why = "the server's metadata doesn't list " + w.Resource
		found.Fix = fmt.Sprintf("Ask the hospital to switch create of %s on for this client, or %s", w.Resource, manual)
		return found
	case !o.offers("create"):
		found.Why = "the server's metadata doesn't offer create of " + w.Resource
		found.Fix = "Ask the hospital to switch it on for this client, or " + manual
		return found
	case !allows(ActionCreate):
		found.Why = fmt.Sprintf("the scope system/%s.c wasn't granted", w.Resource)
		found.Fix = fmt.Sprintf("Ask the hospital to grant system/%[1]s.write (SMART v2: system/%[1]s.c) and give it with --scope, or %[2]s", w.Resource, manual)
		return found
	}
	found.OK = true
	found.ConditionalCreate = w.ConditionalCreate && string(o.ConditionalCreate) == "true"
	found.Update = w.Update && o.offers("update") && allows(ActionUpdate)
	found.Why = "create of " + w.Resource + " is offered"
	if len(scopes) == 0 {
		found.Why += "; whether it is granted shows with the first one, since the token names no SMART scope"
	} else {
		found.Why += " and granted"
	}
	if found.ConditionalCreate {
		found.Why += ", on condition too"
	}
	if w.Held {
		found.Why += "; it is held at the EHR until somebody signs it off"
	}
	found.Why += "; " + lookedUp(w, o, allows)
	return found
}

// lookedUp says what becomes of a write whose outcome isn't known.
func lookedUp(w profile.Write, o offeredType, allows func(string) bool) string {
	switch {
	case w.ReadBack == profile.ReadBackNone:
		return "an unknown outcome is decided by a person"
	case !o.offers("search-type") || !allows(ActionSearch):
		return fmt.Sprintf("an unknown outcome is decided by a person, as long as search of %[1]s isn't offered and granted (system/%[1]s.rs)", w.Resource)
	case w.ReadBack == profile.ReadBackIdentifier:
		return "an unknown outcome is looked up by identifier"
	default:
		return "an unknown outcome is looked up among the patient's " + w.Resource + "s"
	}
}

func plural(kind cura.ArtefactKind) string {
	if kind == cura.Diagnosis {
		return "diagnoses"
	}
	if kind == cura.ConsentEvent {
		return "consent events"
	}
	return string(kind) + "s"
}

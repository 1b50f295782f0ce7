package sandbox

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// about says which element a problem is about.
func about(p *problem, expression string) *problem {
	p.expression = expression
	return p
}

func validObject(raw []byte) bool {
	return bytes.HasPrefix(bytes.TrimSpace(raw), []byte("{")) && json.Valid(raw)
}

// subjectOf is the element of a type that refers to its patient.
func subjectOf(typ string) string {
	if typ == "Consent" {
		return "patient"
	}
	return "subject"
}

// requiredOf lists the elements without which a resource isn't taken: those of R4, and the code and the subject, which no
// EHR does without (US Core).
func requiredOf(typ string) []string {
	switch typ {
	case "Condition":
		return []string{"code", "subject"}
	case "Consent":
		return []string{"status", "scope", "category", "patient"}
	case "DocumentReference":
		return []string{"status", "subject", "content"}
	case "Procedure":
		return []string{"status", "code", "subject"}
	default:
		return nil
	}
}

// codesOf lists the codes of R4's required bindings, by element; nil for an element without one.
func codesOf(typ, element string) []string {
	switch typ + "." + element {
	case "DocumentReference.status":
		return []string{"current", "superseded", "entered-in-error"}
	case "DocumentReference.docStatus":
		return []string{"preliminary", "final", "amended", "entered-in-error"}
	case "Procedure.status":
		return []string{"preparation", "in-progress", "not-done", "on-hold", "stopped", "completed", "entered-in-error", "unknown"}
	case "Consent.status":
		return []string{"draft", "proposed", "active", "rejected", "inactive", "entered-in-error"}
	case "Condition.clinicalStatus":
		return []string{"active", "recurrence", "relapse", "inactive", "remission", "resolved"}
	case "Condition.verificationStatus":
		return []string{"unconfirmed", "provisional", "differential", "confirmed", "refuted", "entered-in-error"}
	default:
		return nil
	}
}

// refused is a problem of a resource's content.
func (s *Server) refused(code, expression, text string) *problem {
	return about(fail(cmp.Or(s.vendor.writes.unprocessable, http.StatusUnprocessableEntity), code, text), expression)
}

// checkContent looks at what a client has written: whether it is good R4, whose it is, and what the vendor demands.
func (s *Server) checkContent(r *http.Request, typ string, raw []byte) *problem {
	for _, element := range requiredOf(typ) {
		if missing(get(raw, element)) {
			return s.refused(codeRequired, typ+"."+element, "The element "+typ+"."+element+" is required")
		}
	}
	for _, m := range members(raw) {
		codes := codesOf(typ, m.key)
		code := codeIn(raw[m.value.start:m.value.end])
		if codes != nil && !slices.Contains(codes, code) {
			return s.refused(codeValue, typ+"."+m.key, fmt.Sprintf("The code %q is not in the value set of %s.%s", code, typ, m.key))
		}
	}
	for _, check := range []func(string, []byte) *problem{s.checkInvariants, s.checkAttachments} {
		if p := check(typ, raw); p != nil {
			return p
		}
	}
	if p := s.checkReferences(r, typ, raw); p != nil {
		return p
	}
	if s.vendor.writes.check != nil {
		return s.vendor.writes.check(r.Method, typ, raw)
	}
	return nil
}

// missing tells whether an element says nothing.
func missing(value []byte) bool {
	return slices.Contains([]string{"", "null", `""`, "{}", "[]"}, string(value))
}

// codeIn is a plain code, or the first code of a CodeableConcept.
func codeIn(value []byte) string {
	if code := textOf(value); code != "" {
		return code
	}
	codings := get(value, "coding")
	for _, at := range elements(codings) {
		return getText(codings[at.start:at.end], "code")
	}
	return ""
}

// hasCode tells whether one of an element's concepts has the code.
func hasCode(raw []byte, element, code string) bool {
	return slices.ContainsFunc(conceptTokens(byCode, "", get(raw, element)), func(t token) bool { return t.code == code })
}

// checkInvariants looks at R4's con-3, con-5 and ppc-1.
func (s *Server) checkInvariants(typ string, raw []byte) *problem {
	switch typ {
	case "Condition":
		withdrawn := codeIn(get(raw, "verificationStatus")) == "entered-in-error"
		if withdrawn != missing(get(raw, "clinicalStatus")) {
			return s.refused("invariant", typ+".clinicalStatus", "con-3, con-5: clinicalStatus is there unless verificationStatus is entered-in-error")
		}
	case "Consent":
		if missing(get(raw, "policy")) && missing(get(raw, "policyRule")) {
			return s.refused("invariant", typ, "ppc-1: either a policy or a policyRule")
		}
	}
	return nil
}

// checkAttachments looks at what a DocumentReference carries.
func (s *Server) checkAttachments(typ string, raw []byte) *problem {
	if typ != "DocumentReference" {
		return nil
	}
	withdrawn := getText(raw, "status") == "entered-in-error"
	contents := get(raw, "content")
	for i, at := range elements(contents) {
		place := fmt.Sprintf("DocumentReference.content[%d].attachment", i)
		attachment := get(contents[at.start:at.end], "attachment")
		data := getText(attachment, "data")
		switch _, err := base64.StdEncoding.DecodeString(data); {
		case missing(attachment) || !withdrawn && data == "" && missing(get(attachment, "url")):
			return s.refused(codeRequired, place, "An attachment has data or a url") // US Core; what is withdrawn needs none
		case err != nil:
			return s.refused(codeValue, place+".data", "The data isn't base64")
		case data != "" && getText(attachment, "contentType") == "":
			return s.refused(codeRequired, place+".contentType", "att-1: data has a contentType")
		}
	}
	if elements(contents) == nil {
		return s.refused(codeStructure, "DocumentReference.content", "The element DocumentReference.content is a list")
	}
	return nil
}

// checkReferences looks at whether the patient is there, and the encounters are, and are that patient's. The texts quote
// the references, as those of real servers do.
func (s *Server) checkReferences(r *http.Request, typ string, raw []byte) *problem {
	element := typ + "." + subjectOf(typ)
	given := getText(get(raw, subjectOf(typ)), "reference")
	patient := s.local(r, given)
	if found, err := s.current(patient); err != nil || !strings.HasPrefix(patient, "Patient/") || found == nil {
		return s.refused(codeNotFound, element, "Resource "+given+" not found, specified in path: "+element)
	}
	element, value := typ+".encounter", get(raw, "encounter")
	if typ == "DocumentReference" {
		element, value = typ+".context.encounter", get(get(raw, "context"), "encounter")
	}
	if typ == "Consent" || missing(value) {
		return nil
	}
	for _, item := range oneOrMany(value) {
		given := getText(item, "reference")
		encounter := s.local(r, given)
		found, err := s.current(encounter)
		if err != nil || !strings.HasPrefix(encounter, "Encounter/") || found == nil {
			return s.refused(codeNotFound, element, "Resource "+given+" not found, specified in path: "+element)
		}
		if of := localReference(getText(get(found, "subject"), "reference")); of != patient {
			return s.refused(codeRule, element, "The encounter "+given+" is not one of "+patient)
		}
	}
	return nil
}

// local shortens a reference to "Type/id", "" when it leads elsewhere.
func (s *Server) local(r *http.Request, ref string) string {
	if strings.Contains(ref, "://") && !strings.HasPrefix(ref, s.base(r)+"/") {
		return ""
	}
	return localReference(ref)
}

// current is the newest version of a resource ("Type/id"), nil when there is none or it is deleted.
func (s *Server) current(target string) (json.RawMessage, error) {
	typ, id, _ := strings.Cut(target, "/")
	versions := s.store.versionsOf(typ, id)
	if len(versions) == 0 || versions[len(versions)-1].deleted {
		return nil, nil
	}
	return s.store.vault.get(versions[len(versions)-1].place)
}

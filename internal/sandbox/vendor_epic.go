package sandbox

import (
	"mime"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"
)

// epic is Epic.
func epic() *vendor {
	return &vendor{
		name: "epic", software: "Epic",
		tokenLife: 3600, // DOMAIN §0.4
		grants:    epicGrants,
		uncovered: func(string, string) *problem { return epicUnregistered() },
		offers: func(typ, param string) bool {
			// DOMAIN §0.2: _lastUpdated on DocumentReference and MeasureReport only.
			return param != "_lastUpdated" || typ == "DocumentReference" || typ == "MeasureReport"
		},
		spellsLower: true, // DOMAIN §0.2
		demands:     epicDemands,
		// DOMAIN §2: Patient.search behaves like a scored $match.
		nearPatients: true,
		// DOMAIN §0.2, §6: neither meta.lastUpdated nor meta.versionId.
		hidesVersions: true,
		longIDs:       true, // DOMAIN §3, §6: ids may exceed 64 characters and are case-sensitive
		// DOMAIN §2, P3: an absence is confirmed by 404 too.
		deleted: http.StatusNotFound,
		note:    epicNote,
		writes: writeManners{
			// DOMAIN §4: clinical notes and problems; no procedures, no consents, create APIs only.
			creates:       []string{"Condition", "DocumentReference"},
			unprocessable: http.StatusBadRequest,
			check:         epicWrites,
			kept:          epicKeeps,
			holds:         []string{"Condition"},         // DOMAIN §4: the reconciliation queue; §0.7
			createOnly:    []string{"DocumentReference"}, // DOMAIN §4: read-back is 403
			answer:        answerTerse,                   // DOMAIN §4: no ETag, a relative Location; bodies often empty
		},
	}
}

// epicWrites is what Epic refuses to file.
func epicWrites(_, typ string, raw []byte) *problem {
	refuse := func(element, text string) *problem {
		return about(fail(http.StatusBadRequest, codeRule, text), typ+"."+element)
	}
	if typ == "Condition" {
		switch {
		case !hasCode(raw, "category", "problem-list-item"):
			return refuse("category", "Only problem list items can be created") // DOMAIN §0.7: no encounter diagnosis by REST
		case codeIn(get(raw, "verificationStatus")) != "provisional":
			return refuse("verificationStatus", "The verificationStatus must be provisional") // DOMAIN §0.7
		case getText(get(raw, "code"), "text") == "" && !epicDisplayed(get(raw, "code")):
			return refuse("code", "The code needs a display or a text") // DOMAIN §4
		}
		for _, note := range oneOrMany(get(raw, "note")) {
			if utf8.RuneCountInString(getText(note, "text")) > 450 { // DOMAIN §4
				return refuse("note", "The note is longer than 450 characters")
			}
		}
		return nil
	}
	attachment := get(oneOrMany(get(raw, "content"))[0], "attachment")
	mediaType, _, err := mime.ParseMediaType(getText(attachment, "contentType"))
	switch {
	case missing(get(get(raw, "context"), "encounter")):
		return refuse("context.encounter", "Valid encounter required") // DOMAIN §4
	case err != nil || mediaType != "text/plain" || getText(attachment, "data") == "":
		return refuse("content[0].attachment.contentType", "The attachment must be text/plain") // DOMAIN §4: base64 in it
	case getText(raw, "status") != "current":
		return refuse("status", "The status must be current") // DOMAIN §4
	case !slices.Contains([]string{"final", "preliminary"}, getText(raw, "docStatus")):
		return refuse("docStatus", "The docStatus must be final or preliminary") // DOMAIN §4: signed, or a draft
	case hasCode(raw, "type", "18842-5"):
		return refuse("type", "This type of note can't be created") // DOMAIN §4: no discharge types
	}
	return nil
}

// epicDisplayed tells whether a code has a coding with a display.
func epicDisplayed(concept []byte) bool {
	return slices.ContainsFunc(oneOrMany(get(concept, "coding")), func(c []byte) bool {
		return getText(c, "code") != "" && getText(c, "display") != ""
	})
}

// epicKeeps: of a note the first attachment only (DOMAIN §4).
func epicKeeps(typ string, raw []byte) []byte {
	content := get(raw, "content")
	if at := elements(content); typ == "DocumentReference" && len(at) > 1 {
		return set(raw, "content", slices.Concat([]byte("["), content[at[0].start:at[0].end], []byte("]")))
	}
	return raw
}

// epicGrants: the scopes of the request mean nothing; the grant is what is registered on the client, in the spelling
// of version 1 (DOMAIN §1, "Scopes").
func epicGrants(_ string, registered []string) (scopes []scope, granted string) {
	return parseScopes(strings.Join(registered, " "))
}

// epicUnregistered: 403 with an empty body (DOMAIN §1, §5).
func epicUnregistered() *problem { return &problem{status: http.StatusForbidden, empty: true} }

// epicDemands is what Epic refuses a search for.
func epicDemands(q *query) *problem {
	// DOMAIN §0.1: "This resource requires demographics or _id parameter".
	if missing := demandPatient(q, "patient", "subject"); missing != "" {
		return fail(http.StatusBadRequest, codeRequired, missing)
	}
	if q.typ != "Observation" && q.typ != "Condition" || q.has("_id") {
		return nil
	}
	categories := q.given["category"]
	switch {
	case len(categories) == 0 && (q.typ == "Condition" || !q.has("code")):
		// DOMAIN §0.1: Observation without category or code is refused; §2: one category per request.
		return fail(http.StatusBadRequest, codeRequired, "This resource requires category or code parameter")
	case len(categories) > 1 || len(categories) == 1 && strings.Contains(categories[0], ","):
		// DOMAIN §2: a comma is not honoured as a plain or.
		return fail(http.StatusBadRequest, codeInvalid, "Only one category is allowed in a request")
	case len(categories) == 1 && q.typ == "Observation" && slices.Contains([]string{"procedure", "therapy", "activity"}, codeOf(categories[0])):
		// DOMAIN §2: these three erred on some builds.
		return fail(http.StatusBadRequest, codeInvalid, "The category is not supported")
	}
	return nil
}

// epicNote: an OperationOutcome entry comes always, 4101 when nothing was found and 4119 else (DOMAIN §2).
func epicNote(found bool) obj {
	severity, code, text := "warning", "4101", "Resource request returns no results."
	if found {
		severity, code, text = "information", "4119", "This response includes information available to the authorized user at the time of the request. It may not contain the entire record available in the system."
	}
	kind := map[bool]string{true: "informational", false: "processing"}[found]
	return obj{{"resourceType", "OperationOutcome"}, {"issue", list{obj{
		{"severity", severity},
		{"code", kind},
		{"details", obj{{"coding", list{obj{{"system", "urn:oid:1.2.840.114350.1.13.0.1.7.2.657369"}, {"code", code}}}}, {"text", text}}},
	}}}}
}

package sandbox

import (
	"mime"
	"net/http"
	"slices"
	"strings"
)

// oracle is Oracle Health (Cerner Millennium).
func oracle() *vendor {
	return &vendor{
		name: "oracle", software: "Oracle Health Millennium",
		tokenLife: 570, // DOMAIN §0.4
		grants:    grantsOfV1,
		fhirOnly:  true, // DOMAIN §2: 406 otherwise
		demands:   oracleDemands,
		pageSize:  oraclePageSize,
		// DOMAIN §2: the first page ignores _count and gives all of social-history.
		wholeFirstPage: func(q *query) bool {
			return q.typ == "Observation" && slices.ContainsFunc(q.given["category"], func(v string) bool {
				return slices.ContainsFunc(strings.Split(v, ","), func(one string) bool { return codeOf(one) == "social-history" })
			})
		},
		ownOrder: "-_lastUpdated", // DOMAIN §2: _sort is unsupported; it has an order of its own, the latest first
		idsOnly:  true,            // DOMAIN §5: what a page that fails is taken apart with
		// DOMAIN §0.5, §4: no identifier is stored of what clients write.
		offers: func(typ, param string) bool {
			return param != "identifier" || !slices.Contains([]string{"Condition", "DocumentReference", "Procedure"}, typ)
		},
		writes: writeManners{
			// DOMAIN §4: Consent is read only, a procedure is only created; If-None-Exist isn't documented.
			creates:      []string{"Condition", "DocumentReference", "Procedure"},
			updates:      []string{"Condition", "DocumentReference"},
			needsIfMatch: true,                // DOMAIN §4
			stale:        http.StatusConflict, // DOMAIN §4: 409 at Cerner
			check:        oracleWrites,        // DOMAIN §4: 422 for business rules
			kept:         oracleKeeps,
			answer:       answerEmpty, // DOMAIN §4: Content-Length 0
		},
	}
}

// oracleWrites is what Oracle Health refuses to file.
func oracleWrites(method, typ string, raw []byte) *problem {
	refuse := func(code, element, text string) *problem {
		return about(fail(http.StatusUnprocessableEntity, code, text), typ+"."+element)
	}
	for _, element := range []string{"modifierExtension", "implicitRules"} {
		if !missing(get(raw, element)) {
			p := refuse("extension", element, "Modifier elements are not supported")
			p.severity = "fatal" // DOMAIN §4: modifier fields are fatal
			return p
		}
	}
	switch status := getText(raw, "status"); typ {
	case "Condition":
		bedside := hasCode(raw, "category", "encounter-diagnosis")
		switch {
		case method == http.MethodPut && codeIn(get(raw, "verificationStatus")) == "entered-in-error":
			return nil // what is withdrawn needs to say nothing else
		case !bedside && !hasCode(raw, "category", "problem-list-item"):
			return refuse(codeRule, "category", "The category must be problem-list-item or encounter-diagnosis") // DOMAIN §4
		case bedside && missing(get(raw, "encounter")):
			return refuse(codeRequired, "encounter", "An encounter diagnosis needs an encounter") // DOMAIN §4
		case bedside && method == http.MethodPost && codeIn(get(raw, "clinicalStatus")) != "active":
			return refuse(codeRule, "clinicalStatus", "An encounter diagnosis must be active") // DOMAIN §4
		}
		return nil
	case "Procedure":
		if status != "completed" {
			return refuse(codeRule, "status", "The status must be completed") // DOMAIN §4
		}
		return nil
	default:
		return oracleNote(refuse, method, status, raw)
	}
}

// oracleNote is what Oracle Health refuses of a DocumentReference (DOMAIN §4).
func oracleNote(refuse func(code, element, text string) *problem, method, status string, raw []byte) *problem {
	states := []string{"final"}
	if method == http.MethodPut {
		states = append(states, "amended")
	}
	contents := oneOrMany(get(raw, "content"))
	mediaType, params, err := mime.ParseMediaType(getText(get(contents[0], "attachment"), "contentType"))
	texts := []string{"text/plain", "text/rtf", "application/rtf", "text/html", "application/xml", "text/xml"}
	if method == http.MethodPut && status == "entered-in-error" {
		return nil // what is withdrawn needs to say nothing else
	}
	switch {
	case status != "current":
		return refuse(codeRule, "status", "The status must be current")
	case !slices.Contains(states, getText(raw, "docStatus")):
		return refuse(codeRule, "docStatus", "The docStatus must be final, or amended in an update")
	case missing(get(raw, "type")):
		return refuse(codeRequired, "type", "The type is required, in LOINC or a code of the hospital's own")
	case len(contents) != 1:
		return refuse(codeRule, "content", "Exactly one content is required")
	case err != nil || mediaType != "application/pdf" && !slices.Contains(texts, mediaType):
		return refuse(codeValue, "content[0].attachment.contentType", "The contentType must be pdf, plain text, rtf, html or xml")
	case mediaType != "application/pdf" && params["charset"] == "":
		return refuse(codeValue, "content[0].attachment.contentType", "The contentType of a text names its charset")
	case !strings.Contains(getText(get(get(raw, "context"), "period"), "end"), "T"):
		return refuse(codeRequired, "context.period.end", "The end of the period is required, with its time")
	}
	return nil
}

// oracleKeeps: what isn't supported is dropped, without a word (DOMAIN §4): the identifier and meta.tag too (§0.5).
func oracleKeeps(typ string, raw []byte) []byte {
	kept := map[string][]string{
		"Condition": {
			"abatementDateTime", "asserter", "category", "clinicalStatus", "code", "encounter", "note", "onsetDateTime", "onsetPeriod",
			"recordedDate", "recorder", "severity", "subject", "verificationStatus",
		},
		"DocumentReference": {"author", "category", "content", "context", "date", "description", "docStatus", "status", "subject", "type"},
		"Procedure":         {"asserter", "code", "encounter", "note", "performedDateTime", "performedPeriod", "performer", "recorder", "status", "subject"},
	}[typ]
	for _, m := range members(raw) {
		if m.key != "resourceType" && m.key != "id" && !slices.Contains(kept, m.key) {
			raw = drop(raw, m.key)
		}
	}
	return raw
}

// grantsOfV1: explicit scopes of version 1, no wildcard, every type listed (DOMAIN §1, "Scopes"). What is spelled
// otherwise isn't granted.
func grantsOfV1(asked string, _ []string) (scopes []scope, granted string) {
	kept := slices.DeleteFunc(strings.Fields(asked), func(s string) bool {
		return strings.Contains(s, "*") || !strings.HasSuffix(s, ".read") && !strings.HasSuffix(s, ".write")
	})
	return parseScopes(strings.Join(kept, " "))
}

// oraclePageSize: DOMAIN §2.
func oraclePageSize(typ string) (byDefault, most int) {
	switch typ {
	case "Patient":
		return 20, 20
	case "DocumentReference", "DiagnosticReport":
		return 10, 100
	default: // known of Observation; the others have no number of their own
		return 50, 200
	}
}

// oracleDemands is what Oracle Health refuses a search for.
func oracleDemands(q *query) *problem {
	// DOMAIN §0.1: patient, subject or _id on every clinical type, also beside _lastUpdated.
	if missing := demandPatient(q, "patient", "subject"); missing != "" {
		return fail(http.StatusBadRequest, codeRequired, missing)
	}
	// DOMAIN §2: Observation, DocumentReference and DiagnosticReport refuse date and _lastUpdated together.
	if slices.Contains([]string{"Observation", "DocumentReference", "DiagnosticReport"}, q.typ) && q.has("date") && q.has("_lastUpdated") {
		return fail(http.StatusBadRequest, codeInvalid, "The date and _lastUpdated parameters may not be provided together")
	}
	for _, value := range q.given["_lastUpdated"] {
		// DOMAIN §2: only ge and le; MedicationRequest wants a time part as well.
		bound := strings.HasPrefix(value, "ge") || strings.HasPrefix(value, "le")
		if !bound || q.typ == "MedicationRequest" && !strings.Contains(value, "T") {
			return fail(http.StatusBadRequest, codeInvalid, "The _lastUpdated parameter must have the prefix ge or le, and a time")
		}
	}
	return nil
}

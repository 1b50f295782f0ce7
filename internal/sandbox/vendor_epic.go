package sandbox

import (
	"net/http"
	"slices"
	"strings"
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
	}
}

// epicGrants: the scopes of the request mean nothing; the grant is what is registered on the client, in the spelling
// of version 1 (DOMAIN §1, "Scopes").
func epicGrants(_ string, types []string) (scopes []scope, granted string) {
	names := make([]string, len(types))
	for i, typ := range types {
		names[i] = "system/" + typ + ".read"
	}
	return parseScopes(strings.Join(names, " "))
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

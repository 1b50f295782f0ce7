package sandbox

import (
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
	}
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

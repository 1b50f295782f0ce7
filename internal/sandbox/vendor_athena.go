package sandbox

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// athena is athenahealth.
func athena() *vendor {
	return &vendor{
		name: "athena", software: "athenahealth athenaOne",
		grants:       athenaGrants,
		uncovered:    athenaUncovered,
		demandsOfAll: athenaPractice,
		passed:       []string{practiceParam},
		offers:       func(_, param string) bool { return param != "_lastUpdated" }, // DOMAIN §2: P3, a snapshot of each patient
		demands:      athenaDemands,
		pageSize:     func(string) (byDefault, most int) { return 20, 50 }, // DOMAIN §2: "athena small"
		// DOMAIN §2, P3: nothing tells when a resource changed, nor its version.
		hidesVersions: true,
		deleted:       http.StatusNotFound, // DOMAIN §2, P3: an absence is confirmed by 404 too
		// DOMAIN §4: what clients write goes to an API of its own, not to FHIR.
		writes: writeManners{},
	}
}

// athenaGrants: scopes must be sent, explicitly (DOMAIN §1).
func athenaGrants(asked string, _ []string) (scopes []scope, granted string) {
	return parseScopes(asked)
}

// athenaUncovered: .r alone is refused on search with these words (DOMAIN §1).
func athenaUncovered(string, string) *problem {
	return fail(http.StatusForbidden, codeForbidden, "Invalid scope")
}

// practiceParam names the practice in every request.
const practiceParam = "ah-practice"

// practice is the form of a practice: any number is one here.
var practice = regexp.MustCompile(`^Organization/a-1\.Practice-\d+$`)

// athenaPractice: every FHIR call needs ah-practice (DOMAIN §4, the write matrix).
func athenaPractice(r *http.Request) *problem {
	if practice.MatchString(r.URL.Query().Get(practiceParam)) {
		return nil
	}
	return fail(http.StatusForbidden, codeForbidden, "The ah-practice parameter is required, such as Organization/a-1.Practice-1")
}

// athenaDemands: what is missing answers 400 with the code forbidden (DOMAIN §0.1, §5).
func athenaDemands(q *query) *problem {
	if demandPatient(q, "patient") != "" {
		sets := "[[patient],[_id]]"
		if q.typ == "Patient" {
			sets = "[[_id],[identifier],[family],[birthdate]]"
		}
		return fail(http.StatusBadRequest, codeForbidden, "One of these sets of parameters is required: "+sets)
	}
	// DOMAIN §2: MedicationRequest needs intent=order.
	if q.typ == "MedicationRequest" && !q.has("_id") && !slices.ContainsFunc(q.given["intent"], func(v string) bool {
		return strings.Contains(v, "order")
	}) {
		return fail(http.StatusBadRequest, codeForbidden, "MedicationRequest requires intent=order")
	}
	return nil
}

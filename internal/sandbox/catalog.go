package sandbox

import "slices"

// catalog is the search parameters that the sandbox offers per type beside _id and _lastUpdated, as R4 names them.
// A type that is not listed is served with _id and _lastUpdated only.
func catalog(typ string) []string {
	switch typ {
	case "Condition", "DiagnosticReport", "MedicationRequest", "MedicationStatement", "Observation", "Procedure",
		"ServiceRequest":
		return []string{"patient", "subject", "category", "code", "identifier"}
	case "MedicationAdministration", "MedicationDispense":
		return []string{"patient", "subject", "code", "identifier"}
	case "CarePlan", "CareTeam", "DocumentReference", "Goal":
		return []string{"patient", "subject", "category", "identifier"}
	case "Encounter", "Specimen":
		return []string{"patient", "subject", "identifier"}
	case "AllergyIntolerance":
		return []string{"patient", "category", "code", "identifier"}
	case "Consent":
		return []string{"patient", "category", "identifier"}
	case "Claim", "Coverage", "Device", "ExplanationOfBenefit", "Immunization", "RelatedPerson":
		return []string{"patient", "identifier"}
	case "Medication":
		return []string{"code", "identifier"}
	case "Location", "Organization", "Patient", "Practitioner", "PractitionerRole":
		return []string{"identifier"}
	default:
		return nil
	}
}

// coreTypes are served even when there is nothing of them, as an EHR with no data yet would.
func coreTypes() []string {
	return []string{
		"AllergyIntolerance", "Consent", "Encounter", "MedicationRequest", "MedicationStatement", "Observation", "Patient",
	}
}

// offered lists the search parameters of a type under the knobs, sorted.
func offered(typ string, f Faults) []string {
	out := append(catalog(typ), "_id")
	if offersLastUpdated(typ, f) {
		out = append(out, "_lastUpdated")
	}
	slices.Sort(out)
	return out
}

// offersLastUpdated: Epic offers _lastUpdated on DocumentReference and MeasureReport only (DOMAIN §0.2).
func offersLastUpdated(typ string, f Faults) bool {
	return f.RequiredSearch != modeEpic || typ == "DocumentReference" || typ == "MeasureReport"
}

// demands tells which of its required parameters a search leaves out, "" when none (DOMAIN §0.1, §2). Both vendors
// answer no search of a whole system: clinical types demand a patient or an id, Patient an id or an identifier.
func demands(typ string, f Faults, has func(...string) bool) string {
	if f.RequiredSearch == "" {
		return ""
	}
	params := catalog(typ)
	switch {
	case has("_id"):
		return ""
	case typ == "Patient":
		if !has("identifier") {
			return "This resource requires demographics, identifier or _id parameter"
		}
	case !slices.Contains(params, "patient"):
		return ""
	case f.RequiredSearch == modeOracle && !has("patient", "subject"):
		return "Either patient, subject or _id parameter is required"
	case !has("patient", "subject"):
		return "This resource requires patient or _id parameter"
	case f.RequiredSearch == modeEpic && typ == "Observation" && !has("category", "code"):
		return "This resource requires category or code parameter"
	}
	return ""
}

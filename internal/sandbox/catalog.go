package sandbox

// catalog is the search parameters that the sandbox knows per type beside _id and _lastUpdated, as R4 names them.
// A type that is not listed is served with _id and _lastUpdated only.
func catalog(typ string) []string {
	switch typ {
	case "Observation":
		return []string{"patient", "subject", "category", "code", "date", "identifier"}
	case "MedicationRequest":
		return []string{"patient", "subject", "category", "code", "identifier", "intent", "status"}
	case "DiagnosticReport":
		return []string{"patient", "subject", "category", "code", "date", "identifier"}
	case "Procedure":
		return []string{"patient", "subject", "category", "code", "date", "encounter", "identifier", "status"}
	case "Condition":
		return []string{"patient", "subject", "category", "clinical-status", "code", "encounter", "identifier", "recorded-date"}
	case "MedicationStatement", "ServiceRequest":
		return []string{"patient", "subject", "category", "code", "identifier"}
	case "MedicationAdministration", "MedicationDispense":
		return []string{"patient", "subject", "code", "identifier"}
	case "DocumentReference":
		return []string{"patient", "subject", "category", "date", "encounter", "identifier", "status", "type"}
	case "CarePlan", "CareTeam", "Goal":
		return []string{"patient", "subject", "category", "identifier"}
	case "Encounter":
		return []string{"patient", "subject", "date", "identifier"}
	case "Specimen":
		return []string{"patient", "subject", "identifier"}
	case "AllergyIntolerance":
		return []string{"patient", "category", "code", "identifier"}
	case "Consent":
		return []string{"patient", "category", "date", "identifier", "status"}
	case "Claim", "Coverage", "Device", "ExplanationOfBenefit", "Immunization", "RelatedPerson":
		return []string{"patient", "identifier"}
	case "Medication":
		return []string{"code", "identifier"}
	case "Patient":
		return []string{"birthdate", "family", "gender", "given", "identifier"}
	case "Location", "Organization", "Practitioner", "PractitionerRole":
		return []string{"identifier"}
	default:
		return nil
	}
}

// coreTypes are served even when there is nothing of them, as an EHR with no data yet would.
func coreTypes() []string {
	return []string{
		"AllergyIntolerance", "Consent", "Encounter", groupType, "MedicationRequest", "MedicationStatement", "Observation", "Patient",
	}
}

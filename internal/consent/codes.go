package consent

import "strings"

// The code systems that are understood.
const (
	systemScope           = "http://terminology.hl7.org/CodeSystem/consentscope"
	systemAction          = "http://terminology.hl7.org/CodeSystem/consentaction"
	systemActCode         = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
	systemConfidentiality = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
	systemParticipation   = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
	// systemPurpose is the code system of the value set v3-PurposeOfUse.
	systemPurpose       = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
	systemResourceTypes = "http://hl7.org/fhir/resource-types"
	systemLOINC         = "http://loinc.org"
	systemICD10CM       = "http://hl7.org/fhir/sid/icd-10-cm"
	systemICD10         = "http://hl7.org/fhir/sid/icd-10"
)

// part2Label is the code of 42 CFR Part 2 in v3-ActCode.
const part2Label = "42CFRPart2"

// namesPart2 reports whether a permit that names the label is one for records under 42 CFR Part 2, which are about substance
// use disorders.
func namesPart2(label string) bool { return label == part2Label || label == "SUD" || label == "ETH" }

// normal is the level of content that has no label.
const normal = 3

// confidentiality orders the codes of v3-Confidentiality.
func confidentiality(code string) (level int, known bool) {
	level = strings.Index("ULMNRV", code)
	return level, len(code) == 1 && level >= 0
}

// sensitivity reports whether a label is a code of v3-ActCode's InformationSensitivityPolicy, or 42CFRPart2.
func sensitivity(label string) bool {
	switch label {
	case part2Label, "ADOL", "B", "BH", "CEL", "COGN", "DEMO", "DIA", "DOB", "DRGIS", "DVD", "EMOTDIS", "EMP", "EMPL", "ETH", "ETHUD", "GDIS",
		"GENDER", "HIV", "LIVARG", "LOCIS", "MARST", "MH", "MST", "OPIOIDUD", "PDS", "PHY", "PREGNANT", "PRS", "PSY", "PSYTHPN", "RACE", "REL",
		"SCA", "SDV", "SEX", "SICKLE", "SSP", "STD", "SUD", "TBOO", "VIO", "VIP":
		return true
	}
	return false
}

// labelFamily is a set of sensitivity labels that overlap.
type labelFamily int

const (
	alone labelFamily = iota
	substanceUse
	mentalHealth
	sexualHealth
	violence
)

func family(label string) labelFamily {
	switch label {
	case part2Label, "ETH", "ETHUD", "OPIOIDUD", "SUD":
		return substanceUse
	case "BH", "COGN", "DVD", "EMOTDIS", "MH", "PSY", "PSYTHPN":
		return mentalHealth
	case "HIV", "STD":
		return sexualHealth
	case "MST", "SDV", "SEX", "VIO":
		return violence
	}
	return alone
}

// shown is a code as it may be shown; what isn't known to be a code isn't.
func shown(code string) string {
	_, level := confidentiality(code)
	_, known := purpose(code)
	if level || known || sensitivity(code) {
		return code
	}
	return "a code that isn't known"
}

// purpose is the purpose at the top of v3-PurposeOfUse that a purpose belongs to.
func purpose(code string) (top string, known bool) {
	switch code {
	case "TREAT", "HPAYMT", "HOPERAT", "HRESCH", "HMARKT", "PATRQT", "PUBHLTH":
		return code, true
	case "ETREAT", "BTG", "ERTREAT":
		return "TREAT", true
	}
	return "", false
}

// documentType reports whether a LOINC code is of a kind of document that excludes the others.
func documentType(code string) bool {
	switch code {
	case "11488-4", "11502-2", "11504-8", "11506-3", "11526-1", "18748-4", "18842-5", "28570-0", "34111-5", "34117-2", "34133-9", "34746-8":
		return true
	}
	return false
}

// clinicalSystem reports whether codes of a system are found in content when it has them.
func clinicalSystem(system string) bool {
	switch system {
	case systemLOINC, "http://snomed.info/sct", "http://www.ama-assn.org/go/cpt", "http://www.nlm.nih.gov/research/umls/rxnorm",
		"https://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets":
		return true
	}
	return isICD(system)
}

func isICD(system string) bool { return system == systemICD10CM || system == systemICD10 }

// icd is an ICD-10 code without its dot, in capitals. Ranges, such as F10-F19, aren't codes.
func icd(code string) (string, bool) {
	plain := strings.ToUpper(strings.Replace(code, ".", "", 1))
	ok := len(plain) >= 3 && plain[0] >= 'A' && plain[0] <= 'Z'
	for _, b := range []byte(plain) {
		ok = ok && (b >= '0' && b <= '9' || b >= 'A' && b <= 'Z')
	}
	return plain, ok
}

// r4Type reports whether a resource type is of R4, by name.
func r4Type(name string) bool {
	return name != "" && !strings.Contains(name, " ") && strings.Contains(r4Types, " "+name+" ")
}

// r4Types are the resource types of R4 (4.0.1).
const r4Types = " Account ActivityDefinition AdverseEvent AllergyIntolerance Appointment AppointmentResponse AuditEvent Basic Binary " +
	"BiologicallyDerivedProduct BodyStructure Bundle CapabilityStatement CarePlan CareTeam CatalogEntry ChargeItem ChargeItemDefinition " +
	"Claim ClaimResponse ClinicalImpression CodeSystem Communication CommunicationRequest CompartmentDefinition Composition ConceptMap " +
	"Condition Consent Contract Coverage CoverageEligibilityRequest CoverageEligibilityResponse DetectedIssue Device DeviceDefinition " +
	"DeviceMetric DeviceRequest DeviceUseStatement DiagnosticReport DocumentManifest DocumentReference EffectEvidenceSynthesis Encounter " +
	"Endpoint EnrollmentRequest EnrollmentResponse EpisodeOfCare EventDefinition Evidence EvidenceVariable ExampleScenario " +
	"ExplanationOfBenefit FamilyMemberHistory Flag Goal GraphDefinition Group GuidanceResponse HealthcareService ImagingStudy Immunization " +
	"ImmunizationEvaluation ImmunizationRecommendation ImplementationGuide InsurancePlan Invoice Library Linkage List Location Measure " +
	"MeasureReport Media Medication MedicationAdministration MedicationDispense MedicationKnowledge MedicationRequest MedicationStatement " +
	"MedicinalProduct MedicinalProductAuthorization MedicinalProductContraindication MedicinalProductIndication MedicinalProductIngredient " +
	"MedicinalProductInteraction MedicinalProductManufactured MedicinalProductPackaged MedicinalProductPharmaceutical " +
	"MedicinalProductUndesirableEffect MessageDefinition MessageHeader MolecularSequence NamingSystem NutritionOrder Observation " +
	"ObservationDefinition OperationDefinition OperationOutcome Organization OrganizationAffiliation Parameters Patient PaymentNotice " +
	"PaymentReconciliation Person PlanDefinition Practitioner PractitionerRole Procedure Provenance Questionnaire QuestionnaireResponse " +
	"RelatedPerson RequestGroup ResearchDefinition ResearchElementDefinition ResearchStudy ResearchSubject RiskAssessment RiskEvidenceSynthesis " +
	"Schedule SearchParameter ServiceRequest Slot Specimen SpecimenDefinition StructureDefinition StructureMap Subscription Substance " +
	"SubstanceNucleicAcid SubstancePolymer SubstanceProtein SubstanceReferenceInformation SubstanceSourceMaterial SubstanceSpecification " +
	"SupplyDelivery SupplyRequest Task TerminologyCapabilities TestReport TestScript ValueSet VerificationResult VisionPrescription "

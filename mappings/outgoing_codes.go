package mappings

import (
	"regexp"
	"slices"
	"strings"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// Code systems of what is written.
const (
	systemICD10CM           = "http://hl7.org/fhir/sid/icd-10-cm"
	systemICD10PCS          = "http://www.cms.gov/Medicare/Coding/ICD10"
	systemCPT               = "http://www.ama-assn.org/go/cpt"
	systemHCPCS             = "http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets"
	systemConditionCategory = "http://terminology.hl7.org/CodeSystem/condition-category"
	systemConfidentiality   = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
	systemActCode           = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
)

// consentDocument is the LOINC code of a consent.
const consentDocument = "59284-0"

// noteTypes are the notes that Cura's applications write, with LOINC's names (DOMAIN §4; US Core's draft list mislabels some).
func noteTypes() []cura.Coding {
	return []cura.Coding{
		{Code: "11488-4", Display: "Consult note"},
		{Code: "11502-2", Display: "Laboratory report"},
		{Code: "11504-8", Display: "Surgical operation note"},
		{Code: "11506-3", Display: "Progress note"},
		{Code: "11526-1", Display: "Pathology study"},
		{Code: "18748-4", Display: "Diagnostic imaging study"},
		{Code: "18842-5", Display: "Discharge summary"},
		{Code: "28570-0", Display: "Procedure note"},
		{Code: "34111-5", Display: "Emergency department Note"},
		{Code: "34117-2", Display: "History and physical note"},
		{Code: "34133-9", Display: "Summary of episode note"},
		{Code: "34746-8", Display: "Nurse Note"},
		{Code: consentDocument, Display: "Consent Document"},
	}
}

// noteDisplay is LOINC's name of a type of note; empty where Cura doesn't know it.
func noteDisplay(loinc string) string {
	types := noteTypes()
	if i := slices.IndexFunc(types, func(c cura.Coding) bool { return c.Code == loinc }); i >= 0 {
		return types[i].Display
	}
	return ""
}

func noteType(loinc string) outConcept {
	return outConcept{Coding: []outCoding{{System: systemLOINC, Code: loinc, Display: noteDisplay(loinc)}}}
}

// codeForm is how the codes of a system look.
type codeForm struct {
	system string
	// oid is the same system as a urn, as some servers name it.
	oid   string
	valid func(code string) bool
	text  string
}

// codeForms are the systems whose codes are checked, because a code that is mistyped is another diagnosis.
func codeForms() []codeForm {
	return []codeForm{
		{systemICD10CM, "urn:oid:2.16.840.1.113883.6.90", formICD10CM.MatchString, "isn't an ICD-10-CM code: write it as E11.9, with capitals and the point"},
		{systemICD10PCS, "urn:oid:2.16.840.1.113883.6.4", formICD10PCS.MatchString, "isn't an ICD-10-PCS code: it has seven digits and capitals, without I and O"},
		{systemCPT, "urn:oid:2.16.840.1.113883.6.12", formCPT.MatchString, "isn't a CPT code: it has four digits and then a digit or a capital"},
		{systemHCPCS, "urn:oid:2.16.840.1.113883.6.285", formHCPCS.MatchString, "isn't a HCPCS code: it has a capital and four digits"},
		{systemSNOMED, systemSNOMEDOID, isSNOMED, "isn't the id of a SNOMED CT concept: its check digit or its form is wrong"},
		{systemLOINC, systemLOINCOID, isLOINC, "isn't a LOINC code: its check digit or its form is wrong"},
	}
}

var (
	formICD10CM  = regexp.MustCompile(`^[A-Z][0-9][0-9A-Z](\.[0-9A-Z]{1,4})?$`)
	formICD10PCS = regexp.MustCompile(`^[0-9A-HJ-NP-Z]{7}$`)
	formCPT      = regexp.MustCompile(`^[0-9]{4}[0-9A-Z]$`)
	formHCPCS    = regexp.MustCompile(`^[A-Z][0-9]{4}$`)
	formLOINC    = regexp.MustCompile(`^[1-9][0-9]{0,6}-[0-9]$`)
	// formSNOMED is an SCTID of a concept: its partition, the two digits before the last, is 00 or 10.
	formSNOMED = regexp.MustCompile(`^[1-9][0-9]{2,14}[01]0[0-9]$`)
)

// isLOINC checks form and check digit: LOINC's mod 10, which is Luhn's (LOINC Users' Guide).
func isLOINC(code string) bool {
	if !formLOINC.MatchString(code) {
		return false
	}
	digits := strings.Replace(code, "-", "", 1)
	sum := 0
	for i := range len(digits) {
		d := int(digits[len(digits)-1-i] - '0')
		if i%2 == 1 {
			d *= 2
			d = d/10 + d%10
		}
		sum += d
	}
	return sum%10 == 0
}

// isSNOMED checks form and check digit: Verhoeff's, by the dihedral group of order 10 (SNOMED CT Release File Specification, SCTID).
func isSNOMED(code string) bool {
	if !formSNOMED.MatchString(code) {
		return false
	}
	// Each position permutes the digit once more.
	permute := [10]int{1, 5, 7, 6, 2, 8, 3, 0, 9, 4}
	check := 0
	for i := range len(code) {
		d := int(code[len(code)-1-i] - '0')
		for range i % 8 {
			d = permute[d]
		}
		check = dihedral(check, d)
	}
	return check == 0
}

// dihedral multiplies in the dihedral group of order 10: 0 to 4 are rotations, 5 to 9 reflections.
func dihedral(a, b int) int {
	switch {
	case a < 5 && b < 5:
		return (a + b) % 5
	case a < 5:
		return 5 + (a+b-5)%5
	case b < 5:
		return 5 + (a-b)%5
	}
	return (a - b + 5) % 5
}

// labelSystem gives the system of a sensitivity label; known is false for one that Cura doesn't know (DOMAIN §7).
func labelSystem(label string) (system string, known bool) {
	switch label {
	case "R", "V":
		return systemConfidentiality, true
	case "ETH", "SUD", "PSY", "PSYTHPN", "HIV", "SDV":
		return systemActCode, true
	}
	return "", false
}

// labelCodings writes labels as meta.security, each once.
func labelCodings(labels []string) []outCoding {
	var out []outCoding
	for i, label := range labels {
		if system, known := labelSystem(label); known && !slices.Contains(labels[:i], label) {
			out = append(out, outCoding{System: system, Code: label})
		}
	}
	return out
}

// labelConcepts writes labels as DocumentReference.securityLabel.
func labelConcepts(labels []string) []outConcept {
	var out []outConcept
	for _, c := range labelCodings(labels) {
		out = append(out, outConcept{Coding: []outCoding{c}})
	}
	return out
}

package r4

import "encoding/json"

// Patient is a Patient (R4 §8.1).
type Patient struct {
	Resource
	Identifier       []Identifier   `json:"identifier"`
	Active           *bool          `json:"active"`
	Name             []HumanName    `json:"name"`
	Telecom          []ContactPoint `json:"telecom"`
	Gender           string         `json:"gender"`
	BirthDate        string         `json:"birthDate"`
	DeceasedBoolean  *bool          `json:"deceasedBoolean"`
	DeceasedDateTime string         `json:"deceasedDateTime"`
	Address          []Address      `json:"address"`
	Link             []PatientLink  `json:"link"`
}

// PatientLink is Patient.link.
type PatientLink struct {
	Other Reference `json:"other"`
	Type  string    `json:"type"`
}

// AllergyIntolerance is an AllergyIntolerance (R4 §9.1).
type AllergyIntolerance struct {
	Resource
	ClinicalStatus     CodeableConcept   `json:"clinicalStatus"`
	VerificationStatus CodeableConcept   `json:"verificationStatus"`
	Type               string            `json:"type"`
	Category           []string          `json:"category"`
	Criticality        string            `json:"criticality"`
	Code               CodeableConcept   `json:"code"`
	Patient            Reference         `json:"patient"`
	Encounter          Reference         `json:"encounter"`
	OnsetDateTime      string            `json:"onsetDateTime"`
	OnsetAge           *Quantity         `json:"onsetAge"`
	OnsetPeriod        *Period           `json:"onsetPeriod"`
	OnsetRange         *Range            `json:"onsetRange"`
	OnsetString        string            `json:"onsetString"`
	RecordedDate       string            `json:"recordedDate"`
	LastOccurrence     string            `json:"lastOccurrence"`
	Note               []Annotation      `json:"note"`
	Reaction           []AllergyReaction `json:"reaction"`
}

// AllergyReaction is AllergyIntolerance.reaction.
type AllergyReaction struct {
	Substance     CodeableConcept   `json:"substance"`
	Manifestation []CodeableConcept `json:"manifestation"`
	Description   string            `json:"description"`
	Onset         string            `json:"onset"`
	Severity      string            `json:"severity"`
}

// MedicationRequest is a MedicationRequest (R4 §11.1).
type MedicationRequest struct {
	Resource
	Status                    string            `json:"status"`
	Intent                    string            `json:"intent"`
	Category                  []CodeableConcept `json:"category"`
	ReportedBoolean           *bool             `json:"reportedBoolean"`
	ReportedReference         *Reference        `json:"reportedReference"`
	MedicationCodeableConcept *CodeableConcept  `json:"medicationCodeableConcept"`
	MedicationReference       *Reference        `json:"medicationReference"`
	Subject                   Reference         `json:"subject"`
	Encounter                 Reference         `json:"encounter"`
	AuthoredOn                string            `json:"authoredOn"`
	ReasonCode                []CodeableConcept `json:"reasonCode"`
	ReasonReference           []Reference       `json:"reasonReference"`
	Note                      []Annotation      `json:"note"`
	DosageInstruction         []Dosage          `json:"dosageInstruction"`
}

// MedicationStatement is a MedicationStatement (R4 §11.4).
type MedicationStatement struct {
	Resource
	Status                    string            `json:"status"`
	Category                  CodeableConcept   `json:"category"`
	MedicationCodeableConcept *CodeableConcept  `json:"medicationCodeableConcept"`
	MedicationReference       *Reference        `json:"medicationReference"`
	Subject                   Reference         `json:"subject"`
	Context                   Reference         `json:"context"`
	EffectiveDateTime         string            `json:"effectiveDateTime"`
	EffectivePeriod           *Period           `json:"effectivePeriod"`
	DateAsserted              string            `json:"dateAsserted"`
	ReasonCode                []CodeableConcept `json:"reasonCode"`
	ReasonReference           []Reference       `json:"reasonReference"`
	Note                      []Annotation      `json:"note"`
	Dosage                    []Dosage          `json:"dosage"`
}

// Medication is a Medication (R4 §11.2), as far as a contained one names the drug.
type Medication struct {
	Resource
	Code       CodeableConcept        `json:"code"`
	Ingredient []MedicationIngredient `json:"ingredient"`
}

// MedicationIngredient is Medication.ingredient.
type MedicationIngredient struct {
	ItemCodeableConcept CodeableConcept `json:"itemCodeableConcept"`
	ItemReference       Reference       `json:"itemReference"`
}

// Value is the eleven variants of Observation.value[x] with the extensions of the primitive ones.
type Value struct {
	ValueQuantity        *Quantity        `json:"valueQuantity"`
	ValueCodeableConcept *CodeableConcept `json:"valueCodeableConcept"`
	ValueString          *string          `json:"valueString"`
	ValueStringElement   *Element         `json:"_valueString"`
	ValueBoolean         *bool            `json:"valueBoolean"`
	ValueBooleanElement  *Element         `json:"_valueBoolean"`
	ValueInteger         *json.Number     `json:"valueInteger"`
	ValueIntegerElement  *Element         `json:"_valueInteger"`
	ValueRange           *Range           `json:"valueRange"`
	ValueRatio           *Ratio           `json:"valueRatio"`
	ValueSampledData     json.RawMessage  `json:"valueSampledData"`
	ValueTime            *string          `json:"valueTime"`
	ValueTimeElement     *Element         `json:"_valueTime"`
	ValueDateTime        *string          `json:"valueDateTime"`
	ValueDateTimeElement *Element         `json:"_valueDateTime"`
	ValuePeriod          *Period          `json:"valuePeriod"`
}

// Observation is an Observation (R4 §10.1).
type Observation struct {
	Resource
	Value
	Status            string                      `json:"status"`
	StatusElement     *Element                    `json:"_status"`
	Category          []CodeableConcept           `json:"category"`
	Code              CodeableConcept             `json:"code"`
	Subject           Reference                   `json:"subject"`
	Encounter         Reference                   `json:"encounter"`
	EffectiveDateTime string                      `json:"effectiveDateTime"`
	EffectivePeriod   *Period                     `json:"effectivePeriod"`
	EffectiveTiming   *Timing                     `json:"effectiveTiming"`
	EffectiveInstant  string                      `json:"effectiveInstant"`
	Issued            string                      `json:"issued"`
	DataAbsentReason  CodeableConcept             `json:"dataAbsentReason"`
	Interpretation    []CodeableConcept           `json:"interpretation"`
	Note              []Annotation                `json:"note"`
	BodySite          CodeableConcept             `json:"bodySite"`
	Method            CodeableConcept             `json:"method"`
	ReferenceRange    []ObservationReferenceRange `json:"referenceRange"`
	HasMember         []Reference                 `json:"hasMember"`
	Component         []ObservationComponent      `json:"component"`
}

// ObservationReferenceRange is Observation.referenceRange.
type ObservationReferenceRange struct {
	Low       *Quantity         `json:"low"`
	High      *Quantity         `json:"high"`
	Type      CodeableConcept   `json:"type"`
	AppliesTo []CodeableConcept `json:"appliesTo"`
	Age       *Range            `json:"age"`
	Text      string            `json:"text"`
}

// ObservationComponent is Observation.component.
type ObservationComponent struct {
	Value
	Code             CodeableConcept             `json:"code"`
	DataAbsentReason CodeableConcept             `json:"dataAbsentReason"`
	Interpretation   []CodeableConcept           `json:"interpretation"`
	ReferenceRange   []ObservationReferenceRange `json:"referenceRange"`
}

// Encounter is an Encounter (R4 §8.11).
type Encounter struct {
	Resource
	Identifier      []Identifier           `json:"identifier"`
	Status          string                 `json:"status"`
	Class           Coding                 `json:"class"`
	Type            []CodeableConcept      `json:"type"`
	ServiceType     CodeableConcept        `json:"serviceType"`
	Priority        CodeableConcept        `json:"priority"`
	Subject         Reference              `json:"subject"`
	Participant     []EncounterParticipant `json:"participant"`
	Period          *Period                `json:"period"`
	ReasonCode      []CodeableConcept      `json:"reasonCode"`
	ReasonReference []Reference            `json:"reasonReference"`
	Hospitalization struct {
		DischargeDisposition CodeableConcept `json:"dischargeDisposition"`
	} `json:"hospitalization"`
	Location []struct {
		Location Reference `json:"location"`
	} `json:"location"`
	ServiceProvider Reference `json:"serviceProvider"`
	PartOf          Reference `json:"partOf"`
}

// EncounterParticipant is Encounter.participant.
type EncounterParticipant struct {
	Type       []CodeableConcept `json:"type"`
	Period     *Period           `json:"period"`
	Individual Reference         `json:"individual"`
}

// Consent is a Consent (R4 §6.2).
type Consent struct {
	Resource
	Status     string            `json:"status"`
	Scope      CodeableConcept   `json:"scope"`
	Category   []CodeableConcept `json:"category"`
	Patient    Reference         `json:"patient"`
	DateTime   string            `json:"dateTime"`
	Performer  []Reference       `json:"performer"`
	Policy     []ConsentPolicy   `json:"policy"`
	PolicyRule CodeableConcept   `json:"policyRule"`
	// Provision is kept raw: the decision rules read it whole.
	Provision json.RawMessage `json:"provision"`
	// ModifierExtension is the resource's own; it is only asked whether there is one.
	ModifierExtension json.RawMessage `json:"modifierExtension"`
}

// ConsentPolicy is Consent.policy.
type ConsentPolicy struct {
	Authority string `json:"authority"`
	URI       string `json:"uri"`
}

// ConsentProvision is the root of Consent.provision, as far as the log shows it.
type ConsentProvision struct {
	Type   string  `json:"type"`
	Period *Period `json:"period"`
}

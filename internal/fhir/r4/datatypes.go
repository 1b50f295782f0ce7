// Package r4 holds the elements of FHIR R4 resources that Cura maps, as thin structs for encoding/json. Decimals and
// integers are json.Number, so that their digits stay; dates are text, since they may be partial. What isn't declared here
// is skipped in decoding and stays in the raw resource.
package r4

import "encoding/json"

// Extension is an Extension (R4 §2.4.4), with the kinds of value that mappings read.
type Extension struct {
	URL       string `json:"url"`
	ValueCode string `json:"valueCode"`
}

// Element is what the "_name" sibling of a primitive holds (R4 §2.6.2.3).
type Element struct {
	Extension []Extension `json:"extension"`
}

// Meta is Resource.meta.
type Meta struct {
	VersionID   string `json:"versionId"`
	LastUpdated string `json:"lastUpdated"`
}

// Resource holds what every resource has.
type Resource struct {
	ResourceType string `json:"resourceType"`
	ID           string `json:"id"`
	Meta         Meta   `json:"meta"`
	// Contained is kept raw: its resources are of any type and are decoded when something refers to them.
	Contained []json.RawMessage `json:"contained"`
}

// Coding is a Coding.
type Coding struct {
	Extension    []Extension `json:"extension"`
	System       string      `json:"system"`
	Version      string      `json:"version"`
	Code         string      `json:"code"`
	CodeElement  *Element    `json:"_code"`
	Display      string      `json:"display"`
	UserSelected bool        `json:"userSelected"`
}

// CodeableConcept is a CodeableConcept.
type CodeableConcept struct {
	Extension []Extension `json:"extension"`
	Coding    []Coding    `json:"coding"`
	Text      string      `json:"text"`
}

// Period is a Period.
type Period struct {
	Start string `json:"start"`
	End   string `json:"end"`
}

// Identifier is an Identifier. Value is empty where only an extension, such as rendered-value, stands in for it.
type Identifier struct {
	Use    string          `json:"use"`
	Type   CodeableConcept `json:"type"`
	System string          `json:"system"`
	Value  string          `json:"value"`
	Period *Period         `json:"period"`
}

// Reference is a Reference: by URL, by identifier, or by display alone.
type Reference struct {
	Reference  string      `json:"reference"`
	Type       string      `json:"type"`
	Identifier *Identifier `json:"identifier"`
	Display    string      `json:"display"`
}

// HumanName is a HumanName. A null in Given, Prefix or Suffix, where only an extension is, decodes to an empty string.
type HumanName struct {
	Use    string   `json:"use"`
	Text   string   `json:"text"`
	Family string   `json:"family"`
	Given  []string `json:"given"`
	Prefix []string `json:"prefix"`
	Suffix []string `json:"suffix"`
	Period *Period  `json:"period"`
}

// ContactPoint is a ContactPoint.
type ContactPoint struct {
	System string  `json:"system"`
	Value  string  `json:"value"`
	Use    string  `json:"use"`
	Rank   int     `json:"rank"`
	Period *Period `json:"period"`
}

// Address is an Address.
type Address struct {
	Use        string   `json:"use"`
	Type       string   `json:"type"`
	Text       string   `json:"text"`
	Line       []string `json:"line"`
	City       string   `json:"city"`
	District   string   `json:"district"`
	State      string   `json:"state"`
	PostalCode string   `json:"postalCode"`
	Country    string   `json:"country"`
	Period     *Period  `json:"period"`
}

// Quantity is a Quantity, SimpleQuantity, Age or Duration.
type Quantity struct {
	Extension    []Extension `json:"extension"`
	Value        json.Number `json:"value"`
	ValueElement *Element    `json:"_value"`
	Comparator   string      `json:"comparator"`
	Unit         string      `json:"unit"`
	System       string      `json:"system"`
	Code         string      `json:"code"`
}

// Range is a Range.
type Range struct {
	Low  *Quantity `json:"low"`
	High *Quantity `json:"high"`
}

// Ratio is a Ratio.
type Ratio struct {
	Numerator   *Quantity `json:"numerator"`
	Denominator *Quantity `json:"denominator"`
}

// Annotation is an Annotation.
type Annotation struct {
	Text string `json:"text"`
}

// Timing is a Timing.
type Timing struct {
	Event  []string        `json:"event"`
	Repeat *TimingRepeat   `json:"repeat"`
	Code   CodeableConcept `json:"code"`
}

// TimingRepeat is Timing.repeat.
type TimingRepeat struct {
	Count        json.Number `json:"count"`
	Frequency    json.Number `json:"frequency"`
	FrequencyMax json.Number `json:"frequencyMax"`
	Period       json.Number `json:"period"`
	PeriodMax    json.Number `json:"periodMax"`
	PeriodUnit   string      `json:"periodUnit"`
	DayOfWeek    []string    `json:"dayOfWeek"`
	TimeOfDay    []string    `json:"timeOfDay"`
	When         []string    `json:"when"`
}

// Dosage is a Dosage.
type Dosage struct {
	Text                    string           `json:"text"`
	Timing                  *Timing          `json:"timing"`
	AsNeededBoolean         *bool            `json:"asNeededBoolean"`
	AsNeededCodeableConcept *CodeableConcept `json:"asNeededCodeableConcept"`
	Route                   CodeableConcept  `json:"route"`
	DoseAndRate             []DoseAndRate    `json:"doseAndRate"`
}

// DoseAndRate is Dosage.doseAndRate.
type DoseAndRate struct {
	DoseQuantity *Quantity `json:"doseQuantity"`
	DoseRange    *Range    `json:"doseRange"`
}

package mappings

import "github.com/cura-health/ehr-sync/internal/cura"

// The resources as they are written. Package r4 has the same elements for reading, where nothing may be left out; here everything
// that isn't set is left out, since R4 forbids empty elements.

type outResource struct {
	ResourceType string          `json:"resourceType"`
	ID           string          `json:"id,omitempty"`
	Meta         outMeta         `json:"meta"`
	Text         *outNarrative   `json:"text,omitempty"`
	Identifier   []outIdentifier `json:"identifier"`
}

type outMeta struct {
	Security []outCoding `json:"security,omitempty"`
	Tag      []outCoding `json:"tag"`
}

type outNarrative struct {
	Status string `json:"status"`
	Div    string `json:"div"`
}

type outIdentifier struct {
	System string `json:"system"`
	Value  string `json:"value"`
}

type outCoding struct {
	System       string `json:"system,omitempty"`
	Version      string `json:"version,omitempty"`
	Code         string `json:"code,omitempty"`
	Display      string `json:"display,omitempty"`
	UserSelected bool   `json:"userSelected,omitempty"`
}

type outConcept struct {
	Coding []outCoding `json:"coding,omitempty"`
	Text   string      `json:"text,omitempty"`
}

type outReference struct {
	Reference string `json:"reference,omitempty"`
	Display   string `json:"display,omitempty"`
}

type outPeriod struct {
	Start string `json:"start,omitempty"`
	End   string `json:"end,omitempty"`
}

type outAnnotation struct {
	Text string `json:"text"`
}

type outDocument struct {
	outResource

	Status        string          `json:"status"`
	DocStatus     string          `json:"docStatus"`
	Type          outConcept      `json:"type"`
	Category      []outConcept    `json:"category"`
	Subject       outReference    `json:"subject"`
	Date          string          `json:"date"`
	Author        []outReference  `json:"author"`
	RelatesTo     []outRelatesTo  `json:"relatesTo,omitempty"`
	Description   string          `json:"description,omitempty"`
	SecurityLabel []outConcept    `json:"securityLabel,omitempty"`
	Content       []outContent    `json:"content"`
	Context       *outDocumentCtx `json:"context,omitempty"`
}

type outRelatesTo struct {
	Code   string       `json:"code"`
	Target outReference `json:"target"`
}

type outContent struct {
	Attachment outAttachment `json:"attachment"`
}

type outAttachment struct {
	ContentType string `json:"contentType,omitempty"`
	Data        []byte `json:"data,omitempty"`
	Size        int    `json:"size,omitempty"`
	Hash        []byte `json:"hash,omitempty"`
	Title       string `json:"title,omitempty"`
}

type outDocumentCtx struct {
	Encounter []outReference `json:"encounter,omitempty"`
	Period    *outPeriod     `json:"period,omitempty"`
}

type outCondition struct {
	outResource

	ClinicalStatus     *outConcept     `json:"clinicalStatus,omitempty"`
	VerificationStatus outConcept      `json:"verificationStatus"`
	Category           []outConcept    `json:"category,omitempty"`
	Code               outConcept      `json:"code"`
	Subject            outReference    `json:"subject"`
	Encounter          *outReference   `json:"encounter,omitempty"`
	OnsetDateTime      string          `json:"onsetDateTime,omitempty"`
	RecordedDate       string          `json:"recordedDate"`
	Recorder           outReference    `json:"recorder"`
	Note               []outAnnotation `json:"note,omitempty"`
}

type outProcedure struct {
	outResource

	Status            string          `json:"status"`
	Code              outConcept      `json:"code"`
	Subject           outReference    `json:"subject"`
	Encounter         *outReference   `json:"encounter,omitempty"`
	PerformedDateTime string          `json:"performedDateTime,omitempty"`
	Recorder          outReference    `json:"recorder"`
	Note              []outAnnotation `json:"note,omitempty"`
}

type outConsent struct {
	outResource

	Status     string        `json:"status"`
	Scope      outConcept    `json:"scope"`
	Category   []outConcept  `json:"category"`
	Patient    outReference  `json:"patient"`
	DateTime   string        `json:"dateTime"`
	PolicyRule outConcept    `json:"policyRule"`
	Provision  *outProvision `json:"provision,omitempty"`
}

type outProvision struct {
	Type string `json:"type"`
}

func codeOf(system, code string) outConcept {
	return outConcept{Coding: []outCoding{{System: system, Code: code}}}
}

func outConceptOf(c cura.Concept) outConcept {
	out := outConcept{Text: c.Text}
	for _, coding := range c.Codings {
		out.Coding = append(out.Coding, outCoding(coding))
	}
	return out
}

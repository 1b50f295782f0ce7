package mappings

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fhir/r4"
)

// readBack is what ContentHash reads of a resource of any of the four types.
type readBack struct {
	ResourceType       string               `json:"resourceType"`
	Status             string               `json:"status"`
	VerificationStatus r4.CodeableConcept   `json:"verificationStatus"`
	Type               r4.CodeableConcept   `json:"type"`
	Code               r4.CodeableConcept   `json:"code"`
	Category           []r4.CodeableConcept `json:"category"`
	OnsetDateTime      string               `json:"onsetDateTime"`
	PerformedDateTime  string               `json:"performedDateTime"`
	DateTime           string               `json:"dateTime"`
	PolicyRule         r4.CodeableConcept   `json:"policyRule"`
	Provision          struct {
		Type string `json:"type"`
	} `json:"provision"`
	Content []struct {
		Attachment struct {
			Data string `json:"data"`
			URL  string `json:"url"`
		} `json:"attachment"`
	} `json:"content"`
}

// said is what a resource says, as it is hashed. Lists are sorted and hold everything once.
type said struct {
	Type        string   `json:"type"`
	Withdrawn   bool     `json:"withdrawn"`
	Codes       []string `json:"codes"`
	Categories  []string `json:"categories"`
	Date        string   `json:"date"`
	Attachments []string `json:"attachments"`
	// State is a Consent's status with the type and the number of its rule: a consent event says nothing else.
	State string `json:"state"`
}

// ContentHash identifies what a written resource says, for the read-back at servers that store no identifier. It is the same for
// Outbound's body and for what a server makes of it by adding or leaving out ids, meta, identifiers, narrative and author, by
// another order, another spelling of base64, line ends, time zones or fractions of a second, or OIDs for code systems. It covers:
//
//   - of a DocumentReference the codes of its type and the decoded bytes of its attachments;
//   - of a Condition and a Procedure their codes, categories, and onset or performed date;
//   - of a Consent its categories, date, status and rule;
//   - of each whether it is entered-in-error.
//
// Other statuses aren't covered, because servers set their own (DOMAIN §4, Epic's provisional): versions that differ in them
// alone share a hash. So leave out the resources that the ledger ties to another version, and settle an update by its version id.
// A hash says nothing about whose resource it is: compare within one patient.
//
// The error is always a *RejectedError: for other types, for what can't be decoded, and for an attachment that is a URL, whose
// bytes must be read and put in as data first.
func ContentHash(resource []byte) ([32]byte, error) {
	var r readBack
	m := mapper{}
	if err := json.Unmarshal(resource, &r); err != nil {
		m.reject(fieldOf(err), "the JSON isn't well formed, or isn't of the kind that belongs here")
		return [32]byte{}, &RejectedError{Reasons: m.reasons}
	}
	s := said{Type: r.ResourceType, Withdrawn: r.Status == "entered-in-error"}
	switch r.ResourceType {
	case "DocumentReference":
		m.typ = cura.ResourceType(r.ResourceType)
		s.Codes = codeNames(r.Type)
		s.Attachments = m.attachments(r)
	case "Condition":
		s.Withdrawn = slices.ContainsFunc(r.VerificationStatus.Coding, func(c r4.Coding) bool { return c.Code == "entered-in-error" })
		s.Codes, s.Categories, s.Date = codeNames(r.Code), codeNames(r.Category...), canonicalMoment(r.OnsetDateTime)
	case "Procedure":
		s.Codes, s.Categories, s.Date = codeNames(r.Code), codeNames(r.Category...), canonicalMoment(r.PerformedDateTime)
	case "Consent":
		s.Categories, s.Date = codeNames(r.Category...), canonicalMoment(r.DateTime)
		s.State = strings.Join([]string{r.Status, r.Provision.Type, r.PolicyRule.Text}, "\n")
	default:
		m.reject("resourceType", "Cura writes no resources of this type")
	}
	if len(m.reasons) > 0 {
		return [32]byte{}, &RejectedError{Type: m.typ, Reasons: m.reasons}
	}
	text, err := json.Marshal(s)
	if err != nil {
		return [32]byte{}, &RejectedError{Type: m.typ, Reasons: []Reason{{Text: "can't be written as JSON"}}}
	}
	return sha256.Sum256(text), nil
}

// codeNames names the codes of concepts: those with a code, else the texts.
func codeNames(concepts ...r4.CodeableConcept) []string {
	var out []string
	for _, c := range concepts {
		codes := 0
		for _, coding := range c.Coding {
			if coding.Code != "" {
				codes++
				out = append(out, canonicalSystem(coding.System)+"|"+coding.Code)
			}
		}
		if codes == 0 && c.Text != "" {
			out = append(out, c.Text)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// canonicalSystem gives the URL of a system that a server names by its OID.
func canonicalSystem(system string) string {
	for _, form := range codeForms() {
		if form.oid == system {
			return form.system
		}
	}
	return system
}

// canonicalMoment writes a date as it is, and a time as its second in UTC: servers write it in their own zone and cut fractions.
func canonicalMoment(text string) string {
	at, ok := parseMoment(text)
	if !ok || at.OffsetMinutes == nil {
		return text
	}
	return at.Start.Format(time.RFC3339) // which has no fractions
}

// attachments gives the hashes of a document's attachments.
func (m *mapper) attachments(r readBack) []string {
	var out []string
	for i, content := range r.Content {
		path := m.path(at("content", i) + ".attachment.")
		a := content.Attachment
		if a.Data == "" && a.URL != "" {
			m.reject(path+"url", "the document is elsewhere: read it and put it in as data")
			continue
		}
		data, err := decodeBase64(a.Data)
		if err != nil {
			m.reject(path+"data", "isn't base64")
			continue
		}
		sum := sha256.Sum256(normalLineEnds(data))
		out = append(out, hex.EncodeToString(sum[:]))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// decodeBase64 takes white space in it and missing padding, too (R4 §2.24.0.1, base64Binary).
func decodeBase64(text string) ([]byte, error) {
	text = strings.TrimRight(strings.Join(strings.Fields(text), ""), "=")
	return base64.RawStdEncoding.DecodeString(text)
}

// normalLineEnds writes line ends of text as \n. A PDF is no text: its bytes stay.
func normalLineEnds(data []byte) []byte {
	if bytes.HasPrefix(data, []byte(pdfMagic)) {
		return data
	}
	return bytes.ReplaceAll(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")), []byte("\r"), []byte("\n"))
}

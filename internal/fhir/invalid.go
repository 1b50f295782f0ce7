package fhir

import "strings"

// Code is the kind of a validation issue, from a closed list.
type Code string

// The kinds of issue.
const (
	CodeJSON           Code = "json"
	CodeEncoding       Code = "encoding"
	CodeDepth          Code = "depth"
	CodeSize           Code = "size"
	CodeDuplicate      Code = "duplicate-member"
	CodeResourceType   Code = "resource-type"
	CodeUnknownElement Code = "unknown-element"
	CodeModifier       Code = "modifier"
	CodeRequired       Code = "required"
	CodeCardinality    Code = "cardinality"
	CodeChoice         Code = "choice"
	CodeKind           Code = "kind"
	CodeBinding        Code = "binding"
	CodeReference      Code = "reference"
	CodeReferenceType  Code = "reference-type"
	CodeDate           Code = "date"
	CodeDateTime       Code = "date-time"
	CodeInstant        Code = "instant"
	CodeTime           Code = "time"
	CodeBoolean        Code = "boolean"
	CodeDecimal        Code = "decimal"
	CodeInteger        Code = "integer"
	CodeString         Code = "string"
	CodeCode           Code = "code"
	CodeID             Code = "id"
	CodeURI            Code = "uri"
	CodeBase64         Code = "base64"
	CodeInvalid        Code = "invalid"
)

// Words says in words what is wrong.
func (c Code) Words() string {
	switch c {
	case CodeJSON:
		return "the JSON isn't well formed"
	case CodeEncoding:
		return "text isn't clean UTF-8: a control character, a lone surrogate or a broken byte"
	case CodeDepth:
		return "nested too deep"
	case CodeSize:
		return "too long"
	case CodeDuplicate:
		return "has a member twice"
	case CodeResourceType:
		return "resourceType is missing or isn't one of R4"
	case CodeUnknownElement:
		return "has a member that R4 doesn't know here"
	case CodeModifier:
		return "changes the meaning of the resource in a way that Cura doesn't know"
	case CodeRequired:
		return "required but missing"
	case CodeCardinality:
		return "must be a list, as long as its extensions"
	case CodeChoice:
		return "has more than one value[x]"
	case CodeKind:
		return "isn't of the JSON kind that belongs here"
	case CodeBinding:
		return "isn't a code of the required value set"
	case CodeReference:
		return "isn't a reference that R4 knows"
	case CodeReferenceType:
		return "refers to a type of resource that isn't allowed here"
	case CodeDate, CodeDateTime, CodeInstant, CodeTime, CodeBoolean, CodeDecimal, CodeInteger, CodeString, CodeCode, CodeID,
		CodeURI, CodeBase64:
		return "isn't a valid " + string(c)
	case CodeInvalid:
	}
	return "invalid"
}

// Issue is one thing that is wrong with a resource.
type Issue struct {
	// Path names the element, such as Patient.contact[0].name; empty for the resource as a whole.
	Path string
	Code Code
}

// String gives path and words, and no value.
func (i Issue) String() string {
	if i.Path == "" {
		return "the resource: " + i.Code.Words()
	}
	return i.Path + ": " + i.Code.Words()
}

// InvalidError says why a resource isn't valid R4. Its text holds element paths and kinds of fault, and no value, so it may be
// shown, logged and audited.
type InvalidError struct {
	// Issues is never empty. It is sorted by path and holds twenty at most.
	Issues []Issue
}

// Error lists the issues.
func (e *InvalidError) Error() string {
	texts := make([]string, len(e.Issues))
	for i, issue := range e.Issues {
		texts[i] = issue.String()
	}
	return "not a valid R4 resource: " + strings.Join(texts, "; ")
}

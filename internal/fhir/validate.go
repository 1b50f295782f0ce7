package fhir

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/google/fhir/go/fhirversion"
	"github.com/google/fhir/go/jsonformat"
)

// Validator checks resources against the structure of R4: elements, cardinalities, primitive formats, required bindings
// and the types of references. It checks neither invariants (FHIRPath), nor profiles such as US Core, nor terminology
// beyond required bindings. One serves any number of goroutines; it remembers what it has found valid.
type Validator struct {
	format *jsonformat.Unmarshaller
	names  map[string]struct{}
	memory *memory // nil: google/fhir is asked about everything
}

// NewValidator builds a Validator. It takes some milliseconds: build one and share it.
func NewValidator() (*Validator, error) {
	v, err := NewForgetfulValidator()
	if err == nil {
		v.memory = newMemory()
	}
	return v, err
}

// NewForgetfulValidator builds a Validator that remembers nothing and asks google/fhir about every byte. Its verdicts are the
// same, and cost many times more: tests and benchmarks compare the two.
func NewForgetfulValidator() (*Validator, error) {
	format, err := jsonformat.NewUnmarshaller("UTC", fhirversion.R4)
	if err != nil {
		return nil, fmt.Errorf("building the R4 validator: %w", err)
	}
	format.MaxNestingDepth = MaxDepth
	return &Validator{format: format, names: elementNames()}, nil
}

// Validate reports whether raw is a valid R4 resource. The error is always an *InvalidError. Beyond what the structure of
// R4 asks, it refuses what must not be ignored and Cura doesn't know (modifierExtension and implicitRules, R4 §2.4 and
// §2.26.3.3), and what a database or another parser would take differently: members named twice, control characters and
// lone surrogates in strings, numbers of unreasonable length, nesting deeper than MaxDepth.
//
// It is more lenient in three places. Resource.id may be whatever IsID takes: longer than 64 characters, as at Epic, or with underscores. meta.versionId may be any
// text: it is opaque to Cura. And a resource that is entered-in-error may lack required elements, as masked ones do: it must
// still reach the row that it withdraws.
func (v *Validator) Validate(raw []byte) error {
	nulls, issues := v.check(raw)
	if len(issues) > 0 {
		return &InvalidError{Issues: tidy(issues)}
	}
	if len(nulls) > 0 {
		issues = v.structure(withoutNulls(raw, nulls))
	} else {
		issues = v.remembered(raw)
	}
	if issues = tidy(issues); len(issues) > 0 {
		issues = tolerate(raw, issues)
	}
	if len(issues) > 0 {
		return &InvalidError{Issues: issues}
	}
	return nil
}

// remembered is structure for what isn't remembered of the resource.
func (v *Validator) remembered(raw []byte) []Issue {
	if v.memory == nil {
		return v.structure(raw)
	}
	resource, ok := memorise(raw)
	if !ok {
		return v.structure(raw)
	}
	missing, sameNames := v.memory.missing(resource)
	switch {
	case sameNames && len(missing) == 0:
		return nil
	case sameNames && len(v.structure(v.memory.onlyMissing(resource, missing))) == 0:
		v.memory.remember(resource, missing)
		return nil
	}
	whole := raw
	if resource.oddID {
		whole = v.memory.onlyMissing(resource, resource.parts)
	}
	issues := v.structure(whole)
	switch {
	case len(issues) == 0:
		v.memory.remember(resource, resource.parts)
	case resource.oddID:
		issues = v.structure(raw)
	}
	return issues
}

// structure runs google/fhir over the resource.
func (v *Validator) structure(raw []byte) (issues []Issue) {
	defer func() {
		// jsonformat walks descriptors by reflection; a panic there is a fault of this one resource.
		if recover() != nil {
			issues = []Issue{{Path: pathOfRoot(raw), Code: CodeInvalid}}
		}
	}()
	if _, err := v.format.Unmarshal(raw); err != nil {
		issues = translate(err.Error(), pathOfRoot(raw))
	}
	return issues
}

// withoutNulls writes an empty object in place of each null in a list. A null there stands for a primitive that has only
// extensions (R4 §2.6.2.3): jsonformat knows such a primitive as an object, and refuses the null.
func withoutNulls(raw []byte, nulls []int) []byte {
	if len(nulls) == 0 {
		return raw
	}
	raw = bytes.Clone(raw)
	for _, at := range nulls {
		copy(raw[at:], "{}  ")
	}
	return raw
}

// maxIssues caps how many issues of one resource are told.
const maxIssues = 20

// tidy sorts issues, since jsonformat gives them in any order, and drops repeats and what is above maxIssues.
func tidy(issues []Issue) []Issue {
	slices.SortFunc(issues, func(a, b Issue) int {
		if c := strings.Compare(a.Path, b.Path); c != 0 {
			return c
		}
		return strings.Compare(string(a.Code), string(b.Code))
	})
	issues = slices.Compact(issues)
	return issues[:min(len(issues), maxIssues)]
}

// tolerate drops the issues that Validate is lenient about, and jsonformat's error about codes that have extensions and no
// value, which R4 allows for every primitive (§2.24.0).
func tolerate(raw []byte, issues []Issue) []Issue {
	head, err := Head(raw)
	if err != nil {
		return issues
	}
	id := Issue{Path: head.Type + ".id", Code: CodeID}
	version := Issue{Path: head.Type + ".meta.versionId", Code: CodeID}
	withdrawn := enteredInError(raw)
	return slices.DeleteFunc(issues, func(i Issue) bool {
		switch {
		case i == id && head.ID != "":
			return IsID(head.ID)
		case i == version:
			return head.VersionID != ""
		case i.Code == CodeCode || i.Code == CodeID || i.Code == CodeURI:
			return onlyExtended(raw, i.Path)
		}
		return withdrawn && i.Code == CodeRequired && strings.Count(i.Path, ".") == 1
	})
}

// onlyExtended reports whether the primitive that a path of jsonformat's leads to has no value but extensions.
func onlyExtended(raw []byte, path string) bool {
	var value any
	if json.Unmarshal(raw, &value) != nil {
		return false
	}
	steps := strings.Split(path, ".")[1:]
	for i := 0; i < len(steps); i++ {
		object, _ := value.(map[string]any)
		name, index, listed := strings.Cut(strings.TrimSuffix(steps[i], "]"), "[")
		if _, ok := object[name]; !ok && i+1 < len(steps) {
			// The kind of a choice is a step of its own: value.codeableConcept is valueCodeableConcept.
			i++
			next, at, ok := strings.Cut(strings.TrimSuffix(steps[i], "]"), "[")
			if next == "" {
				return false
			}
			name += strings.ToUpper(next[:1]) + next[1:]
			index, listed = at, ok
		}
		if i == len(steps)-1 && !listed {
			_, hasValue := object[name]
			_, isExtended := object["_"+name]
			return isExtended && !hasValue
		}
		if value = object[name]; listed {
			list, _ := value.([]any)
			n, err := strconv.Atoi(index)
			if err != nil || n >= len(list) {
				return false
			}
			value = list[n]
		}
	}
	return value == nil
}

// enteredInError reads a resource's status or verificationStatus.
func enteredInError(raw []byte) bool {
	const code = "entered-in-error"
	found := false
	s := scanner{data: raw}
	_ = s.object(func(key, value []byte) {
		switch string(key) {
		case "status":
			found = found || textOf(value) == code
		case "verificationStatus":
			found = found || strings.Contains(string(value), `"`+code+`"`)
		}
	})
	return found
}

// reported matches one line of jsonformat's errors. Its details are fixed texts with element and type names in them; the
// values lie in a field that isn't printed. Even so only their kind is taken over.
var reported = regexp.MustCompile(`^error at "([^"\\]*)": (.*)$`)

// kinds maps the beginnings of jsonformat's texts to codes; the first that fits counts.
var kinds = []struct {
	prefix string
	code   Code
}{
	{"missing required field \"resourceType\"", CodeResourceType},
	{"missing required field", CodeRequired},
	{"unknown field", CodeUnknownElement},
	{"unknown resource type", CodeResourceType},
	{"invalid resource type", CodeResourceType},
	{"invalid reference to a", CodeReferenceType},
	{"invalid reference", CodeReference},
	{"cannot accept multiple values", CodeChoice},
	{"code type mismatch", CodeBinding},
	{"expected array", CodeCardinality},
	{"array length mismatch", CodeCardinality},
	{"field exceeded the maximum nesting depth", CodeDepth},
	{"string exceeds maximum size", CodeSize},
	{"string contains invalid characters", CodeEncoding},
	{"expected UTF-8 encoding", CodeEncoding},
	{"invalid JSON", CodeKind},
	{"invalid extension field", CodeKind},
	{"invalid field", CodeUnknownElement},
	{"expected datetime", CodeDateTime},
	{"expected date", CodeDate},
	{"expected instant", CodeInstant},
	{"invalid time", CodeTime},
	{"expected boolean", CodeBoolean},
	{"expected decimal", CodeDecimal},
	{"expected binary data", CodeBase64},
	{"expected integer", CodeInteger},
	{"expected positive integer", CodeInteger},
	{"invalid positive integer", CodeInteger},
	{"invalid non-negative integer", CodeInteger},
	{"non-negative integer out of range", CodeInteger},
	{"expected code", CodeCode},
	{"invalid Code format", CodeCode},
	{"expected ID", CodeID},
	{"invalid Id format", CodeID},
	{"expected string", CodeString},
	{"expected markdown", CodeString},
	{"expected xhtml", CodeString},
	{"expected OID", CodeURI},
	{"invalid Oid format", CodeURI},
	{"expected UUID", CodeURI},
	{"invalid Uuid format", CodeURI},
	{"expected ur", CodeURI},
	{"expected canonical", CodeURI},
	{"invalid ur", CodeURI},
	{"invalid canonical", CodeURI},
}

// named finds the element name in texts such as: missing required field "code".
var named = regexp.MustCompile(`^missing required field "([A-Za-z0-9]+)"$`)

// translate turns jsonformat's text into issues in our own words. root stands in where it names no path.
func translate(text, root string) []Issue {
	var issues []Issue
	for line := range strings.SplitSeq(text, "\n") {
		issue := Issue{Path: root, Code: CodeInvalid}
		detail := line
		if m := reported.FindStringSubmatch(line); m != nil {
			issue.Path, detail = elementPath(m[1]), m[2]
		}
		for _, k := range kinds {
			if strings.HasPrefix(detail, k.prefix) {
				issue.Code = k.code
				break
			}
		}
		if issue.Code == CodeResourceType {
			// The path ends with what the resource calls itself, which may be anything.
			issue.Path = issue.Path[:max(strings.LastIndexByte(issue.Path, '.'), 0)]
		}
		if m := named.FindStringSubmatch(detail); m != nil && issue.Code == CodeRequired {
			issue.Path += "." + m[1]
		}
		issues = append(issues, issue)
	}
	return issues
}

// printable matches the paths that jsonformat makes of R4's element names and list positions.
var printable = regexp.MustCompile(`^[A-Za-z0-9_.\[\]]{0,300}$`)

// elementPath gives a path that may be printed, without the steps that are jsonformat's own.
func elementPath(path string) string {
	if !printable.MatchString(path) {
		return ""
	}
	return strings.ReplaceAll(path, ".choice", "")
}

// pathOfRoot is the resource's type, where it is one.
func pathOfRoot(raw []byte) string {
	if head, err := Head(raw); err == nil && isResourceType(head.Type) {
		return head.Type
	}
	return ""
}

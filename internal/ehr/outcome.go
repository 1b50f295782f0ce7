package ehr

import (
	"encoding/json"
	"io"
	"regexp"
	"slices"
	"strings"
)

const (
	maxOutcome = 256 << 10
	// maxIssues and maxPaths keep error texts short.
	maxIssues = 5
	maxPaths  = 3
)

// issue is what may be told of one OperationOutcome.issue. Its diagnostics and details are not even decoded: they hold
// names and identifiers in plain words.
type issue struct {
	Severity   string   `json:"severity"`
	Code       string   `json:"code"`
	Expression []string `json:"expression"`
}

type issues []issue

// readIssues reads an OperationOutcome; it gives none for any other body.
func readIssues(body io.Reader) issues {
	var outcome struct {
		ResourceType string `json:"resourceType"`
		Issue        issues `json:"issue"`
	}
	err := json.NewDecoder(io.LimitReader(body, maxOutcome)).Decode(&outcome)
	if err != nil || outcome.ResourceType != "OperationOutcome" {
		return nil
	}
	return outcome.Issue
}

func (list issues) have(codes ...string) bool {
	return slices.ContainsFunc(list, func(i issue) bool { return slices.Contains(codes, i.Code) })
}

// failed reports whether the outcome is about an error, not only a remark.
func (list issues) failed() bool {
	return slices.ContainsFunc(list, func(i issue) bool { return i.Severity == "fatal" || i.Severity == "error" })
}

// elementPath is a path without predicates or strings, which could hold values.
var elementPath = regexp.MustCompile(`^[A-Z][A-Za-z]+(\.[a-z][A-Za-z]*(\[\d{1,4}\])?)+$`)

// text names codes, severities and the element paths inside a resource of type typ: the parts that come from closed
// lists or have the form of a path of that type.
func (list issues) text(typ string) string {
	var parts []string
	for _, i := range list {
		if !knownIssueCode(i.Code) {
			continue
		}
		part := "issue " + i.Code
		if slices.Contains([]string{"fatal", "error", "warning", "information"}, i.Severity) {
			part += " (" + i.Severity + ")"
		}
		var paths []string
		for _, path := range i.Expression {
			if len(paths) < maxPaths && len(path) <= 200 && strings.HasPrefix(path, typ+".") && elementPath.MatchString(path) {
				paths = append(paths, path)
			}
		}
		if len(paths) > 0 {
			part += " at " + strings.Join(paths, ", ")
		}
		if parts = append(parts, part); len(parts) == maxIssues {
			break
		}
	}
	return strings.Join(parts, "; ")
}

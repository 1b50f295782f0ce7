package ehr

import (
	"slices"
	"strings"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// Scope is one SMART resource scope, in the form of SMART App Launch 2.x; scopes of version 1 are read into it.
type Scope struct {
	// Context is patient, user or system.
	Context string
	// Type is a FHIR resource type, or * for all.
	Type string
	// Permissions are letters of "cruds", in that order: create, read, update, delete, search.
	Permissions string
	// Params is the query that narrows the grant, such as category=laboratory; empty for the whole type.
	Params string
}

// The permissions that a pull needs of each type, and those that a push needs.
const (
	ActionRead   = "read"
	ActionSearch = "search"
	ActionCreate = "create"
	ActionUpdate = "update"
)

// ParseScope reads (patient|user|system)/(Type|*).(permissions)[?params]: version 2's letters, or version 1's read, write
// and *, which mean rs, cud and cruds. It gives false for anything else, such as openid or offline_access.
func ParseScope(text string) (Scope, bool) {
	context, rest, ok := strings.Cut(text, "/")
	if !ok || !slices.Contains([]string{"patient", "user", "system"}, context) {
		return Scope{}, false
	}
	rest, params, _ := strings.Cut(rest, "?")
	typ, permissions, ok := strings.Cut(rest, ".")
	if !ok || (typ != "*" && !typeName(typ)) {
		return Scope{}, false
	}
	switch permissions {
	case "read":
		permissions = "rs"
	case "write":
		permissions = "cud"
	case "*":
		permissions = "cruds"
	}
	if !orderedLetters(permissions) {
		return Scope{}, false
	}
	return Scope{Context: context, Type: typ, Permissions: permissions, Params: params}, true
}

// orderedLetters reports whether text is some letters of cruds in that order, as the specification demands.
func orderedLetters(text string) bool {
	rest := "cruds"
	for _, letter := range text {
		at := strings.IndexRune(rest, letter)
		if at < 0 {
			return false
		}
		rest = rest[at+1:]
	}
	return text != ""
}

// String is version 2's spelling without Params, whose values could name a patient.
func (s Scope) String() string {
	text := s.Context + "/" + s.Type + "." + s.Permissions
	if s.Params != "" {
		text += " (in part)"
	}
	return text
}

// Covers reports whether the scope lets a backend service do that to resources of type typ: at least to some of them,
// where Params narrow it.
func (s Scope) Covers(typ cura.ResourceType, action string) bool {
	letters := map[string]string{ActionRead: "r", ActionSearch: "s", ActionCreate: "c", ActionUpdate: "u"}
	letter, ok := letters[action]
	return ok && s.Context == "system" && (s.Type == "*" || s.Type == string(typ)) && strings.Contains(s.Permissions, letter)
}

// includes reports whether everything that other grants is granted by s too.
func (s Scope) includes(other Scope) bool {
	if s.Context != other.Context || (s.Type != "*" && s.Type != other.Type) || (s.Params != "" && s.Params != other.Params) {
		return false
	}
	return !strings.ContainsFunc(other.Permissions, func(r rune) bool { return !strings.ContainsRune(s.Permissions, r) })
}

// writesAll reports whether the scope allows changes to every type: system/*.*, system/*.cruds, system/*.write.
func (s Scope) writesAll() bool { return s.Type == "*" && strings.ContainsAny(s.Permissions, "cud") }

func parseScopes(texts []string) []Scope {
	var scopes []Scope
	for _, text := range texts {
		if s, ok := ParseScope(text); ok {
			scopes = append(scopes, s)
		}
	}
	return scopes
}

// typeName reports whether text is spelled like a FHIR resource type; the specification's longest has 33 letters.
func typeName(text string) bool {
	if text == "" || len(text) > 64 || text[0] < 'A' || text[0] > 'Z' {
		return false
	}
	return !strings.ContainsFunc(text, func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') })
}

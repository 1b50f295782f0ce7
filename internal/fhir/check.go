package fhir

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	apb "github.com/google/fhir/go/proto/google/fhir/proto/annotations_go_proto"
	rpb "github.com/google/fhir/go/proto/google/fhir/proto/r4/core/resources/bundle_and_contained_resource_go_proto"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// check looks at what jsonformat lets pass or would take another way than Cura's own decoding does. It gives the offsets of
// the nulls in lists, too.
func (v *Validator) check(raw []byte) (nulls []int, issues []Issue) {
	if !utf8.Valid(raw) {
		return nil, []Issue{{Code: CodeEncoding}}
	}
	c := checker{in: scanner{data: raw}, names: v.names}
	err := c.value(1)
	switch {
	case errors.Is(err, errTooDeep):
		c.report(CodeDepth)
	case err != nil || !c.in.end():
		return nil, []Issue{{Code: CodeJSON}}
	}
	if len(c.issues) > 0 {
		// The root of the paths is known only now.
		root := pathOfRoot(raw)
		for i := range c.issues {
			c.issues[i].Path = root + c.issues[i].Path
		}
	}
	return c.nulls, c.issues
}

type checker struct {
	in     scanner
	names  map[string]struct{}
	path   []step
	seen   []string // the names of the members of the objects that are open
	nulls  []int    // where lists hold null
	issues []Issue
}

// step is one part of a path: a member's name, or a position where name is empty.
type step struct {
	name  string
	index int
}

func (c *checker) report(code Code) {
	if len(c.issues) < maxIssues {
		c.issues = append(c.issues, Issue{Path: c.where(), Code: code})
	}
}

// where prints the path below the resource. Names that aren't R4's are withheld: they could be anything.
func (c *checker) where() string {
	var b strings.Builder
	for _, s := range c.path[:min(len(c.path), 30)] {
		if s.name == "" {
			b.WriteString("[" + strconv.Itoa(s.index) + "]")
			continue
		}
		b.WriteByte('.')
		if _, known := c.names[strings.TrimPrefix(s.name, "_")]; known {
			b.WriteString(s.name)
		} else {
			b.WriteByte('?')
		}
	}
	return b.String()
}

func (c *checker) value(depth int) error {
	if depth > MaxDepth {
		return errTooDeep
	}
	b, err := c.in.peek()
	if err != nil {
		return err
	}
	switch b {
	case '{':
		return c.object(depth)
	case '[':
		return c.array(depth)
	case '"':
		inner, escaped, err := c.in.str()
		if escaped && !storable(inner) {
			c.report(CodeEncoding)
		}
		return err
	default:
		word, err := c.in.scalar()
		if !reasonable(word) {
			c.report(CodeDecimal)
		}
		return err
	}
}

func (c *checker) array(depth int) error {
	empty, err := c.in.open('[', ']')
	for i, more := 0, !empty; more && err == nil; i++ {
		c.path = append(c.path, step{index: i})
		if b, _ := c.in.peek(); b == 'n' {
			c.nulls = append(c.nulls, c.in.pos)
		}
		if err := c.value(depth + 1); err != nil {
			return err
		}
		c.path = c.path[:len(c.path)-1]
		more, err = c.in.more(']')
	}
	return err
}

func (c *checker) object(depth int) error {
	empty, err := c.in.open('{', '}')
	first := len(c.seen)
	for more := !empty; more && err == nil; {
		var inner []byte
		var escaped bool
		if inner, escaped, err = c.in.key(); err != nil {
			return err
		}
		name := unescape(inner, escaped)
		c.path = append(c.path, step{name: name})
		c.member(name, c.seen[first:])
		c.seen = append(c.seen, name)
		if err := c.value(depth + 1); err != nil {
			return err
		}
		c.path = c.path[:len(c.path)-1]
		more, err = c.in.more('}')
	}
	c.seen = c.seen[:first]
	return err
}

// maxMembers is how many members an object may have; R4's largest has fewer than fifty.
const maxMembers = 500

// member looks at the name of a member.
func (c *checker) member(name string, before []string) {
	switch {
	case name == "modifierExtension" || name == "implicitRules" || name == "_implicitRules":
		c.report(CodeModifier)
	case len(before) >= maxMembers:
		c.report(CodeSize)
		return
	case name == "" || 'A' <= name[0] && name[0] <= 'Z' || strings.HasPrefix(name, "_") && (len(name) == 1 || name[1] <= 'Z'):
		// jsonformat takes BirthDate for birthDate; R4's names are case-sensitive (R4 §2.6.2).
		c.report(CodeUnknownElement)
	}
	if slices.Contains(before, name) {
		c.report(CodeDuplicate)
	}
}

// storable reports whether an escaped string decodes to text that R4 allows (§2.24.0.1, string) and a database keeps.
func storable(inner []byte) bool {
	for len(inner) > 0 {
		r, n := nextRune(inner)
		if r >= 0 && (r < ' ' && r != '\t' && r != '\n' && r != '\r' || utf16.IsSurrogate(r)) {
			return false
		}
		inner = inner[n:]
	}
	return true
}

// reasonable reports whether a number has digits and an exponent that every party can hold. FHIR decimals have up to 18
// digits (R4 §2.24.0.1); PostgreSQL's numeric overflows at an exponent of 131,072.
func reasonable(number []byte) bool {
	const maxDigits, maxExponent = 64, 400
	if len(number) > maxDigits {
		return false
	}
	for i, b := range number {
		if (b == 'e' || b == 'E') && len(number) > i+1 && number[0] != 't' && number[0] != 'f' {
			exp, err := strconv.Atoi(string(number[i+1:]))
			return err == nil && -maxExponent <= exp && exp <= maxExponent
		}
	}
	return true
}

// elementNames collects the JSON names of all elements of R4's resources.
func elementNames() map[string]struct{} {
	names := map[string]struct{}{"resourceType": {}, "modifierExtension": {}, "implicitRules": {}}
	visited := map[protoreflect.FullName]bool{}
	var visit func(m protoreflect.MessageDescriptor)
	visit = func(m protoreflect.MessageDescriptor) {
		if visited[m.FullName()] {
			return
		}
		visited[m.FullName()] = true
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			names[f.JSONName()] = struct{}{}
			inner := f.Message()
			if inner == nil {
				continue
			}
			if isChoice, _ := proto.GetExtension(inner.Options(), apb.E_IsChoiceType).(bool); isChoice {
				for j := range inner.Fields().Len() {
					kind := inner.Fields().Get(j).JSONName()
					names[f.JSONName()+strings.ToUpper(kind[:1])+kind[1:]] = struct{}{}
				}
			}
			visit(inner)
		}
	}
	visit((&rpb.ContainedResource{}).ProtoReflect().Descriptor())
	return names
}

// isResourceType reports whether name is a resource type of R4.
func isResourceType(name string) bool {
	fields := (&rpb.ContainedResource{}).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if string(fields.Get(i).Message().Name()) == name {
			return true
		}
	}
	return false
}

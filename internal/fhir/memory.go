package fhir

import (
	"crypto/sha256"
	"strings"
	"sync"

	apb "github.com/google/fhir/go/proto/google/fhir/proto/annotations_go_proto"
	rpb "github.com/google/fhir/go/proto/google/fhir/proto/r4/core/resources/bundle_and_contained_resource_go_proto"
	"google.golang.org/protobuf/proto"
)

// memory remembers what google/fhir has found valid, so that it isn't asked again: a hospital sends the same codes, units
// and reference ranges a million times.
//
// google/fhir decides about a member of a resource by the member's name and value alone; what it decides about the resource
// as a whole (required elements there, one kind of a choice) it decides by the names of the members. So a resource is valid
// when a valid one had members of just these names, and each member was in a valid resource of the type before, in this
// form. What isn't remembered is given to google/fhir: the members that are new, or the whole resource. What it refuses is
// never remembered, so that every verdict of "invalid", and its reasons, are google/fhir's on the resource as it came.
//
// A form is a member with its name, in which what is different in each resource and all the same to google/fhir is written as
// one: see formOf. Two primitives side by side ("x" and "_x"), contained resources and nulls are left to google/fhir.
type memory struct {
	// required names the elements that each type must have, as "Observation.status"; of a choice, every kind.
	required map[string]bool

	mu sync.Mutex
	// young and old hold the digests of forms. When young is full it becomes old, and what old held is forgotten unless it
	// was met since.
	young, old map[digest]struct{}
	// stand holds one valid value of each required element: it stands in for remembered ones when google/fhir is asked about
	// the others.
	stand map[string][]byte
}

type digest [16]byte

const (
	// maxForms is how many forms each half of the memory holds: some megabytes together.
	maxForms = 1 << 15
	// maxForm is the size in bytes of a member above which it isn't worth remembering: it won't come again.
	maxForm = 8 << 10
	// maxMemorable is the size in bytes of a resource above which memory isn't asked.
	maxMemorable = 1 << 20
)

func newMemory() *memory {
	return &memory{required: requiredElements(), young: map[digest]struct{}{}, stand: map[string][]byte{}}
}

// memorable is a resource that memory can speak about.
type memorable struct {
	typ string
	// names is the digest of the names of all members.
	names digest
	parts []part
	// oddID is set where the id is none of R4's and Validate lets it pass (IsID): its part has an id of R4's instead.
	oddID bool
}

// part is one member of a resource.
type part struct {
	name, value []byte
	form        digest
	// once is set for what is too large to be remembered.
	once bool
}

// memorise takes a resource apart. It gives false for one that memory can't speak about.
func memorise(raw []byte) (memorable, bool) {
	if len(raw) > maxMemorable {
		return memorable{}, false
	}
	m := memorable{parts: make([]part, 0, 24)}
	names, scratch := make([]byte, 0, 512), make([]byte, 0, 2048)
	fits := true
	s := scanner{data: raw}
	err := s.object(func(name, value []byte) {
		if m.typ == "" {
			if string(name) == "resourceType" {
				m.typ = textOf(value)
			} else if head, err := Head(raw); err == nil {
				m.typ = head.Type
			}
			names = append(names, m.typ...)
		}
		p := part{name: name, value: value, once: len(value) > maxForm}
		if id := textOf(value); string(name) == "id" && IsID(id) && !isR4ID([]byte(id)) {
			p.value, m.oddID = []byte(`"0"`), true
		}
		if name[0] == '_' || value[0] == 'n' || string(name) == "contained" {
			fits = false
			return
		}
		names = append(append(names, 0), name...)
		if !p.once {
			scratch = append(append(append(append(scratch[:0], m.typ...), 0), name...), 0)
			scratch = formOf(scratch, string(name), p.value)
			p.form = digestOf(scratch)
		}
		m.parts = append(m.parts, p)
	})
	m.names = digestOf(names)
	return m, fits && err == nil && m.typ != ""
}

func digestOf(form []byte) digest {
	sum := sha256.Sum256(form)
	return digest(sum[:len(digest{})])
}

// missing gives the members that aren't remembered, and whether the names of all members are.
func (m *memory) missing(r memorable) (parts []part, sameNames bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.has(r.names) {
		return nil, false
	}
	for _, p := range r.parts {
		if p.once || !m.has(p.form) {
			parts = append(parts, p)
		}
	}
	return parts, true
}

// has looks a form up and keeps it from being forgotten.
func (m *memory) has(form digest) bool {
	if _, ok := m.young[form]; ok {
		return true
	}
	_, ok := m.old[form]
	if ok {
		m.add(form)
	}
	return ok
}

func (m *memory) add(form digest) {
	if len(m.young) >= maxForms {
		m.young, m.old = make(map[digest]struct{}, maxForms), m.young
	}
	m.young[form] = struct{}{}
}

// remember takes over that google/fhir has found parts valid, which are r's members or those of them that were missing.
func (m *memory) remember(r memorable, parts []part) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.add(r.names)
	for _, p := range parts {
		if p.once {
			continue
		}
		m.add(p.form)
		element := r.typ + "." + string(p.name)
		if known, ok := m.stand[element]; m.required[element] && (!ok || len(p.value) < len(known)) {
			m.stand[element] = append([]byte(nil), p.value...)
		}
	}
}

// onlyMissing writes a resource of r's missing members, with stand-ins for the required ones that are remembered.
func (m *memory) onlyMissing(r memorable, missing []part) []byte {
	out := make([]byte, 0, 1024)
	out = append(append(append(out, `{"resourceType":"`...), r.typ...), '"')
	member := func(name string, value []byte) {
		out = append(append(out, `,"`...), name...)
		out = append(append(out, `":`...), value...)
	}
	asked := make(map[string]bool, len(missing))
	for _, p := range missing {
		if name := string(p.name); name != "resourceType" {
			asked[name] = true
			member(name, p.value)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range r.parts {
		if name := string(p.name); !asked[name] && m.required[r.typ+"."+name] {
			member(name, m.stand[r.typ+"."+name])
		}
	}
	return append(out, '}')
}

// requiredElements reads from google/fhir's own descriptors which elements each resource type must have.
func requiredElements() map[string]bool {
	required := map[string]bool{}
	resources := (&rpb.ContainedResource{}).ProtoReflect().Descriptor().Fields()
	for i := range resources.Len() {
		resource := resources.Get(i).Message()
		for j := range resource.Fields().Len() {
			f := resource.Fields().Get(j)
			if need, _ := proto.GetExtension(f.Options(), apb.E_ValidationRequirement).(apb.Requirement); need != apb.Requirement_REQUIRED_BY_FHIR {
				continue
			}
			element := string(resource.Name()) + "." + f.JSONName()
			required[element] = true
			if isChoice, _ := proto.GetExtension(f.Message().Options(), apb.E_IsChoiceType).(bool); isChoice {
				for k := range f.Message().Fields().Len() {
					kind := f.Message().Fields().Get(k).JSONName()
					required[element+strings.ToUpper(kind[:1])+kind[1:]] = true
				}
			}
		}
	}
	return required
}

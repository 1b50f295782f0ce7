package fhir

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"unicode/utf16"
	"unicode/utf8"
)

// Hash gives the content hash of a resource: SHA-256 of its canonical JSON. Canonical means members sorted by name,
// no white space, and strings written without needless escapes; numbers keep their digits, so 5.4 and 5.40 differ, as they
// do in FHIR (R4 §2.24.0.1, decimal). What servers change without changing the content is left out: meta.versionId,
// meta.lastUpdated and meta.source. The error says that raw isn't well-formed JSON or is nested deeper than MaxDepth.
func Hash(raw []byte) ([32]byte, error) {
	var c canonicaliser
	return c.hash(raw)
}

// canonicaliser writes canonical JSON. Its buffers serve one resource after another.
type canonicaliser struct {
	in      scanner
	out     []byte
	scratch []byte
	members []span
}

// span is one written member of an object, without the comma after it.
type span struct{ start, keyEnd, end int }

func (c *canonicaliser) hash(raw []byte) ([32]byte, error) {
	c.in = scanner{data: raw}
	c.out = c.out[:0]
	c.members = c.members[:0]
	if err := c.value(1, levelResource); err != nil {
		return [32]byte{}, err
	}
	if !c.in.end() {
		return [32]byte{}, errMalformed
	}
	return sha256.Sum256(c.out), nil
}

// level says which members of an object are left out.
type level int

const (
	levelResource level = iota // the resource itself: an empty meta
	levelMeta                  // its meta: what moves without the content
	levelInner                 // everything else: nothing
)

func (c *canonicaliser) value(depth int, at level) error {
	if depth > MaxDepth {
		return errTooDeep
	}
	b, err := c.in.peek()
	if err != nil {
		return err
	}
	switch b {
	case '{':
		return c.object(depth, at)
	case '[':
		return c.array(depth)
	case '"':
		return c.str()
	default:
		word, err := c.in.scalar()
		c.out = append(c.out, word...)
		return err
	}
}

func (c *canonicaliser) array(depth int) error {
	empty, err := c.in.open('[', ']')
	c.out = append(c.out, '[')
	for more := !empty; more && err == nil; {
		if err := c.value(depth+1, levelInner); err != nil {
			return err
		}
		if more, err = c.in.more(']'); more {
			c.out = append(c.out, ',')
		}
	}
	c.out = append(c.out, ']')
	return err
}

func (c *canonicaliser) object(depth int, at level) error {
	empty, err := c.in.open('{', '}')
	if err != nil {
		return err
	}
	first := len(c.members)
	c.out = append(c.out, '{')
	body := len(c.out)
	for more := !empty; more; {
		if err := c.member(depth, at); err != nil {
			return err
		}
		if more, err = c.in.more('}'); err != nil {
			return err
		}
	}
	c.sort(first, body)
	if len(c.members) > first {
		c.out = c.out[:len(c.out)-1] // the last comma
	}
	c.members = c.members[:first]
	c.out = append(c.out, '}')
	return nil
}

// member writes one member and its comma, or nothing where it is left out.
func (c *canonicaliser) member(depth int, at level) error {
	m := span{start: len(c.out)}
	if err := c.str(); err != nil {
		return err
	}
	m.keyEnd = len(c.out)
	if err := c.in.expect(':'); err != nil {
		return err
	}
	c.out = append(c.out, ':')
	key := string(c.out[m.start+1 : m.keyEnd-1])
	within := levelInner
	if at == levelResource && key == "meta" {
		within = levelMeta
	}
	if err := c.value(depth+1, within); err != nil {
		return err
	}
	m.end = len(c.out)
	if (within == levelMeta && string(c.out[m.keyEnd+1:]) == "{}") || (at == levelMeta && moves(key)) {
		c.out = c.out[:m.start]
		return nil
	}
	c.out = append(c.out, ',')
	c.members = append(c.members, m)
	return nil
}

// moves reports whether a member of meta changes although the content doesn't.
func moves(key string) bool {
	switch key {
	case "versionId", "lastUpdated", "source", "_versionId", "_lastUpdated", "_source":
		return true
	}
	return false
}

// sort puts the members that were written since first, and that fill the output from body on, in the order of their names.
// Members of the same name keep their order.
func (c *canonicaliser) sort(first, body int) {
	members := c.members[first:]
	byName := func(a, b span) int {
		return bytes.Compare(c.out[a.start:a.keyEnd], c.out[b.start:b.keyEnd])
	}
	if slices.IsSortedFunc(members, byName) {
		return
	}
	slices.SortStableFunc(members, byName)
	c.scratch = c.scratch[:0]
	for _, m := range members {
		c.scratch = append(c.scratch, c.out[m.start:m.end]...)
		c.scratch = append(c.scratch, ',')
	}
	copy(c.out[body:], c.scratch)
}

// str writes a string with only quotes, backslashes, control characters and lone surrogates escaped.
func (c *canonicaliser) str() error {
	inner, escaped, err := c.in.str()
	if err != nil {
		return err
	}
	c.out = append(c.out, '"')
	if !escaped {
		c.out = append(append(c.out, inner...), '"')
		return nil
	}
	for len(inner) > 0 {
		r, n := nextRune(inner)
		switch {
		case r < 0:
			c.out = append(c.out, inner[0])
		case r == '"' || r == '\\':
			c.out = append(c.out, '\\', byte(r))
		case r < ' ' || utf16.IsSurrogate(r):
			const hex = "0123456789abcdef"
			c.out = append(c.out, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
		default:
			c.out = utf8.AppendRune(c.out, r)
		}
		inner = inner[n:]
	}
	c.out = append(c.out, '"')
	return nil
}

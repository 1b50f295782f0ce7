package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
)

// field is one member of a JSON object that is written in its order.
type field struct {
	key   string
	value any
}

// obj is a JSON object with the order of its members kept, so that the same seed gives the same bytes. Members whose
// value is nil are left out.
type obj []field

// list is a JSON array.
type list []any

// MarshalJSON writes the members in their order.
func (o obj) MarshalJSON() ([]byte, error) { return encode(o) }

// encode writes a value as compact JSON without escaping <, > and &.
func encode(v any) ([]byte, error) { return appendJSON(make([]byte, 0, 1024), v) }

func appendJSON(dst []byte, v any) ([]byte, error) {
	var err error
	switch v := v.(type) {
	case obj:
		dst = append(dst, '{')
		first := true
		for _, f := range v {
			if f.value == nil {
				continue
			}
			if !first {
				dst = append(dst, ',')
			}
			first = false
			dst = append(appendQuoted(dst, f.key), ':')
			if dst, err = appendJSON(dst, f.value); err != nil {
				return nil, err
			}
		}
		return append(dst, '}'), nil
	case list:
		dst = append(dst, '[')
		for i, item := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			if dst, err = appendJSON(dst, item); err != nil {
				return nil, err
			}
		}
		return append(dst, ']'), nil
	case string:
		return appendQuoted(dst, v), nil
	default:
		raw, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("writing JSON: %w", err)
		}
		return append(dst, raw...), nil
	}
}

// bundle writes a Bundle by hand, so that the resources in it keep their own bytes.
type bundle struct {
	head    bytes.Buffer
	links   []byte
	entries *bytes.Buffer
	err     error
}

// entryBuffers are reused: a page is up to a megabyte.
type entryBuffers struct{ sync.Pool }

func (p *entryBuffers) take() *bytes.Buffer {
	b, ok := p.Get().(*bytes.Buffer)
	if !ok {
		return new(bytes.Buffer)
	}
	b.Reset()
	return b
}

func (p *entryBuffers) give(b *bytes.Buffer) {
	if b.Cap() <= 4<<20 { // one oversized page must not stay for ever
		p.Put(b)
	}
}

// match adds one entry that was searched for; base is the address of its type, ending in a slash.
func (b *bundle) match(base, id string, raw []byte) {
	e := b.entries
	if e.Len() > 0 {
		e.WriteByte(',')
	}
	e.WriteString(`{"fullUrl":"`)
	e.WriteString(base)
	e.WriteString(id)
	e.WriteString(`","resource":`)
	e.Write(raw)
	e.WriteString(`,"search":{"mode":"match"}}`)
}

func newBundle(typ string, entries *bytes.Buffer) *bundle {
	b := &bundle{entries: entries}
	b.head.WriteString(`{"resourceType":"Bundle","type":"` + typ + `"`)
	return b
}

func (b *bundle) total(n int) { b.head.WriteString(`,"total":` + strconv.Itoa(n)) }

func (b *bundle) link(relation, url string) {
	b.links = appendItem(b.links, b.encode(obj{{"relation", relation}, {"url", url}}))
}

// entry adds one entry; raw may be nil. The extra members come in pairs of name and value.
func (b *bundle) entry(fullURL string, raw []byte, name string, value obj, more ...any) {
	if b.entries.Len() > 0 {
		b.entries.WriteByte(',')
	}
	b.entries.WriteByte('{')
	if fullURL != "" {
		b.entries.WriteString(`"fullUrl":`)
		b.entries.Write(quote(fullURL))
		b.entries.WriteByte(',')
	}
	if raw != nil {
		b.entries.WriteString(`"resource":`)
		b.entries.Write(raw)
		b.entries.WriteByte(',')
	}
	b.entries.Write(quote(name))
	b.entries.WriteByte(':')
	b.entries.Write(b.encode(value))
	for i := 0; i+1 < len(more); i += 2 {
		if key, ok := more[i].(string); ok {
			b.entries.WriteByte(',')
			b.entries.Write(quote(key))
			b.entries.WriteByte(':')
			b.entries.Write(b.encode(more[i+1]))
		}
	}
	b.entries.WriteByte('}')
}

func (b *bundle) encode(v any) []byte {
	raw, err := encode(v)
	if err != nil && b.err == nil {
		b.err = err
	}
	return raw
}

func (b *bundle) write(w http.ResponseWriter) {
	if b.err != nil {
		broken(b.err).write(w)
		return
	}
	parts := [][]byte{b.head.Bytes(), []byte(`,"link":[`), b.links, []byte(`]`)}
	if b.entries.Len() > 0 { // R4 §2.6.2: an array is never empty
		parts = append(parts, []byte(`,"entry":[`), b.entries.Bytes(), []byte(`]`))
	}
	parts = append(parts, []byte("}"))
	size := 0
	for _, part := range parts {
		size += len(part)
	}
	w.Header().Set("Content-Type", fhirJSON)
	w.Header().Set("Content-Length", strconv.Itoa(size)) // no chunks to frame
	w.WriteHeader(http.StatusOK)
	for _, part := range parts {
		if _, err := w.Write(part); err != nil {
			return // the client is gone
		}
	}
}

func appendItem(list, item []byte) []byte {
	if len(list) > 0 {
		list = append(list, ',')
	}
	return append(list, item...)
}

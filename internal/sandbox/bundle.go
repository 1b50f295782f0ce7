package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
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
func encode(v any) ([]byte, error) { return appendJSON(nil, v) }

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
			dst = append(append(dst, quote(f.key)...), ':')
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
		return append(dst, quote(v)...), nil
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
	entries bytes.Buffer
	err     error
}

func (b *bundle) begin(typ string) {
	b.head.WriteString(`{"resourceType":"Bundle","type":"` + typ + `"`)
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
	w.Header().Set("Content-Type", fhirJSON)
	w.WriteHeader(http.StatusOK)
	parts := [][]byte{b.head.Bytes(), []byte(`,"link":[`), b.links, []byte(`]`)}
	if b.entries.Len() > 0 { // R4 §2.6.2: an array is never empty
		parts = append(parts, []byte(`,"entry":[`), b.entries.Bytes(), []byte(`]`))
	}
	for _, part := range append(parts, []byte("}")) {
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

package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// The functions here edit JSON text in place of decoding and encoding it again: a resource keeps its own bytes, and a
// decimal such as 5.40 its digits (FHIR R4 §2.24.0.1: precision is significant). All of them expect valid JSON.

// span is a half-open range of bytes.
type span struct{ start, end int }

// within moves a span of a part to where the part stands in the whole.
func (s span) within(outer span) span { return span{s.start + outer.start, s.end + outer.start} }

// member is one "key": value of a JSON object.
type member struct {
	key   string
	whole span // from the key's opening quote to the value's end
	value span
}

// members lists what a JSON object holds, in its order; nil when raw is no object.
func members(raw []byte) []member {
	var out []member
	eachMember(raw, func(key []byte, whole, value span) bool {
		if out == nil {
			out = make([]member, 0, 16)
		}
		out = append(out, member{textOf(key), whole, value})
		return true
	})
	return out
}

// eachMember calls fn for each member of a JSON object with its quoted key, until fn says false.
func eachMember(raw []byte, fn func(key []byte, whole, value span) bool) {
	i := skipSpace(raw, 0)
	if i >= len(raw) || raw[i] != '{' {
		return
	}
	i = skipSpace(raw, i+1)
	for i < len(raw) && raw[i] == '"' {
		keyEnd := skipString(raw, i)
		valueStart := skipSpace(raw, skipSpace(raw, keyEnd)+1) // over the colon
		valueEnd := skipValue(raw, valueStart)
		if !fn(raw[i:keyEnd], span{i, valueEnd}, span{valueStart, valueEnd}) {
			return
		}
		i = skipSpace(raw, valueEnd)
		if i < len(raw) && raw[i] == ',' {
			i = skipSpace(raw, i+1)
		}
	}
}

// elements lists the values of a JSON array; nil when raw is no array.
func elements(raw []byte) []span {
	i := skipSpace(raw, 0)
	if i >= len(raw) || raw[i] != '[' {
		return nil
	}
	var out []span
	i = skipSpace(raw, i+1)
	for i < len(raw) && raw[i] != ']' {
		end := skipValue(raw, i)
		out = append(out, span{i, end})
		i = skipSpace(raw, end)
		if i < len(raw) && raw[i] == ',' {
			i = skipSpace(raw, i+1)
		}
	}
	return out
}

// find says where the value of a member of an object stands.
func find(raw []byte, key string) (at span, ok bool) {
	eachMember(raw, func(quoted []byte, _, value span) bool {
		plain := len(quoted) == len(key)+2 && string(quoted[1:len(quoted)-1]) == key
		if plain || bytes.IndexByte(quoted, '\\') >= 0 && textOf(quoted) == key {
			at, ok = value, true
		}
		return !ok
	})
	return at, ok
}

// get is the value of a member of an object, nil when it has none.
func get(raw []byte, key string) json.RawMessage {
	if at, ok := find(raw, key); ok {
		return raw[at.start:at.end]
	}
	return nil
}

// getText is the value of a member that is a string, "" when there is none.
func getText(raw []byte, key string) string {
	return textOf(get(raw, key))
}

// set gives a new object in which key has the value. A new member stands behind the first of the members named by
// after that is there, else at the front.
func set(raw []byte, key string, value []byte, after ...string) []byte {
	all := members(raw)
	for _, m := range all {
		if m.key == key {
			return splice(raw, m.value, value)
		}
	}
	quoted := append(quote(key), ':')
	quoted = append(quoted, value...)
	for _, name := range after {
		for _, m := range all {
			if m.key == name {
				return splice(raw, span{m.whole.end, m.whole.end}, append([]byte{','}, quoted...))
			}
		}
	}
	if len(all) > 0 {
		quoted = append(quoted, ',')
	}
	front := bytes.IndexByte(raw, '{') + 1
	return splice(raw, span{front, front}, quoted)
}

// drop gives a new object without the member.
func drop(raw []byte, key string) []byte {
	all := members(raw)
	at := slices.IndexFunc(all, func(m member) bool { return m.key == key })
	switch {
	case at < 0:
		return raw
	case at+1 < len(all):
		return splice(raw, span{all[at].whole.start, all[at+1].whole.start}, nil)
	case at > 0:
		return splice(raw, span{all[at-1].whole.end, all[at].whole.end}, nil)
	default:
		return splice(raw, all[at].whole, nil)
	}
}

// splice gives a new slice in which what stood at s is replaced.
func splice(raw []byte, s span, by []byte) []byte {
	out := make([]byte, 0, len(raw)-(s.end-s.start)+len(by))
	out = append(out, raw[:s.start]...)
	out = append(out, by...)
	return append(out, raw[s.end:]...)
}

// rewriteReferences gives raw with the string of every member named "reference", at any depth, put through to.
// It gives raw itself when nothing changed.
func rewriteReferences(raw []byte, to func(string) (string, bool)) []byte {
	var out []byte
	done := 0
	for i := 0; i < len(raw); {
		if raw[i] != '"' {
			i++
			continue
		}
		end := skipString(raw, i)
		isKey := bytes.Equal(raw[i:end], []byte(`"reference"`))
		i = end
		if !isKey {
			continue
		}
		colon := skipSpace(raw, end)
		if colon >= len(raw) || raw[colon] != ':' {
			continue
		}
		start := skipSpace(raw, colon+1)
		if start >= len(raw) || raw[start] != '"' {
			continue
		}
		i = skipString(raw, start)
		if target, ok := to(textOf(raw[start:i])); ok {
			out = append(out, raw[done:start]...)
			out = append(out, quote(target)...)
			done = i
		}
	}
	if done == 0 {
		return raw
	}
	return append(out, raw[done:]...)
}

// textOf decodes a JSON string, "" when raw is none.
func textOf(raw []byte) string {
	if len(raw) < 2 || raw[0] != '"' {
		return ""
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1])
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

// quote encodes a string as JSON without escaping <, > and &.
func quote(s string) []byte { return appendQuoted(make([]byte, 0, len(s)+2), s) }

func appendQuoted(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return appendEscaped(dst, s)
		}
	}
	return append(append(append(dst, '"'), s...), '"')
}

func appendEscaped(dst []byte, s string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil { // cannot happen: a string always encodes
		return append(dst, `""`...)
	}
	return append(dst, bytes.TrimRight(b.Bytes(), "\n")...)
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

func skipSpace(raw []byte, i int) int {
	for i < len(raw) && isSpace(raw[i]) {
		i++
	}
	return i
}

// skipString gives the index behind the string that begins at i.
func skipString(raw []byte, i int) int {
	for i++; i < len(raw); i++ {
		switch raw[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(raw)
}

// skipValue gives the index behind the value that begins at i.
func skipValue(raw []byte, i int) int {
	if i >= len(raw) {
		return len(raw)
	}
	switch raw[i] {
	case '"':
		return skipString(raw, i)
	case '{', '[':
		depth := 0
		for i < len(raw) {
			switch raw[i] {
			case '"':
				i = skipString(raw, i)
				continue
			case '{', '[':
				depth++
			case '}', ']':
				depth--
				if depth == 0 {
					return i + 1
				}
			}
			i++
		}
		return len(raw)
	default:
		for i < len(raw) && !isSpace(raw[i]) && raw[i] != ',' && raw[i] != ']' && raw[i] != '}' {
			i++
		}
		return i
	}
}

// syntaxError tells where JSON text is broken, as an offset, and why; (0, nil) when it is valid.
func syntaxError(raw []byte) (offset int, reason error) {
	if json.Valid(raw) {
		return 0, nil
	}
	var v any
	err := json.Unmarshal(raw, &v)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return max(0, int(syntax.Offset)-1), syntax
	}
	return 0, fmt.Errorf("reading JSON: %w", err)
}

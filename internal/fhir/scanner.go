package fhir

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner reads JSON that lies in memory, strictly by RFC 8259, without building anything.
type scanner struct {
	data []byte
	pos  int
}

func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// peek gives the next byte after white space.
func (s *scanner) peek() (byte, error) {
	s.space()
	if s.pos >= len(s.data) {
		return 0, errTruncated
	}
	return s.data[s.pos], nil
}

// expect consumes one byte after white space.
func (s *scanner) expect(want byte) error {
	b, err := s.peek()
	if err != nil {
		return err
	}
	if b != want {
		return errMalformed
	}
	s.pos++
	return nil
}

// more consumes what follows an element: a comma (true) or the closing byte (false).
func (s *scanner) more(closing byte) (bool, error) {
	b, err := s.peek()
	if err != nil {
		return false, err
	}
	s.pos++
	switch b {
	case ',':
		return true, nil
	case closing:
		return false, nil
	}
	return false, errMalformed
}

// open consumes the opening byte and, of an empty object or array, the closing one too (empty is true then).
func (s *scanner) open(opening, closing byte) (empty bool, err error) {
	if err := s.expect(opening); err != nil {
		return false, err
	}
	b, err := s.peek()
	if err != nil {
		return false, err
	}
	if b == closing {
		s.pos++
		return true, nil
	}
	return false, nil
}

// end reports whether nothing but white space is left.
func (s *scanner) end() bool {
	s.space()
	return s.pos == len(s.data)
}

// key consumes a member's name and colon.
func (s *scanner) key() (inner []byte, escaped bool, err error) {
	inner, escaped, err = s.str()
	if err != nil {
		return nil, false, err
	}
	return inner, escaped, s.expect(':')
}

// str consumes a string and gives the bytes between its quotes, and whether they hold escapes.
func (s *scanner) str() (inner []byte, escaped bool, err error) {
	if err := s.expect('"'); err != nil {
		return nil, false, err
	}
	start := s.pos
	for s.pos < len(s.data) {
		switch b := s.data[s.pos]; {
		case b == '"':
			inner = s.data[start:s.pos]
			s.pos++
			return inner, escaped, nil
		case b == '\\':
			escaped = true
			if s.pos+1 >= len(s.data) {
				return nil, false, errTruncated
			}
			switch s.data[s.pos+1] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
				s.pos += 2
			case 'u':
				if s.pos+6 > len(s.data) {
					return nil, false, errTruncated
				}
				if _, ok := hex4(s.data[s.pos+2:]); !ok {
					return nil, false, errMalformed
				}
				s.pos += 6
			default:
				return nil, false, errMalformed
			}
		case b < ' ':
			return nil, false, errMalformed
		default:
			s.pos++
		}
	}
	return nil, false, errTruncated
}

// scalar consumes a number, true, false or null.
func (s *scanner) scalar() ([]byte, error) {
	b, err := s.peek()
	if err != nil {
		return nil, err
	}
	for _, word := range [...]string{"true", "false", "null"} {
		if b == word[0] {
			if !bytes.HasPrefix(s.data[s.pos:], []byte(word)) {
				return nil, errMalformed
			}
			start := s.pos
			s.pos += len(word)
			return s.data[start:s.pos], nil
		}
	}
	n := numberLength(s.data[s.pos:])
	if n == 0 {
		return nil, errMalformed
	}
	start := s.pos
	s.pos += n
	return s.data[start:s.pos], nil
}

// numberLength gives how many bytes of data are a JSON number; 0 where it begins with none.
func numberLength(data []byte) int {
	digits := func(i int) int {
		for i < len(data) && '0' <= data[i] && data[i] <= '9' {
			i++
		}
		return i
	}
	i := 0
	if i < len(data) && data[i] == '-' {
		i++
	}
	whole := digits(i)
	if whole == i || (data[i] == '0' && whole > i+1) {
		return 0
	}
	i = whole
	if i < len(data) && data[i] == '.' {
		fraction := digits(i + 1)
		if fraction == i+1 {
			return 0
		}
		i = fraction
	}
	if i < len(data) && (data[i] == 'e' || data[i] == 'E') {
		exp := i + 1
		if exp < len(data) && (data[exp] == '+' || data[exp] == '-') {
			exp++
		}
		end := digits(exp)
		if end == exp {
			return 0
		}
		i = end
	}
	return i
}

// object consumes an object and hands over each member. Values are checked to be well formed.
func (s *scanner) object(member func(key, value []byte)) error {
	empty, err := s.open('{', '}')
	for more := !empty; more && err == nil; {
		var inner, value []byte
		var escaped bool
		if inner, escaped, err = s.key(); err != nil {
			break
		}
		if escaped {
			inner = []byte(unescape(inner, escaped))
		}
		s.space()
		start := s.pos
		err = s.skip(1)
		value = s.data[start:s.pos]
		// Also when the value is cut short: the part that is there may still hold a head.
		member(inner, value)
		if err == nil {
			more, err = s.more('}')
		}
	}
	return err
}

// skip consumes one value of any kind.
func (s *scanner) skip(depth int) error {
	if depth > MaxDepth {
		return errTooDeep
	}
	b, err := s.peek()
	if err != nil {
		return err
	}
	switch b {
	case '{', '[':
		closing := byte('}')
		if b == '[' {
			closing = ']'
		}
		empty, err := s.open(b, closing)
		for more := !empty; more && err == nil; {
			if b == '{' {
				if _, _, err = s.key(); err != nil {
					break
				}
			}
			if err = s.skip(depth + 1); err != nil {
				break
			}
			more, err = s.more(closing)
		}
		return err
	case '"':
		_, _, err := s.str()
		return err
	default:
		_, err := s.scalar()
		return err
	}
}

// unescape decodes what str gave.
func unescape(inner []byte, escaped bool) string {
	if !escaped {
		return string(inner)
	}
	out := make([]byte, 0, len(inner))
	for len(inner) > 0 {
		r, n := nextRune(inner)
		if r < 0 {
			out = append(out, inner[0])
		} else {
			out = utf8.AppendRune(out, r)
		}
		inner = inner[n:]
	}
	return string(out)
}

// nextRune decodes the first character of what str gave: a rune and the bytes that it takes up. The rune is negative for a
// byte that stands for itself, and a surrogate (U+D800 to U+DFFF) where an escape names one half of a pair alone.
func nextRune(inner []byte) (rune, int) {
	if inner[0] != '\\' {
		return -1, 1
	}
	switch inner[1] {
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r, _ := hex4(inner[2:])
		if utf16.IsSurrogate(r) && len(inner) >= 12 && inner[6] == '\\' && inner[7] == 'u' {
			low, _ := hex4(inner[8:])
			if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
				return pair, 12
			}
		}
		return r, 6
	default: // a quote, a backslash or a slash
		return rune(inner[1]), 2
	}
}

func hex4(data []byte) (rune, bool) {
	if len(data) < 4 {
		return 0, false
	}
	var r rune
	for _, b := range data[:4] {
		switch {
		case '0' <= b && b <= '9':
			r = r<<4 | rune(b-'0')
		case 'a' <= b && b <= 'f':
			r = r<<4 | rune(b-'a'+10)
		case 'A' <= b && b <= 'F':
			r = r<<4 | rune(b-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

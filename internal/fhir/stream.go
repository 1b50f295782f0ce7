package fhir

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"hash"
	"io"

	"github.com/cura-health/ehr-sync/internal/fault"
)

// capture holds the bytes of one value up to max, and counts and hashes the rest.
type capture struct {
	buf  []byte
	max  int64
	size int64
	over bool
	sum  hash.Hash
}

func (c *capture) write(p []byte) {
	c.size += int64(len(p))
	if c.over {
		c.sum.Write(p)
		return
	}
	if c.size <= c.max {
		c.buf = append(c.buf, p...)
		return
	}
	c.over = true
	c.sum = sha256.New()
	c.sum.Write(c.buf)
	c.sum.Write(p)
	// The beginning is kept for the head.
	c.buf = append(c.buf, p[:c.max-int64(len(c.buf))]...)
}

// stream reads JSON as it arrives. It never looks further ahead than its buffer.
type stream struct {
	r   io.Reader
	buf []byte
	pos int
	err error
	// tee, where set, receives everything consumed.
	tee  *capture
	open []byte
}

// fill makes at least one byte available.
func (s *stream) fill() error {
	for s.pos == len(s.buf) {
		if s.err != nil {
			return s.err
		}
		var n int
		n, s.err = s.r.Read(s.buf[:cap(s.buf)])
		s.buf, s.pos = s.buf[:n], 0
	}
	return nil
}

// gather fills the still empty buffer with n bytes, or with all there are.
func (s *stream) gather(n int) {
	for len(s.buf) < n && s.err == nil {
		var more int
		more, s.err = s.r.Read(s.buf[len(s.buf):cap(s.buf)])
		s.buf = s.buf[:len(s.buf)+more]
	}
}

// take consumes n bytes of the buffer into c, which may be nil.
func (s *stream) take(n int, c *capture) {
	part := s.buf[s.pos : s.pos+n]
	s.pos += n
	if c != nil {
		c.write(part)
	}
	if s.tee != nil {
		s.tee.write(part)
	}
}

// peek gives the next byte after white space.
func (s *stream) peek() (byte, error) {
	for {
		if err := s.fill(); err != nil {
			return 0, err
		}
		switch b := s.buf[s.pos]; b {
		case ' ', '\t', '\n', '\r':
			s.take(1, nil)
		default:
			return b, nil
		}
	}
}

// expect consumes one byte after white space.
func (s *stream) expect(want byte) error {
	b, err := s.peek()
	if err != nil {
		return err
	}
	if b != want {
		return brokenJSON()
	}
	s.take(1, nil)
	return nil
}

// begin skips a byte order mark and makes sure that a JSON object follows.
func (s *stream) begin() error {
	s.gather(512)
	if bytes.HasPrefix(s.buf, []byte("\xef\xbb\xbf")) {
		s.pos = 3
	}
	b, err := s.peek()
	if err != nil {
		return s.empty(err)
	}
	if b == '{' {
		return nil
	}
	return notBundle(s.describe(b), fixBaseURL)
}

func (*stream) empty(err error) error {
	if errors.Is(err, io.EOF) {
		return notBundle("an empty body", fixBaseURL)
	}
	return err
}

// describe says in words what came instead of a JSON object.
func (s *stream) describe(first byte) string {
	rest := bytes.ToLower(s.buf[s.pos:])
	switch {
	case first == '<' && (bytes.Contains(rest, []byte("<html")) || bytes.HasPrefix(rest, []byte("<!doctype html"))):
		return "HTML, such as a proxy's or a sign-on page"
	case first == '<':
		return "XML"
	case first == '[' || first == '"' || numberLength(rest) > 0:
		return "JSON but not an object"
	}
	return "something that isn't JSON"
}

// finish makes sure that nothing follows.
func (s *stream) finish() error {
	_, err := s.peek()
	switch {
	case err == nil:
		return notBundle("more after the end of the JSON object", fixBaseURL)
	case errors.Is(err, io.EOF):
		return nil
	}
	return err
}

// object reads an object; member must consume the value of each name. null is taken as an empty object.
func (s *stream) object(member func(key string) error) error {
	if isNull, err := s.null('{'); err != nil || isNull {
		return err
	}
	for first := true; ; first = false {
		done, err := s.next(first, '}')
		if err != nil || done {
			return err
		}
		name, err := s.small()
		if err != nil {
			return err
		}
		if len(name) == 0 || name[0] != '"' {
			return brokenJSON()
		}
		if err := s.expect(':'); err != nil {
			return err
		}
		if err := member(textOf(name)); err != nil {
			return err
		}
	}
}

// array reads an array; element must consume each value. null is taken as an empty array.
func (s *stream) array(element func() error) error {
	if isNull, err := s.null('['); err != nil || isNull {
		return err
	}
	for first := true; ; first = false {
		done, err := s.next(first, ']')
		if err != nil || done {
			return err
		}
		if err := element(); err != nil {
			return err
		}
	}
}

// null consumes the opening byte, or a null in its place.
func (s *stream) null(opening byte) (bool, error) {
	b, err := s.peek()
	if err != nil {
		return false, err
	}
	if b == 'n' {
		value, err := s.small()
		if err == nil && string(value) != "null" {
			err = brokenJSON()
		}
		return true, err
	}
	return false, s.expect(opening)
}

// next consumes the comma before an element, or the closing byte.
func (s *stream) next(first bool, closing byte) (done bool, err error) {
	b, err := s.peek()
	if err != nil {
		return false, err
	}
	if b == closing {
		s.take(1, nil)
		return true, nil
	}
	if first {
		return false, nil
	}
	return false, s.expect(',')
}

// small reads a value of at most maxMember bytes; a larger one is read past and given as nil.
func (s *stream) small() ([]byte, error) {
	c := capture{max: maxMember}
	if err := s.value(&c); err != nil {
		return nil, err
	}
	if c.over {
		return nil, nil
	}
	return c.buf, nil
}

// value reads one value of any kind into c. Of what is inside only strings and brackets are looked at.
func (s *stream) value(c *capture) error {
	b, err := s.peek()
	if err != nil {
		return err
	}
	switch b {
	case '{', '[', '"':
		return s.enclosed(c)
	case '}', ']', ',', ':':
		return brokenJSON()
	default:
		return s.bare(c)
	}
}

// bare reads a number or a word up to what ends it.
func (s *stream) bare(c *capture) error {
	for {
		if err := s.fill(); err != nil {
			return err
		}
		rest := s.buf[s.pos:]
		if n := bytes.IndexAny(rest, " \t\r\n,]}"); n >= 0 {
			s.take(n, c)
			return nil
		}
		s.take(len(rest), c)
	}
}

// enclosed reads an object, an array or a string up to its closing byte.
func (s *stream) enclosed(c *capture) error {
	s.open = s.open[:0]
	inString, escaped := false, false
	for {
		if err := s.fill(); err != nil {
			return err
		}
		for i, b := range s.buf[s.pos:] {
			switch {
			case escaped:
				escaped = false
			case inString:
				switch b {
				case '\\':
					escaped = true
				case '"':
					inString = false
				}
			case b == '"':
				inString = true
			case b == '{':
				s.open = append(s.open, '}')
			case b == '[':
				s.open = append(s.open, ']')
			case b == '}' || b == ']':
				last := len(s.open) - 1
				if s.open[last] != b {
					return brokenJSON()
				}
				s.open = s.open[:last]
			}
			if len(s.open) > maxOpen {
				return notBundle("JSON nested more than 10,000 levels deep", "Report it to the EHR's vendor")
			}
			if len(s.open) == 0 && !inString {
				s.take(i+1, c)
				return nil
			}
		}
		s.take(len(s.buf)-s.pos, c)
	}
}

// fault turns what went wrong into a fault.
func (*stream) fault(err error) error {
	var own yieldError
	var f *fault.Error
	switch {
	case errors.As(err, &own):
		return own.error
	case errors.As(err, &f):
		return err
	case errors.Is(err, io.EOF):
		return fault.New(opReadBundle, fault.Transient, "the body ends in the middle of the JSON")
	}
	return fault.Wrap(opReadBundle, fault.Transient, "the connection broke off in the middle of the body", err)
}

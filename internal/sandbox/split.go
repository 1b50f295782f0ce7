package sandbox

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// brokenError is where a data file is no JSON, or no FHIR.
type brokenError struct {
	line   int
	reason string
}

func (b brokenError) Error() string { return fmt.Sprintf("%d: %s", b.line, b.reason) }

// splitter cuts a file into its top-level JSON values, however they are laid out: one a line, pretty-printed over many
// lines, or one behind the other. Only the value at hand is in memory. After a broken place it goes on at the next line
// that begins a value, so that one start tells of all of them.
type splitter struct {
	in   *bufio.Reader
	line int // of what is read next, minus one

	value   []byte
	begin   int    // line on which value begins
	nesting []byte // the closing brackets still to come
	quoted  bool
	escaped bool
	// resync is set behind a broken place: what follows up to the next beginning of a value belongs to the broken one.
	resync bool
}

func newSplitter(r io.Reader) *splitter {
	return &splitter{in: bufio.NewReaderSize(r, 1<<16)}
}

// each calls value for each JSON value with its first line, and broken for each place that is none. It stops when
// either of them says false.
func (s *splitter) each(value func(raw []byte, line int) bool, broken func(brokenError) bool) error {
	for {
		text, err := s.in.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("reading the file: %w", err)
		}
		s.line++
		if !s.feed(text, value, broken) {
			return nil
		}
		if err != nil {
			break
		}
	}
	if len(s.value) > 0 {
		broken(brokenError{s.begin, "the JSON value that begins here is not closed before the file ends"})
	}
	return nil
}

// feed takes in one line.
func (s *splitter) feed(text []byte, value func([]byte, int) bool, broken func(brokenError) bool) bool {
	begins := len(text) > 0 && (text[0] == '{' || text[0] == '[')
	if begins && len(s.value) > 0 && !s.expectsValue() {
		at := brokenError{s.begin, fmt.Sprintf("the JSON value that begins here is not closed before line %d", s.line)}
		s.reset()
		if !broken(at) {
			return false
		}
	}
	if s.resync && !begins {
		return true
	}
	s.resync = false
	for _, c := range text {
		if len(s.value) == 0 {
			switch {
			case isSpace(c):
				continue
			case c == '{' || c == '[':
				s.begin = s.line
			default:
				s.resync = true
				return broken(brokenError{s.line, "something other than a JSON object or array stands between the values"})
			}
		}
		s.value = append(s.value, c)
		if reason := s.step(c); reason != "" {
			s.reset()
			s.resync = true
			return broken(brokenError{s.line, reason})
		}
		if len(s.nesting) > 0 {
			continue
		}
		raw, line := bytes.Clone(s.value), s.begin
		s.reset()
		if offset, err := syntaxError(raw); err != nil {
			s.resync = true
			return broken(brokenError{line + bytes.Count(raw[:offset], []byte("\n")), err.Error()})
		}
		if !value(raw, line) {
			return false
		}
	}
	return true
}

// step follows strings and brackets by one byte; it gives the reason when that byte cannot stand there.
func (s *splitter) step(c byte) string {
	if s.quoted {
		switch {
		case c == '\n':
			return "a string is not closed before the line ends"
		case s.escaped:
			s.escaped = false
		case c == '\\':
			s.escaped = true
		case c == '"':
			s.quoted = false
		}
		return ""
	}
	switch c {
	case '"':
		s.quoted = true
	case '{':
		s.nesting = append(s.nesting, '}')
	case '[':
		s.nesting = append(s.nesting, ']')
	case '}', ']':
		last := len(s.nesting) - 1
		if s.nesting[last] != c {
			return fmt.Sprintf("'%c' stands where '%c' should", c, s.nesting[last])
		}
		s.nesting = s.nesting[:last]
	}
	return ""
}

// expectsValue tells whether the value so far goes on with another value: behind a bracket, comma or colon.
func (s *splitter) expectsValue() bool {
	text := bytes.TrimRight(s.value, " \t\r\n")
	return bytes.ContainsAny(text[len(text)-1:], "[,:")
}

func (s *splitter) reset() {
	s.value, s.nesting, s.quoted, s.escaped = s.value[:0], s.nesting[:0], false, false
}

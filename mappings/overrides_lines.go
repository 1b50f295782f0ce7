package mappings

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3" //nolint:depguard // a site's file is YAML; it is read from memory, so a mapping still does no IO

	"github.com/cura-health/ehr-sync/internal/fault"
)

const (
	opOverrides = "reading the mapping overrides"
	// maxProblems is how many problems one error tells of.
	maxProblems = 50
)

// sheet is a YAML file while it is read. It collects everything that is wrong, by line.
type sheet struct {
	file     string
	problems []problem
}

type problem struct {
	line int
	text string
}

// wrong reports what is wrong with the field at path, which stands at a node.
func (s *sheet) wrong(n *yaml.Node, path, text string) {
	s.add(n.Line, strings.TrimPrefix(path+": "+text, ": "))
}

func (s *sheet) add(line int, text string) {
	// Keys and codes are as the file has them: they may hold anything.
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
	s.problems = append(s.problems, problem{max(line, 1), text})
}

// fault makes one of all the problems, by line; nil for none.
func (s *sheet) fault() error {
	if len(s.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(s.problems, func(a, b problem) int { return a.line - b.line })
	texts := make([]string, 0, len(s.problems))
	for i, p := range s.problems {
		if i == maxProblems {
			texts = append(texts, fmt.Sprintf("and %d more", len(s.problems)-maxProblems))
			break
		}
		texts = append(texts, fmt.Sprintf("%s:%d: %s", s.file, p.line, p.text))
	}
	return fault.New(opOverrides, fault.Config, strings.Join(texts, "; ")).
		WithFix("Correct the file; starter mapping check FILE looks it over again")
}

// lineOf is how the YAML library begins what it complains of.
var lineOf = regexp.MustCompile(`line (\d+): `)

// read gives the root of the one document that a file holds; nil where it can't be read.
func (s *sheet) read(text []byte) *yaml.Node {
	var root yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	err := decoder.Decode(&root)
	if errors.Is(err, io.EOF) {
		s.add(1, "the file is empty; starter mapping init prints one to begin with")
		return nil
	}
	if err == nil {
		var second yaml.Node
		if err = decoder.Decode(&second); err == nil {
			s.add(second.Line, "the file holds more than one document")
			return nil
		}
	}
	if !errors.Is(err, io.EOF) {
		// The library's own words repeat what is in the file.
		line := 1
		if found := lineOf.FindStringSubmatch(err.Error()); found != nil {
			line, _ = strconv.Atoi(found[1])
		}
		s.add(line, "the YAML can't be read from here on")
		return nil
	}
	return root.Content[0]
}

// utf8Line finds the line of the first byte that isn't UTF-8; ok is true where there is none. YAML may come as UTF-16 too, which would
// leave nothing to show again as it was set.
func utf8Line(text []byte) (line int, ok bool) {
	if utf8.Valid(text) {
		return 0, true
	}
	line = 1
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		if r == utf8.RuneError && size == 1 {
			break
		}
		if r == '\n' {
			line++
		}
		text = text[size:]
	}
	return line, false
}

// mustBe reports that a node is of another kind than it must be.
func (s *sheet) mustBe(n *yaml.Node, path, what string) {
	if n.Kind == yaml.AliasNode {
		s.wrong(n, path, "aliases aren't followed: write out what is meant")
		return
	}
	s.wrong(n, path, "must be "+what)
}

// keyed is one key of a group, with its value.
type keyed struct{ key, value *yaml.Node }

// members gives the keys of a group in their order, each once.
func (s *sheet) members(path string, n *yaml.Node) []keyed {
	if n.Kind != yaml.MappingNode {
		s.mustBe(n, path, "a group of keys")
		return nil
	}
	var out []keyed
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if line, twice := first[key.Value]; twice {
			s.wrong(key, below(path, key.Value), "stands already on line "+strconv.Itoa(line))
			continue
		}
		if key.Kind != yaml.ScalarNode {
			s.wrong(key, path, "a key must be a text")
			continue
		}
		first[key.Value] = key.Line
		out = append(out, keyed{key, n.Content[i+1]})
	}
	return out
}

// group gives the values of a group that has none but the known keys.
func (s *sheet) group(path string, n *yaml.Node, known ...string) map[string]*yaml.Node {
	out := map[string]*yaml.Node{}
	for _, m := range s.members(path, n) {
		if !slices.Contains(known, m.key.Value) {
			s.wrong(m.key, path, "there is no key "+quoted(m.key.Value)+" here; there are "+strings.Join(known, ", "))
			continue
		}
		out[m.key.Value] = m.value
	}
	return out
}

func (s *sheet) list(path string, n *yaml.Node) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		s.mustBe(n, path, "a list")
		return nil
	}
	return n.Content
}

// text gives a text that isn't empty, as it is written: a code such as 0012 keeps its zeros. Where it isn't one, that is reported,
// and it gives nothing. of is the group, which stands for a key that isn't there.
func (s *sheet) text(path string, of, n *yaml.Node) string {
	switch {
	case n == nil:
		s.wrong(of, path, "missing")
	case n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null":
		s.mustBe(n, path, "a text")
	case n.Value == "":
		s.wrong(n, path, "is empty")
	case !isLine(n.Value):
		s.wrong(n, path, lineText)
	default:
		return n.Value
	}
	return ""
}

// oneOf is text for one of the known words.
func (s *sheet) oneOf(path string, of, n *yaml.Node, known ...string) string {
	if n == nil {
		s.wrong(of, path, "missing: give one of "+strings.Join(known, ", "))
		return ""
	}
	text := s.text(path, of, n)
	if text != "" && !slices.Contains(known, text) {
		s.wrong(n, path, quoted(text)+" isn't one of "+strings.Join(known, ", "))
		return ""
	}
	return text
}

// below gives the path of a key of a group.
func below(path, key string) string { return strings.TrimPrefix(path+"."+key, ".") }

// quoted prints text of the file's, cut to a length that fits a line.
func quoted(text string) string {
	const most = 60
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	return strconv.Quote(text)
}

package profile

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/cura-health/ehr-sync/internal/fault"
)

// lines knows on which line each field of a file stands, and collects what is wrong with it.
type lines struct {
	file     string
	of       map[string]int
	on       map[int][]field
	problems []problem
}

// field is one field of the file, with the kind of its value as YAML tags it.
type field struct{ path, name, tag string }

type problem struct {
	line int
	text string
}

// index notes the lines of a node's fields, by their path from the root, and reports those that stand there twice: the
// library would report each pair of them. An alias is noted where it is used.
func (l *lines) index(path string, node *yaml.Node) {
	if l.of == nil {
		l.of, l.on = map[string]int{}, map[int][]field{}
	}
	below := func(name string, line int, value *yaml.Node) {
		at := strings.TrimPrefix(path+"."+name, ".")
		l.of[at] = line
		l.on[line] = append(l.on[line], field{path: at, name: name, tag: value.ShortTag()})
		l.index(at, value)
	}
	switch node.Kind {
	case yaml.MappingNode:
		first := map[string]int{}
		for i := 0; i+1 < len(node.Content); i += 2 {
			key := node.Content[i]
			if line, twice := first[key.Value]; twice {
				l.add(key.Line, strings.TrimPrefix(path+"."+key.Value, ".")+": it stands already on line "+strconv.Itoa(line))
				continue
			}
			first[key.Value] = key.Line
			below(key.Value, key.Line, node.Content[i+1])
		}
	case yaml.SequenceNode:
		for i, item := range node.Content {
			below(strconv.Itoa(i), item.Line, item)
		}
	case yaml.DocumentNode, yaml.ScalarNode, yaml.AliasNode:
	}
}

// field reports what is wrong with a field, on its own line or, where it is left out, on its parent's.
func (l *lines) field(path, text string) {
	line := 1
	for parent := path; parent != ""; {
		if found, ok := l.of[parent]; ok {
			line = found
			break
		}
		parent = parent[:max(strings.LastIndexByte(parent, '.'), 0)]
	}
	l.add(line, path+": "+text)
}

func (l *lines) add(line int, text string) {
	// Names of fields are as the file has them: they may hold anything.
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
	l.problems = append(l.problems, problem{line: max(line, 1), text: text})
}

var (
	lineOf       = regexp.MustCompile(`line (\d+): `)
	unknownField = regexp.MustCompile(`^field (.*) not found in type `)
	wrongKind    = regexp.MustCompile(`(?s)^cannot unmarshal (!!\w+) (?:.* )?into (\S+)$`)
)

// broken reports what the YAML library complains of, in our words: its own repeat values and names of Go types.
func (l *lines) broken(err error) {
	texts := []string{err.Error()}
	if typed, ok := errors.AsType[*yaml.TypeError](err); ok {
		texts = typed.Errors
	}
	for _, text := range texts {
		line := 1
		if found := lineOf.FindStringSubmatchIndex(text); found != nil {
			line, _ = strconv.Atoi(text[found[2]:found[3]])
			text = text[found[1]:]
		}
		if found := unknownField.FindStringSubmatch(text); found != nil {
			where := l.the(line, func(f field) bool { return f.name == found[1] })
			l.add(line, where+"there is no field "+quoted(found[1])+" here")
		} else if found := wrongKind.FindStringSubmatch(text); found != nil {
			where := l.the(line, func(f field) bool { return f.tag == found[1] })
			l.add(line, where+kindName(found[1])+" can't stand here; it must be "+goKind(found[2]))
		} else {
			l.add(line, "the YAML can't be read from here on")
		}
	}
}

// the gives the one field on a line that is meant; nothing where it may be another.
func (l *lines) the(line int, meant func(field) bool) string {
	path := ""
	for _, f := range l.on[line] {
		if !meant(f) {
			continue
		}
		if path != "" {
			return ""
		}
		path = f.path + ": "
	}
	return path
}

func kindName(tag string) string {
	switch tag {
	case "!!map":
		return "a group of fields"
	case "!!seq":
		return "a list"
	case "!!str":
		return "a text"
	default:
		return "this value"
	}
}

func goKind(name string) string {
	switch {
	case name == "int":
		return "a whole number"
	case name == "bool":
		return "true or false"
	case strings.HasPrefix(name, "[]"):
		return "a list"
	case strings.HasPrefix(name, "map["), strings.HasSuffix(name, "Rules"), strings.HasSuffix(name, ".Write"), strings.HasSuffix(name, ".Profile"):
		return "a group of fields"
	default:
		return "a text"
	}
}

// fault makes one of all the problems, by line; nil for none.
func (l *lines) fault() error {
	if len(l.problems) == 0 {
		return nil
	}
	const most = 10
	slices.SortStableFunc(l.problems, func(a, b problem) int { return a.line - b.line })
	var texts []string
	for i, p := range l.problems {
		if i == most {
			texts = append(texts, fmt.Sprintf("and %d more", len(l.problems)-most))
			break
		}
		texts = append(texts, fmt.Sprintf("%s:%d: %s", l.file, p.line, p.text))
	}
	return fault.New(opParse, fault.Config, strings.Join(texts, "; ")).
		WithFix("Correct the file; starter profiles check FILE looks it over again")
}

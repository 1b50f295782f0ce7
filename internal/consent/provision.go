package consent

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"time"
)

// What is more than this isn't evaluated. Levels of JSON are more than twice those of provisions.
const (
	maxProvisions = 2000
	maxDepth      = 16
	maxNesting    = 100
)

// decode reads a root provision. It is stricter than encoding/json: a name that comes twice, or in another case, is refused
// or unknown, since another reader could take it to mean something else. Why is set where it can't be read.
func decode(raw []byte) (root map[string]any, why string) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	value, err := decodeValue(d, 0)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			err = nil
		} else {
			err = errJSON
		}
	}
	root, isObject := value.(map[string]any)
	if err != nil || !isObject {
		return nil, "it isn't JSON of a provision"
	}
	switch n, depth, ok := size(root); {
	case !ok:
		return nil, "its provisions aren't a list of objects"
	case depth > maxDepth:
		return nil, "its provisions are nested too deep"
	case n > maxProvisions:
		return nil, "it has too many provisions"
	}
	return root, ""
}

var errJSON = errors.New("not a JSON value that a provision may hold")

func decodeValue(d *json.Decoder, level int) (any, error) {
	token, err := d.Token()
	if err != nil || level > maxNesting {
		return nil, errJSON
	}
	switch token {
	case json.Delim('{'):
		object := map[string]any{}
		for d.More() {
			name, err := d.Token()
			if err != nil {
				return nil, errJSON
			}
			text, _ := name.(string)
			if _, twice := object[text]; twice {
				return nil, errJSON
			}
			if object[text], err = decodeValue(d, level+1); err != nil {
				return nil, err
			}
		}
		_, err := d.Token()
		return object, err
	case json.Delim('['):
		list := []any{}
		for d.More() {
			value, err := decodeValue(d, level+1)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		_, err := d.Token()
		return list, err
	default:
		return token, nil
	}
}

// size counts a provision and those within it, and their levels.
func size(p map[string]any) (n, depth int, ok bool) {
	n, depth = 1, 1
	value, given := p["provision"]
	if !given {
		return n, depth, true
	}
	list, isList := value.([]any)
	if !isList {
		return 0, 0, false
	}
	for _, item := range list {
		exception, isObject := item.(map[string]any)
		if !isObject {
			return 0, 0, false
		}
		inner, levels, ok := size(exception)
		if !ok {
			return 0, 0, false
		}
		n += inner
		depth = max(depth, 1+levels)
	}
	return n, depth, true
}

// exceptions are the provisions nested in one; decode has seen that they are objects.
func exceptions(p map[string]any) []map[string]any {
	list, _ := p["provision"].([]any)
	nested := make([]map[string]any, 0, len(list))
	for _, item := range list {
		if object, isObject := item.(map[string]any); isObject {
			nested = append(nested, object)
		}
	}
	return nested
}

// unreadable says why a provision can't be understood at all; empty where it can.
func unreadable(p map[string]any) string {
	if _, modified := p["modifierExtension"]; modified {
		return "a modifier extension may change the meaning of it"
	}
	if !only(p, "type", "period", "actor", "action", "securityLabel", "purpose", "class", "code", "dataPeriod", "data", "provision") {
		return "it has an element that R4 doesn't know"
	}
	return ""
}

// only reports whether an element has no others than those named, its id and extensions, which by R4 §2.4.1 change nothing
// that the element says. The "_name" sibling of a primitive isn't among them: it may stand for a value that is missing.
func only(element map[string]any, names ...string) bool {
	for name := range element {
		if name != "id" && name != "extension" && !slices.Contains(names, name) {
			return false
		}
	}
	return true
}

// lastInstant is the end of FHIR's calendar; what would go beyond it ends there.
func lastInstant() time.Time {
	return time.Date(9999, time.December, 31, 23, 59, 59, 999_999_000, time.UTC)
}

// moment reads a dateTime as the time that it leaves open, from (inclusive) and to (exclusive): a year, a month, a day, a
// second or one unit of the last digit, a microsecond at least. A date without a time is taken as UTC. It reads what the
// mappings read (cura.Moment).
func moment(value any) (from, to time.Time, ok bool) {
	text, isText := value.(string)
	if !isText {
		return from, to, false
	}
	var err error
	switch len(text) {
	case len("2006"):
		from, err = time.Parse("2006", text)
		to = from.AddDate(1, 0, 0)
	case len("2006-01"):
		from, err = time.Parse("2006-01", text)
		to = from.AddDate(0, 1, 0)
	case len(time.DateOnly):
		from, err = time.Parse(time.DateOnly, text)
		to = from.AddDate(0, 0, 1)
	default:
		var unit time.Duration
		from, unit, err = timed(text)
		to = from.Add(unit)
	}
	if err != nil || from.Year() < 1 {
		return time.Time{}, time.Time{}, false
	}
	if last := lastInstant(); to.After(last) {
		to = last
		if !from.Before(last) {
			from = last.Add(-time.Microsecond)
		}
	}
	return from, to, true
}

// timed reads a dateTime with a time of day, which must carry its zone, and the unit of its last digit.
func timed(text string) (at time.Time, unit time.Duration, err error) {
	if at, err = time.Parse("2006-01-02T15:04Z07:00", text); err == nil {
		return at.UTC(), time.Minute, nil
	}
	if at, err = time.Parse(time.RFC3339, text); err != nil || strings.Contains(text, ",") {
		return time.Time{}, 0, errTime
	}
	unit = time.Second
	if _, fraction, given := strings.Cut(text, "."); given {
		for i := 0; i < len(fraction) && fraction[i] >= '0' && fraction[i] <= '9' && unit > time.Microsecond; i++ {
			unit /= 10
		}
	}
	return at.UTC().Truncate(time.Microsecond), unit, nil
}

var errTime = errors.New("not a dateTime with its zone")

package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/mappings"
)

// maxArtefactFile is room for some notes of the greatest size, or for many small ones.
const maxArtefactFile = 64 << 20

// fileArtefact is an artefact as a file has it.
type fileArtefact struct {
	// Patient is Cura's profile id, a patient link's id, or the EHR's id of the patient: PHI.
	Patient string `json:"patient"`
	cura.Artefact

	line int
}

// parseArtefacts reads one JSON object, or one after the other (NDJSON). What is wrong is named by line and path, never by what
// stands there: that is PHI. Without a version it is the first, without authored_at the author has signed now.
func parseArtefacts(file string, text []byte, now time.Time) ([]fileArtefact, error) {
	text = bytes.TrimPrefix(text, []byte(byteOrderMark))
	wrong := problems{file: file}
	if !utf8.Valid(text) {
		return nil, usagef("%s isn't UTF-8: convert it\n  Nothing was stored", file)
	}
	var found []fileArtefact
	seen := map[string]int{}
	decoder := json.NewDecoder(bytes.NewReader(text))
	for {
		var raw json.RawMessage
		err := decoder.Decode(&raw)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			at := int64(len(text))
			if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
				at = syntax.Offset
			}
			wrong.add("line %d isn't JSON, or ends too early", lineOf(text, at))
			break
		}
		a := fileArtefact{line: lineOf(text, decoder.InputOffset()-int64(len(raw)))}
		a.Version, a.AuthoredAt = 1, now
		if faults := misfits(raw, reflect.TypeFor[fileArtefact](), ""); len(faults) > 0 {
			for _, fault := range faults {
				wrong.add("line %d: %s", a.line, fault)
			}
			continue
		}
		if err := json.Unmarshal(raw, &a); err != nil {
			wrong.add("line %d isn't an artefact", a.line)
			continue
		}
		checkArtefact(&wrong, a, now)
		name := mappings.IdentifierOf(a.Artefact)
		if first, twice := seen[name]; twice {
			wrong.add("lines %d and %d are the same version of the same artefact; leave one out", first, a.line)
		}
		seen[name] = a.line
		found = append(found, a)
	}
	if err := wrong.usage(); err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, usagef("%s has no artefact; give one JSON object, or one a line", file)
	}
	return found, nil
}

func checkArtefact(wrong *problems, a fileArtefact, now time.Time) {
	if strings.TrimSpace(a.Patient) == "" {
		wrong.add("line %d: patient missing: a profile's id, a patient link's, or the EHR's id of the patient", a.line)
	}
	if a.Retracts {
		wrong.add("line %d: retracts can't be queued from a file; say it with: starter push retract CONNECTION ITEM", a.line)
		return
	}
	addReasons(wrong, a.line, mappings.CheckArtefact(a.Artefact, now))
}

// addReasons adds what is wrong with an artefact: paths and words, no values.
func addReasons(wrong *problems, line int, err error) {
	rejected, ok := errors.AsType[*mappings.RejectedError](err)
	if !ok {
		return
	}
	for _, r := range rejected.Reasons {
		wrong.add("line %d: %s %s", line, r.Path, r.Text)
	}
}

// lineOf is the line of a byte.
func lineOf(text []byte, at int64) int {
	return 1 + bytes.Count(text[:min(max(at, 0), int64(len(text)))], []byte("\n"))
}

// misfits says what in raw doesn't fit a Go type, by path: fields that it hasn't, and values of another kind.
func misfits(raw json.RawMessage, t reflect.Type, path string) []string {
	if bytes.Equal(raw, []byte("null")) && path != "" {
		return nil
	}
	at := path
	if at == "" {
		at = "the artefact"
	}
	var text string
	switch {
	case t.Kind() == reflect.Pointer:
		return misfits(raw, t.Elem(), path)
	case t == reflect.TypeFor[time.Time]():
		if json.Unmarshal(raw, new(time.Time)) != nil {
			return []string{at + " isn't a time: write it as 2026-11-23T08:15:00Z"}
		}
		return nil
	case t == reflect.TypeFor[[]byte]():
		if json.Unmarshal(raw, &text) != nil {
			return []string{at + " isn't a text"}
		}
		if _, err := base64.StdEncoding.DecodeString(text); err != nil {
			return []string{at + " isn't base64"}
		}
		return nil
	case t.Kind() == reflect.Struct:
		return misfitsOfObject(raw, t, path, at)
	case t.Kind() == reflect.Slice:
		var elements []json.RawMessage
		if json.Unmarshal(raw, &elements) != nil {
			return []string{at + " isn't a list"}
		}
		var faults []string
		for i, e := range elements {
			faults = append(faults, misfits(e, t.Elem(), path+"["+strconv.Itoa(i)+"]")...)
		}
		return faults
	}
	if json.Unmarshal(raw, reflect.New(t).Interface()) != nil {
		return []string{at + " isn't " + map[reflect.Kind]string{
			reflect.String: "a text", reflect.Bool: "true or false", reflect.Int: "a whole number", reflect.Int64: "a whole number",
		}[t.Kind()]}
	}
	return nil
}

func misfitsOfObject(raw json.RawMessage, t reflect.Type, path, at string) []string {
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil || members == nil {
		return []string{at + " isn't a JSON object"}
	}
	fields := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && f.IsExported() {
			fields[name] = f.Type
		}
	}
	var faults []string
	for _, name := range slices.Sorted(maps.Keys(members)) {
		field, known := fields[name]
		inner := name
		if path != "" {
			inner = path + "." + name
		}
		switch {
		case known:
			faults = append(faults, misfits(members[name], field, inner)...)
		case regexp.MustCompile(`^[A-Za-z0-9_-]{1,40}$`).MatchString(name):
			faults = append(faults, inner+" isn't a field that Cura knows")
		default:
			faults = append(faults, at+" has a field that Cura doesn't know")
		}
	}
	return faults
}

package main

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fhir"
	"github.com/cura-health/ehr-sync/internal/match"
	"github.com/cura-health/ehr-sync/internal/store"
)

// maxRosterFile is room for a million patients.
const maxRosterFile = 128 << 20

// problems are what is wrong with the lines of a file. They hold line numbers and words, never what the lines say: that is
// PHI.
type problems struct {
	file string
	list []string
	more int
}

// shownProblems is how many are told of; a file that is wrong throughout says so by the first.
const shownProblems = 10

func (p *problems) add(format string, args ...any) {
	if len(p.list) == shownProblems {
		p.more++
		return
	}
	p.list = append(p.list, fmt.Sprintf(format, args...))
}

// usage is the usage error for the problems; nil where there are none.
func (p *problems) usage() error {
	if len(p.list) == 0 {
		return nil
	}
	text := p.file + ": " + strings.Join(p.list, "\n  ")
	if p.more > 0 {
		text += fmt.Sprintf("\n  and %d more", p.more)
	}
	return usagef("%s\n  Nothing was stored", text)
}

// parsePatientIDs reads EHR patient ids, one a line; blank lines and what follows a # are passed over.
func parsePatientIDs(file string, text []byte) ([]string, error) {
	wrong := problems{file: file}
	var ids []string
	seen := map[string]int{}
	n := 0
	for l := range bytes.Lines(bytes.TrimPrefix(text, []byte(byteOrderMark))) {
		n++
		before, _, _ := strings.Cut(string(l), "#")
		id := strings.TrimSpace(before)
		switch first, twice := seen[id]; {
		case id == "":
		case !fhir.IsID(id):
			wrong.add("line %d isn't the id of one Patient resource; give the id alone, without Patient/", n)
		case twice:
			wrong.add("lines %d and %d name the same patient; leave one out", first, n)
		default:
			seen[id] = n
			ids = append(ids, id)
		}
	}
	if err := wrong.usage(); err != nil {
		return nil, err
	}
	if len(ids) == 0 {
		return nil, usagef("%s names no patient; give one EHR patient id a line", file)
	}
	return ids, nil
}

// byteOrderMark is what some programs begin a text file with.
const byteOrderMark = "\uFEFF"

// peopleColumns are the columns of an enrolment file.
func peopleColumns() []string {
	return []string{"identifier", "family", "given", "birth_date", "gender"}
}

// parsePeople reads an enrolment file: CSV whose first line names its columns, in any order.
func parsePeople(file string, text []byte) ([]store.Enrolment, error) {
	if file == "-" {
		file = "standard input"
	}
	if !utf8.Valid(text) {
		return nil, usagef("%s isn't UTF-8 text; save it as CSV in UTF-8", file)
	}
	reader := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(text, []byte(byteOrderMark))))
	reader.TrimLeadingSpace = true
	header, err := reader.Read()
	if errors.Is(err, io.EOF) {
		return nil, usagef("%s is empty; its first line must name the columns: %s", file, strings.Join(peopleColumns(), ","))
	}
	if err != nil {
		return nil, brokenCSV(file, err)
	}
	at, err := columnsOf(file, header)
	if err != nil {
		return nil, err
	}
	wrong := problems{file: file}
	var people []store.Enrolment
	seen := map[string]int{}
	for {
		record, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, brokenCSV(file, err)
		}
		n, _ := reader.FieldPos(0)
		person := personOf(record, at, n)
		first, twice := seen[person.Value]
		if twice {
			wrong.add("lines %d and %d have the same identifier; leave one out", first, n)
			continue
		}
		if why := unusable(person); why != "" {
			wrong.add("line %d %s", n, why)
			continue
		}
		seen[person.Value] = n
		people = append(people, person)
	}
	if err := wrong.usage(); err != nil {
		return nil, err
	}
	if len(people) == 0 {
		return nil, usagef("%s names nobody; give one person a line below the names of the columns", file)
	}
	return people, nil
}

// brokenCSV is the error for text that isn't CSV. It has the line, and none of the text.
func brokenCSV(file string, err error) error {
	var parse *csv.ParseError
	if !errors.As(err, &parse) {
		return usagef("%s can't be read as CSV", file)
	}
	why := "isn't CSV: a quote is open, or stands within a field; write a quote within quotes twice"
	if errors.Is(err, csv.ErrFieldCount) {
		why = "hasn't as many fields as line 1 names columns"
	}
	return usagef("%s: line %d %s\n  Nothing was stored", file, parse.Line, why)
}

// columnsOf finds where each column is; -1: nowhere. The header isn't repeated in errors: a file without one has a person
// there.
func columnsOf(file string, header []string) (map[string]int, error) {
	at := map[string]int{}
	for _, name := range peopleColumns() {
		at[name] = -1
	}
	for i, cell := range header {
		name := strings.ToLower(strings.TrimSpace(cell))
		was, known := at[name]
		switch {
		case !known:
			return nil, usagef("%s: column %d of line 1 has no name that is known here; line 1 names the columns, and they are: %s",
				file, i+1, strings.Join(peopleColumns(), ","))
		case was >= 0:
			return nil, usagef("%s: line 1 names the column %s twice", file, name)
		}
		at[name] = i
	}
	switch {
	case at["identifier"] < 0:
		return nil, usagef("%s: line 1 names no column identifier: the connection's match identifier, by which people are looked for", file)
	case at["family"] < 0 && at["birth_date"] < 0:
		return nil, usagef("%s: line 1 names neither family nor birth_date; by an identifier alone nobody is taken for somebody", file)
	}
	return at, nil
}

func personOf(record []string, at map[string]int, line int) store.Enrolment {
	cell := func(name string) string {
		if i := at[name]; i >= 0 {
			return strings.TrimSpace(record[i])
		}
		return ""
	}
	return store.Enrolment{
		Value: cell("identifier"), Family: cell("family"), Given: cell("given"), BirthDate: cell("birth_date"),
		Gender: strings.ToLower(cell("gender")), Line: line,
	}
}

// unusable says why a line can't be enrolled; empty: it can.
func unusable(p store.Enrolment) string {
	const longest = 200
	odd := func(text string) bool { return len(text) > longest || strings.ContainsFunc(text, unicode.IsControl) }
	switch {
	case p.Value == "":
		return "has no identifier"
	case p.Family == "" && p.BirthDate == "":
		return "has neither a family name nor a birth date; by an identifier alone nobody is taken for somebody"
	case !validBirthDate(p.BirthDate):
		return "has a birth_date that isn't YYYY-MM-DD, YYYY-MM or YYYY, or hasn't come yet"
	case !slices.Contains([]string{"", "male", "female", "other", "unknown"}, p.Gender):
		return "has a gender that isn't male, female, other or unknown"
	case odd(p.Value) || odd(p.Family) || odd(p.Given):
		return fmt.Sprintf("has a field of more than %d bytes, or with control characters", longest)
	}
	return ""
}

func validBirthDate(text string) bool {
	if text == "" {
		return true
	}
	for _, layout := range []string{"2006-01-02", "2006-01", "2006"} {
		if day, err := time.Parse(layout, text); err == nil {
			return day.Year() > 1850 && day.Before(time.Now().Add(24*time.Hour))
		}
	}
	return false
}

// checkIdentifiers finds the people whose identifier nobody is matched by: a placeholder such as 000-00-0000.
func checkIdentifiers(file string, people []store.Enrolment, strategy cura.MatchStrategy) error {
	wrong := problems{file: file}
	for _, p := range people {
		if len(match.Keys(&cura.Profile{Identifiers: []cura.Identifier{{System: strategy.System, Value: p.Value}}}, strategy)) == 0 {
			wrong.add("line %d has an identifier that says nothing: a placeholder that many share", p.Line)
		}
	}
	return wrong.usage()
}

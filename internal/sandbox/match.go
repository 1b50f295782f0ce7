package sandbox

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
)

// How a candidate's score is read (http://hl7.org/fhir/StructureDefinition/match-grade).
const (
	certainScore  = 0.95
	probableScore = 0.8
	possibleScore = 0.6 // who has less doesn't come back
	maxMatches    = 20
)

// sought is the person whom a match is about. All parts may be empty.
type sought struct {
	identifiers       []token
	family, given     []string // lower case
	birthDate, gender string
}

// soughtIn reads a Patient as the person to look for.
func soughtIn(patient []byte) sought {
	var p sought
	for _, m := range members(patient) {
		value := patient[m.value.start:m.value.end]
		switch m.key {
		case "identifier":
			for _, item := range oneOrMany(value) {
				if v := getText(item, "value"); v != "" {
					p.identifiers = append(p.identifiers, token{byIdentifier, getText(item, "system"), v})
				}
			}
		case "name":
			for _, t := range personTokens(value) {
				if t.kind == byFamily {
					p.family = append(p.family, t.code)
				} else {
					p.given = append(p.given, t.code)
				}
			}
		case "gender":
			p.gender = textOf(value)
		case "birthDate":
			p.birthDate = textOf(value)
		}
	}
	return p
}

// score tells how much of what is sought a Patient has, 0 to 1.
func (p sought) score(patient []byte) float64 {
	other := soughtIn(patient)
	var have, want float64
	count := func(weight, similarity float64) {
		want += weight
		have += weight * similarity
	}
	if len(p.identifiers) > 0 {
		same := slices.ContainsFunc(p.identifiers, func(t token) bool { return slices.Contains(other.identifiers, t) })
		count(0.4, map[bool]float64{true: 1}[same])
	}
	if len(p.family) > 0 {
		count(0.3, closest(p.family, other.family))
	}
	if len(p.given) > 0 {
		count(0.2, closest(p.given, other.given))
	}
	if p.birthDate != "" {
		count(0.3, closeDates(p.birthDate, other.birthDate))
	}
	if p.gender != "" {
		count(0.1, map[bool]float64{true: 1}[p.gender == other.gender])
	}
	if want == 0 {
		return 0
	}
	return have / want
}

// closest compares the names that are most alike: 1 for the same, 0.7 for one that begins like the other or differs by
// two letters at most.
func closest(names, others []string) float64 {
	best := 0.0
	for _, a := range names {
		for _, b := range others {
			switch {
			case a == b:
				return 1
			case a != "" && b != "" && (strings.HasPrefix(b, a) || strings.HasPrefix(a, b)), distance(a, b) <= 2:
				best = 0.7
			}
		}
	}
	return best
}

// distance is the number of letters that must be added, left out or changed to make one name the other (Levenshtein).
func distance(a, b string) int {
	from, to := []rune(a), []rune(b)
	above := make([]int, len(to)+1)
	for j := range above {
		above[j] = j
	}
	for i, c := range from {
		row := make([]int, len(to)+1)
		row[0] = i + 1
		for j, d := range to {
			change := above[j]
			if c != d {
				change++
			}
			row[j+1] = min(change, above[j+1]+1, row[j]+1)
		}
		above = row
	}
	return above[len(to)]
}

// closeDates is 1 for the same date, 0.5 when one of year, month and day differs.
func closeDates(a, b string) float64 {
	if a == b {
		return 1
	}
	left, right := strings.Split(a, "-"), strings.Split(b, "-")
	if len(left) != 3 || len(right) != 3 {
		return 0
	}
	differ := 0
	for i := range left {
		if left[i] != right[i] {
			differ++
		}
	}
	if differ > 1 {
		return 0
	}
	return 0.5
}

// rank lists the patients among hits who may be the one sought, the likeliest first.
func (s *Server) rank(p sought, hits []hit, least float64) (ranked []hit, scores []float64, err error) {
	type candidate struct {
		hit

		score float64
	}
	var all []candidate
	for _, h := range hits {
		raw, err := s.store.vault.get(h.version.place)
		if err != nil {
			return nil, nil, err
		}
		if score := p.score(raw); score >= least {
			all = append(all, candidate{h, score})
		}
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return cmp.Compare(b.score, a.score) })
	for _, c := range all[:min(len(all), maxMatches)] {
		ranked, scores = append(ranked, c.hit), append(scores, c.score)
	}
	return ranked, scores, nil
}

// searchNear answers a search for demographics as a match does: near ones come back too, scored (DOMAIN §2, Epic).
func (s *Server) searchNear(w http.ResponseWriter, r *http.Request, f Faults, q *query, self string) *problem {
	lower := func(name string) []string {
		var out []string
		for _, v := range q.given[name] {
			out = append(out, strings.ToLower(v))
		}
		return out
	}
	person := sought{
		family: lower("family"), given: lower("given"), gender: q.given.Get("gender"),
		birthDate: strings.TrimPrefix(q.given.Get("birthdate"), "eq"),
	}
	hits, scores, err := s.rank(person, s.store.find(q.search()), possibleScore)
	if err != nil {
		return broken(err)
	}
	return s.writePage(w, r, f, page{typ: q.typ, self: self, total: len(hits), found: len(hits) > 0, hits: hits, scores: scores})
}

// match answers Patient/$match (R4 Patient-operation-match): with onlyCertainMatches only who is sought beyond doubt,
// else near ones too.
func (s *Server) match(w http.ResponseWriter, r *http.Request, _ grant) *problem {
	if !s.vendor.nearPatients || r.PathValue("type") != "Patient" {
		return fail(http.StatusNotFound, codeNotSupported, "The server does not offer this operation; see metadata")
	}
	person, onlyCertain, err := readMatch(http.MaxBytesReader(w, r.Body, maxForm))
	if err != nil {
		return fail(http.StatusBadRequest, codeInvalid, err.Error())
	}
	least := possibleScore
	if onlyCertain {
		least = certainScore
	}
	hits, scores, err := s.rank(person, s.store.find(search{typ: "Patient"}), least)
	if err != nil {
		return broken(err)
	}
	return s.writePage(w, r, s.faults.get(), page{
		typ: "Patient", self: s.base(r) + "/Patient/$match", total: len(hits), found: len(hits) > 0, hits: hits, scores: scores,
	})
}

var errMatch = errors.New("$match takes Parameters with a resource, which is a Patient with an identifier, a name or a birth date")

// readMatch reads the Parameters of a $match.
func readMatch(body io.Reader) (person sought, onlyCertain bool, err error) {
	raw, err := io.ReadAll(body)
	if err != nil || !json.Valid(raw) || getText(raw, "resourceType") != "Parameters" {
		return person, false, errMatch
	}
	found := false
	list := get(raw, "parameter")
	for _, at := range elements(list) {
		parameter := list[at.start:at.end]
		switch getText(parameter, "name") {
		case "resource":
			person = soughtIn(get(parameter, "resource"))
			found = getText(get(parameter, "resource"), "resourceType") == "Patient"
		case "onlyCertainMatches":
			onlyCertain = string(get(parameter, "valueBoolean")) == "true"
		}
	}
	if !found || len(person.identifiers)+len(person.family)+len(person.given) == 0 && person.birthDate == "" {
		return person, false, errMatch
	}
	return person, onlyCertain, nil
}

// grade is the word for a score.
func grade(score float64) string {
	switch {
	case score >= certainScore:
		return "certain"
	case score >= probableScore:
		return "probable"
	default:
		return "possible"
	}
}

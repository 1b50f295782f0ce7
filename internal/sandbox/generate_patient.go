package sandbox

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"
)

func familyNames() []string {
	return []string{
		"Abernathy", "Baker", "Castillo", "Dubois", "Eriksen", "Farouk", "García", "Huang", "Ivanova", "Johnson", "Kowalski",
		"Lindqvist", "Müller", "Nguyễn", "O'Brien", "Petrov", "Quispe", "Rossi", "Søndergaard", "Takahashi", "Uwase",
		"van der Berg", "Washington-Smith", "Ximenes", "Yılmaz", "Zimmermann",
	}
}

func femaleNames() []string {
	return []string{"Amelia", "Brigitte", "Chloé", "Daniela", "Esther", "Fatima", "Grace", "Hanna", "Inês", "Joy", "Katarzyna", "Zoë"}
}

func maleNames() []string {
	return []string{"Ahmed", "Björn", "Carlos", "Dmitri", "Émile", "Frank", "George", "Hiroshi", "István", "José", "Kwame", "Luca"}
}

// person is one generated patient, with what the other resources need of it.
type person struct {
	seed uint64
	n    int
	of   int // how many patients there are
	r    *rand.Rand
	id   string
	born time.Time

	female        bool
	family, given string
	encounters    []string
}

// traits are the traps that every nth patient brings (DOMAIN §6); they come round every traitCycle patients.
const traitCycle = 20

func newPerson(seed uint64, n, of int) *person {
	p := &person{seed: seed, n: n, of: of, r: numbersOf(seed, n)}
	p.id = uuid(p.r)
	p.female = p.r.IntN(2) == 0
	p.family = pick(p.r, familyNames())
	if p.female {
		p.given = pick(p.r, femaleNames())
	} else {
		p.given = pick(p.r, maleNames())
	}
	p.born = time.Date(1931+p.r.IntN(85), time.Month(1+p.r.IntN(12)), 1+p.r.IntN(28), 0, 0, 0, 0, time.UTC)
	switch p.trait() {
	case 5, 6: // two people of the same name in each cycle, with distinct numbers and birth dates
		p.family, p.given, p.female = "García", "Daniela", true
	case 13, 14: // one person who was registered twice
		twin := seeded(seed, "twice "+strconv.Itoa(n/traitCycle))
		p.family, p.given, p.female = pick(twin, familyNames()), pick(twin, femaleNames()), true
		p.born = time.Date(1950+twin.IntN(40), 3, 1+twin.IntN(28), 0, 0, 0, 0, time.UTC)
	}
	return p
}

// numbersOf gives the numbers that patient n is made of; the id is the first of them.
func numbersOf(seed uint64, n int) *rand.Rand { return seeded(seed, "patient "+strconv.Itoa(n)) }

func (p *person) trait() int { return p.n % traitCycle }

func (p *person) ref() obj { return reference("Patient/" + p.id) }

// patient makes the Patient.
func (p *person) patient() obj {
	gender := "male"
	if p.female {
		gender = "female"
	}
	out := obj{
		{"resourceType", "Patient"},
		{"id", p.id},
		{"identifier", p.identifiers()},
		{"active", p.trait() != 8 && p.trait() != 13},
		{"name", p.names()},
		{"telecom", p.telecom()},
		{"gender", gender},
	}
	switch p.trait() {
	case 9: // partial birth dates
		out = append(out, field{"birthDate", p.born.Format("2006")})
	case 10:
		out = append(out, field{"birthDate", p.born.Format("2006-01")})
	case 11: // unknown
	default:
		out = append(out, field{"birthDate", day(p.born)})
	}
	switch p.trait() {
	case 6:
		out = append(out, field{"deceasedBoolean", true})
	case 7:
		out = append(out, field{"deceasedDateTime", moment(time.Date(2023, 11, 2, 4, 30, 0, 0, hospitalZone()))})
	}
	out = append(out, field{"address", list{obj{
		{"use", "home"},
		{"line", list{fmt.Sprintf("%d %s", 1+p.r.IntN(980), pick(p.r, []string{"Cedar Avenue", "Harbor Street", "Mill Road", "Ølgade"}))}},
		{"city", pick(p.r, []string{"Fairview", "Riverton", "São Bento", "Lakeside"})},
		{"state", pick(p.r, []string{"MA", "NY", "OH", "TX"})},
		{"postalCode", fmt.Sprintf("%05d", 501+p.r.IntN(98000))}, // leading zeros matter
		{"country", "US"},
	}}})
	// DOMAIN §6: a merged patient is inactive and points to the one that stayed.
	if p.trait() == 13 && p.n+1 < p.of {
		out = append(out, p.linkTo(p.n+1, "replaced-by"))
	}
	if p.trait() == 14 {
		out = append(out, p.linkTo(p.n-1, "replaces"))
	}
	return append(out,
		field{"communication", list{obj{{"language", obj{{"coding", list{coding("urn:ietf:bcp:47", "en-US", "")}}}}}}},
		field{"managingOrganization", reference("Organization/" + hospitalID)},
	)
}

// linkTo links to another patient, whose id is a matter of the seed too.
func (p *person) linkTo(n int, typ string) field {
	return field{"link", list{obj{{"other", reference("Patient/" + uuid(numbersOf(p.seed, n)))}, {"type", typ}}}}
}

func (p *person) names() list {
	official := obj{{"use", "official"}, {"family", p.family}, {"given", list{p.given, pick(p.r, []string{"A.", "J.", "Marie", "Lee"})}}}
	switch p.trait() {
	case 0: // the name in daily use beside the official one
		return list{official, obj{{"use", "usual"}, {"given", list{p.given[:1] + "."}}, {"family", p.family}}}
	case 1: // a maiden name that ended
		return list{
			obj{{"use", "maiden"}, {"family", "Oldfield"}, {"given", list{p.given}}, {"period", obj{{"end", "2009-06-30"}}}},
			append(official, field{"period", obj{{"start", "2009-07-01"}}}),
		}
	case 2: // text alone
		return list{obj{{"text", p.given + " " + p.family}}}
	case 3:
		return list{append(official, field{"prefix", list{"Prof.", "Dr."}}, field{"suffix", list{"Jr.", "PhD"}})}
	case 4: // letters beyond ASCII, also beyond Latin-1
		return list{obj{{"use", "official"}, {"text", "Łucja Bień-Żurawska"}, {"family", "Bień-Żurawska"}, {"given", list{"Łucja"}}}}
	case 12: // an old name and a nickname, without any official one
		return list{
			obj{{"use", "old"}, {"family", "Formerly"}, {"given", list{p.given}}},
			obj{{"use", "nickname"}, {"given", list{"Sunny"}}},
			obj{{"family", p.family}, {"given", list{p.given}}},
		}
	case 15: // no given name
		return list{obj{{"use", "official"}, {"family", p.family}}}
	default:
		return list{official}
	}
}

func (p *person) identifiers() list {
	mrType := concept(sysTerminology+"v2-0203", "MR", "Medical record number")
	// Leading zeros matter (DOMAIN §6). The number depends on the patient's place alone, so that none comes twice.
	out := list{obj{{"use", "usual"}, {"type", mrType}, {"system", sysMRN}, {"value", fmt.Sprintf("%08d", 412000+7*p.n)}}}
	ssType := concept(sysTerminology+"v2-0203", "SS", "Social Security number")
	switch p.trait() {
	case 11, 18: // no national identifier
	case 16, 17:
		out = append(out, obj{
			{"type", concept(sysTerminology+"v2-0203", "NH", "National Health Plan Identifier")},
			{"system", sysNHS},
			{"value", nhsNumber(p.n)},
		})
	case 19: // the value withheld, as Epic does (DOMAIN §6)
		out = append(out, obj{{"type", ssType}, {"system", sysSSN}, {"_value", obj{{"extension", list{obj{
			{"url", "http://hl7.org/fhir/StructureDefinition/rendered-value"}, {"valueString", "xxx-xx-0000"},
		}}}}}})
	default:
		// The areas 900 to 999 were never given out; 999 is a placeholder.
		out = append(out, obj{
			{"type", ssType},
			{"system", sysSSN},
			{"value", fmt.Sprintf("9%02d-%02d-%04d", p.n/9000%99, 1+p.n/100%90, 1000+p.n%9000)},
		})
	}
	return out
}

// nhsNumber gives a number of the range 999, which is kept for tests, with its modulus-11 check digit.
func nhsNumber(n int) string {
	for serial := 100000 + 2*n%890000; ; serial++ { // of two numbers in a row one at least can be issued
		body := fmt.Sprintf("999%06d", serial)
		sum := 0
		for i, c := range body {
			sum += (10 - i) * int(c-'0')
		}
		check := (11 - sum%11) % 11
		if check != 10 { // such numbers are never issued
			return body + strconv.Itoa(check)
		}
	}
}

func (p *person) telecom() list {
	out := list{obj{{"system", "phone"}, {"value", fmt.Sprintf("+1-555-01%02d", p.r.IntN(100))}, {"use", "mobile"}}}
	if p.r.IntN(2) == 0 {
		out = append(out, obj{{"system", "email"}, {"value", fmt.Sprintf("patient%d@example.org", p.n+1)}})
	}
	return out
}

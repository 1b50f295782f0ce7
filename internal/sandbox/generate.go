package sandbox

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"time"
)

// The generated hospital: its assigning authority and the code systems that it uses.
const (
	sysMRN         = "urn:oid:2.16.840.1.113883.19.5.1" // an HL7 example root, never a hospital's own
	sysLocalLab    = "urn:oid:2.16.840.1.113883.19.5.1.7"
	sysSSN         = "http://hl7.org/fhir/sid/us-ssn"
	sysNHS         = "https://fhir.nhs.uk/Id/nhs-number"
	sysNPI         = "http://hl7.org/fhir/sid/us-npi"
	sysLOINC       = "http://loinc.org"
	sysSNOMED      = "http://snomed.info/sct"
	sysRxNorm      = "http://www.nlm.nih.gov/research/umls/rxnorm"
	sysUCUM        = "http://unitsofmeasure.org"
	sysTerminology = "http://terminology.hl7.org/CodeSystem/"
	hospitalID     = "sandbox-hospital"
	clinicians     = 5
)

// Generated resources were last updated from 2024 on, one every generatedStep: the same at every start.
const (
	generatedBase = "2024-01-01T00:00:00Z"
	generatedStep = 37 * time.Second
)

// seeded gives numbers that depend on the seed and the name alone.
func seeded(seed uint64, name string) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))                  // a hash never fails to write
	return rand.New(rand.NewPCG(seed, h.Sum64())) //nolint:gosec // G404: test people must come out the same for a seed
}

// generator makes the resources of one patient after the other and puts them into the store.
type generator struct {
	store *store
	base  time.Time
	seed  uint64
	err   error
}

// generate fills the store with patients and, where that makes less than resources, with more Observations.
func generate(ctx context.Context, s *store, seed uint64, patients, resources int) error {
	base, err := time.Parse(time.RFC3339, generatedBase)
	if err != nil {
		return fmt.Errorf("reading the base instant: %w", err)
	}
	g := &generator{store: s, base: base, seed: seed}
	g.hospital()
	people := make([]*person, 0, patients)
	for i := range patients {
		if ctx.Err() != nil {
			return fmt.Errorf("generating patients: %w", ctx.Err())
		}
		p := newPerson(seed, i, patients)
		people = append(people, p)
		g.add(p.patient())
		for _, records := range []func(*person) []obj{encounters, allergies, medications, vitals, labs, consents, surveys} {
			for _, resource := range records(p) {
				g.add(resource)
			}
		}
	}
	// A patient's stand together: who reads patient by patient reads few blocks of the vault.
	missing := max(0, resources-s.count)
	for i, p := range people {
		n := missing / len(people)
		if i < missing%len(people) {
			n++
		}
		for k := range n {
			if k%1000 == 0 && ctx.Err() != nil {
				return fmt.Errorf("generating observations: %w", ctx.Err())
			}
			g.add(p.routine(k))
		}
	}
	return g.err
}

func (g *generator) add(resource obj) {
	raw, err := encode(resource)
	if err == nil {
		_, err = g.store.load(raw, g.base, generatedStep)
	}
	if err != nil && g.err == nil {
		g.err = fmt.Errorf("generating a resource: %w", err)
	}
}

// hospital makes the Organization and its clinicians.
func (g *generator) hospital() {
	g.add(obj{
		{"resourceType", "Organization"},
		{"id", hospitalID},
		{"identifier", list{obj{{"system", sysNPI}, {"value", "1234567893"}}}},
		{"active", true},
		{"name", "Sandbox General Hospital"},
		{"telecom", list{obj{{"system", "phone"}, {"value", "+1-555-0100"}, {"use", "work"}}}},
	})
	r := seeded(g.seed, "clinicians")
	for i := range clinicians {
		family, given := pick(r, familyNames()), pick(r, append(femaleNames(), maleNames()...))
		g.add(obj{
			{"resourceType", "Practitioner"},
			{"id", clinicianID(i)},
			{"identifier", list{obj{{"system", sysMRN + ".2"}, {"value", fmt.Sprintf("DR%04d", 1000+i)}}}},
			{"active", true},
			{"name", list{obj{{"use", "official"}, {"family", family}, {"given", list{given}}, {"prefix", list{"Dr."}}}}},
		})
	}
}

func clinicianID(i int) string { return "sandbox-clinician-" + strconv.Itoa(i+1) }

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// uuid makes an id in the form of a UUID out of the generator's numbers.
func uuid(r *rand.Rand) string {
	var b [16]byte
	for i := range b {
		b[i] = byte(r.UintN(256)) //nolint:gosec // G115: below 256
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	x := hex.EncodeToString(b[:])
	return x[:8] + "-" + x[8:12] + "-" + x[12:16] + "-" + x[16:20] + "-" + x[20:]
}

// decimal writes a number with as many digits behind the point as a laboratory reports: 5.40 stays 5.40.
func decimal(x float64, digits int) json.Number {
	return json.Number(strconv.FormatFloat(x, 'f', digits, 64))
}

func coding(system, code, display string) obj {
	c := obj{{"system", system}, {"code", code}}
	if display != "" {
		c = append(c, field{"display", display})
	}
	return c
}

func concept(system, code, display string) obj {
	c := obj{{"coding", list{coding(system, code, display)}}}
	if display != "" {
		c = append(c, field{"text", display})
	}
	return c
}

func quantity(value json.Number, unit, ucum string) obj {
	return obj{{"value", value}, {"unit", unit}, {"system", sysUCUM}, {"code", ucum}}
}

func reference(target string) obj { return obj{{"reference", target}} }

func day(t time.Time) string { return t.Format(time.DateOnly) }

// moment writes a dateTime with the hospital's offset, as EHRs do.
func moment(t time.Time) string { return t.Format(time.RFC3339) }

// hospitalZone is where the generated hospital stands.
func hospitalZone() *time.Location { return time.FixedZone("", -5*60*60) }

package sandbox

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Rehearsal is what one call of Rehearse did. Each resource is touched once.
type Rehearsal struct {
	Changed     int      `json:"changed"`
	Added       int      `json:"added"`
	Invalidated int      `json:"invalidated"`
	Done        []Change `json:"done"`
}

// Rehearse makes the hospital's data move, so that an incremental sync has something to bring: it amends three
// Observations and a Patient's phone, adds two Observations, an Encounter and an AllergyIntolerance, marks one record
// entered-in-error and adds one Observation that is not valid FHIR (it has no status). Where the data has no such
// resources it does what they allow; without a Patient nothing is added. It fails when a change cannot be kept.
func (s *Server) Rehearse(ctx context.Context) (Rehearsal, error) {
	run := rehearsal{server: s, suffix: randomText()[:12], touched: map[string]bool{}}
	for _, step := range []func() error{
		run.amendObservations, run.changePhone, run.addRecords, run.withdraw, run.addInvalid,
	} {
		if err := ctx.Err(); err != nil {
			return run.done, fmt.Errorf("rehearsing changes: %w", err)
		}
		if err := step(); err != nil {
			return run.done, fmt.Errorf("rehearsing changes: %w", err)
		}
	}
	return run.done, nil
}

type rehearsal struct {
	server  *Server
	suffix  string // makes the ids of this run unique
	touched map[string]bool
	done    Rehearsal
}

// put makes one change and counts it under verb.
func (r *rehearsal) put(verb string, resource []byte) error {
	c, err := r.server.put(resource)
	if err != nil {
		return err
	}
	c.Verb = verb
	switch verb {
	case "changed":
		r.done.Changed++
	case "created":
		r.done.Added++
	default:
		r.done.Invalidated++
	}
	r.touched[c.Type+"/"+c.ID] = true
	r.done.Done = append(r.done.Done, c)
	return nil
}

// pick lists up to n resources of a type that the run has not touched and that fit.
func (r *rehearsal) pick(typ string, n int, fits func(raw []byte) bool) ([]json.RawMessage, error) {
	if !slices.Contains(r.server.servedTypes(), typ) {
		return nil, nil
	}
	var out []json.RawMessage
	err := r.server.store.each(typ, func(id string, raw json.RawMessage) bool {
		if !r.touched[typ+"/"+id] && fits(raw) {
			out = append(out, raw)
		}
		return len(out) < n
	})
	return out, err
}

func anyResource([]byte) bool { return true }

func (r *rehearsal) amendObservations() error {
	measured := func(raw []byte) bool {
		status := getText(raw, "status")
		return (status == "final" || status == "amended") && len(get(get(raw, "valueQuantity"), "value")) > 0
	}
	found, err := r.pick("Observation", 3, measured)
	if err != nil {
		return err
	}
	for _, raw := range found {
		value := get(raw, "valueQuantity")
		amended := set(raw, "valueQuantity", set(value, "value", nextDigit(get(value, "value"))))
		if err := r.put("changed", set(amended, "status", []byte(`"amended"`))); err != nil {
			return err
		}
	}
	return nil
}

// nextDigit changes the last digit of a number and keeps how many it has.
func nextDigit(number []byte) []byte {
	out := slices.Clone(number)
	for i := len(out) - 1; i >= 0; i-- {
		switch c := out[i]; {
		case c == '9':
			out[i] = '8'
			return out
		case c >= '0' && c < '9':
			out[i]++
			return out
		}
	}
	return out
}

func (r *rehearsal) changePhone() error {
	found, err := r.pick("Patient", 1, anyResource)
	if err != nil || len(found) == 0 {
		return err
	}
	number, err := encode(obj{{"system", "phone"}, {"value", "+1-555-01" + r.digits(2)}, {"use", "mobile"}})
	if err != nil {
		return err
	}
	telecom := get(found[0], "telecom")
	items := elements(telecom)
	switch at := slices.IndexFunc(items, func(at span) bool { return getText(telecom[at.start:at.end], "system") == "phone" }); {
	case at >= 0:
		telecom = splice(telecom, items[at], number)
	case len(items) > 0:
		telecom = splice(telecom, span{items[0].start, items[0].start}, append(number, ','))
	default:
		telecom = slices.Concat([]byte("["), number, []byte("]"))
	}
	return r.put("changed", set(found[0], "telecom", telecom, "name", "id"))
}

// digits gives n digits that differ from run to run.
func (r *rehearsal) digits(n int) string {
	return fmt.Sprintf("%0*d", n, hashOf("digits", r.suffix)%100)
}

// addRecords adds records of existing patients.
func (r *rehearsal) addRecords() error {
	return r.add([]func(patient obj, now time.Time) obj{
		func(patient obj, now time.Time) obj {
			a := analytes()[0]
			return r.observation("lab", "laboratory", concept(sysLOINC, a.code, a.name), patient, now).
				with("valueQuantity", quantity("6.10", a.unit, a.ucum))
		},
		func(patient obj, now time.Time) obj {
			pressure := func(code, name, value string) obj {
				return obj{{"code", concept(sysLOINC, code, name)}, {"valueQuantity", quantity(json.Number(value), "mmHg", "mm[Hg]")}}
			}
			return r.observation("bp", "vital-signs", concept(sysLOINC, "85354-9", "Blood pressure panel with all children optional"), patient, now).
				with("component", list{
					pressure("8480-6", "Systolic blood pressure", "128"), pressure("8462-4", "Diastolic blood pressure", "82"),
				})
		},
		func(patient obj, now time.Time) obj {
			return obj{
				{"resourceType", "Encounter"},
				{"id", r.id("visit")},
				{"status", "in-progress"},
				{"class", coding(sysTerminology+"v3-ActCode", "AMB", "ambulatory")},
				{"subject", patient},
				{"period", obj{{"start", formatInstant(now)}}},
			}
		},
		func(patient obj, now time.Time) obj {
			return obj{
				{"resourceType", "AllergyIntolerance"},
				{"id", r.id("allergy")},
				{"clinicalStatus", obj{{"coding", list{coding(sysTerminology+"allergyintolerance-clinical", "active", "")}}}},
				{"verificationStatus", obj{{"coding", list{coding(sysTerminology+"allergyintolerance-verification", "confirmed", "")}}}},
				{"code", concept(sysSNOMED, "91935009", "Allergy to peanut")},
				{"patient", patient},
				{"recordedDate", formatInstant(now)},
			}
		},
	}, "created")
}

// addInvalid adds an Observation without its required status (R4 Observation.status 1..1).
func (r *rehearsal) addInvalid() error {
	return r.add([]func(obj, time.Time) obj{func(patient obj, now time.Time) obj {
		return r.observation("invalid", "laboratory", concept(sysLOINC, "2345-7", "Glucose [Mass/volume] in Serum or Plasma"), patient, now).
			with("status", nil)
	}}, "invalidated")
}

// add makes resources for the patients in turn, of the types that are served.
func (r *rehearsal) add(makers []func(patient obj, now time.Time) obj, verb string) error {
	var patients []string
	err := r.server.store.each("Patient", func(id string, _ json.RawMessage) bool {
		patients = append(patients, id)
		return len(patients) < len(makers)
	})
	if err != nil || len(patients) == 0 {
		return err
	}
	types := r.server.servedTypes()
	for i, build := range makers {
		raw, err := encode(build(reference("Patient/"+patients[i%len(patients)]), r.server.now()))
		if err != nil {
			return err
		}
		if !slices.Contains(types, getText(raw, "resourceType")) {
			continue
		}
		if err := r.put(verb, raw); err != nil {
			return err
		}
	}
	return nil
}

func (r *rehearsal) id(what string) string { return "rehearsal-" + r.suffix + "-" + what }

func (r *rehearsal) observation(what, category string, code, patient obj, now time.Time) obj {
	return obj{
		{"resourceType", "Observation"},
		{"id", r.id(what)},
		{"status", "final"},
		{"category", list{concept(sysTerminology+"observation-category", category, "")}},
		{"code", code},
		{"subject", patient},
		{"effectiveDateTime", formatInstant(now)},
	}
}

// withdraw marks one record entered-in-error, of the first type that has one.
func (r *rehearsal) withdraw() error {
	for _, typ := range []string{"Observation", "MedicationRequest", "Encounter", "MedicationStatement", "Consent", "AllergyIntolerance"} {
		if done, err := r.withdrawOne(typ); done || err != nil {
			return err
		}
	}
	return nil
}

func (r *rehearsal) withdrawOne(typ string) (done bool, err error) {
	const wrong = "entered-in-error"
	found, err := r.pick(typ, 1, func(raw []byte) bool {
		return getText(raw, "status") != wrong && !strings.Contains(string(get(raw, "verificationStatus")), wrong)
	})
	if err != nil || len(found) == 0 {
		return false, err
	}
	raw := []byte(found[0])
	if typ == "AllergyIntolerance" { // R4 ait-2: no clinicalStatus then
		status, err := encode(obj{{"coding", list{coding(sysTerminology+"allergyintolerance-verification", wrong, "")}}})
		if err != nil {
			return false, err
		}
		raw = set(drop(raw, "clinicalStatus"), "verificationStatus", status, "id")
	} else {
		raw = set(raw, "status", quote(wrong), "id")
	}
	return true, r.put("invalidated", raw)
}

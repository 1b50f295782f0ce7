package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/sandbox"
)

// vendor is how the rehearsal goes about a vendor's EHR.
type vendor struct {
	// profile names the vendor, to the sandbox too.
	profile string
	// flags are what `starter connection add` needs besides.
	flags []string
	// roster gives the command that says whom to read; nil: the EHR is searched system-wide.
	roster func(*hospital) ([]string, error)
	// throttle is how the EHR throttles while it is read first, and absurd what its Retry-After says in the window.
	throttle sandbox.Throttle
	absurd   string
	// pageLife is how many seconds a page link lives, less than a throttle's pause; 0: longer than a rehearsal.
	pageLife int
	// late says that what is written shows late, with the time of when it was written: where resources show such a time.
	late bool
}

// vendors are the rehearsed ones, in the order of the tables.
func vendors() []vendor {
	return []vendor{
		{
			profile: "epic", roster: enrolPeople, absurd: "1764000000", // seconds since 1970, of a moment that has passed
			throttle: sandbox.Throttle{EveryN: 60, RetryAfterSeconds: 1},
		},
		{
			profile: "oracle", roster: followRosterGroup, absurd: "-5", late: true,
			throttle: sandbox.Throttle{EveryN: 60, RetryAfterSeconds: 2, RetryAfterDate: true},
		},
		{
			profile: "athena", roster: uploadPatients, absurd: "1764000000000", // in milliseconds
			flags:    []string{"--profile-param", "practice=Organization/a-1.Practice-1", "--roster-source", "list"},
			throttle: sandbox.Throttle{EveryN: 60, RetryAfterSeconds: 1, Token: true},
		},
		{
			profile: "medplum", absurd: "Wed, 21 Oct 2015 07:28:00 GMT", late: true,
			throttle: sandbox.Throttle{EveryN: 12, RetryAfterSeconds: 1, Status: http.StatusServiceUnavailable},
		},
		{
			// A chain of pages begins again when a link has expired, and must come to its end between two throttles.
			profile: "hapi", pageLife: 2, absurd: "soon", late: true,
			throttle: sandbox.Throttle{EveryN: 40, RetryAfterSeconds: 3},
		},
	}
}

// faults are what goes wrong while the hospital is tested, piloted and read whole.
func (v vendor) faults() sandbox.Faults {
	return sandbox.Faults{
		ErrorRate: 0.02, Throttle: v.throttle, DuplicateRows: true, PageExpiresAfterUses: 1, PageExpiresAfterSeconds: v.pageLife,
		TokenDiesAfterRequests: 25,
	}
}

// windowFaults are what goes wrong during the monitoring window.
func (v vendor) windowFaults() sandbox.Faults {
	f := v.faults()
	f.Throttle.RetryAfterRaw = v.absurd
	if v.roster == nil {
		f.Throttle.EveryN = 12 // a pass over what has changed is hardly more than a request for each type
	}
	if v.late {
		f.LateCommitSeconds, f.LateCommitShare = 3, 0.5
	}
	return f
}

// served is what the rehearsal reads of a resource in the source, of a type that Cura pulls.
type served struct {
	ID      string    `json:"id"`
	Subject reference `json:"subject"`
	Patient reference `json:"patient"`

	// What follows is a Patient's.
	Identifier []struct {
		System string `json:"system"`
		Value  string `json:"value"`
	} `json:"identifier"`
	Name []struct {
		Use    string   `json:"use"`
		Family string   `json:"family"`
		Given  []string `json:"given"`
	} `json:"name"`
	BirthDate string `json:"birthDate"`
	Gender    string `json:"gender"`
}

type reference struct {
	Reference string `json:"reference"`
}

// of is the id of the patient whom a resource of type t is about.
func (r served) of(t cura.ResourceType) string {
	if t == cura.Patient {
		return r.ID
	}
	return strings.TrimPrefix(r.Subject.Reference+r.Patient.Reference, "Patient/") // a type has one of the two
}

// source reads what the EHR has of the types that Cura pulls, each in the EHR's order.
func (h *hospital) source() (map[cura.ResourceType][]served, error) {
	var text bytes.Buffer
	if err := h.ehr.Source(&text); err != nil {
		return nil, err
	}
	all := map[cura.ResourceType][]served{}
	for line := range bytes.Lines(text.Bytes()) {
		var head struct {
			ResourceType cura.ResourceType `json:"resourceType"`
		}
		if err := json.Unmarshal(line, &head); err != nil {
			return nil, errors.New("the sandbox's source isn't JSON")
		}
		if !head.ResourceType.Pulled() {
			continue
		}
		var r served
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, fmt.Errorf("a resource of type %s in the sandbox's source can't be read", head.ResourceType)
		}
		all[head.ResourceType] = append(all[head.ResourceType], r)
	}
	return all, nil
}

// deleteOne deletes the last Observation of the first patient, who is on every roster, that isn't one of spared
// (Type/id).
func (h *hospital) deleteOne(spared map[string]bool) error {
	all, err := h.source()
	if err != nil {
		return err
	}
	for _, r := range slices.Backward(all[cura.Observation]) {
		if len(all[cura.Patient]) > 0 && r.of(cura.Observation) == all[cura.Patient][0].ID && !spared["Observation/"+r.ID] {
			return h.ehr.Delete("Observation", r.ID)
		}
	}
	return errors.New("the first patient has no Observation to delete")
}

// enrolPeople has the EHR asked for its own patients, as Cura would know them: by their medical record numbers.
func enrolPeople(h *hospital) ([]string, error) {
	all, err := h.source()
	if err != nil {
		return nil, err
	}
	file, err := people(all[cura.Patient], h.ehr.MRNSystem())
	if err != nil {
		return nil, err
	}
	return h.written(file, "people.csv", "enrol")
}

// people makes the file for `starter roster enrol`. Who has no number of the system, or neither a family name nor a birth
// date, can't be enrolled.
func people(patients []served, system string) ([]byte, error) {
	var file bytes.Buffer
	w := csv.NewWriter(&file)
	rows := [][]string{peopleColumns()}
	for _, p := range patients {
		row := []string{"", "", "", p.BirthDate, p.Gender}
		for _, id := range p.Identifier {
			if id.System == system && row[0] == "" {
				row[0] = id.Value
			}
		}
		for _, name := range p.Name {
			if row[1] == "" || name.Use == "official" {
				row[1], row[2] = name.Family, strings.Join(name.Given[:min(1, len(name.Given))], "")
			}
		}
		if row[0] != "" && row[1]+row[3] != "" {
			rows = append(rows, row)
		}
	}
	if err := w.WriteAll(rows); err != nil {
		return nil, fmt.Errorf("writing the people to enrol: %w", err)
	}
	return file.Bytes(), nil
}

// uploadPatients names the patients by the EHR's ids.
func uploadPatients(h *hospital) ([]string, error) {
	all, err := h.source()
	if err != nil {
		return nil, err
	}
	var file bytes.Buffer
	for _, p := range all[cura.Patient] {
		file.WriteString(p.ID + "\n")
	}
	return h.written(file.Bytes(), "patients.txt", "upload")
}

// followRosterGroup reads whom the sandbox's Group lists: not all of its patients.
func followRosterGroup(h *hospital) ([]string, error) {
	return []string{"roster", "group", h.ref(), sandbox.RosterGroup}, nil
}

// written puts a file beside the hospital's state and gives the roster command that reads it.
func (h *hospital) written(file []byte, name, command string) ([]string, error) {
	if err := os.WriteFile(filepath.Join(h.dir, name), file, 0o600); err != nil {
		return nil, fmt.Errorf("writing %s: %w", name, err)
	}
	return []string{"roster", command, h.ref(), filepath.Join(h.shown, name)}, nil
}

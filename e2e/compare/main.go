// Command compare holds what an EHR has against what Cura's tables have, resource by resource, and prints what differs as
// JSON. It is the judge of the pull, and so shares no code with it: it knows FHIR's JSON and the names of the tables, and
// nothing else.
//
//	compare -database URL -connection ID -source FILE [-patients FILE] [-unreadable Type/id,…]
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/klauspost/compress/zstd"
)

// Verdict is how one type compares.
type Verdict struct {
	Source int `json:"source"`
	Cura   int `json:"cura"`
	// Missing and Extra are on one side alone; Changed differ in content.
	Missing int `json:"missing"`
	Extra   int `json:"extra"`
	Changed int `json:"changed"`
	// Doubled are versions that landed more than once.
	Doubled int `json:"doubled"`
	// Untied are records that aren't in their table, or hang on another patient's profile.
	Untied int `json:"untied"`
	// Quarantined are resources that Cura holds and couldn't take in.
	Quarantined int `json:"quarantined"`
	// Examples name some of what differs, for the one who looks for the reason.
	Examples []string `json:"examples,omitempty"`
}

func main() {
	database := flag.String("database", "", "PostgreSQL URL of a superuser")
	connection := flag.String("connection", "", "id of the connection")
	source := flag.String("source", "", "NDJSON file of what the EHR has")
	patients := flag.String("patients", "", "file of the patients that are followed, an EHR id a line; empty: all")
	unreadable := flag.String("unreadable", "", "resources that the EHR lists and can't give: Type/id,…")
	flag.Parse()
	verdicts, err := compare(context.Background(), *database, *connection, *source, *patients, *unreadable)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(verdicts)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

// tables are where the records of each type are.
func tables() map[string]string {
	return map[string]string{
		"Patient": "", "AllergyIntolerance": "cura.allergies", "MedicationRequest": "cura.medications", "MedicationStatement": "cura.medications",
		"Observation": "labs.observations", "Encounter": "cura.visits", "Consent": "cura.consent_log",
	}
}

func compare(ctx context.Context, database, connection, source, patients, unreadable string) (map[string]Verdict, error) {
	followed, err := readLines(patients)
	if err != nil {
		return nil, err
	}
	wanted, err := readSource(source, followed)
	if err != nil {
		return nil, err
	}
	db, err := pgx.Connect(ctx, database)
	if err != nil {
		return nil, err
	}
	defer func() { _ = db.Close(ctx) }()
	verdicts := map[string]Verdict{}
	for typ, table := range tables() {
		c := comparison{db: db, connection: connection, typ: typ, table: table, wanted: wanted[typ], unreadable: map[string]bool{}}
		for name := range strings.SplitSeq(unreadable, ",") {
			if of, id, ok := strings.Cut(name, "/"); ok && of == typ {
				c.unreadable[id] = true
			}
		}
		if err := c.run(ctx); err != nil {
			return nil, fmt.Errorf("comparing %s: %w", typ, err)
		}
		if c.verdict.Source+c.verdict.Cura > 0 {
			verdicts[typ] = c.verdict
		}
	}
	return verdicts, nil
}

// readLines reads a file of ids; nil for no file.
func readLines(path string) (map[string]bool, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	ids := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if id := strings.TrimSpace(line); id != "" {
			ids[id] = true
		}
	}
	return ids, nil
}

// resource is one of the source's.
type resource struct {
	content any
	patient string // whom it is about; for a Patient its own id
	// mistaken: the EHR has withdrawn it (entered-in-error).
	mistaken bool
}

// readSource reads the resources of followed patients, or of all where followed is nil, by type and id.
func readSource(path string, followed map[string]bool) (map[string]map[string]resource, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	all := map[string]map[string]resource{}
	lines := bufio.NewReaderSize(file, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			typ, id, r, err := parse(line)
			if err != nil {
				return nil, err
			}
			if followed == nil || followed[r.patient] {
				if all[typ] == nil {
					all[typ] = map[string]resource{}
				}
				all[typ][id] = r
			}
		}
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func parse(raw []byte) (typ, id string, r resource, err error) {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber() // 5.4 and 5.40 are two values in FHIR
	var whole map[string]any
	if err := decoder.Decode(&whole); err != nil {
		return "", "", r, err
	}
	if meta, ok := whole["meta"].(map[string]any); ok {
		for _, moving := range []string{"versionId", "lastUpdated", "source"} {
			delete(meta, moving)
		}
		if len(meta) == 0 {
			delete(whole, "meta")
		}
	}
	r.content = whole
	typ, _ = whole["resourceType"].(string)
	id, _ = whole["id"].(string)
	r.patient = id
	if typ != "Patient" {
		r.patient = ""
		for _, name := range []string{"subject", "patient"} {
			if reference, ok := whole[name].(map[string]any); ok {
				text, _ := reference["reference"].(string)
				r.patient = text[strings.LastIndex(text, "/")+1:]
			}
		}
	}
	r.mistaken = whole["status"] == "entered-in-error"
	if status, ok := whole["verificationStatus"].(map[string]any); ok {
		codings, _ := status["coding"].([]any)
		for _, c := range codings {
			coding, _ := c.(map[string]any)
			r.mistaken = r.mistaken || coding["code"] == "entered-in-error"
		}
	}
	return typ, id, r, nil
}

// comparison compares one type.
type comparison struct {
	db         *pgx.Conn
	connection string
	typ, table string
	wanted     map[string]resource
	unreadable map[string]bool
	verdict    Verdict
}

func (c *comparison) note(what, id string) {
	if len(c.verdict.Examples) < 5 {
		c.verdict.Examples = append(c.verdict.Examples, what+" "+c.typ+"/"+id)
	}
}

// held is what Cura holds of one resource.
type held struct {
	raw     []byte
	outcome string
	// gone is the tombstone's reason.
	gone *string
	// tied is the EHR id of the patient whose profile the record hangs on; nil: there is no record.
	tied *string
}

func (c *comparison) run(ctx context.Context) error {
	c.verdict.Source = len(c.wanted)
	have, err := c.read(ctx)
	if err != nil {
		return err
	}
	for id, h := range have {
		r, wanted := c.wanted[id]
		if h.gone != nil && (!wanted || !r.mistaken) {
			if wanted {
				c.verdict.Missing++
				c.note("buried", id)
			}
			continue
		}
		c.verdict.Cura++
		switch {
		case !wanted:
			c.verdict.Extra++
			c.note("extra", id)
			continue
		case c.unreadable[id]:
			c.verdict.Quarantined++
			continue
		}
		if err := c.judge(id, r, h); err != nil {
			return err
		}
	}
	for id := range c.wanted {
		if _, ok := have[id]; !ok {
			c.verdict.Missing++
			c.note("missing", id)
		}
	}
	return c.db.QueryRow(ctx, `
		SELECT coalesce(sum(n - 1), 0) FROM (SELECT count(*) AS n FROM sync.landing WHERE connection_id = $1 AND resource_type = $2
			GROUP BY ehr_id, content_hash, coalesce(last_updated, '-infinity')) AS versions`, c.connection, c.typ).Scan(&c.verdict.Doubled)
}

func (c *comparison) judge(id string, r resource, h held) error {
	decoder, err := zstd.NewReader(nil)
	if err != nil {
		return err
	}
	defer decoder.Close()
	raw, err := decoder.DecodeAll(h.raw, nil)
	if err != nil {
		return err
	}
	_, _, landed, err := parse(raw)
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(landed.content, r.content) {
		c.verdict.Changed++
		c.note("changed", id)
	}
	if h.outcome != "stored" {
		c.verdict.Quarantined++
		return nil
	}
	if h.tied == nil || *h.tied != r.patient {
		c.verdict.Untied++
		c.note("untied", id)
	}
	return nil
}

func (c *comparison) read(ctx context.Context) (map[string]held, error) {
	// Of a Patient it is the link itself; of a record, the link of the profile that it hangs on.
	tied := `SELECT l.ehr_id FROM sync.patient_links l WHERE l.connection_id = r.connection_id AND l.ehr_id = r.ehr_id`
	if c.table != "" {
		tied = `SELECT l.ehr_id FROM ` + c.table + ` t JOIN sync.patient_links l ON l.connection_id = t.connection_id AND l.profile_id = t.profile_id
			WHERE t.connection_id = r.connection_id AND t.ehr_id = r.ehr_id AND t.landing_id = r.landing_id`
	}
	rows, err := c.db.Query(ctx, `
		SELECT r.ehr_id, l.raw, r.outcome, r.gone_reason, (`+tied+` LIMIT 1)
		FROM sync.resources r JOIN sync.landing l ON l.org_id = r.org_id AND l.landing_id = r.landing_id
		WHERE r.connection_id = $1 AND r.resource_type = $2`, c.connection, c.typ)
	if err != nil {
		return nil, err
	}
	have := map[string]held{}
	var id string
	var h held
	_, err = pgx.ForEachRow(rows, []any{&id, &h.raw, &h.outcome, &h.gone, &h.tied}, func() error {
		have[id] = h
		h = held{}
		return nil
	})
	return have, err
}

// Command arrivals holds the log of what reached an EHR against the consent tables, and prints as JSON what arrived while no
// consent permitted it. It is the judge of the push, and so shares no code with it: it knows the sandbox EHR's log and the
// names of the tables, and nothing else.
//
//	arrivals -database URL -log FILE
//
// It understands the consents that officers write in Cura, one change at a time for a patient: a consent permits or denies
// everything while it is active; a denial that stands beats every permit.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
)

// Verdict is what the log says about consent and about duplicates.
type Verdict struct {
	// Arrivals are all writes that reached the EHR: Exempt ones may come without a permit, Disclosures may not.
	Arrivals    int `json:"arrivals"`
	Disclosures int `json:"disclosures"`
	Exempt      int `json:"exempt"`
	// AfterRevocation are disclosures at or after the effective_at of a withdrawal and before the next grant; WithoutConsent
	// those before the first grant. Both must be 0.
	AfterRevocation int `json:"after_revocation"`
	WithoutConsent  int `json:"without_consent"`
	// Strangers name nothing that is in the outbox, or broke off before they named anything. Must be 0 unless a sender was
	// killed while it wrote.
	Strangers int `json:"strangers"`
	// Records are what the EHR has taken, by identifier; Duplicates those that it has more than once. Must be 0.
	Records    int `json:"records"`
	Duplicates int `json:"duplicates"`
	// Changes are the changes of consent that are effective, and Longest is how long one was on its way, in milliseconds.
	Changes int     `json:"changes"`
	Longest float64 `json:"longest_ms"`
	// Examples name some of what mustn't be, by Cura's own ids.
	Examples []Example `json:"examples,omitempty"`
}

// Example is one thing that mustn't be.
type Example struct {
	What    string    `json:"what"`
	Item    string    `json:"item"`
	Profile string    `json:"profile"`
	At      time.Time `json:"at"`
	// LateMS is how long after the withdrawal was effective it arrived.
	LateMS float64 `json:"late_ms,omitempty"`
	// Entry is the withdrawal's in the consent log.
	Entry int64 `json:"entry,omitempty"`
}

const maxExamples = 10

func (v *Verdict) example(e Example) {
	if len(v.Examples) < maxExamples {
		v.Examples = append(v.Examples, e)
	}
}

func main() {
	database := flag.String("database", "", "PostgreSQL URL of a superuser")
	log := flag.String("log", "", "file with the sandbox EHR's GET /arrivals")
	flag.Parse()
	verdict, err := judge(context.Background(), *database, *log)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(verdict)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "arrivals:", err)
		os.Exit(1)
	}
}

// arrival is one entry of the EHR's log.
type arrival struct {
	At         time.Time `json:"at"`
	Method     string    `json:"method"`
	Identifier string    `json:"identifier"`
	ID         string    `json:"id"`
	Processed  bool      `json:"processed"`
}

func readLog(path string) ([]arrival, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var log struct {
		Arrivals []arrival `json:"arrivals"`
	}
	return log.Arrivals, json.Unmarshal(text, &log)
}

func judge(ctx context.Context, database, path string) (Verdict, error) {
	log, err := readLog(path)
	if err != nil {
		return Verdict{}, err
	}
	db, err := pgx.Connect(ctx, database)
	if err != nil {
		return Verdict{}, err
	}
	defer func() { _ = db.Close(ctx) }()
	items, err := readItems(ctx, db)
	if err != nil {
		return Verdict{}, err
	}
	changes, err := readChanges(ctx, db)
	if err != nil {
		return Verdict{}, err
	}
	v := Verdict{Arrivals: len(log)}
	for _, ofPatient := range changes {
		for _, c := range ofPatient {
			if c.effective != nil {
				v.Changes++
				v.Longest = max(v.Longest, milliseconds(c.effective.Sub(c.opened)))
			}
		}
	}
	made := map[string]map[string]bool{}
	for _, a := range log {
		item, known := items[a.Identifier]
		switch {
		case !known:
			v.Strangers++
			v.example(Example{What: "stranger", At: a.At})
			continue
		case item.exempt:
			v.Exempt++
		default:
			v.Disclosures++
			v.weigh(a, item, changes[item.profile])
		}
		if a.Processed && a.Method == http.MethodPost {
			if made[a.Identifier] == nil {
				made[a.Identifier] = map[string]bool{}
			}
			made[a.Identifier][a.ID] = true
		}
	}
	v.Records = len(made)
	for identifier, ids := range made {
		if len(ids) > 1 {
			v.Duplicates += len(ids) - 1
			v.example(Example{What: "duplicate", Item: items[identifier].id, Profile: items[identifier].profile})
		}
	}
	return v, nil
}

// weigh looks for a moment of permission.
func (v *Verdict) weigh(a arrival, item outboxItem, changes []change) {
	standing := permission(changes, a.At)
	if standing.permits {
		return
	}
	e := Example{What: "after_revocation", Item: item.id, Profile: item.profile, At: a.At, Entry: standing.entry}
	if standing.withdrawn.IsZero() {
		v.WithoutConsent++
		e.What = "without_consent"
	} else {
		v.AfterRevocation++
		e.LateMS = milliseconds(a.At.Sub(standing.withdrawn))
	}
	v.example(e)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

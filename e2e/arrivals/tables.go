package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// outboxItem is what an identifier at the EHR stands for.
type outboxItem struct {
	id, profile string
	exempt      bool
}

// readItems reads the outbox by the identifier that an item has at the EHR.
func readItems(ctx context.Context, db *pgx.Conn) (map[string]outboxItem, error) {
	rows, err := db.Query(ctx, `
		SELECT o.artefact_id || '.' || o.artefact_version, o.item_id::text, l.profile_id::text, o.exempt <> ''
		FROM push.outbox o JOIN sync.patient_links l USING (org_id, link_id)`)
	if err != nil {
		return nil, err
	}
	items := map[string]outboxItem{}
	var identifier string
	var item outboxItem
	_, err = pgx.ForEachRow(rows, []any{&identifier, &item.id, &item.profile, &item.exempt}, func() error {
		if _, twice := items[identifier]; twice {
			return errors.New("two items of the outbox have one identifier")
		}
		items[identifier] = item
		return nil
	})
	return items, err
}

// change is an entry of a patient's consent log with its halt.
type change struct {
	entry  int64
	opened time.Time
	// effective is nil as long as it isn't.
	effective *time.Time
	// permits says what the log up to this entry comes to.
	permits bool
}

// readChanges reads the changes of each patient's consent, the oldest first. Each entry that was made in Cura has the halt
// of the same place in the order, as long as a patient's changes don't overlap.
func readChanges(ctx context.Context, db *pgx.Conn) (map[string][]change, error) {
	rows, err := db.Query(ctx, `
		WITH entries AS (
			SELECT org_id, profile_id, entry_id, source, coalesce(consent_id::text, '') AS consent, status, root_type, entered_in_error,
				row_number() OVER (PARTITION BY org_id, profile_id ORDER BY entry_id) AS nth
			FROM cura.consent_log
		), halts AS (
			SELECT org_id, profile_id, opened_at, effective_at, row_number() OVER (PARTITION BY org_id, profile_id ORDER BY opened_at) AS nth
			FROM cura.consent_halts
		)
		SELECT profile_id::text, e.entry_id, e.source, e.consent, e.status, e.root_type, e.entered_in_error, h.opened_at, h.effective_at
		FROM entries e FULL JOIN halts h USING (org_id, profile_id, nth) ORDER BY 1, nth`)
	if err != nil {
		return nil, err
	}
	changes := map[string][]change{}
	standing := map[string]map[string]string{} // by patient and consent: permit, deny, or nothing
	var profile string
	var entry *int64
	var source, consent, status, root *string
	var mistaken *bool
	var opened, effective *time.Time
	_, err = pgx.ForEachRow(rows, []any{&profile, &entry, &source, &consent, &status, &root, &mistaken, &opened, &effective}, func() error {
		if entry == nil || opened == nil {
			return fmt.Errorf("patient %s has entries in the log and halts that don't pair", profile)
		}
		if *source != "cura" {
			return fmt.Errorf("patient %s has consents of a hospital, which this program doesn't understand", profile)
		}
		if standing[profile] == nil {
			standing[profile] = map[string]string{}
		}
		standing[profile][*consent] = ""
		if *status == "active" && !*mistaken {
			standing[profile][*consent] = *root
		}
		c := change{entry: *entry, opened: *opened, permits: permitted(standing[profile])}
		if effective != nil {
			at := *effective
			c.effective = &at
		}
		changes[profile] = append(changes[profile], c)
		return nil
	})
	return changes, err
}

// permitted says what a patient's consents come to.
func permitted(consents map[string]string) bool {
	one := false
	for _, root := range consents {
		switch root {
		case "permit":
			one = true
		case "deny":
			return false
		}
	}
	return one
}

// standing is what counts at an instant.
type standing struct {
	permits bool
	// withdrawn is since when it doesn't, and entry what has withdrawn it; zero: nothing ever permitted it.
	withdrawn time.Time
	entry     int64
}

// permission tells what counts at an instant. A withdrawal counts from its effective_at on; what permits again, from when it
// was made: between its commit and the reading of the clock that becomes its effective_at, items may rightly leave.
func permission(changes []change, at time.Time) standing {
	var now standing
	for _, c := range changes {
		switch {
		case c.permits && !c.opened.After(at):
			now = standing{permits: true}
		case !c.permits && now.permits && c.effective != nil && !c.effective.After(at):
			now = standing{withdrawn: *c.effective, entry: c.entry}
		}
	}
	return now
}

package store

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// Outcome is what became of one resource that the EHR served.
type Outcome string

// The outcomes; every resource served has exactly one.
const (
	Stored      Outcome = "stored"
	Unchanged   Outcome = "unchanged"
	Quarantined Outcome = "quarantined"
	InReview    Outcome = "in_review"
	Withheld    Outcome = "withheld"
)

// Reason is why a resource was quarantined: an element path and words, never a value.
type Reason struct {
	Path string `json:"path"`
	Text string `json:"text"`
}

// Item is one resource of a page with its outcome. A page holds each EHRID at most once with an outcome other than
// Unchanged.
type Item struct {
	EHRID       string
	Hash        [32]byte
	VersionID   string
	LastUpdated *time.Time
	// Raw is the resource as received; nil for one above the size cap.
	Raw      []byte
	RawBytes int64
	// Packed is Raw as Store.Pack makes it; nil: it is packed when it is written, while other writers wait.
	Packed []byte

	Outcome Outcome
	// Mapped is what validating and mapping came to, whatever else is there: Stored or Quarantined; empty: neither was
	// needed so far. The outcome is decided from it; the store doesn't read it.
	Mapped Outcome
	// Landing is the row of this very version where it has landed before, and is only looked at again because its
	// patient has been linked since; 0: it lands now.
	Landing int64
	// WaitsForPatient is the EHR id of the patient that must be linked before the outcome can be another.
	WaitsForPatient string
	Reasons         []Reason       // for Quarantined
	Record          cura.Record    // for Stored, and for what was Mapped
	Profile         cura.ProfileID // for Stored
	// ReviewKind, ReviewReason and Candidates are what a person is asked about a patient InReview. Of a merge the candidates are
	// the profile that the patient has and the one that they would get, of a split the former one and the one that they have.
	ReviewKind   cura.ReviewKind
	ReviewReason string
	Candidates   []cura.ProfileID
	// Decided are the reviews whose decisions the outcome follows.
	Decided []string
	// Shown is what the profile of a patient showed when it was decided whether it shows this version from now on; nil: it is new.
	Shown *Shown
	// Keep: the profile keeps what it shows. Of a Consent: it is a permit of somebody who was merged into another.
	Keep bool
	// ReplacedBy is the EHR id of the patient into whom this one was merged: nothing of it is shown, and nobody is found by it.
	ReplacedBy string
	// Relink: the patient is linked already, and ReplacedBy isn't what the link says.
	Relink bool
	// Move takes a patient's link from another profile to Profile, with what hangs on it.
	Move *LinkMove
	// MatchedBy is set for a patient that is linked for the first time: "new" or the kind of identifier.
	MatchedBy string
	// MatchSystems and MatchKeys are the identifiers by which no profile was found for a new patient: each of the keys under each of
	// the systems' names.
	MatchSystems []string
	MatchKeys    []string
}

// Head is the newest version of a resource that has landed, and what became of it.
type Head struct {
	Hash            []byte
	LastUpdated     *time.Time
	Landing         int64
	Outcome         Outcome
	WaitsForPatient string
}

// Heads reads the heads of the resources named by ids. The sub-select with its limit is for the planner: joined openly, a
// table whose statistics are old is scanned whole for every page.
func (tx *Tx) Heads(ctx context.Context, connection cura.ConnectionID, t cura.ResourceType, ids []string) (map[string]Head, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT p.ehr_id, r.*
		FROM unnest($4::text[]) AS p (ehr_id), LATERAL (
			SELECT r.content_hash, r.last_updated, r.landing_id, r.outcome, coalesce(r.waits_for_patient, '') FROM sync.resources r
			WHERE r.org_id = $1 AND r.connection_id = $2 AND r.resource_type = $3 AND r.ehr_id = p.ehr_id LIMIT 1) AS r`,
		tx.org, connection, t, ids)
	if err != nil {
		return nil, err
	}
	heads := make(map[string]Head, len(ids))
	var id string
	var h Head
	_, err = pgx.ForEachRow(rows, []any{&id, &h.Hash, &h.LastUpdated, &h.Landing, &h.Outcome, &h.WaitsForPatient}, func() error {
		heads[id] = h
		h.Hash = nil
		return nil
	})
	return heads, err
}

// ApplyPage writes one page: landing, heads, Cura rows, quarantine, reviews, counts, audit, and the cursor or watermark,
// all or nothing. It returns the counts of the page.
func (tx *Tx) ApplyPage(ctx context.Context, pass Pass, mappingVersion string, items []Item, advance Advance) (cura.Counts, error) {
	if err := tx.holdLease(ctx, pass); err != nil {
		return cura.Counts{}, err
	}
	if err := tx.holdDecisions(ctx, pass, items); err != nil {
		return cura.Counts{}, err
	}
	counts, err := tx.applyItems(ctx, pass, mappingVersion, items)
	if err != nil {
		return cura.Counts{}, err
	}
	var batch pgx.Batch
	tx.countPage(&batch, pass, counts, advance.done())
	tx.advance(&batch, pass, advance)
	if err := tx.tx.SendBatch(ctx, &batch).Close(); err != nil {
		return cura.Counts{}, err
	}
	if advance.whole() {
		if err := tx.recover(ctx, pass); err != nil {
			return cura.Counts{}, err
		}
	}
	tx.Audit(audit.Record{
		Kind: audit.PageRead, Connection: pass.Connection, Run: pass.Run, Outcome: audit.Success,
		Details: map[string]any{"type": pass.Type, "counts": counts, "last_page": advance.done()},
	})
	return counts, nil
}

// ApplyWoken writes resources that had landed before and are decided again: rows and audit, but no counts of the run,
// which counts what the EHR served. ErrSettledMeanwhile as for a page.
func (tx *Tx) ApplyWoken(ctx context.Context, pass Pass, mappingVersion string, items []Item) error {
	if err := tx.holdLease(ctx, pass); err != nil {
		return err
	}
	if err := tx.holdDecisions(ctx, pass, items); err != nil {
		return err
	}
	counts, err := tx.applyItems(ctx, pass, mappingVersion, items)
	if err != nil {
		return err
	}
	tx.Audit(audit.Record{
		Kind: audit.ResourcesWoken, Connection: pass.Connection, Run: pass.Run, Outcome: audit.Success,
		Details: map[string]any{"type": pass.Type, "counts": counts},
	})
	return nil
}

// Woken lists resources of the pass's type that were set aside for want of their patient, who is linked by now and isn't
// withheld, and patients about whom a person has decided since. They come raw from the landing, for another decision.
func (tx *Tx) Woken(ctx context.Context, pass Pass, limit int) ([]Item, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT r.ehr_id, r.content_hash, r.last_updated, r.landing_id, l.version_id, l.raw, l.raw_bytes
		FROM (
			SELECT r.ehr_id, r.content_hash, r.last_updated, r.landing_id FROM sync.resources r, LATERAL (
				SELECT p.profile_id FROM sync.patient_links p
				WHERE p.org_id = $1 AND p.connection_id = $2 AND p.ehr_id = r.waits_for_patient LIMIT 1) AS p
			WHERE r.org_id = $1 AND r.connection_id = $2 AND r.resource_type = $3 AND r.waits_for_patient IS NOT NULL
				AND NOT EXISTS (SELECT FROM cura.withheld w
					WHERE w.org_id = $1 AND w.connection_id = $2 AND w.profile_id = p.profile_id AND $3 = ANY (w.types))
			UNION
			SELECT r.ehr_id, r.content_hash, r.last_updated, r.landing_id FROM sync.reviews v, LATERAL (
				SELECT r.ehr_id, r.content_hash, r.last_updated, r.landing_id FROM sync.resources r
				WHERE r.org_id = $1 AND r.connection_id = $2 AND r.resource_type = $3 AND r.ehr_id = v.ehr_id LIMIT 1) AS r
			WHERE v.org_id = $1 AND v.connection_id = $2 AND v.resource_type = $3 AND v.decided_at IS NOT NULL AND v.closed_at IS NULL) AS r, LATERAL (
			SELECT l.version_id, l.raw, l.raw_bytes FROM sync.landing l WHERE l.org_id = $1 AND l.landing_id = r.landing_id LIMIT 1) AS l
		WHERE l.raw IS NOT NULL
		LIMIT $4`, tx.org, pass.Connection, pass.Type, limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Item, error) {
		var it Item
		var hash, raw []byte
		if err := row.Scan(&it.EHRID, &hash, &it.LastUpdated, &it.Landing, &it.VersionID, &raw, &it.RawBytes); err != nil {
			return it, err
		}
		copy(it.Hash[:], hash)
		var err error
		it.Raw, err = tx.store.decoder.DecodeAll(raw, nil)
		return it, err
	})
}

// Holds reports whether the tables can hold an item: it is written in a transaction of its own that is rolled back. A
// page that the database refuses is gone through with it, so that one odd value stops one resource and not the page.
func (s *Store) Holds(ctx context.Context, org cura.OrgID, pass Pass, mappingVersion string, item Item) (bool, error) {
	undo := fault.New("trying an item", fault.Unknown, "this is undone")
	err := s.InOrg(ctx, org, func(tx *Tx) error {
		if _, err := tx.applyItems(ctx, pass, mappingVersion, []Item{item}); err != nil {
			return err
		}
		return undo
	})
	switch {
	case errors.Is(err, undo):
		return true, nil
	case fault.Is(err, fault.Data):
		return false, nil
	}
	return false, err
}

// ApplyPatient writes what the pilot read of one patient, without cursor, watermark or lease: a pilot is read whole.
func (tx *Tx) ApplyPatient(ctx context.Context, pass Pass, mappingVersion string, items []Item) (cura.Counts, error) {
	counts, err := tx.applyItems(ctx, pass, mappingVersion, items)
	if err != nil {
		return cura.Counts{}, err
	}
	var batch pgx.Batch
	tx.countPage(&batch, pass, counts, true)
	tx.Audit(audit.Record{
		Kind: audit.PageRead, Connection: pass.Connection, Run: pass.Run, Outcome: audit.Success,
		Details: map[string]any{"type": pass.Type, "counts": counts},
	})
	return counts, tx.tx.SendBatch(ctx, &batch).Close()
}

func (tx *Tx) countPage(batch *pgx.Batch, pass Pass, c cura.Counts, done bool) {
	batch.Queue(`
		INSERT INTO sync.run_counts AS r (org_id, run_id, resource_type, served, landed, stored, unchanged, quarantined, in_review, withheld, done)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
		ON CONFLICT (org_id, run_id, resource_type) DO UPDATE
			SET served = r.served + excluded.served, landed = r.landed + excluded.landed, stored = r.stored + excluded.stored,
				unchanged = r.unchanged + excluded.unchanged, quarantined = r.quarantined + excluded.quarantined,
				in_review = r.in_review + excluded.in_review, withheld = r.withheld + excluded.withheld, done = excluded.done`,
		tx.org, pass.Run, pass.Type, c.Served, c.Landed, c.Stored, c.Unchanged, c.Quarantined, c.InReview, c.Withheld, done)
}

// applyItems lands what changed and writes its outcome.
func (tx *Tx) applyItems(ctx context.Context, pass Pass, mappingVersion string, items []Item) (cura.Counts, error) {
	var counts cura.Counts
	var changed []Item
	for _, it := range items {
		counts.Served++
		switch it.Outcome {
		case Unchanged:
			counts.Unchanged++
			continue
		case Stored:
			counts.Stored++
		case Quarantined:
			counts.Quarantined++
		case InReview:
			counts.InReview++
		case Withheld:
			counts.Withheld++
			continue // Cura keeps nothing of it, not even that it was there
		}
		changed = append(changed, it)
	}
	if len(changed) == 0 {
		return counts, nil
	}
	landed, fresh, err := tx.land(ctx, pass, changed)
	if err != nil {
		return cura.Counts{}, err
	}
	counts.Landed = fresh

	var batch pgx.Batch
	tx.putHeads(&batch, pass, changed, landed)
	if err := tx.putOutcomes(&batch, pass, changed, landed); err != nil {
		return cura.Counts{}, err
	}
	if err := tx.putRecords(&batch, pass, mappingVersion, changed, landed); err != nil {
		return cura.Counts{}, err
	}
	if err := tx.tx.SendBatch(ctx, &batch).Close(); err != nil {
		return cura.Counts{}, err
	}
	for _, it := range changed {
		if it.Outcome == Stored && it.Move != nil {
			if err := tx.moveLink(ctx, pass, it); err != nil {
				return cura.Counts{}, err
			}
		}
	}
	return counts, tx.markAsked(ctx, pass, changed)
}

// land keeps the raw versions that are new, and returns the landing ids of all by EHR id, and how many are new.
func (tx *Tx) land(ctx context.Context, pass Pass, items []Item) (landed map[string]int64, fresh int, err error) {
	landed = make(map[string]int64, len(items))
	var ids, versions []string
	var hashes, raws [][]byte
	var updated []*time.Time
	var sizes []int64
	for _, it := range items {
		if it.Landing != 0 {
			landed[it.EHRID] = it.Landing
			continue
		}
		raw := it.Packed
		if raw == nil && it.Raw != nil {
			raw = tx.store.Pack(it.Raw)
		}
		ids, hashes, versions = append(ids, it.EHRID), append(hashes, it.Hash[:]), append(versions, it.VersionID)
		updated, raws, sizes = append(updated, it.LastUpdated), append(raws, raw), append(sizes, it.RawBytes)
	}
	rows, err := tx.tx.Query(ctx, `
		INSERT INTO sync.landing (org_id, connection_id, resource_type, ehr_id, content_hash, version_id, last_updated, raw, raw_bytes, run_id)
		SELECT $1, $2, $3, p.ehr_id, p.content_hash, p.version_id, p.last_updated, p.raw, p.raw_bytes, $10
		FROM unnest($4::text[], $5::bytea[], $6::text[], $7::timestamptz[], $8::bytea[], $9::bigint[])
			AS p (ehr_id, content_hash, version_id, last_updated, raw, raw_bytes)
		RETURNING ehr_id, landing_id`,
		tx.org, pass.Connection, pass.Type, ids, hashes, versions, updated, raws, sizes, pass.Run)
	if err != nil {
		return nil, 0, err
	}
	var id string
	var landing int64
	_, err = pgx.ForEachRow(rows, []any{&id, &landing}, func() error {
		landed[id] = landing
		return nil
	})
	return landed, len(ids), err
}

func (tx *Tx) putHeads(batch *pgx.Batch, pass Pass, items []Item, landed map[string]int64) {
	n := len(items)
	ids, hashes, updated := make([]string, n), make([][]byte, n), make([]*time.Time, n)
	landings, outcomes, waits := make([]int64, n), make([]string, n), make([]*string, n)
	for i, it := range items {
		ids[i], hashes[i], updated[i] = it.EHRID, it.Hash[:], it.LastUpdated
		landings[i], outcomes[i] = landed[it.EHRID], string(it.Outcome)
		if it.WaitsForPatient != "" {
			waits[i] = &it.WaitsForPatient
		}
	}
	batch.Queue(`
		INSERT INTO sync.resources AS r (org_id, connection_id, resource_type, partition, ehr_id, content_hash, last_updated, landing_id, outcome,
			waits_for_patient)
		SELECT $1, $2, $3, $10, * FROM unnest($4::text[], $5::bytea[], $6::timestamptz[], $7::bigint[], $8::text[], $9::text[])
		ON CONFLICT (org_id, connection_id, resource_type, ehr_id) DO UPDATE
			SET content_hash = excluded.content_hash, last_updated = excluded.last_updated, landing_id = excluded.landing_id,
				outcome = excluded.outcome, waits_for_patient = excluded.waits_for_patient,
				partition = CASE excluded.partition WHEN '' THEN r.partition ELSE excluded.partition END`,
		tx.org, pass.Connection, pass.Type, ids, hashes, updated, landings, outcomes, waits, pass.Partition)
	// What was set aside before has a new outcome now.
	const open = ` WHERE org_id = $1 AND connection_id = $2 AND resource_type = $3 AND ehr_id = p.ehr_id AND closed_at IS NULL LIMIT 1`
	batch.Queue(`
		UPDATE sync.quarantine SET closed_at = now() WHERE closed_at IS NULL AND ctid = ANY (ARRAY (
			SELECT t.ctid FROM unnest($4::text[]) AS p (ehr_id), LATERAL (SELECT ctid FROM sync.quarantine`+open+`) AS t))`,
		tx.org, pass.Connection, pass.Type, ids)
	// What a person is asked stays the question while the version that it is about is the last, or the last one can't be read.
	stands := make([]string, n)
	for i, it := range items {
		stands[i] = it.standing()
	}
	batch.Queue(`
		UPDATE sync.reviews SET closed_at = now() WHERE closed_at IS NULL AND ctid = ANY (ARRAY (
			SELECT t.ctid FROM unnest($4::text[], $5::bigint[], $6::text[]) AS p (ehr_id, landing_id, stands), LATERAL (
				SELECT ctid, kind, landing_id, decided_at FROM sync.reviews`+open+`) AS t
			WHERE t.decided_at IS NOT NULL OR NOT CASE p.stands
				WHEN 'read again' THEN t.landing_id = p.landing_id AND t.kind <> 'conflict'
				WHEN 'tied' THEN t.landing_id = p.landing_id
				WHEN 'unread' THEN t.kind IN ('merge', 'split')
				ELSE false END))`, tx.org, pass.Connection, pass.Type, ids, landings, stands)
}

// standing says in which case an item leaves open what a person is asked; empty: in none.
func (it Item) standing() string {
	switch {
	case it.Outcome == Quarantined:
		return "unread"
	case it.Outcome != Stored || it.Landing == 0 || it.MatchedBy != "":
		return ""
	case len(it.Decided) > 0:
		return "tied"
	}
	return "read again"
}

// putOutcomes opens quarantine and review rows, each with an audit record that gives the same reason.
func (tx *Tx) putOutcomes(batch *pgx.Batch, pass Pass, items []Item, landed map[string]int64) error {
	for _, it := range items {
		switch {
		case it.Outcome == Quarantined:
			id := uuid.NewString()
			reasons, err := json.Marshal(it.Reasons)
			if err != nil {
				return err
			}
			batch.Queue(`
				INSERT INTO sync.quarantine (org_id, quarantine_id, connection_id, resource_type, ehr_id, landing_id, reasons)
				VALUES ($1, $2, $3, $4, $5, $6, $7)`, tx.org, id, pass.Connection, pass.Type, it.EHRID, landed[it.EHRID], string(reasons))
			tx.Audit(audit.Record{
				Kind: audit.ResourceRejected, Connection: pass.Connection, Run: pass.Run, Outcome: audit.Failure,
				Details: map[string]any{"quarantine": id, "type": pass.Type, "reasons": it.Reasons},
			})
		case it.Outcome == InReview && it.ReviewReason != "":
			id := uuid.NewString()
			candidates := make([]string, len(it.Candidates))
			for i, c := range it.Candidates {
				candidates[i] = string(c)
			}
			batch.Queue(`
				INSERT INTO sync.reviews (org_id, review_id, connection_id, resource_type, ehr_id, landing_id, kind, reason, candidates, content_hash)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
				tx.org, id, pass.Connection, pass.Type, it.EHRID, landed[it.EHRID], it.ReviewKind, it.ReviewReason, candidates, it.Hash[:])
			tx.Audit(audit.Record{
				Kind: audit.ReviewOpened, Connection: pass.Connection, Run: pass.Run, Outcome: audit.Failure,
				Details: map[string]any{"review": id, "type": pass.Type, "kind": it.ReviewKind, "reason": it.ReviewReason},
			})
		case it.Outcome == Stored && len(it.Decided) > 0:
			batch.Queue(`UPDATE sync.reviews SET applied_at = clock_timestamp() WHERE org_id = $1 AND review_id = ANY ($2::uuid[]) AND applied_at IS NULL`,
				tx.org, it.Decided)
		}
	}
	return nil
}

// markAsked has people see that the page has opened reviews. The row is one that sends wait for, so it comes last.
func (tx *Tx) markAsked(ctx context.Context, pass Pass, items []Item) error {
	if !slices.ContainsFunc(items, func(it Item) bool { return it.Outcome == InReview && it.ReviewReason != "" }) {
		return nil
	}
	_, err := tx.tx.Exec(ctx, `UPDATE directory.connections SET attention = true WHERE org_id = $1 AND connection_id = $2`, tx.org, pass.Connection)
	return err
}

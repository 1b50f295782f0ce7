package store

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/consent"
	"github.com/cura-health/ehr-sync/internal/cura"
)

// LinkMove is a patient's link on its way from one profile to another: a merge that Cura follows, or one that is taken back.
type LinkMove struct {
	From cura.ProfileID
	// New: the profile that it moves to is made for it.
	New bool
	// By is who decided it.
	By string
}

// recordTables are the tables of records that hang on a patient.
func recordTables() []string {
	return []string{"cura.allergies", "cura.medications", "labs.observations", "cura.visits"}
}

// stampRecords has the rows from before they told whose they are say so: they belong to the profile's only patient.
func stampRecords(batch *pgx.Batch, org cura.OrgID, connection cura.ConnectionID, profile cura.ProfileID) {
	for _, table := range recordTables() {
		batch.Queue(`
			UPDATE `+table+` r SET patient_ehr_id = l.ehr_id FROM (
				SELECT min(ehr_id) FROM sync.patient_links WHERE org_id = $1 AND connection_id = $2 AND profile_id = $3 HAVING count(*) = 1) AS l (ehr_id)
			WHERE r.org_id = $1 AND r.connection_id = $2 AND r.profile_id = $3 AND r.patient_ehr_id = ''`, org, connection, profile)
	}
}

// leaving is who leaves a profile: a patient, and whom the EHR has merged into them.
type leaving struct {
	link, connection string
	// origin is the profile that the patient came from; empty: they were never moved.
	origin   cura.ProfileID
	patients []string
	// only: the profile has no other patient of the connection; emptied: nor of another one.
	only, emptied bool
}

func (tx *Tx) leaving(ctx context.Context, pass Pass, it Item) (leaving, error) {
	l := leaving{connection: string(pass.Connection)}
	err := tx.tx.QueryRow(ctx, `
		WITH RECURSIVE along AS (
			SELECT $4::text AS ehr_id
			UNION
			SELECT l.ehr_id FROM sync.patient_links l JOIN along a ON l.replaced_by = a.ehr_id
			WHERE l.org_id = $1 AND l.connection_id = $2 AND l.profile_id = $3
		)
		SELECT l.link_id::text, coalesce(l.moved_from::text, ''), ARRAY (SELECT ehr_id FROM along), NOT EXISTS (
				SELECT FROM sync.patient_links o WHERE o.org_id = $1 AND o.connection_id = $2 AND o.profile_id = $3 AND o.ehr_id NOT IN (SELECT ehr_id FROM along)),
			NOT EXISTS (SELECT FROM sync.patient_links o WHERE o.org_id = $1 AND o.connection_id <> $2 AND o.profile_id = $3)
		FROM sync.patient_links l WHERE l.org_id = $1 AND l.connection_id = $2 AND l.ehr_id = $4`,
		tx.org, pass.Connection, it.Move.From, it.EHRID).Scan(&l.link, &l.origin, &l.patients, &l.only, &l.emptied)
	l.emptied = l.emptied && l.only
	return l, err
}

// moveLink moves a link with what hangs on it: whom the EHR has merged into the patient, records, the identifiers by which nobody
// is to be found at the former profile, and what is queued for the EHR. A refusal goes along, a permit doesn't (moveConsents), and
// what stands at either profile is settled anew.
func (tx *Tx) moveLink(ctx context.Context, pass Pass, it Item) error {
	from, to := it.Move.From, it.Profile
	if err := tx.holdHeads(ctx, from, to); err != nil {
		return err
	}
	who, err := tx.leaving(ctx, pass, it)
	if err != nil {
		return err
	}
	var batch pgx.Batch
	stampRecords(&batch, tx.org, pass.Connection, from)
	stampRecords(&batch, tx.org, pass.Connection, to)
	batch.Queue(`
		UPDATE sync.patient_links SET profile_id = $4, moved_from = $5, moved_at = clock_timestamp(),
			replaced_by = CASE ehr_id WHEN $6 THEN $7 ELSE replaced_by END
		WHERE org_id = $1 AND connection_id = $2 AND ehr_id = ANY ($3)`, tx.org, pass.Connection, who.patients, to, from, it.EHRID, it.ReplacedBy)
	for _, table := range recordTables() {
		batch.Queue(`
			UPDATE `+table+` SET profile_id = $5, updated_at = now()
			WHERE org_id = $1 AND connection_id = $2 AND profile_id = $3 AND patient_ehr_id = ANY ($4)`, tx.org, pass.Connection, from, who.patients, to)
	}
	batch.Queue(`
		DELETE FROM cura.profile_identifiers i WHERE org_id = $1 AND profile_id = $2 AND connection_id = $3 AND (patient_ehr_id = ANY ($4) OR NOT EXISTS (
			SELECT FROM sync.patient_links l WHERE l.org_id = $1 AND l.connection_id = $3 AND l.profile_id = $2 AND l.replaced_by = ''))`,
		tx.org, from, pass.Connection, who.patients)
	// What isn't under way goes to the patient that the EHR goes on with; what tells of consent, or takes back, is about this one.
	batch.Queue(`
		UPDATE push.outbox o SET link_id = l.link_id, updated_at = clock_timestamp() FROM sync.patient_links l, sync.patient_links old
		WHERE o.org_id = $1 AND o.connection_id = $2 AND o.state = 'queued' AND o.exempt = '' AND o.link_id = old.link_id AND $4 <> ''
			AND old.org_id = $1 AND old.connection_id = $2 AND old.ehr_id = ANY ($3) AND l.org_id = $1 AND l.connection_id = $2 AND l.ehr_id = $4`,
		tx.org, pass.Connection, who.patients, it.ReplacedBy)
	batch.Queue(`
		INSERT INTO directory.wakeups (org_id, kind, ref, connection_id)
		SELECT $1, 'delivery', link_id, connection_id FROM sync.patient_links WHERE org_id = $1 AND connection_id = $2 AND ehr_id = ANY ($3::text[])
		ORDER BY link_id
		ON CONFLICT (org_id, kind, ref) DO UPDATE SET due_at = clock_timestamp(), seq = directory.wakeups.seq + 1`,
		tx.org, pass.Connection, []string{it.EHRID, it.ReplacedBy})
	batch.Queue(`UPDATE cura.profiles SET merged_into = NULL WHERE org_id = $1 AND profile_id = $2 AND merged_into IS NOT NULL`, tx.org, to)
	batch.Queue(`
		WITH left_alone AS (
			UPDATE cura.profiles SET merged_into = $3 WHERE org_id = $1 AND profile_id = $2 AND NOT EXISTS (
				SELECT FROM sync.patient_links WHERE org_id = $1 AND profile_id = $2)
			RETURNING profile_id
		)
		DELETE FROM cura.profile_identifiers WHERE org_id = $1 AND profile_id IN (SELECT profile_id FROM left_alone)`, tx.org, from, to)
	// A profile that showed this patient shows another of its own, if it has one: that one is taken up again.
	batch.Queue(`
		UPDATE sync.resources r SET waits_for_patient = r.ehr_id FROM cura.profiles p, sync.patient_links l
		WHERE p.org_id = $1 AND p.profile_id = $2 AND p.connection_id = $3 AND p.ehr_id = ANY ($4)
			AND l.org_id = $1 AND l.profile_id = $2 AND l.replaced_by = ''
			AND r.org_id = $1 AND r.connection_id = l.connection_id AND r.resource_type = 'Patient' AND r.ehr_id = l.ehr_id`,
		tx.org, from, pass.Connection, who.patients)
	if err := tx.tx.SendBatch(ctx, &batch).Close(); err != nil {
		return err
	}
	if err := tx.moveConsents(ctx, it, who); err != nil {
		return err
	}
	for _, profile := range []cura.ProfileID{from, to} {
		if err := tx.HaltConsent(ctx, profile, HaltMerge, it.Move.By); err != nil {
			return err
		}
		if err := tx.settlePulls(ctx, profile, nil); err != nil {
			return err
		}
	}
	tx.Audit(audit.Record{
		Kind: audit.LinkMoved, Actor: it.Move.By, Connection: pass.Connection, Run: pass.Run, Outcome: audit.Success,
		Details: map[string]any{"from": from, "to": to, "reviews": it.Decided, "merged": it.ReplacedBy != "", "patients": len(who.patients)},
	})
	return nil
}

// holdHeads locks the consent heads of two profiles, so that nobody sends for either, and waits for the sends under way: who
// revokes at the one profile afterwards doesn't know of sends for the other.
func (tx *Tx) holdHeads(ctx context.Context, profiles ...cura.ProfileID) error {
	for _, profile := range profiles {
		if err := tx.ensureHead(ctx, profile); err != nil {
			return err
		}
	}
	if _, err := tx.tx.Exec(ctx, `
		SELECT FROM cura.consent_heads WHERE org_id = $1 AND profile_id = ANY ($2::uuid[]) ORDER BY profile_id FOR UPDATE`,
		tx.org, texts(profiles)); err != nil {
		return err
	}
	for _, profile := range profiles {
		if err := tx.awaitDeadlines(ctx, profile); err != nil {
			return err
		}
	}
	return nil
}

// PatientPending says in words why nothing may be written to a patient's record at the EHR until a person has decided, or since
// it has been merged; empty: nothing stands against it.
func (tx *Tx) PatientPending(ctx context.Context, connection cura.ConnectionID, link string) (string, error) {
	var kind, replaced string
	err := tx.tx.QueryRow(ctx, `
		SELECT coalesce((SELECT r.kind FROM sync.reviews r WHERE r.org_id = $1 AND r.connection_id = $2 AND r.resource_type = 'Patient'
				AND r.ehr_id = l.ehr_id AND r.kind <> 'conflict' AND r.closed_at IS NULL), ''), l.replaced_by
		FROM sync.patient_links l WHERE l.org_id = $1 AND l.link_id = $3`, tx.org, connection, link).Scan(&kind, &replaced)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return "the patient isn't linked", nil
	case err != nil:
		return "", err
	case kind != "":
		return "a person has to decide first whose the patient's record is (" + kind + "): starter reviews list", nil
	case replaced != "":
		return "the hospital has merged the patient's record into another: add it for the profile's other record", nil
	}
	return "", nil
}

// moveConsents has a patient's refusals follow them, and no permit. Of the consents that the EHR keeps for them, the last version of
// each that isn't plainly a permit is logged at the new profile; and where the old one has other patients, all of them end there.
// Where the old profile has a refusal that Cura recorded, the new one gets a denial of everything, which an officer lifts by
// recording what the patient says now (starter consent grant), and which ends when the patient leaves.
func (tx *Tx) moveConsents(ctx context.Context, it Item, who leaving) error {
	from, to := it.Move.From, it.Profile
	log, err := tx.ConsentLog(ctx, from)
	if err != nil {
		return err
	}
	var now time.Time
	theirs := map[int64]bool{}
	rows, err := tx.tx.Query(ctx, `
		SELECT entry_id FROM cura.consent_log
		WHERE org_id = $1 AND profile_id = $2 AND source = 'ehr' AND connection_id = $3::uuid AND (patient_ehr_id = ANY ($4) OR patient_ehr_id = '' AND $5)`,
		tx.org, from, who.connection, who.patients, who.only)
	if err != nil {
		return err
	}
	var entry int64
	if _, err := pgx.ForEachRow(rows, []any{&entry}, func() error {
		theirs[entry] = true
		return nil
	}); err != nil {
		return err
	}
	if err := tx.tx.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now); err != nil {
		return err
	}
	// The denial that this very link has brought here ends, and goes no further if it came from where the patient goes.
	denial := uuid.NewSHA1(uuid.NameSpaceURL, []byte("urn:cura:moved-link:"+who.link)).String()
	last := map[string]ConsentEntry{}
	var keys []string
	for _, e := range log {
		if _, known := last[e.Key]; !known {
			keys = append(keys, e.Key)
		}
		last[e.Key] = e
	}
	var along, end []int64
	refused := false
	for _, key := range keys {
		e := last[key]
		restricts := consent.Restricts([]consent.Consent{e.standing()}, now)
		switch {
		case theirs[e.ID]:
			if restricts || e.Consent.Status != "active" || e.EnteredInError {
				along = append(along, e.ID)
			}
			end = append(end, e.ID)
		case e.ConsentID == denial:
			refused = refused || restricts && to != who.origin
			if restricts {
				e.Consent.Status = "inactive"
				if _, err := tx.ChangeConsent(ctx, ConsentChange{Profile: from, ConsentID: denial, Entry: e.Consent, Actor: it.Move.By}); err != nil {
					return err
				}
			}
		case e.Source == "cura":
			refused = refused || restricts
		}
	}
	if err := tx.copyConsents(ctx, along, to, false); err != nil {
		return err
	}
	if !who.emptied {
		if err := tx.copyConsents(ctx, end, from, true); err != nil {
			return err
		}
	}
	if refused {
		_, err = tx.ChangeConsent(ctx, ConsentChange{Profile: to, ConsentID: denial, Entry: consent.Revocation(now), Actor: it.Move.By})
	}
	return err
}

// copyConsents logs entries once more, at a profile, or as ended where they are.
func (tx *Tx) copyConsents(ctx context.Context, entries []int64, profile cura.ProfileID, ended bool) error {
	if len(entries) == 0 {
		return nil
	}
	_, err := tx.tx.Exec(ctx, `
		INSERT INTO cura.consent_log (org_id, connection_id, ehr_id, profile_id, entered_in_error, last_updated, landing_id, mapping_version, status,
			root_type, starts_at, ends_at, record, patient_ehr_id, moved)
		SELECT org_id, connection_id, ehr_id, $3, entered_in_error OR $4, last_updated, landing_id, mapping_version, status, root_type, starts_at,
			ends_at, record, patient_ehr_id, true
		FROM cura.consent_log WHERE org_id = $1 AND entry_id = ANY ($2) ORDER BY entry_id`, tx.org, entries, profile, ended)
	return err
}

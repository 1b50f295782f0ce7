package store

import (
	"context"
	"errors"
	"slices"
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

// moveLink moves a link with what hangs on it: records, the identifiers by which nobody is to be found at the former profile,
// and what is queued for the EHR. Consents stay where they were given, and what stands at either profile is settled anew: a permit
// doesn't follow a patient to another profile. A denial does, for as long as the link stays there.
func (tx *Tx) moveLink(ctx context.Context, pass Pass, it Item) error {
	from, to := it.Move.From, it.Profile
	if err := tx.holdHeads(ctx, from, to); err != nil {
		return err
	}
	// Rows from before they told whose they are belong to the profile's only patient.
	const only = `
		SELECT min(ehr_id) FROM sync.patient_links WHERE org_id = $1 AND connection_id = $2 AND profile_id = $3 HAVING count(*) = 1`
	var batch pgx.Batch
	for _, table := range recordTables() {
		for _, profile := range []cura.ProfileID{from, to} {
			batch.Queue(`
				UPDATE `+table+` r SET patient_ehr_id = l.ehr_id FROM (`+only+`) AS l (ehr_id)
				WHERE r.org_id = $1 AND r.connection_id = $2 AND r.profile_id = $3 AND r.patient_ehr_id = ''`, tx.org, pass.Connection, profile)
		}
	}
	batch.Queue(`
		UPDATE sync.patient_links SET profile_id = $4, moved_from = $5, moved_at = clock_timestamp(), replaced_by = $6
		WHERE org_id = $1 AND connection_id = $2 AND ehr_id = $3`, tx.org, pass.Connection, it.EHRID, to, from, it.ReplacedBy)
	for _, table := range recordTables() {
		batch.Queue(`
			UPDATE `+table+` SET profile_id = $5, updated_at = now()
			WHERE org_id = $1 AND connection_id = $2 AND profile_id = $3 AND patient_ehr_id = $4`, tx.org, pass.Connection, from, it.EHRID, to)
	}
	batch.Queue(`
		DELETE FROM cura.profile_identifiers i WHERE org_id = $1 AND profile_id = $2 AND connection_id = $3 AND NOT EXISTS (
			SELECT FROM sync.patient_links l WHERE l.org_id = $1 AND l.connection_id = $3 AND l.profile_id = $2 AND l.replaced_by = '')`,
		tx.org, from, pass.Connection)
	// What isn't under way goes to the patient that the EHR goes on with.
	batch.Queue(`
		UPDATE push.outbox o SET link_id = l.link_id, updated_at = clock_timestamp() FROM sync.patient_links l, sync.patient_links old
		WHERE o.org_id = $1 AND o.connection_id = $2 AND o.state = 'queued' AND o.link_id = old.link_id AND $4 <> ''
			AND old.org_id = $1 AND old.connection_id = $2 AND old.ehr_id = $3 AND l.org_id = $1 AND l.connection_id = $2 AND l.ehr_id = $4`,
		tx.org, pass.Connection, it.EHRID, it.ReplacedBy)
	batch.Queue(`
		INSERT INTO directory.wakeups (org_id, kind, ref, connection_id)
		SELECT $1, 'delivery', link_id, connection_id FROM sync.patient_links WHERE org_id = $1 AND connection_id = $2 AND ehr_id = ANY ($3::text[])
		ON CONFLICT (org_id, kind, ref) DO UPDATE SET due_at = clock_timestamp(), seq = directory.wakeups.seq + 1`,
		tx.org, pass.Connection, []string{it.EHRID, it.ReplacedBy})
	batch.Queue(`UPDATE cura.profiles SET merged_into = NULL WHERE org_id = $1 AND profile_id = $2 AND merged_into IS NOT NULL`, tx.org, to)
	batch.Queue(`
		UPDATE cura.profiles SET merged_into = $3 WHERE org_id = $1 AND profile_id = $2 AND NOT EXISTS (
			SELECT FROM sync.patient_links WHERE org_id = $1 AND profile_id = $2)`, tx.org, from, to)
	// A profile that showed this patient shows another of its own, if it has one: that one is taken up again.
	batch.Queue(`
		UPDATE sync.resources r SET waits_for_patient = r.ehr_id FROM cura.profiles p, sync.patient_links l
		WHERE p.org_id = $1 AND p.profile_id = $2 AND p.connection_id = $3 AND p.ehr_id = $4
			AND l.org_id = $1 AND l.profile_id = $2 AND l.replaced_by = ''
			AND r.org_id = $1 AND r.connection_id = l.connection_id AND r.resource_type = 'Patient' AND r.ehr_id = l.ehr_id`,
		tx.org, from, pass.Connection, it.EHRID)
	if err := tx.tx.SendBatch(ctx, &batch).Close(); err != nil {
		return err
	}
	if err := tx.moveDenial(ctx, it); err != nil {
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
		Details: map[string]any{"from": from, "to": to, "review": it.Decided, "merged": it.ReplacedBy != ""},
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

// moveDenial has a patient's refusal follow them to another profile: where any of the former profile's consents denies anything,
// the profile that they come to gets a denial of everything, which an officer lifts by recording what the patient says now
// (starter consent grant). It is withdrawn when the link moves on. Permits are never carried over.
func (tx *Tx) moveDenial(ctx context.Context, it Item) error {
	var link string
	var now time.Time
	err := tx.tx.QueryRow(ctx, `
		SELECT link_id::text, clock_timestamp() FROM sync.patient_links WHERE org_id = $1 AND profile_id = $2 AND ehr_id = $3 AND moved_from = $4`,
		tx.org, it.Profile, it.EHRID, it.Move.From).Scan(&link, &now)
	if err != nil {
		return err
	}
	id := uuid.NewSHA1(uuid.NameSpaceURL, []byte("urn:cura:moved-link:"+link)).String()
	left, err := tx.ConsentLog(ctx, it.Move.From)
	if err != nil {
		return err
	}
	for _, e := range slices.Backward(left) {
		if e.ConsentID != id {
			continue
		}
		if e.Consent.Status == "active" {
			e.Consent.Status = "inactive"
			if _, err := tx.ChangeConsent(ctx, ConsentChange{Profile: it.Move.From, ConsentID: id, Entry: e.Consent, Actor: it.Move.By}); err != nil {
				return err
			}
		}
		break
	}
	own := slices.DeleteFunc(left, func(e ConsentEntry) bool { return e.ConsentID == id })
	if it.ReplacedBy == "" || !consent.Restricts(StandingConsents(own), now) {
		return nil
	}
	_, err = tx.ChangeConsent(ctx, ConsentChange{Profile: it.Profile, ConsentID: id, Entry: consent.Revocation(now), Actor: it.Move.By})
	return err
}

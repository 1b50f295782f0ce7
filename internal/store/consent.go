package store

import (
	"context"
	"encoding/json"
	"maps"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/consent"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// ConsentEntry is one entry of a patient's consent log: a version of one of their consents.
type ConsentEntry struct {
	ID int64 `json:"id"`
	// Key tells the consents of a patient apart: the entries of one consent share it.
	Key string `json:"-"`
	// Source is ehr for one that was pulled, cura for one that was made here.
	Source string `json:"source"`
	// Actor and Role are who made it, of source cura.
	Actor    string            `json:"actor,omitempty"`
	Role     cura.Role         `json:"role,omitempty"`
	LoggedAt time.Time         `json:"logged_at"`
	Consent  cura.ConsentEntry `json:"consent"`
	// EnteredInError: the EHR has withdrawn it.
	EnteredInError bool `json:"entered_in_error,omitempty"`
	// ConsentID is Cura's own id of a consent that was made here.
	ConsentID string `json:"consent_id,omitempty"`
}

// ConsentLog reads the log of a patient, the oldest entry first.
func (tx *Tx) ConsentLog(ctx context.Context, profile cura.ProfileID) ([]ConsentEntry, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT entry_id, coalesce(consent_id::text, connection_id::text || '/' || ehr_id), source, actor, actor_role, logged_at, record,
			entered_in_error, coalesce(consent_id::text, '')
		FROM cura.consent_log WHERE org_id = $1 AND profile_id = $2 ORDER BY entry_id`, tx.org, profile)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (ConsentEntry, error) {
		var e ConsentEntry
		err := row.Scan(&e.ID, &e.Key, &e.Source, &e.Actor, &e.Role, &e.LoggedAt, &e.Consent, &e.EnteredInError, &e.ConsentID)
		return e, err
	})
}

// StandingConsents are the last entries of each consent in a log.
func StandingConsents(log []ConsentEntry) []consent.Consent {
	last := map[string]int{}
	var keys []string
	for i, e := range log {
		if _, seen := last[e.Key]; !seen {
			keys = append(keys, e.Key)
		}
		last[e.Key] = i
	}
	standing := make([]consent.Consent, len(keys))
	for i, key := range keys {
		standing[i] = log[last[key]].standing()
	}
	return standing
}

func (e ConsentEntry) standing() consent.Consent {
	return consent.Consent{
		ID: formatID(e.ID), Source: e.Source, EnteredInError: e.EnteredInError, Entry: e.Consent, ModifierExtension: e.Consent.ModifierExtension,
	}
}

// ConsentChange is an entry that somebody makes in Cura.
type ConsentChange struct {
	Profile cura.ProfileID
	// ConsentID names the consent that is changed; empty: a new one.
	ConsentID string
	Entry     cura.ConsentEntry
	Actor     string
	Role      cura.Role
}

// ChangeConsent appends an entry to a patient's log and halts their disclosures: step 1 of a revoker (DESIGN §5.4). Commit
// it, then call Store.SettleConsent. It returns the id of the consent. The head must be there: Store.EnsureHead.
func (tx *Tx) ChangeConsent(ctx context.Context, c ConsentChange) (string, error) {
	record, err := json.Marshal(c.Entry)
	if err != nil {
		return "", err
	}
	if c.ConsentID == "" {
		c.ConsentID = uuid.NewString()
	}
	starts, ends := span(c.Entry.Period)
	var entry int64
	err = tx.tx.QueryRow(ctx, `
		INSERT INTO cura.consent_log (org_id, profile_id, source, consent_id, actor, actor_role, entered_in_error, status, root_type, starts_at,
			ends_at, record)
		VALUES ($1, $2, 'cura', $3, $4, $5, false, $6, $7, $8, $9, $10) RETURNING entry_id`,
		tx.org, c.Profile, c.ConsentID, c.Actor, c.Role, c.Entry.Status, c.Entry.RootType, starts, ends, string(record)).Scan(&entry)
	if err != nil {
		return "", err
	}
	if err := tx.HaltConsent(ctx, c.Profile, HaltOperator, c.Actor); err != nil {
		return "", err
	}
	tx.Audit(audit.Record{
		Kind: audit.ConsentChanged, Actor: c.Actor, Outcome: audit.Success,
		Details: map[string]any{"profile": c.Profile, "consent": c.ConsentID, "entry": entry, "status": c.Entry.Status, "role": c.Role, "asserted": true},
	})
	return c.ConsentID, nil
}

// HaltCause is why a patient's disclosures are halted.
type HaltCause string

// The causes.
const (
	HaltPulled   HaltCause = "pulled"
	HaltOperator HaltCause = "operator"
	HaltExpiry   HaltCause = "expiry"
	HaltMerge    HaltCause = "merge"
)

// HaltConsent halts a patient's disclosures until Store.SettleConsent has made the change effective. From its commit on no
// gate lets anything through.
func (tx *Tx) HaltConsent(ctx context.Context, profile cura.ProfileID, cause HaltCause, actor string) error {
	var batch pgx.Batch
	batch.Queue(`INSERT INTO cura.consent_halts (org_id, profile_id, cause, actor) VALUES ($1, $2, $3, $4)`, tx.org, profile, cause, actor)
	queueWakeup(&batch, tx.org, profile)
	return tx.tx.SendBatch(ctx, &batch).Close()
}

// queueWakeup has the patient's consent settled by whoever listens, or by the next sweep.
func queueWakeup(batch *pgx.Batch, org cura.OrgID, profile cura.ProfileID) {
	batch.Queue(`
		INSERT INTO directory.wakeups (org_id, kind, ref) VALUES ($1, 'consent', $2)
		ON CONFLICT (org_id, kind, ref) DO UPDATE SET due_at = least(directory.wakeups.due_at, excluded.due_at), seq = directory.wakeups.seq + 1`,
		org, profile)
	batch.Queue(`SELECT pg_notify('`+wakeups+`', 'consent'), pg_notify('`+halts+`', $1)`, profile)
}

// haltPulled halts the patients whose consents a page has brought. One without a head has never had anything sent, and
// needs none, unless pulls are consent-scoped: heads are made under the exclusive lock of which this takes the shared one.
func haltPulled(batch *pgx.Batch, org cura.OrgID, profiles []string) {
	headPulled(batch, org, profiles)
	batch.Queue(`SELECT pg_advisory_xact_lock_shared(hashtextextended('consent ' || $1, 0))`, string(org))
	batch.Queue(`
		WITH headed AS (
			SELECT DISTINCT p.profile_id FROM unnest($2::uuid[]) AS p (profile_id), LATERAL (
				SELECT FROM cura.consent_heads h WHERE h.org_id = $1 AND h.profile_id = p.profile_id LIMIT 1) AS h
			ORDER BY p.profile_id
		), halted AS (
			INSERT INTO cura.consent_halts (org_id, profile_id, cause) SELECT $1, profile_id, 'pulled' FROM headed
		), woken AS (
			INSERT INTO directory.wakeups (org_id, kind, ref) SELECT $1, 'consent', profile_id FROM headed
			ON CONFLICT (org_id, kind, ref) DO UPDATE SET due_at = least(directory.wakeups.due_at, excluded.due_at), seq = directory.wakeups.seq + 1
		)
		SELECT pg_notify('`+wakeups+`', 'consent'), pg_notify('`+halts+`', profile_id::text) FROM headed`, org, profiles)
}

// ConsentHead is where a patient's consent stands.
type ConsentHead struct {
	Epoch int64 `json:"epoch"`
	// Entry is the last entry of the log that the epoch stands for.
	Entry int64 `json:"entry"`
	// entries is how many entries there were up to it.
	entries int
	// Halted: a change is on its way; nothing is sent.
	Halted bool `json:"halted"`
	// NextAt is when time alone changes the decision.
	NextAt    *time.Time `json:"next_at,omitempty"`
	ChangedAt time.Time  `json:"changed_at"`
}

// ConsentHead reads a patient's head; fault.NotFound where there is none yet.
func (tx *Tx) ConsentHead(ctx context.Context, profile cura.ProfileID) (ConsentHead, error) {
	var h ConsentHead
	err := tx.tx.QueryRow(ctx, `
		SELECT epoch, entry_id, next_at, changed_at,
			EXISTS (SELECT FROM cura.consent_halts c WHERE c.org_id = $1 AND c.profile_id = $2 AND c.effective_at IS NULL)
		FROM cura.consent_heads WHERE org_id = $1 AND profile_id = $2`, tx.org, profile).Scan(&h.Epoch, &h.Entry, &h.NextAt, &h.ChangedAt, &h.Halted)
	return h, translate(err)
}

// EnsureHead makes a patient's head where there is none. What the log says by then is what it stands for.
func (s *Store) EnsureHead(ctx context.Context, org cura.OrgID, profile cura.ProfileID) error {
	return s.InOrg(ctx, org, func(tx *Tx) error { return tx.ensureHead(ctx, profile) })
}

func (tx *Tx) ensureHead(ctx context.Context, profile cura.ProfileID) error {
	var there bool
	err := tx.tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM cura.consent_heads WHERE org_id = $1 AND profile_id = $2)`, tx.org, profile).Scan(&there)
	if err != nil || there {
		return err
	}
	// Pages of Consents that don't see the head yet commit first.
	if _, err := tx.tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('consent ' || $1, 0))`, string(tx.org)); err != nil {
		return err
	}
	_, err = tx.tx.Exec(ctx, `
		INSERT INTO cura.consent_heads (org_id, profile_id, entry_id, entries)
		SELECT $1, $2, coalesce(max(entry_id), 0), count(*) FROM cura.consent_log WHERE org_id = $1 AND profile_id = $2
		ON CONFLICT DO NOTHING`, tx.org, profile)
	return err
}

// ConsentHalts lists the changes of a patient's consent, the newest first.
func (tx *Tx) ConsentHalts(ctx context.Context, profile cura.ProfileID, limit int) ([]ConsentHalt, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT cause, actor, opened_at, effective_at, epoch FROM cura.consent_halts
		WHERE org_id = $1 AND profile_id = $2 ORDER BY opened_at DESC LIMIT $3`, tx.org, profile, limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[ConsentHalt])
}

// ConsentHalt is one change of consent: from when on nothing was let through, and when it was effective.
type ConsentHalt struct {
	Cause       HaltCause  `json:"cause"`
	Actor       string     `json:"actor,omitempty"`
	OpenedAt    time.Time  `json:"opened_at"`
	EffectiveAt *time.Time `json:"effective_at,omitempty"`
	Epoch       *int64     `json:"epoch,omitempty"`
}

// SettledConsent finds what the change of a patient's consent came to that has brought an epoch about, whoever settled it;
// EffectiveAt is the database's clock now.
func (tx *Tx) SettledConsent(ctx context.Context, profile cura.ProfileID, epoch int64) (ConsentSettlement, error) {
	s := ConsentSettlement{Epoch: epoch}
	err := tx.tx.QueryRow(ctx, `
		SELECT clock_timestamp(), coalesce((SELECT (details ->> 'cancelled')::integer FROM audit.records
			WHERE org_id = $1 AND connection_id IS NULL AND kind = $2 AND at > now() - interval '1 hour' AND details ->> 'profile' = $3 AND (details ->> 'epoch')::bigint = $4 ORDER BY seq DESC LIMIT 1), 0)`,
		tx.org, audit.ConsentSettled, profile, epoch).Scan(&s.EffectiveAt, &s.Cancelled)
	return s, err
}

// OrgPolicy is what an org has decided for itself.
func (tx *Tx) OrgPolicy(ctx context.Context) (cura.OrgPolicy, error) {
	p := cura.DefaultOrgPolicy()
	rows, err := tx.tx.Query(ctx, `SELECT part2, announce_consent, authors FROM cura.org_policies WHERE org_id = $1`, tx.org)
	if err != nil {
		return p, err
	}
	authors := map[cura.ArtefactKind][]cura.Role{}
	_, err = pgx.ForEachRow(rows, []any{&p.Part2, &p.AnnounceConsent, &authors}, func() error {
		maps.Copy(p.Authors, authors)
		return nil
	})
	return p, err
}

// PutOrgPolicy replaces what the org has decided. It is audited.
func (tx *Tx) PutOrgPolicy(ctx context.Context, p cura.OrgPolicy, actor string) error {
	authors, err := json.Marshal(p.Authors)
	if err != nil {
		return err
	}
	tx.Audit(audit.Record{Kind: audit.PolicyChanged, Actor: actor, Outcome: audit.Success, Details: p})
	_, err = tx.tx.Exec(ctx, `
		INSERT INTO cura.org_policies (org_id, part2, announce_consent, authors) VALUES ($1, $2, $3, $4)
		ON CONFLICT (org_id) DO UPDATE SET part2 = excluded.part2, announce_consent = excluded.announce_consent, authors = excluded.authors,
			updated_at = now()`, tx.org, p.Part2, p.AnnounceConsent, string(authors))
	return err
}

// ProfileOf finds the profile that a patient is named by: its own id, a patient link's, or the EHR's id of the patient at
// some connection of the org. fault.NotFound, or fault.Conflict where the EHR id names several.
func (tx *Tx) ProfileOf(ctx context.Context, name string) (cura.ProfileID, error) {
	id := uuid.NullUUID{}
	if parsed, err := uuid.Parse(name); err == nil {
		id = uuid.NullUUID{UUID: parsed, Valid: true}
	}
	rows, err := tx.tx.Query(ctx, `
		SELECT profile_id FROM cura.profiles WHERE org_id = $1 AND profile_id = $2
		UNION SELECT profile_id FROM sync.patient_links WHERE org_id = $1 AND link_id = $2
		UNION SELECT profile_id FROM sync.patient_links WHERE org_id = $1 AND ehr_id = $3`, tx.org, id, name)
	if err != nil {
		return "", err
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[cura.ProfileID])
	switch {
	case err != nil:
		return "", err
	case len(found) == 0:
		return "", fault.New("looking for the patient", fault.NotFound, "the org has no such patient").
			WithFix("Name them by Cura's profile id, a patient link's id, or the EHR's id of a patient who has been pulled")
	case len(found) > 1:
		return "", fault.New("looking for the patient", fault.Conflict, "several patients of the org's connections have that EHR id").
			WithFix("Name them by Cura's profile id")
	}
	return found[0], nil
}

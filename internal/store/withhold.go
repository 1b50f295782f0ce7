package store

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/consent"
	"github.com/cura-health/ehr-sync/internal/cura"
)

// clinicalTypes are the types that a patient's consents may keep from being pulled. Patient and Consent are always read:
// they say whose the consents are, and what they are.
func clinicalTypes() []cura.ResourceType {
	return []cura.ResourceType{
		cura.AllergyIntolerance, cura.MedicationRequest, cura.MedicationStatement, cura.Observation, cura.Encounter,
	}
}

// ConsentScoped reports whether pulling a type under a policy depends on the patient's consents.
func ConsentScoped(policy cura.PullConsent, t cura.ResourceType) bool {
	return policy != "" && policy != cura.PullConsentNone && slices.Contains(clinicalTypes(), t)
}

// withholding is what isn't pulled of a patient, and why. Without types everything is.
type withholding struct {
	types  []string
	reason consent.Code
}

// withhold decides what of a patient isn't pulled, by the consents that stand at an instant.
func withhold(policy cura.PullConsent, org cura.OrgPolicy, standing []consent.Consent, at time.Time) withholding {
	var w withholding
	if policy == cura.PullConsentOptOut {
		// Who has said nothing permits. A denial, and what may be one, is heard all the same.
		standing = append(slices.Clip(standing), consent.Consent{Entry: consent.Grant(consent.Terms{})})
	}
	for _, t := range clinicalTypes() {
		if !ConsentScoped(policy, t) {
			continue
		}
		d := consent.Decide(consent.Request{Action: consent.Collect, Types: []cura.ResourceType{t}, Part2: org.Part2}, standing, at)
		denied := d.Code == consent.Denied || d.Code == consent.CannotEvaluate
		if denied || policy != cura.PullConsentOptOut && !d.Allow {
			w.types = append(w.types, string(t))
			w.reason = cmp.Or(w.reason, d.Code)
		}
	}
	return w
}

// WithheldTypes are the clinical types that a policy keeps from being pulled of one patient, by what Cura has of their consents
// (profile empty: they aren't in Cura) and by fresh, which it hasn't yet. It writes nothing.
func (tx *Tx) WithheldTypes(ctx context.Context, policy cura.PullConsent, profile cura.ProfileID, fresh []consent.Consent) ([]cura.ResourceType, error) {
	org, err := tx.OrgPolicy(ctx)
	if err != nil {
		return nil, err
	}
	var known []cura.ProfileID
	if profile != "" {
		known = append(known, profile)
	}
	logs, now, err := tx.consentLogs(ctx, known)
	if err != nil {
		return nil, err
	}
	var types []cura.ResourceType
	for _, t := range withhold(policy, org, append(StandingConsents(logs[profile]), fresh...), now).types {
		types = append(types, cura.ResourceType(t))
	}
	return types, nil
}

// Withheld are those of profiles of whom the connection doesn't pull the type, by their consents as they stand now. What it
// finds to have changed it writes down, which hides or shows what was read before. policy is the connection's, as the caller
// knows it; nothing is asked where it isn't ConsentScoped.
func (tx *Tx) Withheld(ctx context.Context, connection cura.ConnectionID, policy cura.PullConsent, t cura.ResourceType, profiles []cura.ProfileID) (map[cura.ProfileID]bool, error) {
	withheld := map[cura.ProfileID]bool{}
	if !ConsentScoped(policy, t) || len(profiles) == 0 {
		return withheld, nil
	}
	decided, err := tx.withholdings(ctx, policy, profiles)
	if err != nil {
		return nil, err
	}
	moved, err := tx.moved(ctx, connection, decided)
	if err != nil {
		return nil, err
	}
	if len(moved) > 0 {
		if policy, err = tx.pullPolicy(ctx, connection); err != nil {
			return nil, err
		}
		anew, err := tx.settleWithheld(ctx, connection, policy, moved)
		if err != nil {
			return nil, err
		}
		maps.Copy(decided, anew)
	}
	for profile, w := range decided {
		withheld[profile] = slices.Contains(w.types, string(t))
	}
	return withheld, nil
}

// pullPolicy reads a connection's policy, and keeps it from being changed until the transaction ends.
func (tx *Tx) pullPolicy(ctx context.Context, connection cura.ConnectionID) (policy cura.PullConsent, err error) {
	err = tx.tx.QueryRow(ctx, `
		SELECT pull_consent FROM sync.connections WHERE org_id = $1 AND connection_id = $2 FOR SHARE`, tx.org, connection).Scan(&policy)
	return policy, err
}

// withholdings decides about profiles by their logs as they are now.
func (tx *Tx) withholdings(ctx context.Context, policy cura.PullConsent, profiles []cura.ProfileID) (map[cura.ProfileID]withholding, error) {
	org, err := tx.OrgPolicy(ctx)
	if err != nil {
		return nil, err
	}
	logs, now, err := tx.consentLogs(ctx, profiles)
	if err != nil {
		return nil, err
	}
	decided := make(map[cura.ProfileID]withholding, len(profiles))
	for _, profile := range profiles {
		decided[profile] = withhold(policy, org, StandingConsents(logs[profile]), now)
	}
	return decided, nil
}

// consentLogs reads the logs of several patients, each the oldest entry first, and the database's clock.
func (tx *Tx) consentLogs(ctx context.Context, profiles []cura.ProfileID) (logs map[cura.ProfileID][]ConsentEntry, now time.Time, err error) {
	if err := tx.tx.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now); err != nil {
		return nil, now, err
	}
	rows, err := tx.tx.Query(ctx, `
		SELECT profile_id, entry_id, coalesce(consent_id::text, connection_id::text || '/' || ehr_id), source, record, entered_in_error
		FROM cura.consent_log WHERE org_id = $1 AND profile_id = ANY($2::uuid[]) ORDER BY entry_id`, tx.org, texts(profiles))
	if err != nil {
		return nil, now, err
	}
	type entry struct {
		profile cura.ProfileID
		ConsentEntry
	}
	entries, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (entry, error) {
		var e entry
		err := row.Scan(&e.profile, &e.ID, &e.Key, &e.Source, &e.Consent, &e.EnteredInError)
		return e, err
	})
	logs = map[cura.ProfileID][]ConsentEntry{}
	for _, e := range entries {
		logs[e.profile] = append(logs[e.profile], e.ConsentEntry)
	}
	return logs, now, err
}

// moved are the profiles of whom something else was decided than is written down.
func (tx *Tx) moved(ctx context.Context, connection cura.ConnectionID, decided map[cura.ProfileID]withholding) ([]cura.ProfileID, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT profile_id, types FROM cura.withheld WHERE org_id = $1 AND connection_id = $2 AND profile_id = ANY($3::uuid[])`,
		tx.org, connection, texts(slices.Collect(maps.Keys(decided))))
	if err != nil {
		return nil, err
	}
	written := map[cura.ProfileID][]string{}
	var profile cura.ProfileID
	var types []string
	if _, err := pgx.ForEachRow(rows, []any{&profile, &types}, func() error {
		written[profile], types = types, nil
		return nil
	}); err != nil {
		return nil, err
	}
	var moved []cura.ProfileID
	for _, profile := range slices.Sorted(maps.Keys(decided)) {
		if !slices.Equal(written[profile], decided[profile].types) {
			moved = append(moved, profile)
		}
	}
	return moved, nil
}

// settleWithheld decides about profiles once more, one transaction at a time for each, and writes it down: what is decided
// last is decided by what was committed last. profiles are in order, so that two don't wait for each other.
func (tx *Tx) settleWithheld(ctx context.Context, connection cura.ConnectionID, policy cura.PullConsent, profiles []cura.ProfileID) (map[cura.ProfileID]withholding, error) {
	_, err := tx.tx.Exec(ctx, `
		SELECT pg_advisory_xact_lock(hashtextextended('withheld ' || p.id, 0)) FROM unnest($1::text[]) WITH ORDINALITY AS p (id, nth) ORDER BY p.nth`,
		texts(profiles))
	if err != nil {
		return nil, err
	}
	decided, err := tx.withholdings(ctx, policy, profiles)
	if err != nil {
		return nil, err
	}
	moved, err := tx.moved(ctx, connection, decided)
	if err != nil || len(moved) == 0 {
		return decided, err
	}
	var batch pgx.Batch
	withheld := 0
	for _, profile := range moved {
		w := decided[profile]
		if len(w.types) == 0 {
			batch.Queue(`DELETE FROM cura.withheld WHERE org_id = $1 AND connection_id = $2 AND profile_id = $3`, tx.org, connection, profile)
			continue
		}
		withheld++
		batch.Queue(`
			INSERT INTO cura.withheld (org_id, connection_id, profile_id, types, reason) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (org_id, connection_id, profile_id) DO UPDATE SET types = excluded.types, reason = excluded.reason, since = excluded.since`,
			tx.org, connection, profile, w.types, w.reason)
	}
	details := map[string]any{"withheld": withheld, "pulled": len(moved) - withheld}
	if len(moved) == 1 {
		details["profile"] = moved[0]
	}
	tx.Audit(audit.Record{Kind: audit.ConsentSettled, Connection: connection, Outcome: audit.Success, Details: details})
	return decided, tx.tx.SendBatch(ctx, &batch).Close()
}

// settlePulls brings a patient's consents into force for pulling, in the transaction that moves the epoch: it hides or shows
// what the connections have read. A head that doesn't know yet when time alone changes that is told.
func (tx *Tx) settlePulls(ctx context.Context, profile cura.ProfileID, head *ConsentHead) error {
	rows, err := tx.tx.Query(ctx, `
		SELECT c.connection_id, c.pull_consent FROM sync.connections c
		WHERE c.org_id = $1 AND c.pull_consent <> 'none' AND c.removed_at IS NULL AND EXISTS (
			SELECT FROM sync.patient_links l WHERE l.org_id = $1 AND l.connection_id = c.connection_id AND l.profile_id = $2)
		ORDER BY c.connection_id FOR SHARE OF c`, tx.org, profile)
	if err != nil {
		return err
	}
	policies := map[cura.ConnectionID]cura.PullConsent{}
	var connection cura.ConnectionID
	var policy cura.PullConsent
	if _, err := pgx.ForEachRow(rows, []any{&connection, &policy}, func() error {
		policies[connection] = policy
		return nil
	}); err != nil || len(policies) == 0 {
		return err
	}
	for _, connection := range slices.Sorted(maps.Keys(policies)) {
		if _, err := tx.settleWithheld(ctx, connection, policies[connection], []cura.ProfileID{profile}); err != nil {
			return err
		}
	}
	if head == nil || head.NextAt != nil {
		return nil
	}
	logs, now, err := tx.consentLogs(ctx, []cura.ProfileID{profile})
	if err != nil {
		return err
	}
	next := consent.Next(StandingConsents(logs[profile]), now)
	if next.IsZero() {
		return nil
	}
	head.NextAt = &next
	_, err = tx.tx.Exec(ctx, `UPDATE cura.consent_heads SET next_at = $3 WHERE org_id = $1 AND profile_id = $2`, tx.org, profile, next)
	return err
}

// headPulled makes the heads of the patients whose consents a page has brought, where a connection of the org pulls by consent:
// their halts then have the consents settled, which hides and shows what was read. Made with their first halt, they stand
// for nothing of the log yet.
func headPulled(batch *pgx.Batch, org cura.OrgID, profiles []string) {
	const headless = `
		FROM unnest($2::uuid[]) AS p (profile_id)
		WHERE EXISTS (SELECT FROM sync.connections c WHERE c.org_id = $1 AND c.pull_consent <> 'none' AND c.removed_at IS NULL)
			AND NOT EXISTS (SELECT FROM cura.consent_heads h WHERE h.org_id = $1 AND h.profile_id = p.profile_id)`
	batch.Queue(`SELECT pg_advisory_xact_lock(hashtextextended('consent ' || $1::uuid, 0)) FROM (SELECT `+headless+` LIMIT 1) AS p`, org, profiles)
	batch.Queue(`INSERT INTO cura.consent_heads (org_id, profile_id) SELECT DISTINCT $1::uuid, p.profile_id `+headless+` ON CONFLICT DO NOTHING`, org, profiles)
}

// WithheldPatients counts the patients of whom the connection doesn't pull some clinical type because of their consents.
func (tx *Tx) WithheldPatients(ctx context.Context, connection cura.ConnectionID) (n int, err error) {
	err = tx.tx.QueryRow(ctx, `SELECT count(*) FROM cura.withheld WHERE org_id = $1 AND connection_id = $2`, tx.org, connection).Scan(&n)
	return n, err
}

// LeaveOut notes patients, by EHR ids, of whom a search of the whole system has brought something that was withheld.
func (tx *Tx) LeaveOut(ctx context.Context, pass Pass, patients []string) error {
	_, err := tx.tx.Exec(ctx, `
		INSERT INTO sync.left_out (org_id, connection_id, resource_type, patient_ehr_id)
		SELECT $1, $2, $3, * FROM unnest($4::text[]) ON CONFLICT DO NOTHING`, tx.org, pass.Connection, pass.Type, patients)
	return err
}

// LeftOut lists the patients whom LeaveOut has noted, who are linked and aren't withheld any more or whose consents are changing,
// in the order of their EHR ids: at most limit of those after after. As members they have their links' ids.
func (tx *Tx) LeftOut(ctx context.Context, pass Pass, after string, limit int) ([]Member, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT l.link_id::text, l.ehr_id, '', o.since FROM sync.left_out o
		JOIN sync.patient_links l ON l.org_id = $1 AND l.connection_id = $2 AND l.ehr_id = o.patient_ehr_id
		WHERE o.org_id = $1 AND o.connection_id = $2 AND o.resource_type = $3 AND o.patient_ehr_id > $4 AND (
			NOT EXISTS (SELECT FROM cura.withheld w
				WHERE w.org_id = $1 AND w.connection_id = $2 AND w.profile_id = l.profile_id AND $3 = ANY (w.types))
			OR EXISTS (SELECT FROM cura.consent_halts h WHERE h.org_id = $1 AND h.profile_id = l.profile_id AND h.effective_at IS NULL))
		ORDER BY o.patient_ehr_id LIMIT $5`, tx.org, pass.Connection, pass.Type, after, limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanMember)
}

// CaughtUp forgets that a patient was left out: they have been read whole.
func (tx *Tx) CaughtUp(ctx context.Context, pass Pass, patient string) error {
	_, err := tx.tx.Exec(ctx, `
		DELETE FROM sync.left_out WHERE org_id = $1 AND connection_id = $2 AND resource_type = $3 AND patient_ehr_id = $4`,
		tx.org, pass.Connection, pass.Type, patient)
	return err
}

// ForgetReads drops how far members have been read in a type: they are withheld, and read whole once they permit. A watermark
// that stood still would make the connection look as if it lagged.
func (tx *Tx) ForgetReads(ctx context.Context, pass Pass, members []string) error {
	_, err := tx.tx.Exec(ctx, `
		DELETE FROM sync.watermarks WHERE org_id = $1 AND connection_id = $2 AND resource_type = $3 AND partition = ANY($4)`,
		tx.org, pass.Connection, pass.Type, members)
	return err
}

// SeenAsTheyAre notes what Cura has of members as met by a comparison: they are withheld, so the EHR isn't asked for it.
func (tx *Tx) SeenAsTheyAre(ctx context.Context, pass Pass, members []string) error {
	_, err := tx.tx.Exec(ctx, `
		INSERT INTO sync.seen (org_id, run_id, resource_type, ehr_id)
		SELECT $1, $2, $3, r.ehr_id FROM sync.resources r
		WHERE r.org_id = $1 AND r.connection_id = $4 AND r.resource_type = $3 AND r.partition = ANY($5) AND r.gone_at IS NULL
		ON CONFLICT DO NOTHING`, tx.org, pass.Run, pass.Type, pass.Connection, members)
	return err
}

// ConsentsUnread are those of members whose Consents the last read couldn't be given: what they say isn't known.
func (tx *Tx) ConsentsUnread(ctx context.Context, connection cura.ConnectionID, members []string) ([]string, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT partition FROM sync.dead_letters
		WHERE org_id = $1 AND connection_id = $2 AND resource_type = $3 AND partition = ANY($4) AND state = 'open'`,
		tx.org, connection, cura.Consent, members)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

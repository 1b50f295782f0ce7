package store

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// AddOrg makes a live org and the sandbox org that rehearses for it.
func (s *Store) AddOrg(ctx context.Context, name, actor string) (Org, error) {
	org := Org{ID: cura.OrgID(uuid.NewString()), Name: name, Kind: "live"}
	err := s.InOrg(ctx, org.ID, func(tx *Tx) error {
		tx.Audit(audit.Record{Kind: audit.OrgAdded, Actor: actor, Outcome: audit.Success, Details: map[string]string{"name": name}})
		sandbox := uuid.NewString()
		var batch pgx.Batch
		batch.Queue(`INSERT INTO directory.orgs (org_id, name, kind) VALUES ($1, $2, 'live')`, org.ID, name)
		batch.Queue(`INSERT INTO directory.orgs (org_id, name, kind, live_org_id) VALUES ($1, $2, 'sandbox', $3)`,
			sandbox, "sandbox-"+sandbox, org.ID)
		return tx.tx.SendBatch(ctx, &batch).Close()
	})
	if fault.Is(err, fault.Conflict) {
		return Org{}, fault.Newf("adding the org", fault.Conflict, "there is an org %q already", name)
	}
	return org, err
}

// AddConnection stores a connection of the transaction's org. shadowOf is set for the pilot's shadow connection.
func (tx *Tx) AddConnection(ctx context.Context, c cura.Connection, shadowOf cura.ConnectionID, actor string) error {
	var batch pgx.Batch
	batch.Queue(`INSERT INTO directory.connections (org_id, connection_id, name) VALUES ($1, $2, $3)`, tx.org, c.ID, c.Name)
	batch.Queue(`
		INSERT INTO sync.connections (org_id, connection_id, name, base_url, token_url, client_id, scopes, ca_pem,
			match_by, match_system, ehr_profile, types, insecure_loopback, shadow_of, profile_text, profile_params, strategies,
			roster_source, group_id, deliveries, pull_consent, unmatched)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, nullif($14, '')::uuid, $15, $16, $17,
			coalesce(nullif($18, ''), 'enrolment'), $19, $20, coalesce(nullif($21, ''), 'none'), coalesce(nullif($22, ''), 'new'))`,
		tx.org, c.ID, c.Name, c.BaseURL, c.TokenURL, c.ClientID, scopes(c.Scopes), c.CAPEM,
		c.Match.By, c.Match.System, c.EHRProfile, c.Types, c.InsecureLoopback, string(shadowOf), c.ProfileText,
		params(c.ProfileParams), overrides(c.Strategies), c.RosterSource, c.GroupID, routes(c.Deliveries), c.PullConsent, c.Match.Unmatched)
	tx.Audit(audit.Record{
		Kind: audit.ConnectionAdded, Actor: actor, Connection: c.ID, Outcome: audit.Success,
		Details: map[string]any{"name": c.Name, "types": c.Types, "match": c.Match.String(), "shadow_of": shadowOf},
	})
	err := tx.tx.SendBatch(ctx, &batch).Close()
	if fault.Is(translate(err), fault.Conflict) {
		return fault.Newf("adding the connection", fault.Conflict, "the org has a connection %q already", c.Name).
			WithFix("Change it with: starter connection edit")
	}
	return err
}

// EditConnection replaces the settings of a connection; phase and health stay. What was read under settings that change
// what a read means is read again from the start: all types after another server or profile, a type after another
// strategy.
func (tx *Tx) EditConnection(ctx context.Context, c cura.Connection, actor string) error {
	rows, err := tx.tx.Query(ctx, `
		SELECT `+connectionColumns+` FROM sync.connections
		WHERE org_id = $1 AND connection_id = $2 AND removed_at IS NULL FOR UPDATE`, tx.org, c.ID)
	if err != nil {
		return err
	}
	old, err := pgx.CollectExactlyOneRow(rows, scanConnection)
	if errors.Is(err, pgx.ErrNoRows) {
		return fault.New("editing the connection", fault.NotFound, "there is no such connection in this org")
	}
	if err != nil {
		return err
	}
	if err := tx.readAgain(ctx, old.Connection, c); err != nil {
		return err
	}
	var batch pgx.Batch
	batch.Queue(`
		UPDATE sync.connections SET base_url = $3, token_url = $4, client_id = $5, scopes = $6, ca_pem = $7, match_by = $8,
			match_system = $9, ehr_profile = $10, types = $11, insecure_loopback = $12, profile_text = $13, profile_params = $14,
			strategies = $15, roster_source = coalesce(nullif($16, ''), 'enrolment'), group_id = $17, deliveries = $18,
			pull_consent = coalesce(nullif($19, ''), 'none'), unmatched = coalesce(nullif($20, ''), 'new'), updated_at = now(),
			settings_version = settings_version + 1
		WHERE org_id = $1 AND connection_id = $2`,
		tx.org, c.ID, c.BaseURL, c.TokenURL, c.ClientID, scopes(c.Scopes), c.CAPEM, c.Match.By, c.Match.System, c.EHRProfile, c.Types,
		c.InsecureLoopback, c.ProfileText, params(c.ProfileParams), overrides(c.Strategies), c.RosterSource, c.GroupID,
		routes(c.Deliveries), c.PullConsent, c.Match.Unmatched)
	if !old.Match.SameIdentifier(c.Match) {
		tx.enrolAnew(&batch, c.ID)
	}
	if err := tx.tx.SendBatch(ctx, &batch).Close(); err != nil {
		return err
	}
	tx.Audit(audit.Record{
		Kind: audit.ConnectionEdited, Actor: actor, Connection: c.ID, Outcome: audit.Success,
		Details: map[string]any{
			"types": c.Types, "match": c.Match.String(), "profile": c.EHRProfile, "strategies": overrides(c.Strategies), "roster": c.RosterSource,
			"deliveries": routes(c.Deliveries), "pull_consent": c.PullConsent,
			"unmatched": c.Match.Unmatched,
		},
	})
	return tx.forgetTypes(ctx, c, actor)
}

// readAgain drops what means nothing under the new settings: cursors and watermarks, since another server has another clock
// and other page links, and another strategy leaves other gaps; and the strategy that was found out under the old ones.
func (tx *Tx) readAgain(ctx context.Context, old, c cura.Connection) error {
	whole := old.BaseURL != c.BaseURL || old.EHRProfile != c.EHRProfile || old.ProfileText != c.ProfileText ||
		!maps.Equal(old.ProfileParams, c.ProfileParams)
	types := []cura.ResourceType{}
	for _, t := range cura.ResourceTypes() {
		if whole || old.Strategies[t] != c.Strategies[t] {
			types = append(types, t)
		}
	}
	for _, table := range []string{"sync.cursors", "sync.watermarks", "sync.strategies"} {
		if _, err := tx.tx.Exec(ctx, `
			DELETE FROM `+table+` WHERE org_id = $1 AND connection_id = $2 AND resource_type = ANY($3)`, tx.org, c.ID, types); err != nil {
			return err
		}
	}
	return nil
}

// scopes are what to ask for as their column holds it; none of them is none, not an unknown.
func scopes(of []string) []string {
	if of == nil {
		return []string{}
	}
	return of
}

// routes are how artefacts are delivered as their column holds it.
func routes(of map[cura.ArtefactKind]cura.Route) map[cura.ArtefactKind]cura.Route {
	if of == nil {
		return map[cura.ArtefactKind]cura.Route{}
	}
	return of
}

// params are a profile's parameters as their column holds them.
func params(of map[string]string) map[string]string {
	if of == nil {
		return map[string]string{}
	}
	return of
}

// overrides are an operator's strategies as their column holds them, in the order of the types.
func overrides(of map[cura.ResourceType]cura.Strategy) []string {
	list := []string{}
	for _, t := range cura.ResourceTypes() {
		if s := of[t]; s != "" {
			list = append(list, string(t)+"="+string(s))
		}
	}
	return list
}

// forgetTypes closes what waits for a person about types that the connection doesn't pull any more.
func (tx *Tx) forgetTypes(ctx context.Context, c cura.Connection, actor string) error {
	if _, err := tx.tx.Exec(ctx, `
		DELETE FROM sync.type_switches WHERE org_id = $1 AND connection_id = $2 AND NOT resource_type = ANY($3)`,
		tx.org, c.ID, c.Types); err != nil {
		return err
	}
	rows, err := tx.tx.Query(ctx, `
		SELECT dead_letter_id FROM sync.dead_letters
		WHERE org_id = $1 AND connection_id = $2 AND state = 'open' AND NOT resource_type = ANY($3)`, tx.org, c.ID, c.Types)
	if err != nil {
		return err
	}
	letters, err := pgx.CollectRows(rows, pgx.RowTo[cura.DeadLetterID])
	if err != nil {
		return err
	}
	for _, id := range letters {
		if err := tx.CloseDeadLetter(ctx, id, "discarded", actor); err != nil {
			return err
		}
	}
	return tx.RefreshAttention(ctx, c.ID)
}

// SetSyncInterval records how often the schedule syncs; 0: there is no schedule any more.
func (tx *Tx) SetSyncInterval(ctx context.Context, id cura.ConnectionID, interval time.Duration) error {
	_, err := tx.tx.Exec(ctx, `
		UPDATE sync.connections SET sync_interval = nullif($3::interval, interval '0') WHERE org_id = $1 AND connection_id = $2`,
		tx.org, id, interval)
	return err
}

// RemoveConnection takes a connection out of service: its credentials are deleted, what it brought stays.
func (tx *Tx) RemoveConnection(ctx context.Context, id cura.ConnectionID, actor string) error {
	var batch pgx.Batch
	batch.Queue(`DELETE FROM sync.credentials WHERE org_id = $1 AND connection_id = $2`, tx.org, id)
	batch.Queue(`
		UPDATE sync.connections SET removed_at = now(), updated_at = now(), health = 'ok', why = '', attention_since = NULL,
			waits_for = 'nobody', commands = '{}', name = name || '-removed-' || extract(epoch FROM now())::bigint
		WHERE org_id = $1 AND connection_id = $2`, tx.org, id)
	batch.Queue(`
		UPDATE directory.connections SET attention = false, name = name || '-removed-' || extract(epoch FROM now())::bigint
		WHERE org_id = $1 AND connection_id = $2`, tx.org, id)
	// Nobody is asked for any more, and who was read of is known by their links: PHI that nobody needs.
	batch.Queue(`DELETE FROM sync.enrolments WHERE org_id = $1 AND connection_id = $2`, tx.org, id)
	batch.Queue(`UPDATE sync.roster SET removed_at = now() WHERE org_id = $1 AND connection_id = $2 AND removed_at IS NULL`, tx.org, id)
	tx.Audit(audit.Record{Kind: audit.ConnectionRemoved, Actor: actor, Connection: id, Outcome: audit.Success})
	return tx.tx.SendBatch(ctx, &batch).Close()
}

// ConnectionState is a connection with what is known of it.
type ConnectionState struct {
	cura.Connection

	ShadowOf       cura.ConnectionID `json:"-"`
	WaitsFor       cura.WaitsFor     `json:"waits_for"`
	Why            string            `json:"why,omitempty"`
	Commands       []string          `json:"commands,omitempty"`
	AttentionSince *time.Time        `json:"attention_since,omitempty"`
	RemovedAt      *time.Time        `json:"removed_at,omitempty"`
	// SettingsVersion grows with every change of the settings or the credentials.
	SettingsVersion int64 `json:"-"`
	// Overrides is the version of the mapping overrides that hold (Tx.MappingOverrides reads the file); 0: none do.
	Overrides int `json:"overrides_version,omitempty"`
}

const connectionColumns = `
	connection_id, org_id, name, base_url, token_url, client_id, scopes, ca_pem, match_by, match_system, ehr_profile,
	types, insecure_loopback, phase, health, created_at, coalesce(shadow_of::text, ''), waits_for, why, commands,
	attention_since, removed_at, settings_version, profile_text, profile_params, strategies, roster_source, group_id,
	deliveries, pull_consent, unmatched, coalesce(overrides_version, 0)`

func scanConnection(row pgx.CollectableRow) (ConnectionState, error) {
	var c ConnectionState
	var strategies []string
	err := row.Scan(&c.ID, &c.OrgID, &c.Name, &c.BaseURL, &c.TokenURL, &c.ClientID, &c.Scopes, &c.CAPEM, &c.Match.By,
		&c.Match.System, &c.EHRProfile, &c.Types, &c.InsecureLoopback, &c.Phase, &c.Health, &c.CreatedAt, &c.ShadowOf,
		&c.WaitsFor, &c.Why, &c.Commands, &c.AttentionSince, &c.RemovedAt, &c.SettingsVersion,
		&c.ProfileText, &c.ProfileParams, &strategies, &c.RosterSource, &c.GroupID, &c.Deliveries, &c.PullConsent,
		&c.Match.Unmatched, &c.Overrides)
	for _, s := range strategies {
		if t, strategy, ok := strings.Cut(s, "="); ok {
			if c.Strategies == nil {
				c.Strategies = map[cura.ResourceType]cura.Strategy{}
			}
			c.Strategies[cura.ResourceType(t)] = cura.Strategy(strategy)
		}
	}
	return c, err
}

// Connection reads one connection of the org, a removed one too.
func (tx *Tx) Connection(ctx context.Context, id cura.ConnectionID) (ConnectionState, error) {
	rows, err := tx.tx.Query(ctx, `SELECT `+connectionColumns+` FROM sync.connections WHERE org_id = $1 AND connection_id = $2`, tx.org, id)
	if err != nil {
		return ConnectionState{}, err
	}
	c, err := pgx.CollectExactlyOneRow(rows, scanConnection)
	if errors.Is(err, pgx.ErrNoRows) {
		return ConnectionState{}, fault.Newf("reading the connection", fault.NotFound, "there is no connection %s in this org", id)
	}
	return c, err
}

// ShadowOf reads the shadow connection that stands for a live connection in the sandbox org of this transaction.
func (tx *Tx) ShadowOf(ctx context.Context, live cura.ConnectionID) (ConnectionState, error) {
	rows, err := tx.tx.Query(ctx, `SELECT `+connectionColumns+` FROM sync.connections WHERE org_id = $1 AND shadow_of = $2`, tx.org, live)
	if err != nil {
		return ConnectionState{}, err
	}
	return pgx.CollectExactlyOneRow(rows, scanConnection)
}

// PutCredential stores a sealed credential, replacing the one before.
func (tx *Tx) PutCredential(ctx context.Context, id cura.ConnectionID, kind string, sealed []byte, actor string) error {
	_, err := tx.tx.Exec(ctx, `
		INSERT INTO sync.credentials (org_id, connection_id, kind, sealed) VALUES ($1, $2, $3, $4)
		ON CONFLICT (org_id, connection_id, kind) DO UPDATE SET sealed = excluded.sealed, created_at = now()`,
		tx.org, id, kind, sealed)
	if err != nil {
		return err
	}
	tx.Audit(audit.Record{Kind: audit.SecretStored, Actor: actor, Connection: id, Outcome: audit.Success, Details: map[string]string{"kind": kind}})
	_, err = tx.tx.Exec(ctx, `
		UPDATE sync.connections SET settings_version = settings_version + 1 WHERE org_id = $1 AND connection_id = $2`, tx.org, id)
	return err
}

// Credential reads a sealed credential.
func (tx *Tx) Credential(ctx context.Context, id cura.ConnectionID, kind string) ([]byte, error) {
	var sealed []byte
	err := tx.tx.QueryRow(ctx, `
		SELECT sealed FROM sync.credentials WHERE org_id = $1 AND connection_id = $2 AND kind = $3`, tx.org, id, kind).Scan(&sealed)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fault.Newf("reading the credential", fault.Config, "connection %s has no %s", id, kind).
			WithFix("Give it with: starter connection edit --secret-file FILE")
	}
	return sealed, err
}

// Standing is where a connection stands, in words that a person can act on.
type Standing struct {
	Phase    cura.Phase
	Health   cura.Health
	WaitsFor cura.WaitsFor
	Why      string
	Commands []string
}

// SetStanding records a connection's phase and health, and raises or lowers the directory's flag with it.
func (tx *Tx) SetStanding(ctx context.Context, id cura.ConnectionID, s Standing, actor string) error {
	if s.Commands == nil {
		s.Commands = []string{}
	}
	tag, err := tx.tx.Exec(ctx, `
		UPDATE sync.connections SET phase = $3, waits_for = $5, why = $6, commands = $7, updated_at = now(),
			attention_since = CASE WHEN $4 = 'ok' THEN NULL WHEN health = 'attention' AND why = $6 THEN attention_since ELSE now() END,
			health = $4
		WHERE org_id = $1 AND connection_id = $2`, tx.org, id, s.Phase, string(s.Health), s.WaitsFor, s.Why, s.Commands)
	if err != nil {
		return err
	}
	if tag.RowsAffected() == 0 {
		return fault.Newf("recording the phase", fault.NotFound, "there is no connection %s in this org", id)
	}
	tx.Audit(audit.Record{
		Kind: audit.PhaseChanged, Actor: actor, Connection: id, Outcome: audit.Success,
		Details: map[string]any{"phase": s.Phase, "health": s.Health, "waits_for": s.WaitsFor, "why": s.Why},
	})
	return tx.RefreshAttention(ctx, id)
}

// PutEndpointTest keeps the newest endpoint report of a connection.
func (tx *Tx) PutEndpointTest(ctx context.Context, id cura.ConnectionID, report cura.EndpointReport, actor string) error {
	_, err := tx.tx.Exec(ctx, `
		INSERT INTO sync.endpoint_tests (org_id, connection_id, verdict, report) VALUES ($1, $2, $3, $4)
		ON CONFLICT (org_id, connection_id) DO UPDATE
			SET verdict = excluded.verdict, report = excluded.report, tested_at = now()`,
		tx.org, id, report.Verdict(), report)
	outcome := audit.Success
	if report.Verdict() == cura.VerdictFailed {
		outcome = audit.Failure
	}
	tx.Audit(audit.Record{Kind: audit.EndpointTested, Actor: actor, Connection: id, Outcome: outcome, Details: report})
	return err
}

// EndpointTest reads the newest endpoint report and when it was made.
func (tx *Tx) EndpointTest(ctx context.Context, id cura.ConnectionID) (cura.EndpointReport, time.Time, error) {
	var at time.Time
	var raw []byte
	var report cura.EndpointReport
	err := tx.tx.QueryRow(ctx, `
		SELECT tested_at, report FROM sync.endpoint_tests WHERE org_id = $1 AND connection_id = $2`, tx.org, id).Scan(&at, &raw)
	if err != nil {
		return report, at, err
	}
	err = json.Unmarshal(raw, &report)
	return report, at, err
}

// TypeSwitch is a resource type that the EHR forbids.
type TypeSwitch struct {
	Type     cura.ResourceType `json:"type"`
	OffSince time.Time         `json:"off_since"`
	Reason   string            `json:"reason"`
}

// SwitchTypeOff records that the EHR forbids a type; once it is off, only the time of the last probe moves.
func (tx *Tx) SwitchTypeOff(ctx context.Context, id cura.ConnectionID, t cura.ResourceType, reason string) error {
	var fresh bool
	err := tx.tx.QueryRow(ctx, `
		INSERT INTO sync.type_switches (org_id, connection_id, resource_type, reason) VALUES ($1, $2, $3, $4)
		ON CONFLICT (org_id, connection_id, resource_type) DO UPDATE SET last_probe_at = now()
		RETURNING xmax = 0`, tx.org, id, t, reason).Scan(&fresh)
	if err != nil || !fresh {
		return err
	}
	tx.Audit(audit.Record{Kind: audit.TypeSwitchedOff, Connection: id, Outcome: audit.Denied, Details: map[string]any{"type": t, "reason": reason}})
	return tx.RefreshAttention(ctx, id)
}

// SwitchTypeOn forgets that a type was forbidden; it resumes from its own watermark.
func (tx *Tx) SwitchTypeOn(ctx context.Context, id cura.ConnectionID, t cura.ResourceType) error {
	tag, err := tx.tx.Exec(ctx, `
		DELETE FROM sync.type_switches WHERE org_id = $1 AND connection_id = $2 AND resource_type = $3`, tx.org, id, t)
	if err != nil || tag.RowsAffected() == 0 {
		return err
	}
	tx.Audit(audit.Record{Kind: audit.TypeSwitchedOn, Connection: id, Outcome: audit.Success, Details: map[string]any{"type": t}})
	return tx.RefreshAttention(ctx, id)
}

// TypesOff lists the types that are switched off.
func (tx *Tx) TypesOff(ctx context.Context, id cura.ConnectionID) ([]TypeSwitch, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT resource_type, off_since, reason FROM sync.type_switches
		WHERE org_id = $1 AND connection_id = $2 ORDER BY resource_type`, tx.org, id)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[TypeSwitch])
}

package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// The channels on which the database notifies: that something is due, and that a patient's disclosures are halted (with the
// profile's id).
const (
	wakeups = "cura_wakeups"
	halts   = "cura_halts"
)

// Wakeup is something that is due: a patient link whose queue isn't empty, or a patient whose consent is to be settled.
type Wakeup struct {
	Org        cura.OrgID
	Kind       string
	Ref        string
	Connection cura.ConnectionID
	Seq        int64
}

// The kinds of wakeup.
const (
	WakeDelivery = "delivery"
	WakeConsent  = "consent"
)

// DueWakeups lists what of a kind is due in all orgs, the longest due first, and when the next thing will be.
func (s *Store) DueWakeups(ctx context.Context, kind string, limit int) (due []Wakeup, next *time.Time, err error) {
	err = s.acrossOrgs(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			SELECT org_id, kind, ref::text, coalesce(connection_id::text, ''), seq FROM directory.wakeups
			WHERE kind = $1 AND due_at <= clock_timestamp() ORDER BY due_at LIMIT $2`, kind, limit)
		if err != nil {
			return err
		}
		if due, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Wakeup]); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `SELECT min(due_at) FROM directory.wakeups WHERE kind = $1 AND due_at > clock_timestamp()`, kind).Scan(&next)
	})
	return due, next, err
}

// Claim takes a wakeup for a while, so that of many workers one acts on it; if that one dies it is due again afterwards.
func (s *Store) Claim(ctx context.Context, w Wakeup, hold time.Duration) (won bool, err error) {
	err = s.InOrg(ctx, w.Org, func(tx *Tx) error {
		tag, err := tx.tx.Exec(ctx, `
			UPDATE directory.wakeups SET due_at = clock_timestamp() + $5
			WHERE org_id = $1 AND kind = $2 AND ref = $3 AND seq = $4 AND due_at <= clock_timestamp()`, w.Org, w.Kind, w.Ref, w.Seq, hold)
		won = err == nil && tag.RowsAffected() == 1
		return err
	})
	return won, err
}

// Listen calls woken when something may be due, and halted with the profile whose disclosures are halted, until ctx ends or
// the session is lost. woken is called once at the beginning, since what came before wasn't heard.
func (s *Store) Listen(ctx context.Context, woken func(), halted func(profile cura.ProfileID)) error {
	conn, err := pgx.ConnectConfig(ctx, s.pool.Config().ConnConfig)
	if err != nil {
		return translate(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // the session is given up either way
	if _, err := conn.Exec(ctx, "LISTEN "+wakeups+"; LISTEN "+halts); err != nil {
		return translate(err)
	}
	woken()
	for {
		n, err := conn.WaitForNotification(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fault.Wrap("listening to the database", fault.Unavailable, "the session was lost", err)
		case n.Channel == halts:
			halted(cura.ProfileID(n.Payload))
		default:
			woken()
		}
	}
}

// Halt is a kill switch: an org's pushes or pulls, or one connection's, stop until it is lifted.
type Halt struct {
	Connection cura.ConnectionID `json:"connection_id,omitempty"`
	What       string            `json:"what"`
	Since      time.Time         `json:"since"`
	Actor      string            `json:"actor"`
	Reason     string            `json:"reason,omitempty"`
}

// What a kill switch stops.
const (
	HaltPushes = "pushes"
	HaltPulls  = "pulls"
)

// SetHalt stops what h says from its commit on; one that stands already stays as it is. Sends under way end within their
// grace: InFlight counts them.
func (tx *Tx) SetHalt(ctx context.Context, h Halt) (fresh bool, err error) {
	tag, err := tx.tx.Exec(ctx, `
		INSERT INTO sync.halts (org_id, connection_id, what, actor, reason) VALUES ($1, nullif($2, '')::uuid, $3, $4, $5)
		ON CONFLICT (org_id, what, connection_id) WHERE lifted_at IS NULL DO NOTHING`, tx.org, string(h.Connection), h.What, h.Actor, h.Reason)
	if err != nil || tag.RowsAffected() == 0 {
		return false, err
	}
	tx.Audit(audit.Record{
		Kind: audit.HaltSet, Actor: h.Actor, Connection: h.Connection, Outcome: audit.Success, Details: map[string]any{"what": h.What, "reason": h.Reason},
	})
	return true, nil
}

// LiftHalt lifts a kill switch of just that reach, and has the queues that it held looked at.
func (tx *Tx) LiftHalt(ctx context.Context, connection cura.ConnectionID, what, actor string) (lifted bool, err error) {
	tag, err := tx.tx.Exec(ctx, `
		UPDATE sync.halts SET lifted_at = clock_timestamp(), lifted_by = $4
		WHERE org_id = $1 AND connection_id IS NOT DISTINCT FROM nullif($2, '')::uuid AND what = $3 AND lifted_at IS NULL`,
		tx.org, string(connection), what, actor)
	if err != nil || tag.RowsAffected() == 0 {
		return false, err
	}
	tx.Audit(audit.Record{Kind: audit.HaltLifted, Actor: actor, Connection: connection, Outcome: audit.Success, Details: map[string]any{"what": what}})
	_, err = tx.tx.Exec(ctx, `
		WITH woken AS (UPDATE directory.wakeups SET due_at = clock_timestamp(), seq = seq + 1 WHERE org_id = $1 AND kind = 'delivery' RETURNING 1)
		SELECT pg_notify('`+wakeups+`', 'delivery') FROM woken LIMIT 1`, tx.org)
	return true, err
}

// Halts lists the kill switches of the org that stand.
func (tx *Tx) Halts(ctx context.Context) ([]Halt, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT coalesce(connection_id::text, ''), what, since, actor, reason FROM sync.halts WHERE org_id = $1 AND lifted_at IS NULL ORDER BY since`, tx.org)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Halt])
}

// Halted finds the kill switch that stops this of a connection; nil: none does.
func (tx *Tx) Halted(ctx context.Context, connection cura.ConnectionID, what string) (*Halt, error) {
	all, err := tx.Halts(ctx)
	for _, h := range all {
		if h.What == what && (h.Connection == "" || h.Connection == connection) {
			return &h, nil
		}
	}
	return nil, err
}

// Clock reads the database's clock.
func (tx *Tx) Clock(ctx context.Context) (now time.Time, err error) {
	err = tx.tx.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now)
	return now, err
}

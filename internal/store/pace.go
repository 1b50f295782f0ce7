package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// The rules of keeping pace.
const (
	// DownAfter is after how many failures in a row a connection counts as down: it is probed then, not hammered.
	DownAfter = 5
	// DefaultAlertAfter is after how many failures in a row people are told, where SetAlertAfter wasn't called.
	DefaultAlertAfter = 5
	// SmallestPage is the page size that throttling stops at: below it an EHR is asked more often, not less.
	SmallestPage = 10
	// RecoverAfter is how many good answers bring one step back of what throttling took.
	RecoverAfter = 20
)

// Pace is how fast a connection may be asked: its budget, and what its answers have taught. All workers share it. Its
// instants are by the database's clock.
type Pace struct {
	// RequestsPerMinute is the connection's own budget; 0: its EHR profile's.
	RequestsPerMinute int `json:"requests_per_minute"`
	// HeldUntil is until when the EHR wants no request; nil: it never asked for that.
	HeldUntil *time.Time `json:"held_until,omitempty"`
	// PageSize and Concurrency are what throttling has taught; 0: nothing, the profile's own apply.
	PageSize    int `json:"page_size,omitempty"`
	Concurrency int `json:"concurrency,omitempty"`
	// FailuresInARow counts requests without an answer or with a 5xx since the last good answer.
	FailuresInARow int        `json:"failures_in_a_row"`
	FailingSince   *time.Time `json:"failing_since,omitempty"`
	// AlertAfter is after how many failures in a row people are told; AlertedAt is set while they have been.
	AlertAfter int        `json:"alert_after"`
	AlertedAt  *time.Time `json:"alerted_at,omitempty"`
	// ProbeAt is when the next request may be tried while the EHR is down.
	ProbeAt *time.Time `json:"probe_at,omitempty"`
	// Throttles counts the answers that asked to slow down, AbsurdRetryAfters those among them that asked for nonsense.
	Throttles         int64 `json:"throttles"`
	AbsurdRetryAfters int   `json:"absurd_retry_afters"`

	// successes counts good answers since the last throttle or step of recovery; at is the clock when the row was read.
	successes int
	at        time.Time
}

// Down reports whether the EHR counts as down.
func (p Pace) Down() bool { return p.FailuresInARow >= DownAfter }

// Free reports whether requests need no turn, given the budget of the connection's EHR profile (0: none): there is no
// budget, no hold, and the EHR is up.
func (p Pace) Free(profileBudget int) bool {
	return p.RequestsPerMinute == 0 && profileBudget == 0 && !p.held() && !p.Down()
}

// Learnt reports whether throttling has taught something that good answers still have to take back.
func (p Pace) Learnt() bool { return p.PageSize > 0 || p.Concurrency > 0 }

// held reports whether the EHR wanted no request when the row was read.
func (p Pace) held() bool { return p.HeldUntil != nil && p.HeldUntil.After(p.at) }

const paceColumns = `
	requests_per_minute, held_until, page_size, concurrency, failures_in_a_row, failing_since, alert_after, alerted_at, probe_at,
	throttles, absurd_retry_after, successes, sync.clock()`

func scanPace(row pgx.Row) (Pace, error) {
	var p Pace
	err := row.Scan(&p.RequestsPerMinute, &p.HeldUntil, &p.PageSize, &p.Concurrency, &p.FailuresInARow, &p.FailingSince, &p.AlertAfter,
		&p.AlertedAt, &p.ProbeAt, &p.Throttles, &p.AbsurdRetryAfters, &p.successes, &p.at)
	return p, err
}

// PaceOf reads the pace of a connection; one that nothing is known of yet has the defaults.
func (tx *Tx) PaceOf(ctx context.Context, id cura.ConnectionID) (Pace, error) {
	p, err := scanPace(tx.tx.QueryRow(ctx, `
		SELECT `+paceColumns+` FROM sync.pace WHERE org_id = $1 AND connection_id = $2`, tx.org, id))
	if errors.Is(err, pgx.ErrNoRows) {
		return Pace{AlertAfter: DefaultAlertAfter}, nil
	}
	return p, err
}

// SetBudget sets how many requests a minute all workers together may send to a connection; 0: as many as its EHR profile
// says. It is audited.
func (tx *Tx) SetBudget(ctx context.Context, id cura.ConnectionID, requestsPerMinute int, actor string) error {
	if requestsPerMinute < 0 {
		return fault.Newf("setting the budget", fault.Config, "%d requests a minute are below 0", requestsPerMinute).
			WithFix("Give a number of requests a minute, or 0 for the EHR profile's")
	}
	return tx.setPace(ctx, id, "requests_per_minute", requestsPerMinute, actor)
}

// SetAlertAfter sets after how many failures in a row people are told. It is audited.
func (tx *Tx) SetAlertAfter(ctx context.Context, id cura.ConnectionID, failures int, actor string) error {
	if failures < 1 {
		return fault.Newf("setting the alert threshold", fault.Config, "%d failures in a row are below 1", failures).
			WithFix("Give how many failures in a row are one too many")
	}
	return tx.setPace(ctx, id, "alert_after", failures, actor)
}

// setPace sets one column, whose name is the caller's own word.
func (tx *Tx) setPace(ctx context.Context, id cura.ConnectionID, column string, value int, actor string) error {
	tx.Audit(audit.Record{
		Kind: audit.ConnectionEdited, Actor: actor, Connection: id, Outcome: audit.Success, Details: map[string]int{column: value},
	})
	_, err := tx.tx.Exec(ctx, `
		INSERT INTO sync.pace (org_id, connection_id, `+column+`) VALUES ($1, $2, $3)
		ON CONFLICT (org_id, connection_id) DO UPDATE SET `+column+` = excluded.`+column+`, updated_at = now()`, tx.org, id, value)
	return err
}

// Probing bounds how often an EHR that is down is tried: at first after Initial, then after as long again as it has been
// failing, at most Max; give or take a quarter, so that connections which failed together aren't probed together.
type Probing struct {
	Initial time.Duration
	Max     time.Duration
	// Insist tries it now, whatever the time of the next probe: a person wants to know.
	Insist bool
}

// Turn is the answer to TakeToken.
type Turn struct {
	// Wait is how long to wait before asking again; 0: send the request now.
	Wait time.Duration
	// For is what is waited for; empty where Wait is 0.
	For TurnFor
}

// TurnFor is what a request waits for.
type TurnFor string

// What a request can wait for.
const (
	TurnForBudget TurnFor = "budget" // the requests of this minute are used up
	TurnForHold   TurnFor = "hold"   // the EHR asked for a pause
	TurnForProbe  TurnFor = "probe"  // the EHR is down, and another request has just probed it
)

// takeTurnSQL decides on one request, under the lock of the connection's row. The bucket holds a second's worth of the
// budget, at least one request, and refills by so much less that no minute, wherever it begins, sees more than the
// budget: with N requests a minute and a burst of B, the one after N others is let through (N+1-B)/rate later, and the
// rate is (N+1-B)/60 s.
const takeTurnSQL = `
	WITH own AS MATERIALIZED (
		SELECT coalesce(nullif(requests_per_minute, 0), $5)::float8 AS n, tokens, refilled_at, held_until, failures_in_a_row >= $6 AND NOT $7 AS down, probe_at
		FROM sync.pace WHERE org_id = $1 AND connection_id = $2 FOR UPDATE
	), bucket AS (
		SELECT at, held_until, down, probe_at, rate,
			CASE WHEN n > 0 THEN least(burst, tokens + rate * greatest(0, extract(epoch FROM at - refilled_at)::float8)) END AS level
		FROM own, LATERAL (SELECT sync.clock() AS at, greatest(1, n / 60) AS burst, (n + 1 - greatest(1, n / 60)) / 60 AS rate) budget
	), turn AS MATERIALIZED (
		SELECT at, down, level,
			coalesce(extract(epoch FROM held_until - at)::float8, 0) AS hold,
			CASE WHEN down THEN coalesce(extract(epoch FROM probe_at - at)::float8, 0) ELSE 0 END AS probe,
			CASE WHEN level < 1 THEN (1 - level) / rate ELSE 0 END AS budget
		FROM bucket
	), taken AS (
		UPDATE sync.pace SET
			tokens = coalesce(level - 1, tokens), refilled_at = greatest(refilled_at, at),
			probe_at = CASE WHEN down THEN at + least($4::interval, greatest($3::interval, at - failing_since)) * (0.75 + random() / 2) ELSE probe_at END
		FROM turn
		WHERE org_id = $1 AND connection_id = $2 AND greatest(hold, probe, budget) <= 0
	)
	SELECT hold, probe, budget FROM turn`

// TakeToken asks for the turn of one request to a connection. Where it is given, its token is taken: send the request now.
// Otherwise wait as long as it says, and ask again. All workers ask the same row, so together they keep to the budget, to
// a pause that the EHR asked for, and to one probe at a time while it is down.
//
// profileBudget is the budget of the connection's EHR profile, in requests a minute, 0: none; it holds where SetBudget
// has set none. The transaction doesn't wait for the disk: a crash of the database may forget the tokens taken in its
// last moment.
func (tx *Tx) TakeToken(ctx context.Context, id cura.ConnectionID, profileBudget int, p Probing) (Turn, error) {
	var hold, probe, budget float64
	for {
		var batch pgx.Batch
		// Planning takes as long as the rest, and the plan, one row by its key, is always the same.
		batch.Queue(`SELECT set_config('synchronous_commit', 'off', true), set_config('plan_cache_mode', 'force_generic_plan', true)`)
		batch.Queue(takeTurnSQL, tx.org, id, p.Initial, p.Max, profileBudget, DownAfter, p.Insist).QueryRow(func(row pgx.Row) error {
			return row.Scan(&hold, &probe, &budget)
		})
		err := tx.tx.SendBatch(ctx, &batch).Close()
		if err == nil {
			break
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return Turn{}, err
		}
		if _, err := tx.tx.Exec(ctx, keepPaceSQL, tx.org, id); err != nil {
			return Turn{}, err
		}
	}
	var turn Turn
	for _, reason := range []struct {
		seconds float64
		what    TurnFor
	}{{hold, TurnForHold}, {probe, TurnForProbe}, {budget, TurnForBudget}} {
		// Rounded up to a millisecond, so that asking again isn't a hair too early.
		if wait := time.Duration(reason.seconds * float64(time.Second)); wait > 0 && wait >= turn.Wait {
			turn = Turn{Wait: wait.Truncate(time.Millisecond) + time.Millisecond, For: reason.what}
		}
	}
	return turn, nil
}

// keepPaceSQL makes the row of a connection, where there is none.
const keepPaceSQL = `INSERT INTO sync.pace (org_id, connection_id) VALUES ($1, $2) ON CONFLICT DO NOTHING`

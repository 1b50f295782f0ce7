package store

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
)

// Throttle is an answer that asks to slow down: 429, or 503 with Retry-After.
type Throttle struct {
	// Hold is how long no worker shall send anything.
	Hold time.Duration
	// Absurd says that the EHR asked for nonsense, for which Hold stands in.
	Absurd bool
	// Full is what the connection does when nothing has throttled it.
	Full Capacity
}

// Capacity is how much a connection is asked for at a time, by its EHR profile.
type Capacity struct {
	// PageSize is resources a page, Concurrency requests under way at once, in each worker. Both are positive.
	PageSize, Concurrency int
}

// Episode is a time in which a connection fails so often that people are told: once when it begins, once when it ends.
type Episode struct {
	// Since is when the failing began, Failures how many failures in a row there have been.
	Since    time.Time
	Failures int
}

// Throttled holds all workers and halves page size and concurrency. Answers to requests that were under way when the EHR
// first complained are about the same crowd: they prolong the hold and halve nothing again.
func (tx *Tx) Throttled(ctx context.Context, id cura.ConnectionID, t Throttle) (Pace, error) {
	_, after, err := tx.learn(ctx, id, func(p Pace) Pace { return p.throttled(t) })
	return after, err
}

func (p Pace) throttled(t Throttle) Pace {
	if !p.held() {
		p.PageSize = max(min(SmallestPage, t.Full.PageSize), orElse(p.PageSize, t.Full.PageSize)/2)
		p.Concurrency = max(1, orElse(p.Concurrency, t.Full.Concurrency)/2)
	}
	if until := p.at.Add(t.Hold); p.HeldUntil == nil || until.After(*p.HeldUntil) {
		p.HeldUntil = &until
	}
	p.successes = 0
	p.Throttles++
	if t.Absurd {
		p.AbsurdRetryAfters++
	}
	return p
}

func orElse(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}

// Failed counts a request that got no answer or a 5xx. From DownAfter in a row on the connection is probed; at its alert
// threshold an episode begins, which is audited and returned to one worker alone; otherwise the episode is nil.
func (tx *Tx) Failed(ctx context.Context, id cura.ConnectionID, probing Probing) (Pace, *Episode, error) {
	before, after, err := tx.learn(ctx, id, func(p Pace) Pace { return p.failed(probing) })
	if err != nil || before.AlertedAt != nil || after.AlertedAt == nil {
		return after, nil, err
	}
	episode, err := tx.auditEpisode(ctx, id, audit.AlertRaised, after)
	return after, episode, err
}

func (p Pace) failed(probing Probing) Pace {
	at := p.at
	p.FailuresInARow++
	if p.FailingSince == nil {
		p.FailingSince = &at
	}
	// Requests that were under way when the connection went down fail too; they don't put its next probe off.
	if p.Down() && p.ProbeAt == nil {
		probe := at.Add(time.Duration(float64(probing.Initial) * (0.75 + rand.Float64()/2))) //nolint:gosec // G404: jitter need not be secret
		p.ProbeAt = &probe
	}
	if p.AlertedAt == nil && p.FailuresInARow >= p.AlertAfter {
		p.AlertedAt = &at
	}
	return p
}

// Succeeded takes note of a good answer: the connection is up; each RecoverAfter of them bring one request at a time and
// a tenth of the full page size back of what throttling took. An episode that it ends is audited and returned to one
// worker alone; otherwise the episode is nil.
func (tx *Tx) Succeeded(ctx context.Context, id cura.ConnectionID, full Capacity) (Pace, *Episode, error) {
	before, after, err := tx.learn(ctx, id, func(p Pace) Pace { return p.succeeded(full) })
	if err != nil || before.AlertedAt == nil {
		return after, nil, err
	}
	episode, err := tx.auditEpisode(ctx, id, audit.AlertCleared, before)
	return after, episode, err
}

func (p Pace) succeeded(full Capacity) Pace {
	p.FailuresInARow, p.FailingSince, p.AlertedAt, p.ProbeAt = 0, nil, nil, nil
	if !p.Learnt() {
		p.successes = 0
		return p
	}
	if p.successes++; p.successes < RecoverAfter {
		return p
	}
	p.successes = 0
	p.PageSize = grown(p.PageSize, max(full.PageSize/10, 1), full.PageSize)
	p.Concurrency = grown(p.Concurrency, 1, full.Concurrency)
	return p
}

// grown is a learnt value after one step of recovery: 0, nothing learnt, once it is full again.
func grown(n, step, full int) int {
	if n == 0 || n+step >= full {
		return 0
	}
	return n + step
}

// learn changes the pace of a connection, under the lock of its row.
func (tx *Tx) learn(ctx context.Context, id cura.ConnectionID, fn func(Pace) Pace) (before, after Pace, err error) {
	var batch pgx.Batch
	batch.Queue(keepPaceSQL, tx.org, id)
	batch.Queue(`SELECT `+paceColumns+` FROM sync.pace WHERE org_id = $1 AND connection_id = $2 FOR UPDATE`, tx.org, id).
		QueryRow(func(row pgx.Row) error {
			before, err = scanPace(row)
			return err
		})
	if err := tx.tx.SendBatch(ctx, &batch).Close(); err != nil {
		return before, after, err
	}
	after = fn(before)
	_, err = tx.tx.Exec(ctx, `
		UPDATE sync.pace SET held_until = $3, page_size = $4, concurrency = $5, successes = $6, failures_in_a_row = $7,
			failing_since = $8, alerted_at = $9, probe_at = $10, throttles = $11, absurd_retry_after = $12, updated_at = now()
		WHERE org_id = $1 AND connection_id = $2`,
		tx.org, id, after.HeldUntil, after.PageSize, after.Concurrency, after.successes, after.FailuresInARow,
		after.FailingSince, after.AlertedAt, after.ProbeAt, after.Throttles, after.AbsurdRetryAfters)
	return before, after, err
}

// auditEpisode records that people are told of the failures in p.
func (tx *Tx) auditEpisode(ctx context.Context, id cura.ConnectionID, kind audit.Kind, p Pace) (*Episode, error) {
	e := &Episode{Since: *p.FailingSince, Failures: p.FailuresInARow}
	tx.Audit(audit.Record{
		Kind: kind, Connection: id, Outcome: audit.Success,
		Details: map[string]any{"failures_in_a_row": e.Failures, "failing_since": e.Since},
	})
	return e, tx.RefreshAttention(ctx, id)
}

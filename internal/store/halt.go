package store

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/consent"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/failpoint"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// This file is the protocol of DESIGN §5.4: after a revocation is effective, no disclosure puts its first byte on the wire.
//
//	sender (HoldConsent)                              revoker (ChangeConsent, SettleConsent)
//	a. SENT with a deadline, committed (MarkSent)     1. entry and halt, committed, with NOTIFY
//	b. is there a halt? then no                       2. lock the head FOR UPDATE
//	c. lock the head FOR SHARE                        3. wait for every SENT that isn't past its deadline
//	d. is there a halt, or another epoch? then no     4. the epoch moves: effective
//	e. write, before the deadline
//	f. receipt and settlement, committed
//
// The lock covers the ordinary case: 2 waits for f. A sender whose session is gone holds no lock but has a deadline, after
// which it writes nothing: 3 waits for that. A sender between a and c finds the halt, since 1 is committed before 2 begins.
// What no database can fence: bytes in a network buffer, and a process that is frozen between looking at its deadline and
// the system call that writes.

// OpenSends opens the pool of the transactions that sends hold: n of them at once. Without it HoldConsent isn't possible.
func (s *Store) OpenSends(ctx context.Context, n int) error {
	cfg := s.pool.Config()
	cfg.MaxConns, cfg.MinConns = int32(min(n, 1000)), 0 //nolint:gosec // G115: bounded
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return fault.Wrap("opening the database", fault.Unavailable, "no connection", err)
	}
	s.sends = pool
	return nil
}

// ErrHalted says that a send may not go: the patient's consent is changing or has changed, or a kill switch is on. Nothing
// was written.
var ErrHalted = errors.New("halted")

// Send is what a sender holds while it writes.
type Send struct {
	Org        cura.OrgID
	Connection cura.ConnectionID
	Profile    cura.ProfileID
	// Epoch is the one that the gate decided at.
	Epoch int64
	// Grace is how long after its deadline's beginning the session may sit idle: the deadline and what the answer may take.
	Grace time.Duration
}

// settlerIdle is how long a revoker that stands still keeps the head: then the database ends its session, and another can
// settle what it has begun. A revoker that waits for sends asks the database all the while.
const settlerIdle = 2 * time.Second

// lockPatience is how long a sender waits for the head: whoever holds it is a revoker.
const lockPatience = 50 * time.Millisecond

// HoldConsent runs write while the patient's consent can't become effectively withdrawn, and then settle in the same
// transaction. write gets a context that ends when the database session is lost, and mustn't use the database. Errors: ErrHalted,
// when nothing was written; else that of settle or of the database, when what came of the write isn't recorded.
func (s *Store) HoldConsent(ctx context.Context, send Send, write func(context.Context), settle func(*Tx) error) error {
	err := pgx.BeginFunc(ctx, s.sends, func(pgtx pgx.Tx) error {
		tx := &Tx{store: s, tx: pgtx, org: send.Org}
		if err := tx.holdHead(ctx, send); err != nil {
			return err
		}
		failpoint.Reach(failpoint.HeadHeld)
		watched, stop := tx.watchSession(ctx)
		write(watched)
		if err := stop(); err != nil {
			return err
		}
		failpoint.Reach(failpoint.WriteAnswered)
		if err := settle(tx); err != nil {
			return err
		}
		if err := tx.appendAudit(ctx); err != nil {
			return err
		}
		failpoint.Reach(failpoint.SettlementWritten)
		return nil
	})
	return translate(err)
}

// TakeBack is Tx.Withdraw over a session of the sends' own pool: a revoker that waits for it may have the last of all others.
func (s *Store) TakeBack(ctx context.Context, org cura.OrgID, item OutboxItem) error {
	err := pgx.BeginFunc(ctx, s.sends, func(pgtx pgx.Tx) error {
		tx := &Tx{store: s, tx: pgtx, org: org}
		var batch pgx.Batch
		batch.Queue("SET LOCAL ROLE cura_app")
		batch.Queue("SELECT set_config('app.org', $1, true)", org)
		if err := pgtx.SendBatch(ctx, &batch).Close(); err != nil {
			return err
		}
		if err := tx.Withdraw(ctx, item); err != nil {
			return err
		}
		return tx.appendAudit(ctx)
	})
	return translate(err)
}

// holdHead is steps b to d.
func (tx *Tx) holdHead(ctx context.Context, send Send) error {
	var batch pgx.Batch
	batch.Queue("SET LOCAL ROLE cura_app")
	batch.Queue(`SELECT set_config('app.org', $1, true), set_config('idle_in_transaction_session_timeout', $2, true), set_config('lock_timeout', $3, true)`,
		send.Org, milliseconds(send.Grace), milliseconds(lockPatience))
	if err := tx.tx.SendBatch(ctx, &batch).Close(); err != nil {
		return err
	}
	halted := func() (bool, error) {
		if failpoint.Off(failpoint.Check) {
			return false, nil
		}
		var yes bool
		err := tx.tx.QueryRow(ctx, `
			SELECT EXISTS (SELECT FROM cura.consent_halts WHERE org_id = $1 AND profile_id = $2 AND effective_at IS NULL)
				OR EXISTS (SELECT FROM sync.halts WHERE org_id = $1 AND what = 'pushes' AND lifted_at IS NULL AND (connection_id IS NULL OR connection_id = $3))`,
			send.Org, send.Profile, send.Connection).Scan(&yes)
		return yes, err
	}
	if yes, err := halted(); yes || err != nil {
		return errors.Join(err, haltedIf(yes))
	}
	failpoint.Reach(failpoint.HaltAskedOnce)
	lock := " FOR SHARE"
	if failpoint.Off(failpoint.Lock) {
		lock = ""
	}
	var epoch int64
	err := tx.tx.QueryRow(ctx, `SELECT epoch FROM cura.consent_heads WHERE org_id = $1 AND profile_id = $2`+lock, send.Org, send.Profile).Scan(&epoch)
	if notAvailable(err) {
		return ErrHalted
	}
	if err != nil {
		return err
	}
	failpoint.Reach(failpoint.HeadLocked)
	yes, err := halted()
	if err != nil {
		return err
	}
	return haltedIf(yes || epoch != send.Epoch && !failpoint.Off(failpoint.Check))
}

func haltedIf(yes bool) error {
	if yes {
		return ErrHalted
	}
	return nil
}

// watchSession gives a context that ends when the session does. Nothing else may use the session until stop has returned,
// with an error where it was lost.
func (tx *Tx) watchSession(ctx context.Context) (watched context.Context, stop func() error) {
	watched, lost := context.WithCancelCause(ctx)
	waiting, enough := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		// In a transaction no notification comes; the end of the session does.
		if _ = tx.tx.Conn().PgConn().WaitForNotification(waiting); waiting.Err() == nil {
			lost(errSessionLost)
			done <- errSessionLost
			return
		}
		done <- nil
	}()
	return watched, func() error {
		enough()
		err := <-done
		lost(nil)
		return err
	}
}

var errSessionLost = fault.New("holding the patient's consent", fault.Unavailable, "the database session was lost")

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// notAvailable reports whether a lock wasn't to be had in time.
func notAvailable(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "55P03"
}

func formatID(id int64) string { return strconv.FormatInt(id, 10) }

// Permits says whether an artefact may leave by a patient's consents as they stand: the gate's own decision.
type Permits func(a cura.Artefact, policy cura.OrgPolicy, standing []consent.Consent, at time.Time) consent.Decision

// ConsentSettlement is what a change of consent came to.
type ConsentSettlement struct {
	// Epoch is the head's from now on; 0: there was nothing to settle.
	Epoch int64 `json:"epoch"`
	// EffectiveAt is the database's clock after the commit: from then on no disclosure begins that the change forbids.
	EffectiveAt time.Time `json:"effective_at"`
	// Cancelled is how many queued items it has cancelled.
	Cancelled int `json:"cancelled"`
}

// SettleConsent makes the changes of a patient's consent effective that have a halt, or whose time has come: steps 2 to 4 of
// a revoker. It waits for sends that are under way, at most their grace. Called again it does nothing; any process may call
// it at any time.
func (s *Store) SettleConsent(ctx context.Context, org cura.OrgID, profile cura.ProfileID, permits Permits) (ConsentSettlement, error) {
	const patience = 100 * time.Millisecond
	// Most of the wait is done before the lock is taken, and without a session: the halt is committed, so nothing new begins.
	if err := s.awaitSends(ctx, org, profile); err != nil {
		return ConsentSettlement{}, err
	}
	for {
		settled, err := s.settleOnce(ctx, org, profile, permits, patience)
		if (notAvailable(err) || errors.Is(err, errOvertaken)) && ctx.Err() == nil {
			// Without a session meanwhile: there are few, and the rest of the work needs them.
			select {
			case <-ctx.Done():
			case <-time.After(patience / 5):
			}
			continue
		}
		if err != nil || settled.Epoch == 0 {
			return settled, err
		}
		failpoint.Reach(failpoint.EpochMoved)
		err = s.InOrg(ctx, org, func(tx *Tx) error {
			if err := tx.tx.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&settled.EffectiveAt); err != nil {
				return err
			}
			_, err := tx.tx.Exec(ctx, `UPDATE cura.consent_halts SET effective_at = $4 WHERE org_id = $1 AND profile_id = $2 AND epoch = $3`,
				org, profile, settled.Epoch, settled.EffectiveAt)
			return err
		})
		return settled, err
	}
}

// errOvertaken says that a sender, let through before the halt, has promised its send since the revoker has waited for such
// promises: it waits again. That ends, since nothing is let through any more.
var errOvertaken = errors.New("a send was promised meanwhile")

func (s *Store) settleOnce(ctx context.Context, org cura.OrgID, profile cura.ProfileID, permits Permits, patience time.Duration) (ConsentSettlement, error) {
	var settled ConsentSettlement
	err := s.InOrg(ctx, org, func(tx *Tx) error {
		if _, err := tx.tx.Exec(ctx, `SELECT set_config('lock_timeout', $1, true), set_config('idle_in_transaction_session_timeout', $2, true)`,
			milliseconds(patience), milliseconds(settlerIdle)); err != nil {
			return err
		}
		var seq int64 // of the wakeup, before anything is read that it may stand for
		err := tx.tx.QueryRow(ctx, `SELECT seq FROM directory.wakeups WHERE org_id = $1 AND kind = 'consent' AND ref = $2`, org, profile).Scan(&seq)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		var head ConsentHead
		err = tx.tx.QueryRow(ctx, `
			SELECT epoch, entry_id, entries, next_at FROM cura.consent_heads WHERE org_id = $1 AND profile_id = $2 FOR UPDATE`, org, profile).
			Scan(&head.Epoch, &head.Entry, &head.entries, &head.NextAt)
		if errors.Is(err, pgx.ErrNoRows) {
			if err := tx.settlePulls(ctx, profile, nil); err != nil {
				return err
			}
			return tx.restConsent(ctx, profile, seq, nil)
		}
		if err != nil {
			return err
		}
		failpoint.Reach(failpoint.RevokerLocked)
		if err := tx.awaitDeadlines(ctx, profile); err != nil {
			return err
		}
		failpoint.Reach(failpoint.RevokerWaited)
		if settled, err = tx.moveEpoch(ctx, profile, &head, permits); err != nil {
			return err
		}
		if err := tx.settlePulls(ctx, profile, &head); err != nil {
			return err
		}
		return tx.restConsent(ctx, profile, seq, head.NextAt)
	})
	return settled, err
}

// awaitSends waits until no send of the patient may put bytes on the wire.
func (s *Store) awaitSends(ctx context.Context, org cura.OrgID, profile cura.ProfileID) error {
	return untilNone(ctx, func() (left time.Duration, err error) {
		err = s.InOrg(ctx, org, func(tx *Tx) error {
			left, err = tx.longestSend(ctx, profile)
			return err
		})
		return left, err
	})
}

// awaitDeadlines is step 3.
func (tx *Tx) awaitDeadlines(ctx context.Context, profile cura.ProfileID) error {
	return untilNone(ctx, func() (time.Duration, error) { return tx.longestSend(ctx, profile) })
}

// longestSend is how long until the last deadline of the patient's sends; 0: none is under way.
func (tx *Tx) longestSend(ctx context.Context, profile cura.ProfileID) (time.Duration, error) {
	if failpoint.Off(failpoint.DeadlineWait) {
		return 0, nil
	}
	var seconds float64
	err := tx.tx.QueryRow(ctx, `
		SELECT coalesce(extract(epoch FROM max(send_deadline) - clock_timestamp()), 0)::float8 FROM push.ledger
		WHERE org_id = $1 AND profile_id = $2 AND state = 'sent' AND send_deadline > clock_timestamp()`, tx.org, profile).Scan(&seconds)
	return max(0, time.Duration(seconds*float64(time.Second))), err
}

// untilNone asks again and again until nothing is left.
func untilNone(ctx context.Context, ask func() (left time.Duration, err error)) error {
	const poll = 10 * time.Millisecond
	for {
		left, err := ask()
		if err != nil || left == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(poll, left+time.Millisecond)):
		}
	}
}

// moveEpoch is step 4: what is queued and isn't permitted any more is cancelled for good, the halts are lifted, and the next
// change that time brings is noted.
func (tx *Tx) moveEpoch(ctx context.Context, profile cura.ProfileID, head *ConsentHead, permits Permits) (ConsentSettlement, error) {
	var now time.Time
	var open []string
	// The halts are read before the log: an entry commits with its halt, so the log has what these stand for.
	err := tx.tx.QueryRow(ctx, `
		SELECT clock_timestamp(), ARRAY (SELECT halt_id::text FROM cura.consent_halts WHERE org_id = $1 AND profile_id = $2 AND effective_at IS NULL)`,
		tx.org, profile).Scan(&now, &open)
	if err != nil || len(open) == 0 && (head.NextAt == nil || head.NextAt.After(now)) {
		return ConsentSettlement{}, err
	}
	log, err := tx.ConsentLog(ctx, profile)
	if err != nil {
		return ConsentSettlement{}, err
	}
	policy, err := tx.OrgPolicy(ctx)
	if err != nil {
		return ConsentSettlement{}, err
	}
	cancelled, err := tx.cancelForbidden(ctx, profile, *head, log, policy, permits, now)
	if err != nil {
		return ConsentSettlement{}, err
	}
	before := *head
	head.Epoch++
	if len(log) > 0 {
		head.Entry = log[len(log)-1].ID
	}
	head.NextAt = nil
	if next := consent.Next(StandingConsents(log), now); !next.IsZero() {
		head.NextAt = &next
	}
	var batch pgx.Batch
	batch.Queue(`
		UPDATE cura.consent_heads SET epoch = $3, entry_id = $4, entries = $5, next_at = $6, changed_at = clock_timestamp()
		WHERE org_id = $1 AND profile_id = $2`, tx.org, profile, head.Epoch, head.Entry, len(log), head.NextAt)
	batch.Queue(`UPDATE cura.consent_halts SET effective_at = clock_timestamp(), epoch = $2 WHERE org_id = $1 AND halt_id = ANY($3::uuid[])`,
		tx.org, head.Epoch, open)
	if err := tx.tx.SendBatch(ctx, &batch).Close(); err != nil {
		return ConsentSettlement{}, err
	}
	tx.Audit(audit.Record{
		Kind: audit.ConsentSettled, Outcome: audit.Success,
		Details: map[string]any{"profile": profile, "epoch": head.Epoch, "entry": head.Entry, "cancelled": cancelled},
	})
	if policy.AnnounceConsent && (head.Entry != before.Entry || before.NextAt != nil && !before.NextAt.After(now)) {
		if err := tx.announce(ctx, profile, before, *head, log, now); err != nil {
			return ConsentSettlement{}, err
		}
	}
	// The queues that the halt held up go on.
	_, err = tx.tx.Exec(ctx, `
		WITH woken AS (
			UPDATE directory.wakeups w SET due_at = clock_timestamp(), seq = w.seq + 1 FROM sync.patient_links l
			WHERE w.org_id = $1 AND w.kind = 'delivery' AND w.ref = l.link_id AND l.org_id = $1 AND l.profile_id = $2 RETURNING 1
		)
		SELECT pg_notify('`+wakeups+`', 'delivery') FROM woken LIMIT 1`, tx.org, profile)
	return ConsentSettlement{Epoch: head.Epoch, Cancelled: cancelled}, err
}

// cancelForbidden cancels the queued items that were permitted when the last epoch began and, after any of the entries since
// or by now, aren't. An item that never was permitted stays for the gate to deny. What may be on its way isn't touched.
func (tx *Tx) cancelForbidden(ctx context.Context, profile cura.ProfileID, head ConsentHead, log []ConsentEntry, policy cura.OrgPolicy, permits Permits, now time.Time) (int, error) {
	queued, err := tx.queuedOf(ctx, profile)
	if err != nil || len(queued) == 0 {
		return 0, err
	}
	var forbidden []OutboxItem
	for _, item := range queued {
		before, steps := head.steps(log, item.CreatedAt)
		if before != nil && !permits(item.Artefact, policy, StandingConsents(before), head.lastMoment(now)).Allow {
			continue
		}
		for _, step := range steps {
			decision := permits(item.Artefact, policy, StandingConsents(step), now)
			if !decision.Allow {
				item.Why = decision.Reason
				forbidden = append(forbidden, item)
				break
			}
		}
	}
	if err := tx.cancelByConsent(ctx, forbidden); fault.Is(err, fault.Conflict) {
		return 0, errOvertaken
	} else if err != nil {
		return 0, err
	}
	return len(forbidden), nil
}

// steps gives the log as it was when the epoch began, and as it was after each entry since. An entry that has committed late, with
// a number below others that were there before, can't be told from those: then before is nil, and the steps are all since the
// item was queued.
func (h ConsentHead) steps(log []ConsentEntry, queued time.Time) (before []ConsentEntry, steps [][]ConsentEntry) {
	before = []ConsentEntry{}
	for i, e := range log {
		if e.ID <= h.Entry {
			before = log[:i+1]
		}
	}
	late := len(before) != h.entries
	for i, e := range log {
		if e.ID > h.Entry || late && e.LoggedAt.After(queued.Add(-commitSlack)) {
			steps = append(steps, log[:i+1])
		}
	}
	if late {
		before = nil
	}
	return before, append(steps, log)
}

// commitSlack is how long a transaction that logs a consent may take.
const commitSlack = time.Minute

// lastMoment is when what the head stood for was still true: just before time changed it.
func (h ConsentHead) lastMoment(now time.Time) time.Time {
	if h.NextAt != nil && !h.NextAt.After(now) {
		return h.NextAt.Add(-time.Microsecond)
	}
	return now
}

// restConsent notes when the patient's consent has to be settled next: at, or when somebody changes it. A wakeup that has
// another seq by now stands for something newer, and stays.
func (tx *Tx) restConsent(ctx context.Context, profile cura.ProfileID, seq int64, at *time.Time) error {
	if at == nil {
		_, err := tx.tx.Exec(ctx, `DELETE FROM directory.wakeups WHERE org_id = $1 AND kind = 'consent' AND ref = $2 AND seq = $3`, tx.org, profile, seq)
		return err
	}
	_, err := tx.tx.Exec(ctx, `
		INSERT INTO directory.wakeups AS w (org_id, kind, ref, due_at) VALUES ($1, 'consent', $2, $4)
		ON CONFLICT (org_id, kind, ref) DO UPDATE SET due_at = excluded.due_at WHERE w.seq = $3`, tx.org, profile, seq, at)
	return err
}

// InFlight is how many sends of an org, or of one connection, may still put bytes on the wire, and until when.
func (tx *Tx) InFlight(ctx context.Context, connection cura.ConnectionID) (n int, until *time.Time, err error) {
	err = tx.tx.QueryRow(ctx, `
		SELECT count(*), max(send_deadline) FROM push.ledger
		WHERE org_id = $1 AND state = 'sent' AND send_deadline > clock_timestamp() AND ($2 = '' OR connection_id = nullif($2, '')::uuid)`,
		tx.org, string(connection)).Scan(&n, &until)
	if err != nil {
		return 0, nil, err
	}
	return n, until, nil
}

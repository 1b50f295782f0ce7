// Package store holds all SQL. Every transaction is one org's and goes through InOrg, under row level security; what
// looks across orgs reads the directory, as role cura_dispatch, in directory.go.
package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/klauspost/compress/zstd"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// Store is a pool of connections that log in as cura_worker, which by itself may do nothing.
type Store struct {
	pool *pgxpool.Pool
	// sends holds the transactions of sends under way (OpenSends): its size is how many there can be.
	sends *pgxpool.Pool
	// encoder compresses landed resources; EncodeAll may be called from many goroutines at once.
	encoder *zstd.Encoder
	decoder *zstd.Decoder
}

// Open connects to the database at url, which logs in as cura_worker.
func Open(ctx context.Context, url string) (*Store, error) {
	if url == "" {
		return nil, fault.New("opening the database", fault.Config, "no database is named").
			WithFix("Start a stack in this folder with make demo or starter dev, or name a database with CURA_DATABASE_URL or --database-url")
	}
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fault.Wrap("opening the database", fault.Config, "the database URL can't be read", err).
			WithFix("Give it as postgres://cura_worker:PASSWORD@HOST:PORT/DATABASE")
	}
	// Every name in this package carries its schema; a forgotten one must fail, not find something else.
	cfg.ConnConfig.RuntimeParams["search_path"] = ""
	cfg.ConnConfig.RuntimeParams["application_name"] = "cura-ehr-sync"
	cfg.ConnConfig.RuntimeParams["timezone"] = "UTC"
	// Plans are kept, foreign keys' own included, and made by what the statistics said then: of a table that was empty or
	// small a moment ago. Every statement here has its index; taking it is never far from the best and never a disaster. (JIT
	// would compile where a scan can't be helped, for it looks dear then.)
	cfg.ConnConfig.RuntimeParams["enable_seqscan"] = "off"
	cfg.ConnConfig.RuntimeParams["jit"] = "off"
	// A process that stands still in mid-transaction, as a paused machine's does, would keep its locks until somebody notices: the
	// head of the org's audit log, for one, without which no revocation commits.
	cfg.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = milliseconds(maxIdle)
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fault.Wrap("opening the database", fault.Unavailable, "no connection", err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fault.Wrap("opening the database", fault.Unavailable, "it doesn't answer, or refuses the login", err).
			WithFix("Check CURA_DATABASE_URL and that PostgreSQL runs")
	}
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("making the compressor: %w", err)
	}
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("making the decompressor: %w", err)
	}
	return &Store{pool: pool, encoder: encoder, decoder: decoder}, nil
}

// Pack compresses a resource for the landing. It may be called from many goroutines at once.
func (s *Store) Pack(raw []byte) []byte { return s.encoder.EncodeAll(raw, nil) }

// Close waits for transactions in flight and closes the pool.
func (s *Store) Close() {
	s.pool.Close()
	if s.sends != nil {
		s.sends.Close()
	}
	s.decoder.Close()
}

// maxIdle is how long a transaction may wait for its process. No process computes that long in one.
const maxIdle = 5 * time.Second

// Tx is one org's transaction. Its methods are spread over this package, one file a table family.
type Tx struct {
	store   *Store
	tx      pgx.Tx
	org     cura.OrgID
	records []audit.Record
}

// Org is the org that the transaction is held to.
func (tx *Tx) Org() cura.OrgID { return tx.org }

// Audit has record appended to the org's log as the transaction's last act: it is there if and only if the rest is.
func (tx *Tx) Audit(record audit.Record) { tx.records = append(tx.records, record) }

// InOrg runs fn in a transaction that sees and touches org alone, and commits it together with the audit records that
// fn left. An error of fn rolls everything back. Driver errors come out as faults of kind Unavailable, Conflict or
// NotFound, and carry no values.
func (s *Store) InOrg(ctx context.Context, org cura.OrgID, fn func(*Tx) error) error {
	return s.begin(ctx, "SET LOCAL ROLE cura_app", string(org), func(pgtx pgx.Tx) error {
		tx := &Tx{store: s, tx: pgtx, org: org}
		if err := fn(tx); err != nil {
			return err
		}
		return tx.appendAudit(ctx)
	})
}

func (s *Store) begin(ctx context.Context, setRole, org string, fn func(pgx.Tx) error) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		var batch pgx.Batch
		batch.Queue(setRole)
		batch.Queue("SELECT set_config('app.org', $1, true)", org)
		if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
			return err
		}
		return fn(tx)
	})
	return translate(err)
}

// appendAudit numbers the records and writes them. The head's row is taken here, last of all, so that no transaction
// holds it while it does anything else.
func (tx *Tx) appendAudit(ctx context.Context) error {
	n := len(tx.records)
	if n == 0 {
		return nil
	}
	kinds, actors, connections, runs := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	outcomes, details := make([]string, n), make([]string, n)
	for i, r := range tx.records {
		kinds[i], actors[i], connections[i], runs[i], outcomes[i] = string(r.Kind), r.Actor, string(r.Connection), r.Run, string(r.Outcome)
		if r.Actor == "" {
			actors[i] = audit.Worker
		}
		if r.Details == nil {
			r.Details = struct{}{}
		}
		text, err := json.Marshal(r.Details)
		if err != nil {
			return fmt.Errorf("writing the details of an audit record: %w", err)
		}
		details[i] = string(text)
	}
	_, err := tx.tx.Exec(ctx, `
		WITH head AS (
			INSERT INTO audit.heads (org_id, seq) VALUES ($1, $2)
			ON CONFLICT (org_id) DO UPDATE SET seq = audit.heads.seq + excluded.seq
			RETURNING seq
		)
		INSERT INTO audit.records (org_id, seq, kind, actor, connection_id, run_id, outcome, details)
		SELECT $1, head.seq - $2 + r.nth, r.kind, r.actor, nullif(r.connection, '')::uuid, nullif(r.run, '')::uuid, r.outcome, r.details
		FROM head, unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::json[])
			WITH ORDINALITY AS r (kind, actor, connection, run, outcome, details, nth)`,
		tx.org, int64(n), kinds, actors, connections, runs, outcomes, details)
	return err
}

// AuditSince lists the org's records of kind about connection since then, oldest first.
func (tx *Tx) AuditSince(ctx context.Context, connection cura.ConnectionID, kind audit.Kind, since time.Time) ([]audit.Record, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT seq, at, kind, actor, coalesce(connection_id::text, ''), coalesce(run_id::text, ''), outcome, details::text
		FROM audit.records
		WHERE org_id = $1 AND connection_id = $2 AND kind = $3 AND at >= $4
		ORDER BY seq`, tx.org, connection, kind, since)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (audit.Record, error) {
		var r audit.Record
		var details string
		err := row.Scan(&r.Seq, &r.At, &r.Kind, &r.Actor, &r.Connection, &r.Run, &r.Outcome, &details)
		r.Details = []byte(details)
		return r, err
	})
}

// translate turns the driver's errors into faults, once, here. The driver's own text can hold values and is dropped.
func translate(err error) error {
	var known *fault.Error
	var pg *pgconn.PgError
	switch {
	case err == nil, errors.As(err, &known), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, pgx.ErrNoRows):
		return fault.Wrap("reading the database", fault.NotFound, "there is no such row in this org", err)
	case errors.As(err, &pg):
		kind := fault.Unknown
		switch {
		case pg.Code == "23505":
			kind = fault.Conflict
		case pg.Code[:2] == "22" || pg.Code[:2] == "54" || pg.Code == "23502" || pg.Code == "23514":
			kind = fault.Data // a value that the tables can't hold
		case pg.Code[:2] == "08" || pg.Code[:2] == "57" || pg.Code[:2] == "53" || pg.Code[:2] == "40" || pg.Code == "55P03" || pg.Code[:2] == "25":
			kind = fault.Unavailable
		}
		detail := "SQLSTATE " + pg.Code
		if pg.ConstraintName != "" {
			detail += ", constraint " + pg.ConstraintName
		}
		return fault.Wrap("using the database", kind, detail, err)
	case pgconn.SafeToRetry(err), pgconn.Timeout(err):
		return fault.Wrap("using the database", fault.Unavailable, "it doesn't answer", err)
	}
	if _, refused := errors.AsType[*pgconn.ConnectError](err); refused {
		return fault.Wrap("using the database", fault.Unavailable, "no connection", err)
	}
	return fmt.Errorf("using the database: %w", err)
}

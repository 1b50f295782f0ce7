package store

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/audit/seal"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// settledConsents is the channel on which the database notifies that a change of consent was settled, with the org's id.
const settledConsents = "cura_audit"

// AuditedOrgs lists all orgs, the live ones first, by name; sandbox orgs too: each has an audit log.
func (s *Store) AuditedOrgs(ctx context.Context) ([]Org, error) {
	var orgs []Org
	err := s.acrossOrgs(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `SELECT org_id, name, kind, coalesce(live_org_id::text, '') FROM directory.orgs ORDER BY kind, name`)
		if err != nil {
			return err
		}
		orgs, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Org])
		return err
	})
	return orgs, err
}

// ListenSettled calls settled with the org of each change of consent that is settled, until ctx ends or the session is lost.
func (s *Store) ListenSettled(ctx context.Context, settled func(cura.OrgID)) error {
	conn, err := pgx.ConnectConfig(ctx, s.pool.Config().ConnConfig)
	if err != nil {
		return translate(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // the session is given up either way
	if _, err := conn.Exec(ctx, "LISTEN "+settledConsents); err != nil {
		return translate(err)
	}
	for {
		n, err := conn.WaitForNotification(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fault.Wrap("listening to the database", fault.Unavailable, "the session was lost", err)
		default:
			settled(cura.OrgID(n.Payload))
		}
	}
}

// AuditFilter chooses records of an org's log; what is empty chooses all.
type AuditFilter struct {
	Connection cura.ConnectionID
	Kind       audit.Kind
	Since      time.Time
	// Limit is how many of the last records are given.
	Limit int
}

// AuditRecords lists the last records that the filter chooses, oldest first. Details are json.RawMessage.
func (tx *Tx) AuditRecords(ctx context.Context, f AuditFilter) ([]audit.Record, error) {
	since := pgtype.Timestamptz{Time: f.Since, Valid: true}
	if f.Since.IsZero() {
		since.InfinityModifier = pgtype.NegativeInfinity
	}
	rows, err := tx.tx.Query(ctx, `
		SELECT `+entryColumns+` FROM audit.records
		WHERE org_id = $1 AND ($2 = '' OR connection_id = nullif($2, '')::uuid) AND ($3 = '' OR kind = $3) AND at >= $4
		ORDER BY seq DESC LIMIT $5`, tx.org, string(f.Connection), string(f.Kind), since, f.Limit)
	if err != nil {
		return nil, err
	}
	var records []audit.Record
	err = eachEntry(rows, tx.org, func(e audit.Entry) error {
		records = append(records, e.Record())
		return nil
	})
	slices.Reverse(records)
	return records, err
}

// entryColumns are what eachEntry reads. Nothing in them is null, unless somebody has taken the constraints away.
const entryColumns = `seq, at, coalesce(kind, ''), coalesce(actor, ''), coalesce(connection_id::text, ''), coalesce(run_id::text, ''),
	coalesce(outcome, ''), coalesce(details::text, '')`

// eachEntry calls fn with one row after another, and holds none.
func eachEntry(rows pgx.Rows, org cura.OrgID, fn func(audit.Entry) error) error {
	var seq int64
	var at pgtype.Timestamptz
	var kind, actor, connection, run, outcome, details string
	_, err := pgx.ForEachRow(rows, []any{&seq, &at, &kind, &actor, &connection, &run, &outcome, &details}, func() error {
		return fn(audit.Entry{
			Org: org, Seq: seq, At: micros(at), Kind: audit.Kind(kind), Actor: actor, Connection: cura.ConnectionID(connection),
			Run: run, Outcome: audit.Outcome(outcome), Details: details,
		})
	})
	return err
}

// micros is an instant in microseconds since 1970. Infinities, which only somebody who tampers can write, are instants of their own.
func micros(at pgtype.Timestamptz) int64 {
	switch at.InfinityModifier {
	case pgtype.Infinity:
		return math.MaxInt64
	case pgtype.NegativeInfinity:
		return math.MinInt64
	case pgtype.Finite:
	}
	return at.Time.UnixMicro()
}

// auditLog is an org's log, as a check reads it.
type auditLog struct{ tx *Tx }

// Leaves hashes the records from one number to another.
func (l auditLog) Leaves(ctx context.Context, from, to int64, fn func(seq int64, leaf tlog.Hash) error) error {
	rows, err := l.tx.tx.Query(ctx, `SELECT `+entryColumns+` FROM audit.records WHERE org_id = $1 AND seq BETWEEN $2 AND $3 ORDER BY seq`, l.tx.org, from, to)
	if err != nil {
		return err
	}
	var bytes []byte
	return eachEntry(rows, l.tx.org, func(e audit.Entry) error {
		bytes = e.AppendCanonical(bytes[:0])
		return fn(e.Seq, tlog.RecordHash(bytes))
	})
}

// storedAtOnce is how many hashes are read with one statement.
const storedAtOnce = 4096

// Stored reads the leaf hashes that were stored for the records from one number to another.
func (l auditLog) Stored(ctx context.Context, from, to int64, fn func(seq int64, leaf tlog.Hash) error) error {
	for ; from <= to; from += storedAtOnce {
		indexes := make([]int64, 0, storedAtOnce)
		for seq := from; seq <= min(to, from+storedAtOnce-1); seq++ {
			indexes = append(indexes, tlog.StoredHashIndex(0, seq-1))
		}
		hashes, err := l.tx.storedHashes(ctx, indexes)
		if err != nil {
			return err
		}
		for i, index := range indexes {
			if hash, ok := hashes[index]; ok {
				if err := fn(from+int64(i), hash); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// storedHashes reads the hashes at these indexes that are there.
func (tx *Tx) storedHashes(ctx context.Context, indexes []int64) (map[int64]tlog.Hash, error) {
	rows, err := tx.tx.Query(ctx, `SELECT index, hash FROM audit.hashes WHERE org_id = $1 AND index = ANY($2)`, tx.org, indexes)
	if err != nil {
		return nil, err
	}
	found := make(map[int64]tlog.Hash, len(indexes))
	var index int64
	var hash []byte
	_, err = pgx.ForEachRow(rows, []any{&index, &hash}, func() error {
		if len(hash) == tlog.HashSize {
			found[index] = tlog.Hash(hash)
		}
		return nil
	})
	return found, err
}

// hashReader reads stored hashes for package tlog.
func (tx *Tx) hashReader(ctx context.Context) tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		found, err := tx.storedHashes(ctx, indexes)
		if err != nil {
			return nil, err
		}
		hashes := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			hash, ok := found[index]
			if !ok {
				return nil, fmt.Errorf("stored hash %d is missing", index)
			}
			hashes[i] = hash
		}
		return hashes, nil
	})
}

// VerifiedLog is what the verification of an org's log has come to.
type VerifiedLog struct {
	seal.Result

	// TableHeads is how many signed heads the table has, and TableSize how many records the last of them covers.
	TableHeads, TableSize int64
	// HashesBroken tells that the stored hashes don't agree with the last head, though the records may: proofs can't be made.
	HashesBroken bool
}

// VerifyAudit checks an org's records, as they are, with every head of its file.
func (s *Store) VerifyAudit(ctx context.Context, org cura.OrgID, folder *seal.Folder, keys seal.Verifiers) (VerifiedLog, error) {
	var v VerifiedLog
	var counter int64
	// What is read first can't be ahead of what is read later: a record is committed before a head covers it, and a head is in the file
	// before it is in the table.
	err := s.InOrg(ctx, org, func(tx *Tx) error {
		return tx.tx.QueryRow(ctx, `
			SELECT (SELECT count(*) FROM audit.signed_heads WHERE org_id = $1), coalesce((SELECT max(size) FROM audit.signed_heads WHERE org_id = $1), 0),
				coalesce((SELECT seq FROM audit.heads WHERE org_id = $1), 0)`, org).Scan(&v.TableHeads, &v.TableSize, &counter)
	})
	if err != nil {
		return v, err
	}
	heads, err := folder.Heads(org, keys)
	if err != nil {
		return v, err
	}
	defer func() { _ = heads.Close() }() // it was only read
	err = s.InOrg(ctx, org, func(tx *Tx) error {
		if v.Result, err = seal.Check(ctx, auditLog{tx}, heads, counter); err != nil || v.Last.Size == 0 {
			return err
		}
		v.HashesBroken, err = tx.hashesBroken(ctx, v)
		return err
	})
	return v, err
}

// hashesBroken reports whether the stored hashes disagree with the last head that the records agree with. A head that the table
// doesn't have was in the file only when the worker died, and its hashes aren't stored yet.
func (tx *Tx) hashesBroken(ctx context.Context, v VerifiedLog) (bool, error) {
	if v.Last.Size > v.TableSize {
		return false, nil
	}
	tree, whole, err := tx.frontier(ctx, v.Last.Size)
	return !whole || tree.Root() != v.Last.Root, err
}

// ProveAudit makes the proof of an org's record, under the last head of the table.
func (s *Store) ProveAudit(ctx context.Context, org cura.OrgID, seq int64, keys seal.Verifiers) (seal.Proof, error) {
	const op = "proving an audit record"
	var proof seal.Proof
	err := s.InOrg(ctx, org, func(tx *Tx) error {
		head, err := tx.lastSignedHead(ctx, keys)
		if err != nil {
			return err
		}
		rows, err := tx.tx.Query(ctx, `SELECT `+entryColumns+` FROM audit.records WHERE org_id = $1 AND seq = $2`, org, seq)
		if err != nil {
			return err
		}
		var found []audit.Entry
		err = eachEntry(rows, org, func(e audit.Entry) error {
			found = append(found, e)
			return nil
		})
		switch {
		case err != nil:
			return err
		case len(found) == 0:
			return fault.Newf(op, fault.NotFound, "the org has no record %d", seq).WithFix("List them with: starter audit list ORG")
		case seq > head.Size:
			return fault.Newf(op, fault.NotFound, "record %d isn't sealed yet; %d are", seq, head.Size).
				WithFix("Wait a minute for the worker, or seal now with: starter audit seal")
		}
		proof, err = seal.Prove(found[0], head, tx.hashReader(ctx))
		return err
	})
	return proof, err
}

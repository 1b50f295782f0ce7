package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/cura-health/ehr-sync/internal/audit/seal"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/failpoint"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// sealBatch is how many records are sealed in one transaction, under one head; sealAtOnce how many are held in memory.
const (
	sealBatch  = 10_000
	sealAtOnce = 2_000
	// catchUp is how many heads are copied into a file that lacks them in one transaction.
	catchUp = 1_000
)

const sealing = "sealing the audit log"

// SealAudit seals what of an org's log isn't, and gives the last head, whose Size is 0 where the log is empty. Any number of
// processes may do that at once, each with a folder of its own or all with one. It fails with fault.Conflict, and signs nothing,
// where log and last head don't fit together: starter audit verify says why.
func (s *Store) SealAudit(ctx context.Context, org cura.OrgID, key *seal.Key, folder *seal.Folder) (seal.SignedHead, error) {
	for {
		head, more, err := s.sealOnce(ctx, org, key, folder)
		if err != nil || !more {
			return head, err
		}
	}
}

// sealOnce seals a batch: hashes and head are written in one transaction, and the head is in the file before it commits. A process
// that dies in between leaves a head in the file that the table doesn't have; it is the next one to be taken.
func (s *Store) sealOnce(ctx context.Context, org cura.OrgID, key *seal.Key, folder *seal.Folder) (head seal.SignedHead, more bool, err error) {
	err = s.InOrg(ctx, org, func(tx *Tx) error {
		if _, err := tx.tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('audit ' || $1, 0))`, string(org)); err != nil {
			return err
		}
		if head, err = tx.lastSignedHead(ctx, key.Verifiers()); err != nil {
			return err
		}
		kept, err := folder.Last(org, key.Verifiers())
		if err != nil {
			return err
		}
		tree, whole, err := tx.frontier(ctx, head.Size)
		if err != nil {
			return err
		}
		if !whole || head.Size > 0 && tree.Root() != head.Root {
			return fault.New(sealing, fault.Conflict, "the stored hashes aren't what the last head was signed for").WithFix(askVerify)
		}
		if kept.Size > 0 && kept.Size <= head.Size {
			if root, err := tlog.TreeHash(kept.Size, tx.hashReader(ctx)); err != nil || root != kept.Root {
				return fault.Newf(sealing, fault.Conflict, "the stored hashes aren't what the head of %d records in the file was signed for", kept.Size).WithFix(askVerify)
			}
		}
		switch {
		case kept.Size < head.Size:
			more = true
			return tx.catchUp(ctx, kept, key, folder)
		case kept.Size > head.Size:
			more = true
			head, err = tx.adopt(ctx, &tree, kept)
			return err
		default:
			head, more, err = tx.sealNew(ctx, &tree, head, key, folder)
			return err
		}
	})
	return head, more, err
}

const askVerify = "See what was changed with: starter audit verify"

// catchUp copies heads into a file that lacks them: another process has sealed with a folder of its own.
func (tx *Tx) catchUp(ctx context.Context, kept seal.SignedHead, key *seal.Key, folder *seal.Folder) error {
	rows, err := tx.tx.Query(ctx, `SELECT note FROM audit.signed_heads WHERE org_id = $1 AND size > $2 ORDER BY size LIMIT $3`, tx.org, kept.Size, catchUp)
	if err != nil {
		return err
	}
	notes, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	heads := make([]seal.SignedHead, len(notes))
	for i, n := range notes {
		if heads[i], err = tx.openHead(n, key.Verifiers()); err != nil {
			return err
		}
	}
	return folder.Append(tx.org, kept, heads...)
}

// adopt takes up a head that is in the file only, if the records are those that it was signed for.
func (tx *Tx) adopt(ctx context.Context, tree *seal.Frontier, kept seal.SignedHead) (seal.SignedHead, error) {
	if err := tx.grow(ctx, tree, kept.Size); err != nil {
		return seal.SignedHead{}, err
	}
	if tree.Size() < kept.Size {
		return seal.SignedHead{}, fault.Newf(sealing, fault.Conflict, "a head in the file covers %d records, and the log has %d: it was cut off, or restored from an older copy",
			kept.Size, tree.Size()).WithFix(askVerify + ". After a restore that was meant, move the org's file of heads away, and keep it: it shows what was lost")
	}
	if tree.Root() != kept.Root {
		return seal.SignedHead{}, fault.Newf(sealing, fault.Conflict, "the records aren't those that the head of %d records in the file was signed for", kept.Size).WithFix(askVerify)
	}
	return kept, tx.putHead(ctx, kept)
}

// sealNew seals the records after head.
func (tx *Tx) sealNew(ctx context.Context, tree *seal.Frontier, head seal.SignedHead, key *seal.Key, folder *seal.Folder) (sealed seal.SignedHead, more bool, err error) {
	if err := tx.grow(ctx, tree, head.Size+sealBatch); err != nil || tree.Size() == head.Size {
		return head, false, err
	}
	sealed, err = key.Sign(seal.Head{Org: tx.org, Size: tree.Size(), Root: tree.Root(), At: time.Now()})
	if err != nil {
		return head, false, err
	}
	if err := tx.putHead(ctx, sealed); err != nil {
		return head, false, err
	}
	// The last thing before the commit.
	if err := folder.Append(tx.org, head, sealed); err != nil {
		return head, false, err
	}
	failpoint.Reach(failpoint.HeadKept)
	return sealed, sealed.Size-head.Size == sealBatch, nil
}

func (tx *Tx) putHead(ctx context.Context, head seal.SignedHead) error {
	_, err := tx.tx.Exec(ctx, `INSERT INTO audit.signed_heads (org_id, size, root, signed_at, note) VALUES ($1, $2, $3, $4, $5)`,
		tx.org, head.Size, head.Root[:], head.At, head.Note)
	return err
}

// grow adds the records up to number to to the tree, as far as there are any, and stores their hashes.
func (tx *Tx) grow(ctx context.Context, tree *seal.Frontier, to int64) error {
	for tree.Size() < to {
		begin := tree.Size()
		index := tlog.StoredHashIndex(0, begin)
		stored := make([]tlog.Hash, 0, 2*sealAtOnce)
		err := auditLog{tx}.Leaves(ctx, begin+1, min(to, begin+sealAtOnce), func(seq int64, leaf tlog.Hash) error {
			if seq != tree.Size()+1 {
				return fault.Newf(sealing, fault.Conflict, "record %d is missing or there twice", min(seq, tree.Size()+1)).WithFix(askVerify)
			}
			stored = tree.Append(stored, leaf)
			return nil
		})
		if err != nil || len(stored) == 0 {
			return err
		}
		hashes := make([][]byte, len(stored))
		for i := range stored {
			hashes[i] = stored[i][:]
		}
		_, err = tx.tx.Exec(ctx, `
			INSERT INTO audit.hashes (org_id, index, hash) SELECT $1, $2 + h.nth - 1, h.hash FROM unnest($3::bytea[]) WITH ORDINALITY AS h (hash, nth)`,
			tx.org, index, hashes)
		if err != nil {
			return err
		}
	}
	return nil
}

// lastSignedHead is the last head of the table; a Size of 0 where there is none.
func (tx *Tx) lastSignedHead(ctx context.Context, keys seal.Verifiers) (seal.SignedHead, error) {
	var text string
	err := tx.tx.QueryRow(ctx, `SELECT note FROM audit.signed_heads WHERE org_id = $1 ORDER BY size DESC LIMIT 1`, tx.org).Scan(&text)
	if errors.Is(err, pgx.ErrNoRows) {
		return seal.SignedHead{}, nil
	}
	if err != nil {
		return seal.SignedHead{}, err
	}
	return tx.openHead(text, keys)
}

// openHead reads a head of the table.
func (tx *Tx) openHead(text string, keys seal.Verifiers) (seal.SignedHead, error) {
	head, err := seal.OpenHead(text, keys)
	if err == nil && head.Org != tx.org {
		err = fault.New("reading the audit log's signed heads", fault.Conflict, "the table has another org's head for this org").WithFix(askVerify)
	}
	return head, err
}

// frontier reads what it takes to go on with a tree of that size; whole is false where a hash is missing.
func (tx *Tx) frontier(ctx context.Context, size int64) (tree seal.Frontier, whole bool, err error) {
	indexes := seal.PeakIndexes(size)
	found, err := tx.storedHashes(ctx, indexes)
	if err != nil {
		return tree, false, err
	}
	peaks := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		hash, ok := found[index]
		if !ok {
			return tree, false, nil
		}
		peaks[i] = hash
	}
	tree, err = seal.NewFrontier(size, peaks)
	if err != nil {
		return tree, false, fmt.Errorf("reading the stored hashes: %w", err)
	}
	return tree, true, nil
}

// Unsealed is how many records of the org no head in the table covers.
func (tx *Tx) Unsealed(ctx context.Context) (n int64, err error) {
	err = tx.tx.QueryRow(ctx, `
		SELECT coalesce((SELECT seq FROM audit.heads WHERE org_id = $1), 0) - coalesce((SELECT max(size) FROM audit.signed_heads WHERE org_id = $1), 0)`,
		tx.org).Scan(&n)
	return n, err
}

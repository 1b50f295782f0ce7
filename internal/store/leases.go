package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/fault"
)

// leaseTTL is how long a reader that fell silent keeps others out; RenewLease is called well within it.
const leaseTTL = 2 * time.Minute

// wantedFor is how long a lease is kept free for the one who waits for it.
const wantedFor = 15 * time.Second

// TakeLease makes run the only reader of (connection, type) and returns pass with its fence. The same run takes over
// from itself at once, as it does after a crash; another run gets fault.Busy until the lease is released or runs out, or
// while somebody waits for it who goes ahead.
func (tx *Tx) TakeLease(ctx context.Context, pass Pass) (Pass, error) {
	err := tx.tx.QueryRow(ctx, `
		INSERT INTO sync.leases (org_id, connection_id, resource_type, holder, fence, expires_at)
		VALUES ($1, $2, $3, $4, 1, now() + $5)
		ON CONFLICT (org_id, connection_id, resource_type) DO UPDATE
			SET holder = excluded.holder, fence = sync.leases.fence + 1, expires_at = excluded.expires_at,
				wanted_by = '', wanted_until = '-infinity'
			WHERE (sync.leases.holder = excluded.holder OR sync.leases.expires_at < now())
				AND (sync.leases.wanted_by = excluded.holder OR sync.leases.wanted_until < now())
		RETURNING fence`, tx.org, pass.Connection, pass.Type, pass.Run, leaseTTL).Scan(&pass.Fence)
	if errors.Is(err, pgx.ErrNoRows) {
		return pass, fault.Newf("taking the lease", fault.Busy, "another run is reading %s", pass.Type).After(5 * time.Second)
	}
	return pass, err
}

// WantLease asks the holder of the lease to let go after its page, and keeps others from taking it meanwhile: a person
// waits for pass. It lasts some seconds; ask again until TakeLease succeeds.
func (tx *Tx) WantLease(ctx context.Context, pass Pass) error {
	_, err := tx.tx.Exec(ctx, `
		UPDATE sync.leases SET wanted_by = $4, wanted_until = now() + $5
		WHERE org_id = $1 AND connection_id = $2 AND resource_type = $3 AND (wanted_by = $4 OR wanted_until < now())`,
		tx.org, pass.Connection, pass.Type, pass.Run, wantedFor)
	return err
}

// holdLease proves that pass still holds its lease, and keeps it until the transaction ends; without it nothing is
// committed. Several transactions of one pass can hold it at once. A pass without a fence needs none: it compares.
func (tx *Tx) holdLease(ctx context.Context, pass Pass) error {
	if pass.Fence == 0 {
		return nil
	}
	var held bool
	err := tx.tx.QueryRow(ctx, `
		SELECT true FROM sync.leases
		WHERE org_id = $1 AND connection_id = $2 AND resource_type = $3 AND holder = $4 AND fence = $5 FOR SHARE`,
		tx.org, pass.Connection, pass.Type, pass.Run, pass.Fence).Scan(&held)
	if errors.Is(err, pgx.ErrNoRows) {
		return fault.Newf("holding the lease", fault.Busy, "another reader of %s has taken over", pass.Type)
	}
	return err
}

// RenewLease gives pass its lease for another while, and reports whether somebody waits for it who goes ahead.
func (tx *Tx) RenewLease(ctx context.Context, pass Pass) (wanted bool, err error) {
	err = tx.tx.QueryRow(ctx, `
		UPDATE sync.leases SET expires_at = now() + $6
		WHERE org_id = $1 AND connection_id = $2 AND resource_type = $3 AND holder = $4 AND fence = $5
		RETURNING wanted_until > now()`,
		tx.org, pass.Connection, pass.Type, pass.Run, pass.Fence, leaseTTL).Scan(&wanted)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, fault.Newf("renewing the lease", fault.Busy, "another reader of %s has taken over", pass.Type)
	}
	return wanted, err
}

// ReleaseLease lets the next reader in. The row stays, since its fence must go on growing.
func (tx *Tx) ReleaseLease(ctx context.Context, pass Pass) error {
	_, err := tx.tx.Exec(ctx, `
		UPDATE sync.leases SET expires_at = '-infinity', holder = ''
		WHERE org_id = $1 AND connection_id = $2 AND resource_type = $3 AND holder = $4 AND fence = $5`,
		tx.org, pass.Connection, pass.Type, pass.Run, pass.Fence)
	return err
}

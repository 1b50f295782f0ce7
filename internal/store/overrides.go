package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// ExcludedType is the reason of a type switch that the mapping overrides ask for.
const ExcludedType = "excluded by the mapping overrides"

// MappingOverrides is a file of mapping overrides as it was set for a connection (mappings.ParseOverrides). It holds a hospital's
// codes, units and systems, and no PHI.
type MappingOverrides struct {
	// Version is the file's own number.
	Version int `json:"version"`
	// SHA256 is of the text, in hexadecimal digits.
	SHA256 string    `json:"sha256"`
	SetBy  string    `json:"set_by"`
	SetAt  time.Time `json:"set_at"`
	Text   string    `json:"text,omitempty"`
}

// SetMappingOverrides has a connection's resources mapped with a file from now on. file.Version and file.Text are the caller's, who
// has parsed it; excluded are the types that it takes no resources of, which are switched off. It is audited. fresh is false where
// that very text holds already; nothing changes then. The error is fault.Conflict for a version that isn't higher than every one
// before: a version that stands in rows must not get another meaning.
func (tx *Tx) SetMappingOverrides(ctx context.Context, id cura.ConnectionID, file MappingOverrides, excluded []cura.ResourceType, actor string) (fresh bool, err error) {
	current, err := tx.lockOverrides(ctx, id)
	if err != nil {
		return false, err
	}
	sum := sha256.Sum256([]byte(file.Text))
	var newest int
	var known []byte
	err = tx.tx.QueryRow(ctx, `
		SELECT coalesce(max(version), 0), (SELECT sha256 FROM sync.mapping_overrides WHERE org_id = $1 AND connection_id = $2 AND version = $3)
		FROM sync.mapping_overrides WHERE org_id = $1 AND connection_id = $2`, tx.org, id, file.Version).Scan(&newest, &known)
	same := err == nil && slices.Equal(known, sum[:])
	switch {
	case err != nil:
		return false, err
	case same && current == file.Version:
		return false, nil
	case same && current == 0:
		// It was set before, and cleared.
	case file.Version <= newest:
		return false, fault.Newf("setting the mapping overrides", fault.Conflict,
			"version %d isn't higher than %d, the highest that was set, and the file is another one than holds now", file.Version, newest).
			WithFix("Raise version in the file, and set it again: rows in Cura say by which version they were mapped")
	default:
		_, err := tx.tx.Exec(ctx, `
			INSERT INTO sync.mapping_overrides (org_id, connection_id, version, text, sha256, set_by) VALUES ($1, $2, $3, $4, $5, $6)`,
			tx.org, id, file.Version, file.Text, sum[:], actor)
		if err != nil {
			return false, err
		}
	}
	tx.Audit(audit.Record{
		Kind: audit.ConnectionEdited, Actor: actor, Connection: id, Outcome: audit.Success,
		Details: map[string]any{"mapping_overrides": file.Version, "sha256": hex.EncodeToString(sum[:]), "excluded": excluded, "before": current},
	})
	return true, tx.useOverrides(ctx, id, file.Version, excluded)
}

// ClearMappingOverrides has a connection's resources mapped by Cura's own mapping alone from now on, and gives the version that held;
// 0: none did, and nothing has changed. The files that were set stay. It is audited.
func (tx *Tx) ClearMappingOverrides(ctx context.Context, id cura.ConnectionID, actor string) (before int, err error) {
	if before, err = tx.lockOverrides(ctx, id); err != nil || before == 0 {
		return 0, err
	}
	tx.Audit(audit.Record{
		Kind: audit.ConnectionEdited, Actor: actor, Connection: id, Outcome: audit.Success,
		Details: map[string]any{"mapping_overrides": 0, "before": before},
	})
	return before, tx.useOverrides(ctx, id, 0, nil)
}

// MappingOverrides reads a file that was set for a connection: the one with that version (ConnectionState.Overrides). What it gives
// for a version never changes. The error is fault.NotFound where none was set with it.
func (tx *Tx) MappingOverrides(ctx context.Context, id cura.ConnectionID, version int) (MappingOverrides, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT version, encode(sha256, 'hex'), set_by, set_at, text FROM sync.mapping_overrides
		WHERE org_id = $1 AND connection_id = $2 AND version = $3`, tx.org, id, version)
	if err != nil {
		return MappingOverrides{}, err
	}
	file, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[MappingOverrides])
	if errors.Is(err, pgx.ErrNoRows) {
		return file, fault.Newf("reading the mapping overrides", fault.NotFound, "no file with version %d was set for connection %s", version, id).
			WithFix("Set one with: starter mapping set CONNECTION FILE")
	}
	return file, err
}

// lockOverrides gives the version that holds, 0 for none, and keeps others from setting another one meanwhile.
func (tx *Tx) lockOverrides(ctx context.Context, id cura.ConnectionID) (current int, err error) {
	err = tx.tx.QueryRow(ctx, `
		SELECT coalesce(overrides_version, 0) FROM sync.connections
		WHERE org_id = $1 AND connection_id = $2 AND removed_at IS NULL FOR UPDATE`, tx.org, id).Scan(&current)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, fault.New("changing the mapping overrides", fault.NotFound, "there is no such connection in this org")
	}
	return current, err
}

// useOverrides points the connection to a version, 0 for none, and switches its types off and on as that says.
func (tx *Tx) useOverrides(ctx context.Context, id cura.ConnectionID, version int, excluded []cura.ResourceType) error {
	rows, err := tx.tx.Query(ctx, `
		UPDATE sync.connections SET overrides_version = nullif($3, 0), settings_version = settings_version + 1, updated_at = now()
		WHERE org_id = $1 AND connection_id = $2 RETURNING types`, tx.org, id, version)
	if err != nil {
		return err
	}
	types, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[[]cura.ResourceType])
	if err != nil {
		return err
	}
	off, err := tx.TypesOff(ctx, id)
	if err != nil {
		return err
	}
	for _, t := range types {
		switch {
		case slices.Contains(excluded, t):
			err = tx.SwitchTypeOff(ctx, id, t, ExcludedType)
		case slices.ContainsFunc(off, func(o TypeSwitch) bool { return o.Type == t && o.Reason == ExcludedType }):
			err = tx.SwitchTypeOn(ctx, id, t)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// RawResource is the newest version of a resource that has landed. Raw is PHI.
type RawResource struct {
	Type cura.ResourceType
	Raw  []byte
}

// LandedOf reads what has landed of a patient at a connection, in the order in which types are read and the newest first: the Patient
// and every resource that Cura has a record of. What was set aside for want of its patient, what is gone, and what the patient's
// consents withhold from the connection are left out. It gives at most limit resources.
func (tx *Tx) LandedOf(ctx context.Context, connection cura.ConnectionID, profile cura.ProfileID, limit int) ([]RawResource, error) {
	rows, err := tx.tx.Query(ctx, `
		WITH known AS (
			SELECT 'Patient' AS resource_type, ehr_id FROM sync.patient_links WHERE org_id = $1 AND profile_id = $3 AND connection_id = $2
			UNION SELECT resource_type, ehr_id FROM cura.allergies WHERE org_id = $1 AND profile_id = $3 AND connection_id = $2
			UNION SELECT resource_type, ehr_id FROM cura.medications WHERE org_id = $1 AND profile_id = $3 AND connection_id = $2
			UNION SELECT resource_type, ehr_id FROM labs.observations WHERE org_id = $1 AND profile_id = $3 AND connection_id = $2
			UNION SELECT resource_type, ehr_id FROM cura.visits WHERE org_id = $1 AND profile_id = $3 AND connection_id = $2
			UNION SELECT 'Consent', ehr_id FROM cura.consent_log WHERE org_id = $1 AND profile_id = $3 AND connection_id = $2
		)
		SELECT k.resource_type, l.raw FROM known k, LATERAL (
			SELECT r.landing_id FROM sync.resources r
			WHERE r.org_id = $1 AND r.connection_id = $2 AND r.resource_type = k.resource_type AND r.ehr_id = k.ehr_id
				AND r.gone_at IS NULL AND r.outcome <> 'withheld' LIMIT 1) AS r, LATERAL (
			SELECT l.raw FROM sync.landing l WHERE l.org_id = $1 AND l.landing_id = r.landing_id AND l.raw IS NOT NULL LIMIT 1) AS l
		WHERE NOT EXISTS (SELECT FROM cura.withheld w
			WHERE w.org_id = $1 AND w.connection_id = $2 AND w.profile_id = $3 AND k.resource_type = ANY (w.types))
		ORDER BY array_position($4::text[], k.resource_type), r.landing_id DESC
		LIMIT $5`, tx.org, connection, profile, cura.ResourceTypes(), limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (RawResource, error) {
		var l RawResource
		var packed []byte
		if err := row.Scan(&l.Type, &packed); err != nil {
			return l, err
		}
		var err error
		l.Raw, err = tx.store.decoder.DecodeAll(packed, nil)
		return l, err
	})
}

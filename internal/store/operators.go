package store

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// Operator is a person who acts on an org's machinery, and what they may do.
type Operator struct {
	// Name is what they call themselves: it is asserted, not proved.
	Name    string    `json:"name"`
	Role    cura.Role `json:"role"`
	AddedAt time.Time `json:"added_at"`
}

// OperatorRoles lists the roles that an operator can have; the others are authors'.
func OperatorRoles() []cura.Role {
	return []cura.Role{cura.RoleViewer, cura.RoleOps, cura.RoleConsentOfficer, cura.RoleAdmin}
}

// Operators lists the operators of the org by name.
func (tx *Tx) Operators(ctx context.Context) ([]Operator, error) {
	rows, err := tx.tx.Query(ctx, `SELECT name, role, created_at FROM cura.operators WHERE org_id = $1 ORDER BY name`, tx.org)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Operator])
}

// PutOperator gives a person a role, instead of the one that they had. It is audited. Fault Config: no operator has that role.
func (tx *Tx) PutOperator(ctx context.Context, name string, role cura.Role, actor string) error {
	if !slices.Contains(OperatorRoles(), role) {
		return fault.New("adding the operator", fault.Config, "that isn't a role of operators").
			WithFix("Give viewer, ops, consent_officer or admin")
	}
	tx.Audit(audit.Record{
		Kind: audit.PolicyChanged, Actor: actor, Outcome: audit.Success, Details: map[string]any{"operator": name, "role": role, "asserted": true},
	})
	_, err := tx.tx.Exec(ctx, `
		INSERT INTO cura.operators (org_id, name, role) VALUES ($1, $2, $3)
		ON CONFLICT (org_id, name) DO UPDATE SET role = excluded.role`, tx.org, name, role)
	return err
}

// RemoveOperator takes a person's role away. It is audited. Fault NotFound: they have none.
func (tx *Tx) RemoveOperator(ctx context.Context, name, actor string) error {
	tag, err := tx.tx.Exec(ctx, `DELETE FROM cura.operators WHERE org_id = $1 AND name = $2`, tx.org, name)
	if err != nil {
		return err
	}
	if tag.RowsAffected() == 0 {
		return fault.New("removing the operator", fault.NotFound, "the org has no operator of that name").
			WithFix("List them with: starter org operators list ORG")
	}
	tx.Audit(audit.Record{
		Kind: audit.PolicyChanged, Actor: actor, Outcome: audit.Success, Details: map[string]any{"operator": name, "removed": true, "asserted": true},
	})
	return nil
}

package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// Org is a row of the directory. A sandbox org names the live org that it rehearses for.
type Org struct {
	ID      cura.OrgID `json:"id"`
	Name    string     `json:"name"`
	Kind    string     `json:"kind"`
	LiveOrg cura.OrgID `json:"live_org_id,omitempty"`
}

// Listed is a connection as the directory knows it: names and flags.
type Listed struct {
	Org        cura.OrgID        `json:"org_id"`
	OrgName    string            `json:"org"`
	OrgKind    string            `json:"-"`
	Connection cura.ConnectionID `json:"connection_id"`
	Name       string            `json:"name"`
	Attention  bool              `json:"attention"`
}

// acrossOrgs runs fn as role cura_dispatch, which can read the directory and nothing else.
func (s *Store) acrossOrgs(ctx context.Context, fn func(pgx.Tx) error) error {
	return s.begin(ctx, "SET LOCAL ROLE cura_dispatch", "", fn)
}

// Orgs lists the live orgs by name.
func (s *Store) Orgs(ctx context.Context) ([]Org, error) {
	var orgs []Org
	err := s.acrossOrgs(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			SELECT org_id, name, kind, coalesce(live_org_id::text, '')
			FROM directory.orgs WHERE kind = 'live' ORDER BY name`)
		if err != nil {
			return err
		}
		orgs, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Org])
		return err
	})
	return orgs, err
}

// OrgByName finds a live org.
func (s *Store) OrgByName(ctx context.Context, name string) (Org, error) {
	orgs, err := s.Orgs(ctx)
	if err != nil {
		return Org{}, err
	}
	for _, o := range orgs {
		if o.Name == name || string(o.ID) == name {
			return o, nil
		}
	}
	return Org{}, fault.Newf("looking for the org", fault.NotFound, "there is no org %q", name).
		WithFix("List them with: starter org list; add one with: starter org add NAME")
}

// SandboxOf finds the sandbox org that rehearses for a live org.
func (s *Store) SandboxOf(ctx context.Context, live cura.OrgID) (cura.OrgID, error) {
	var id cura.OrgID
	err := s.acrossOrgs(ctx, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `SELECT org_id FROM directory.orgs WHERE live_org_id = $1`, live).Scan(&id)
	})
	return id, err
}

// Connections lists the connections of all live orgs by org and name.
func (s *Store) Connections(ctx context.Context) ([]Listed, error) {
	var listed []Listed
	err := s.acrossOrgs(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			SELECT o.org_id, o.name, o.kind, c.connection_id, c.name, c.attention
			FROM directory.connections c JOIN directory.orgs o USING (org_id)
			WHERE o.kind = 'live' ORDER BY o.name, c.name`)
		if err != nil {
			return err
		}
		listed, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Listed])
		return err
	})
	return listed, err
}

// FindConnection finds a connection by its id, by ORG/NAME, or by NAME where only one org has it.
func (s *Store) FindConnection(ctx context.Context, ref string) (Listed, error) {
	all, err := s.Connections(ctx)
	if err != nil {
		return Listed{}, err
	}
	var found []Listed
	for _, l := range all {
		if string(l.Connection) == ref || l.OrgName+"/"+l.Name == ref {
			return l, nil
		}
		if l.Name == ref {
			found = append(found, l)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return Listed{}, fault.Newf("looking for the connection", fault.NotFound, "there is no connection %q", ref).
			WithFix("List them with: starter connection list")
	default:
		return Listed{}, fault.Newf("looking for the connection", fault.Conflict, "%d orgs have a connection %q", len(found), ref).
			WithFix("Name it as ORG/" + ref)
	}
}

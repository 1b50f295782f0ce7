package activities

import (
	"context"
	"strconv"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/profile"
	"github.com/cura-health/ehr-sync/internal/secrets"
	"github.com/cura-health/ehr-sync/internal/store"
)

// settings reads a connection and opens its secret. Each opening is audited.
func (a *Activities) settings(ctx context.Context, t Target) (store.ConnectionState, ehr.Config, error) {
	var conn store.ConnectionState
	var secret string
	err := a.store.InOrg(ctx, t.Org, func(tx *store.Tx) error {
		var err error
		if conn, err = tx.Connection(ctx, t.Connection); err != nil {
			return err
		}
		if conn.RemovedAt != nil {
			return fault.Newf("opening the connection", fault.NotFound, "connection %s has been removed", t.Connection)
		}
		sealed, err := tx.Credential(ctx, t.Connection, string(secrets.ClientSecret))
		if err != nil {
			return err
		}
		if secret, err = a.sealer.Unseal(t.Org, t.Connection, secrets.ClientSecret, sealed); err != nil {
			return fault.Wrap("opening the connection", fault.Config, err.Error(), err)
		}
		tx.Audit(audit.Record{
			Kind: audit.SecretUsed, Connection: t.Connection, Outcome: audit.Success,
			Details: map[string]string{"kind": string(secrets.ClientSecret)},
		})
		return nil
	})
	if err != nil {
		return store.ConnectionState{}, ehr.Config{}, err
	}
	vendor, err := vendorOf(conn.Connection)
	if err != nil {
		return store.ConnectionState{}, ehr.Config{}, err
	}
	return conn, ehr.Config{
		Profile: vendor, Pace: a.pace(t, vendor),
		BaseURL: conn.BaseURL, TokenURL: conn.TokenURL, ClientID: conn.ClientID, Secret: secret, Scopes: conn.Scopes, CAPEM: conn.CAPEM,
		InsecureLoopback: conn.InsecureLoopback, MaxResource: a.cfg.MaxResourceBytes, PageSize: a.cfg.PageSize,
	}, nil
}

// vendorOf gives the EHR profile of a connection: its own, given in a file, or a built-in one, with its parameters filled in.
func vendorOf(conn cura.Connection) (*profile.Profile, error) {
	var vendor *profile.Profile
	var err error
	if conn.ProfileText != "" {
		vendor, err = profile.Parse(conn.EHRProfile+".yaml", []byte(conn.ProfileText))
	} else {
		vendor, err = profile.Builtin(conn.EHRProfile)
	}
	if err != nil {
		return nil, err
	}
	return vendor.Fill(conn.ProfileParams)
}

// connect gives the connection and what is open to it. A client is kept, with its token, until the settings change.
func (a *Activities) connect(ctx context.Context, t Target) (store.ConnectionState, openClient, error) {
	var conn store.ConnectionState
	err := a.store.InOrg(ctx, t.Org, func(tx *store.Tx) error {
		var err error
		conn, err = tx.Connection(ctx, t.Connection)
		return err
	})
	if err != nil {
		return conn, openClient{}, err
	}
	if conn.RemovedAt != nil {
		return conn, openClient{}, fault.Newf("opening the connection", fault.NotFound, "connection %s has been removed", t.Connection)
	}
	version := strconv.FormatInt(conn.SettingsVersion, 10)
	a.mu.Lock()
	open, ok := a.clients[t.Connection]
	a.mu.Unlock()
	if ok && open.version == version {
		return conn, open, nil
	}
	conn, cfg, err := a.settings(ctx, t)
	if err != nil {
		return conn, openClient{}, err
	}
	open = openClient{version: version, profile: cfg.Profile, pace: a.pace(t, cfg.Profile)}
	if err := open.pace.recall(ctx); err != nil {
		return conn, openClient{}, err
	}
	if open.client, err = ehr.New(cfg); err != nil {
		return conn, openClient{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if old, ok := a.clients[t.Connection]; ok {
		old.client.Close()
	}
	a.clients[t.Connection] = open
	return conn, open, nil
}

// Package storetest gives tests a real PostgreSQL: one private cluster a test binary, one migrated database a test.
package storetest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/stack"
	"github.com/cura-health/ehr-sync/internal/store"
)

// Cluster is a private PostgreSQL cluster with a migrated template database.
type Cluster struct {
	server *stack.Postgres
	config stack.PostgresConfig
	made   atomic.Int64
	// creating keeps CREATE DATABASE to one at a time: the template may have no other user.
	creating sync.Mutex
}

const template = "cura_template"

// Start starts a cluster in dir. Stop it when the tests are over, which TestMain knows.
func Start(ctx context.Context, dir string) (*Cluster, error) {
	config := stack.PostgresConfig{Dir: dir, Log: filepath.Join(dir, "postgres.log"), Fast: true}
	server, err := stack.StartPostgres(ctx, config)
	if err != nil {
		return nil, err
	}
	c := &Cluster{server: server, config: config}
	if err := c.prepare(ctx); err != nil {
		_ = server.Stop()
		return nil, err
	}
	return c, nil
}

func (c *Cluster) prepare(ctx context.Context) error {
	if err := c.super(ctx, "postgres", "CREATE DATABASE "+template); err != nil {
		return err
	}
	err := store.Bootstrap(ctx, c.server.SuperuserURL(template), store.Passwords{
		Migrator: c.server.Password("cura_migrator"), Worker: c.server.Password("cura_worker"),
	})
	if err != nil {
		return err
	}
	_, err = store.Migrate(ctx, c.server.URL("cura_migrator", template))
	return err
}

// Restart stops the cluster, which ends every session, and starts it again where it was. Only a test that has a cluster of
// its own may do that.
func (c *Cluster) Restart(ctx context.Context) error {
	config := c.config
	config.Port = c.server.Port()
	if err := c.server.Stop(); err != nil {
		return err
	}
	server, err := stack.StartPostgres(ctx, config)
	if err != nil {
		return err
	}
	c.server = server
	if server.Port() != config.Port {
		return fmt.Errorf("PostgreSQL's port %d was taken while it was restarted", config.Port)
	}
	return nil
}

// Stop stops the cluster.
func (c *Cluster) Stop() error { return c.server.Stop() }

func (c *Cluster) super(ctx context.Context, database, statement string) error {
	conn, err := pgx.Connect(ctx, c.server.SuperuserURL(database))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, statement)
	return err
}

// DB is one test's own database.
type DB struct {
	*store.Store

	// URL logs in as cura_worker, MigratorURL as cura_migrator, SuperuserURL as whom row level security doesn't hold.
	URL, MigratorURL, SuperuserURL string
}

// New makes a migrated database for tb.
func (c *Cluster) New(tb testing.TB) *DB {
	tb.Helper()
	ctx := tb.Context()
	name := fmt.Sprintf("test_%d", c.made.Add(1))
	c.creating.Lock()
	err := c.super(ctx, "postgres", "CREATE DATABASE "+name+" TEMPLATE "+template)
	c.creating.Unlock()
	require.NoError(tb, err)
	db := &DB{
		URL:          c.server.URL("cura_worker", name),
		MigratorURL:  c.server.URL("cura_migrator", name),
		SuperuserURL: c.server.SuperuserURL(name),
	}
	db.Store, err = store.Open(ctx, db.URL)
	require.NoError(tb, err)
	tb.Cleanup(db.Close)
	return db
}

// Query runs a query as superuser, past row level security, and collects the first column: what is really there.
func Query[T any](tb testing.TB, db *DB, sql string, args ...any) []T {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), db.SuperuserURL)
	require.NoError(tb, err)
	defer conn.Close(context.WithoutCancel(tb.Context()))
	rows, err := conn.Query(tb.Context(), sql, args...)
	require.NoError(tb, err)
	values, err := pgx.CollectRows(rows, pgx.RowTo[T])
	require.NoError(tb, err)
	return values
}

// Main runs the tests of a package on one cluster, which it gives to set before and stops afterwards. Each of more sets
// up something else that the tests share, in the folder dir, and says how to stop it.
func Main(m *testing.M, set func(*Cluster), more ...func(ctx context.Context, dir string) (stop func() error, err error)) (code int) {
	failed := func(what string, err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, what+":", err)
			code = 1
		}
	}
	dir, err := os.MkdirTemp("", "cura-test-")
	if err != nil {
		failed("making a folder for the tests", err)
		return 1
	}
	ctx := context.Background()
	clusterDir := filepath.Join(dir, "postgres")
	defer func() {
		failed("removing the test cluster", stack.RemovePostgres(ctx, clusterDir))
		failed("removing the folder of the tests", os.RemoveAll(dir))
	}()
	cluster, err := Start(ctx, clusterDir)
	if err != nil {
		failed("starting PostgreSQL for the tests", err)
		return 1
	}
	defer func() { failed("stopping PostgreSQL", cluster.Stop()) }()
	set(cluster)
	var stops []func() error
	defer func() {
		for _, stop := range slices.Backward(stops) {
			failed("stopping what the tests share", stop())
		}
	}()
	for _, start := range more {
		stop, err := start(ctx, dir)
		if err != nil {
			failed("setting up what the tests share", err)
			return 1
		}
		stops = append(stops, stop)
	}
	return m.Run()
}

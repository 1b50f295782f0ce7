package stack_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/stack"
)

func startPostgres(t *testing.T, cfg stack.PostgresConfig) *stack.Postgres {
	t.Helper()
	cfg.Fast = true
	p, err := stack.StartPostgres(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Stop()) })
	return p
}

// clusterDir is a folder whose cluster is removed at the end, wherever it lies.
func clusterDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "postgres")
	t.Cleanup(func() {
		// The test's own context has ended by now.
		require.NoError(t, stack.RemovePostgres(context.WithoutCancel(t.Context()), dir))
		require.NoDirExists(t, stack.OutsideDir(dir))
	})
	return dir
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

func execute(t *testing.T, url, sql string) {
	t.Helper()
	_, err := connect(t, url).Exec(t.Context(), sql)
	require.NoError(t, err)
}

func count(t *testing.T, url, sql string) int {
	t.Helper()
	var n int
	require.NoError(t, connect(t, url).QueryRow(t.Context(), sql).Scan(&n))
	return n
}

func TestPostgresKeepsItsDataOverAStop(t *testing.T) {
	t.Parallel()
	dir := clusterDir(t)
	p := startPostgres(t, stack.PostgresConfig{Dir: dir})
	port := p.Port()
	execute(t, p.SuperuserURL("postgres"), "CREATE TABLE kept AS SELECT 1 AS n")
	require.NoError(t, p.Stop())
	require.NoError(t, p.Stop(), "stopping twice does nothing")

	p = startPostgres(t, stack.PostgresConfig{Dir: dir, Port: port})
	require.Equal(t, 1, count(t, p.SuperuserURL("postgres"), "SELECT count(*) FROM kept"))

	var settings string
	require.NoError(t, connect(t, p.SuperuserURL("postgres")).QueryRow(t.Context(),
		"SELECT concat_ws(' ', current_setting('fsync'), current_setting('server_encoding'), current_setting('timezone'), upper('é'))").Scan(&settings))
	require.Equal(t, "off UTF8 UTC É", settings)
}

func TestPostgresRecoversFromAKill(t *testing.T) {
	t.Parallel()
	dir := clusterDir(t)
	p := startPostgres(t, stack.PostgresConfig{Dir: dir})
	execute(t, p.SuperuserURL("postgres"), "CREATE TABLE kept AS SELECT 1 AS n")
	connect(t, p.SuperuserURL("postgres")) // a backend that outlives the postmaster for a moment
	require.NoError(t, p.Kill())

	p = startPostgres(t, stack.PostgresConfig{Dir: dir})
	require.Equal(t, 1, count(t, p.SuperuserURL("postgres"), "SELECT count(*) FROM kept"))
}

func TestPostgresAfterItsParentWasKilled(t *testing.T) {
	t.Parallel()
	dir := clusterDir(t)
	parent, server := startParent(t, "postgres", dir)
	execute(t, server.URL, "CREATE TABLE kept AS SELECT 1 AS n")
	require.NoError(t, parent.Process.Kill())
	require.Error(t, parent.Wait())

	p := startPostgres(t, stack.PostgresConfig{Dir: dir})
	require.Equal(t, 1, count(t, p.SuperuserURL("postgres"), "SELECT count(*) FROM kept"))
	requireGone(t, server.PID)
}

func TestPostgresRefusesASecondRun(t *testing.T) {
	t.Parallel()
	dir := clusterDir(t)
	startPostgres(t, stack.PostgresConfig{Dir: dir})
	_, err := stack.StartPostgres(t.Context(), stack.PostgresConfig{Dir: dir})
	require.ErrorContains(t, err, "in use by another run: stop that one first")
	require.ErrorContains(t, stack.RemovePostgres(t.Context(), dir), "in use by another run")
}

func TestPostgresReplacesATakenPort(t *testing.T) {
	t.Parallel()
	wanted := takenPort(t)

	p := startPostgres(t, stack.PostgresConfig{Dir: clusterDir(t), Port: wanted})
	require.NotEqual(t, wanted, p.Port())
}

func TestPostgresPasswords(t *testing.T) {
	t.Parallel()
	dir := clusterDir(t)
	p := startPostgres(t, stack.PostgresConfig{Dir: dir})
	execute(t, p.SuperuserURL("postgres"), "CREATE ROLE someone LOGIN PASSWORD '"+p.Password("someone")+"'")
	require.Equal(t, 1, count(t, p.URL("someone", "postgres"), "SELECT 1"))
	require.NotEqual(t, p.Password("someone"), p.Password(stack.Superuser))

	wrong, err := pgx.ParseConfig(p.URL("someone", "postgres"))
	require.NoError(t, err)
	wrong.Password = p.Password(stack.Superuser)
	_, err = pgx.ConnectConfig(t.Context(), wrong)
	require.ErrorContains(t, err, "28P01", "loopback isn't trusted: scram asks for the role's own password")

	info, err := os.Stat(filepath.Join(dir, "secret"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

// A clone below /root can't be reached by the user that runs PostgreSQL for root: t.TempDir is such a folder, as its
// parent is open to its owner only.
func TestPostgresAsRootOutsideAnUnreachableFolder(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root runs PostgreSQL as another user")
	}
	dir := clusterDir(t)
	p := startPostgres(t, stack.PostgresConfig{Dir: dir})
	execute(t, p.SuperuserURL("postgres"), "CREATE TABLE kept AS SELECT 1 AS n")
	location, err := os.ReadFile(filepath.Join(dir, "location"))
	require.NoError(t, err)
	require.Equal(t, stack.OutsideDir(dir)+"\n", string(location))
	require.NoError(t, p.Stop())

	// When the folder is deleted by hand, the next start finds no trace of it and begins anew.
	require.NoError(t, os.RemoveAll(dir))
	p = startPostgres(t, stack.PostgresConfig{Dir: dir})
	require.Zero(t, count(t, p.SuperuserURL("postgres"), "SELECT count(*) FROM pg_class WHERE relname = 'kept'"))
}

func TestPostgresAsRootInsideAReachableFolder(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root runs PostgreSQL as another user")
	}
	dir := clusterDir(t)
	require.NoError(t, os.Chmod(filepath.Dir(filepath.Dir(dir)), 0o755))
	startPostgres(t, stack.PostgresConfig{Dir: dir})
	require.DirExists(t, filepath.Join(dir, "cluster", "data"))
	require.NoFileExists(t, filepath.Join(dir, "location"))
}

func TestRemovePostgres(t *testing.T) {
	t.Parallel()
	dir := clusterDir(t)
	require.NoError(t, stack.RemovePostgres(t.Context(), dir), "removing what isn't there does nothing")
	p := startPostgres(t, stack.PostgresConfig{Dir: dir})
	require.NoError(t, p.Stop())
	require.NoError(t, stack.RemovePostgres(t.Context(), dir))
	require.NoDirExists(t, dir)
	require.NoDirExists(t, stack.OutsideDir(dir))
}

func TestPostgresWithoutItsSecret(t *testing.T) {
	t.Parallel()
	dir := clusterDir(t)
	p := startPostgres(t, stack.PostgresConfig{Dir: dir})
	require.NoError(t, p.Stop())
	require.NoError(t, os.Remove(filepath.Join(dir, "secret")))
	_, err := stack.StartPostgres(t.Context(), stack.PostgresConfig{Dir: dir})
	require.ErrorContains(t, err, "run make clean to begin anew")
}

func TestStartPostgresGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := stack.StartPostgres(ctx, stack.PostgresConfig{Dir: clusterDir(t), Fast: true})
	require.ErrorIs(t, err, context.Canceled)
}

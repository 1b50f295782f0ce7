package store_test

import (
	"context"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// TestEveryTableIsIsolated finds the tables itself: a new one without row level security fails here, unless it is
// listed with a reason.
func TestEveryTableIsIsolated(t *testing.T) {
	t.Parallel()
	exceptions := map[string]string{
		"migrations.versions": "which migrations have run; it belongs to no org and only the owner may use it",
	}
	db := cluster.New(t)
	tables := storetest.Query[string](t, db, `
		SELECT c.oid::regclass::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p') AND n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema' ORDER BY 1`)
	require.Greater(t, len(tables), 20, "the catalogue query finds the tables")
	for name := range exceptions {
		require.Contains(t, tables, name, "an exception for a table that is gone must go too")
	}
	for _, table := range tables {
		if _, ok := exceptions[table]; ok {
			continue
		}
		enabled := storetest.Query[bool](t, db, `SELECT relrowsecurity AND relforcerowsecurity FROM pg_catalog.pg_class WHERE oid = $1::text::regclass`, table)
		require.Equal(t, []bool{true}, enabled, "%s: row level security is enabled and forced", table)
		policies := storetest.Query[string](t, db, `
			SELECT policyname FROM pg_catalog.pg_policies
			WHERE format('%I.%I', schemaname, tablename) = $1 AND qual LIKE '%app.org%' AND with_check LIKE '%app.org%'`, table)
		require.NotEmpty(t, policies, "%s: a policy holds reads and writes to app.org", table)
		owner := storetest.Query[string](t, db, `SELECT relowner::regrole::text FROM pg_catalog.pg_class WHERE oid = $1::text::regclass`, table)
		require.Equal(t, []string{"cura_owner"}, owner, "%s: no role that logs in owns it", table)
		key := storetest.Query[string](t, db, `
			SELECT a.attname::text FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
			WHERE i.indrelid = $1::text::regclass AND i.indisprimary`, table)
		require.Equal(t, []string{"org_id"}, key, "%s: the primary key begins with org_id", table)
	}
}

// twoOrgs makes two orgs with one connection each.
func twoOrgs(t *testing.T, db *storetest.DB) (a, b store.Org) {
	t.Helper()
	var err error
	a, err = db.AddOrg(t.Context(), "org-a", "test")
	require.NoError(t, err)
	b, err = db.AddOrg(t.Context(), "org-b", "test")
	require.NoError(t, err)
	addConnection(t, db, a.ID, "main")
	addConnection(t, db, b.ID, "main")
	return a, b
}

// session opens a connection that logs in as the worker does, for statements that the store would never make.
func session(t *testing.T, db *storetest.DB) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db.URL)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close(context.WithoutCancel(t.Context()))) })
	return conn
}

func requireState(t *testing.T, err error, code string) {
	t.Helper()
	var pg *pgconn.PgError
	require.ErrorAs(t, err, &pg)
	require.Equal(t, code, pg.Code, pg.Message)
}

const (
	insufficientPrivilege = "42501"
	invalidText           = "22P02"
)

// as runs fn in a transaction of one role and org, and rolls it back.
func as(t *testing.T, conn *pgx.Conn, role, org string, fn func(pgx.Tx)) {
	t.Helper()
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, tx.Rollback(t.Context())) }()
	_, err = tx.Exec(t.Context(), "SET LOCAL ROLE "+role)
	require.NoError(t, err)
	if org != "" {
		_, err = tx.Exec(t.Context(), "SELECT set_config('app.org', $1, true)", org)
		require.NoError(t, err)
	}
	fn(tx)
}

func count(t *testing.T, tx pgx.Tx, sql string, args ...any) int {
	t.Helper()
	var n int
	require.NoError(t, tx.QueryRow(t.Context(), sql, args...).Scan(&n))
	return n
}

func TestTheAppRoleSeesOneOrg(t *testing.T) {
	t.Parallel()
	db := cluster.New(t)
	a, b := twoOrgs(t, db)
	conn := session(t, db)

	as(t, conn, "cura_app", string(a.ID), func(tx pgx.Tx) {
		require.Equal(t, 1, count(t, tx, "SELECT count(*) FROM sync.connections"), "its own connection, without a predicate")
		require.Equal(t, 0, count(t, tx, "SELECT count(*) FROM sync.connections WHERE org_id = $1", b.ID), "none of the other org's")
		tag, err := tx.Exec(t.Context(), "UPDATE sync.connections SET name = 'x' WHERE org_id = $1", b.ID)
		require.NoError(t, err)
		require.Zero(t, tag.RowsAffected(), "an update of the other org's row touches nothing")
	})
	as(t, conn, "cura_app", string(a.ID), func(tx pgx.Tx) {
		_, err := tx.Exec(t.Context(), `INSERT INTO audit.heads (org_id, seq) VALUES ($1, 1)`, b.ID)
		requireState(t, err, insufficientPrivilege)
	})
}

func TestTheAppRoleWithoutAnOrgSeesNothing(t *testing.T) {
	t.Parallel()
	db := cluster.New(t)
	a, _ := twoOrgs(t, db)
	conn := session(t, db)

	for _, org := range []string{"", uuid.NewString()} {
		as(t, conn, "cura_app", org, func(tx pgx.Tx) {
			require.Zero(t, count(t, tx, "SELECT count(*) FROM sync.connections"))
			require.Zero(t, count(t, tx, "SELECT count(*) FROM directory.orgs"))
			require.Zero(t, count(t, tx, "SELECT count(*) FROM audit.records"))
		})
	}
	// After a transaction that had an org, the pooled connection has none.
	as(t, conn, "cura_app", string(a.ID), func(tx pgx.Tx) {
		require.Equal(t, 1, count(t, tx, "SELECT count(*) FROM sync.connections"))
	})
	as(t, conn, "cura_app", "", func(tx pgx.Tx) {
		require.Zero(t, count(t, tx, "SELECT count(*) FROM sync.connections"))
	})
}

func TestAForgedOrgIsRefused(t *testing.T) {
	t.Parallel()
	db := cluster.New(t)
	a, b := twoOrgs(t, db)
	conn := session(t, db)
	for _, forged := range []string{string(a.ID) + "' OR true --", "not-a-uuid", "*"} {
		as(t, conn, "cura_app", forged, func(tx pgx.Tx) {
			_, err := tx.Exec(t.Context(), "SELECT FROM sync.connections")
			requireState(t, err, invalidText)
		})
	}
	as(t, conn, "cura_app", string(a.ID), func(tx pgx.Tx) {
		_, err := tx.Exec(t.Context(), `
			INSERT INTO sync.connections (org_id, connection_id, name, base_url, client_id, scopes, match_by, match_system, ehr_profile, types)
			VALUES ($1, gen_random_uuid(), 'forged', 'https://ehr.example', 'c', '{}', 'mrn', 'urn:x', 'generic', '{Patient}')`, b.ID)
		requireState(t, err, insufficientPrivilege)
	})
}

func TestTheLoginRoleItselfMayDoNothing(t *testing.T) {
	t.Parallel()
	db := cluster.New(t)
	conn := session(t, db)
	for _, table := range []string{"directory.orgs", "sync.connections", "cura.profiles", "audit.records"} {
		_, err := conn.Exec(t.Context(), "SELECT FROM "+table)
		requireState(t, err, insufficientPrivilege)
	}
	_, err := conn.Exec(t.Context(), "SET ROLE cura_owner")
	requireState(t, err, insufficientPrivilege)
}

func TestDispatchReadsTheDirectoryAndNothingElse(t *testing.T) {
	t.Parallel()
	db := cluster.New(t)
	twoOrgs(t, db)
	conn := session(t, db)
	as(t, conn, "cura_dispatch", "", func(tx pgx.Tx) {
		require.Equal(t, 4, count(t, tx, "SELECT count(*) FROM directory.orgs"), "two orgs and their sandbox orgs")
		require.Equal(t, 2, count(t, tx, "SELECT count(*) FROM directory.connections"))
	})
	tables := storetest.Query[string](t, db, `
		SELECT c.oid::regclass::text FROM pg_catalog.pg_class c
		WHERE c.relkind = 'r' AND c.relnamespace::regnamespace::text IN ('cura', 'labs', 'sync', 'audit')`)
	for _, table := range tables {
		as(t, conn, "cura_dispatch", "", func(tx pgx.Tx) {
			_, err := tx.Exec(t.Context(), "SELECT FROM "+table)
			requireState(t, err, insufficientPrivilege)
		})
	}
	as(t, conn, "cura_dispatch", "", func(tx pgx.Tx) {
		_, err := tx.Exec(t.Context(), "UPDATE directory.connections SET attention = true")
		requireState(t, err, insufficientPrivilege)
	})
}

func TestTheReaderSeesNoPHI(t *testing.T) {
	t.Parallel()
	db := cluster.New(t)
	readable := storetest.Query[string](t, db, `
		SELECT table_schema || '.' || table_name || '.' || column_name FROM information_schema.column_privileges
		WHERE grantee = 'cura_reader' AND privilege_type = 'SELECT' ORDER BY 1`)
	require.NotEmpty(t, readable)
	phi := []string{"ehr_id", "raw", "record", "name_parts", "next_link", "waits_for_patient", "birth_date", "family", "given", "value", "report_phi", "sealed", "candidates", "profile_id"}
	for _, column := range readable {
		parts := column[len(column)-len(lastPart(column)):]
		require.False(t, slices.Contains(phi, parts), "%s is readable without a need for PHI", column)
	}
	for _, schema := range []string{"cura", "labs"} {
		require.Empty(t, storetest.Query[string](t, db, `
			SELECT table_name::text FROM information_schema.column_privileges WHERE grantee = 'cura_reader' AND table_schema = $1`, schema))
	}
}

func lastPart(column string) string {
	for i := len(column) - 1; i >= 0; i-- {
		if column[i] == '.' {
			return column[i+1:]
		}
	}
	return column
}

func TestTheAuditLogIsAppendOnly(t *testing.T) {
	t.Parallel()
	db := cluster.New(t)
	a, _ := twoOrgs(t, db)
	conn := session(t, db)
	for _, statement := range []string{
		"UPDATE audit.records SET outcome = 'failure'", "DELETE FROM audit.records", "TRUNCATE audit.records", "DELETE FROM audit.heads",
	} {
		as(t, conn, "cura_app", string(a.ID), func(tx pgx.Tx) {
			_, err := tx.Exec(t.Context(), statement)
			requireState(t, err, insufficientPrivilege)
		})
	}
	// The trigger holds the owner and superusers too, who need no grant.
	super, err := pgx.Connect(t.Context(), db.SuperuserURL)
	require.NoError(t, err)
	defer super.Close(t.Context())
	_, err = super.Exec(t.Context(), "DELETE FROM audit.records")
	requireState(t, err, insufficientPrivilege)
}

// TestRecordsAreDeletedInASandboxOrgOnly: purging a pilot can't reach live data, whatever the caller passes.
func TestRecordsAreDeletedInASandboxOrgOnly(t *testing.T) {
	t.Parallel()
	db := cluster.New(t)
	f := newFixture(t, db)
	f.applyPatient(t, f.pass("Patient"), patient("p1", "100"))
	require.Equal(t, []int64{1}, storetest.Query[int64](t, db, "SELECT count(*) FROM cura.profiles"))
	err := db.InOrg(t.Context(), f.org, func(tx *store.Tx) error { return tx.PurgePilot(t.Context(), f.connection, "test") })
	require.NoError(t, err, "row level security hides the rows from DELETE")
	require.Equal(t, []int64{1}, storetest.Query[int64](t, db, "SELECT count(*) FROM cura.profiles"))
}

func TestMigrationsGoDownAndUpAgain(t *testing.T) {
	t.Parallel()
	db := cluster.New(t)
	// A copy of the template has its own privileges; bootstrapping again gives the owner its place.
	require.NoError(t, store.Bootstrap(t.Context(), db.SuperuserURL, store.Passwords{}))
	require.NoError(t, store.MigrateDown(t.Context(), db.MigratorURL, 0))
	require.Empty(t, storetest.Query[string](t, db, "SELECT tablename::text FROM pg_catalog.pg_tables WHERE schemaname IN ('cura', 'labs', 'sync', 'audit', 'directory')"))
	n, err := store.Migrate(t.Context(), db.MigratorURL)
	require.NoError(t, err)
	require.Len(t, migrations(t), n)
	n, err = store.Migrate(t.Context(), db.MigratorURL)
	require.NoError(t, err)
	require.Zero(t, n, "nothing is left to do")
}

// migrations are the files that make the schema.
func migrations(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("migrations/*.sql")
	require.NoError(t, err)
	return files
}

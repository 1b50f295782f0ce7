package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
	"github.com/pressly/goose/v3/lock"
)

//go:embed roles.sql
var rolesSQL string

//go:embed migrations/*.sql
var migrations embed.FS

// versionTable is where goose remembers which migrations have run.
const versionTable = "migrations.versions"

// Passwords of the two roles that log in.
type Passwords struct {
	Migrator string
	Worker   string
}

// Bootstrap makes the cluster's roles and lets the owner make schemas in the database. The URL logs in as a superuser
// (or a role with CREATEROLE that owns the database); it is needed once, and may be run again.
func Bootstrap(ctx context.Context, superuserURL string, passwords Passwords) error {
	conn, err := pgx.Connect(ctx, superuserURL)
	if err != nil {
		return fmt.Errorf("connecting as superuser: %w", err)
	}
	defer conn.Close(ctx)
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, rolesSQL); err != nil {
			return fmt.Errorf("making the roles: %w", err)
		}
		for role, password := range map[string]string{"cura_migrator": passwords.Migrator, "cura_worker": passwords.Worker} {
			if password == "" {
				continue
			}
			// A password can't be a parameter of ALTER ROLE; quote_literal makes the text safe.
			var statement string
			if err := tx.QueryRow(ctx, "SELECT format('ALTER ROLE %I PASSWORD %L', $1::text, $2::text)", role, password).Scan(&statement); err != nil {
				return fmt.Errorf("preparing a password: %w", err)
			}
			if _, err := tx.Exec(ctx, statement); err != nil {
				return fmt.Errorf("setting the password of %s failed; the server's log says why", role)
			}
		}
		var database string
		if err := tx.QueryRow(ctx, "SELECT current_database()").Scan(&database); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "GRANT CREATE ON DATABASE "+pgx.Identifier{database}.Sanitize()+" TO cura_owner;"+
			"CREATE SCHEMA IF NOT EXISTS migrations AUTHORIZATION cura_owner")
		return err
	})
}

// Migrate brings the schema up to date and returns how many migrations ran. The URL logs in as cura_migrator.
func Migrate(ctx context.Context, migratorURL string) (int, error) {
	applied := 0
	err := withProvider(migratorURL, func(p *goose.Provider) error {
		results, err := p.Up(ctx)
		applied = len(results)
		return err
	})
	return applied, err
}

// MigrateDown takes the schema back to version; 0 takes everything away. It is for tests and for undoing a deploy.
func MigrateDown(ctx context.Context, migratorURL string, version int64) error {
	return withProvider(migratorURL, func(p *goose.Provider) error {
		_, err := p.DownTo(ctx, version)
		return err
	})
}

func withProvider(url string, fn func(*goose.Provider) error) error {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return errors.New("the migration URL can't be read; give it as postgres://cura_migrator:PASSWORD@HOST:PORT/DATABASE")
	}
	cfg.RuntimeParams["role"] = "cura_owner"
	cfg.RuntimeParams["search_path"] = ""
	db := stdlib.OpenDB(*cfg)
	defer func(db *sql.DB) { _ = db.Close() }(db)
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	versions, err := database.NewStore(database.DialectPostgres, versionTable)
	if err != nil {
		return err
	}
	// Two deploys at once: the second waits for the first.
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider("", db, files, goose.WithStore(versions), goose.WithSessionLocker(locker), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("reading the migrations: %w", err)
	}
	if err := fn(provider); err != nil {
		return fmt.Errorf("migrating the database: %w", err)
	}
	return nil
}

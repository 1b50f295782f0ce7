package main

import (
	"fmt"
	"strings"

	"github.com/caarlos0/env/v11"
	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/store"
)

func migrateCommand() *cli.Command {
	return &cli.Command{
		Name:  "migrate",
		Usage: "bring the database's schema up to date",
		Description: "With --bootstrap-url it first makes the cluster's roles. Passwords come from files, or from CURA_MIGRATOR_PASSWORD and\n" +
			"CURA_WORKER_PASSWORD; a role whose password isn't given keeps the one that it has. Running it again does no harm.\n\n" +
			example("starter migrate --url 'postgres://cura_migrator@db:5432/cura?passfile=/run/secrets/pgpass'"),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "url", Aliases: []string{"migrate-url"}, Usage: "the database's `URL`, logging in as cura_migrator", EnvVars: []string{"CURA_MIGRATE_URL"}},
			&cli.StringFlag{Name: "bootstrap-url", Usage: "the database's `URL`, logging in as a superuser, to make the roles", EnvVars: []string{"CURA_BOOTSTRAP_URL"}},
			&cli.StringFlag{Name: "migrator-password-file", Usage: "a `FILE` with the password of cura_migrator", EnvVars: []string{"CURA_MIGRATOR_PASSWORD_FILE"}},
			&cli.StringFlag{Name: "worker-password-file", Usage: "a `FILE` with the password of cura_worker", EnvVars: []string{"CURA_WORKER_PASSWORD_FILE"}},
		},
		Action: migrate,
	}
}

func migrate(c *cli.Context) error {
	if err := noWords(c); err != nil {
		return err
	}
	if err := need(c, "url"); err != nil {
		return err
	}
	bootstrapped := c.String("bootstrap-url") != ""
	if bootstrapped {
		passwords, err := readPasswords(c)
		if err != nil {
			return err
		}
		if err := store.Bootstrap(c.Context, c.String("bootstrap-url"), passwords); err != nil {
			return err
		}
		hint(c, "The roles are there.")
	}
	ran, err := store.Migrate(c.Context, c.String("url"))
	if err != nil {
		return err
	}
	text := fmt.Sprintf("%d migrations ran; the schema is up to date.", ran)
	if ran == 0 {
		text = "The schema was up to date already."
	}
	return printOne(c, map[string]any{"bootstrapped": bootstrapped, "migrations": ran}, text)
}

// readPasswords reads the passwords of the roles that log in. A file wins over the environment; neither leaves the
// password that the role has.
func readPasswords(c *cli.Context) (store.Passwords, error) {
	given, err := env.ParseAs[struct {
		Migrator string `env:"CURA_MIGRATOR_PASSWORD"`
		Worker   string `env:"CURA_WORKER_PASSWORD"`
	}]()
	if err != nil {
		return store.Passwords{}, fmt.Errorf("reading the environment: %w", err)
	}
	passwords := store.Passwords{Migrator: given.Migrator, Worker: given.Worker}
	for flag, field := range map[string]*string{"migrator-password-file": &passwords.Migrator, "worker-password-file": &passwords.Worker} {
		name := c.String(flag)
		if name == "" {
			continue
		}
		raw, err := readSmall(name, maxSecret)
		if err != nil {
			return passwords, fmt.Errorf("reading --%s: %w", flag, err)
		}
		if *field = strings.TrimRight(string(raw), "\r\n"); *field == "" {
			return passwords, usagef("--%s: %s is empty", flag, name)
		}
	}
	return passwords, nil
}

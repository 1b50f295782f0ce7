package main

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"os/user"
	"strings"
	"unicode"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/config"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/secrets"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/temporalclient"
	"github.com/cura-health/ehr-sync/workflows"
)

func globalFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "table", Usage: "how to print: table or json"},
		&cli.StringFlag{Name: "as", Usage: "who you are, for the audit log (asserted, not proved)", EnvVars: []string{"CURA_AS"}, DefaultText: "your login name"},
		&cli.StringFlag{Name: "database-url", Usage: "PostgreSQL, logging in as cura_worker", EnvVars: []string{"CURA_DATABASE_URL"}},
		&cli.StringFlag{Name: "key-file", Usage: "the key file that seals credentials", EnvVars: []string{"CURA_KEY_FILE"}},
	}
}

// checkGlobals checks the flags that go with every command.
func checkGlobals(c *cli.Context) error {
	if o := c.String("output"); o != "table" && o != "json" {
		return usagef("--output is %q; it must be table or json", o)
	}
	if as := c.String("as"); len(as) > 100 || strings.ContainsFunc(as, unicode.IsControl) {
		return usagef("--as must be at most 100 bytes on one line")
	}
	return nil
}

// session is what a command works with: the database, and Temporal and the key file where it needs them.
type session struct {
	cfg   config.Config
	store *store.Store
	log   *slog.Logger
	actor string
}

// openSession reads the settings and opens the database. Flags win over the environment.
func openSession(c *cli.Context) (*session, error) {
	cfg, err := config.Read()
	if err != nil {
		return nil, err
	}
	if url := c.String("database-url"); url != "" {
		cfg.DatabaseURL = url
	}
	if path := c.String("key-file"); path != "" {
		cfg.KeyFile = path
	}
	db, err := store.Open(c.Context, cfg.DatabaseURL)
	if err != nil {
		return nil, err
	}
	return &session{cfg: cfg, store: db, log: slog.New(slog.DiscardHandler), actor: actor(c)}, nil
}

func (s *session) close() { s.store.Close() }

// actor is who asks, as they say themselves.
func actor(c *cli.Context) string {
	name := c.String("as")
	if name == "" {
		name = "unknown"
		if u, err := user.Current(); err == nil {
			name = u.Username
		}
	}
	return asserted + name
}

// sealer opens the key file.
func (s *session) sealer() (*secrets.Sealer, error) {
	if s.cfg.KeyFile == "" {
		return nil, fault.New("opening the key file", fault.Config, "no key file is named").
			WithFix("Set CURA_KEY_FILE or give --key-file; make one with: starter keygen FILE")
	}
	return secrets.Open(s.cfg.KeyFile)
}

// activities gives the activities for use without a worker, as `starter test` does.
func (s *session) activities() (*activities.Activities, error) {
	sealer, err := s.sealer()
	if err != nil {
		return nil, err
	}
	return activities.New(s.store, sealer, s.cfg, nil, s.log)
}

// temporal connects to Temporal.
func (s *session) temporal(ctx context.Context) (*temporalclient.Client, error) {
	return temporalclient.Dial(ctx, s.log)
}

// starting connects to Temporal for a command that starts workflows, and sees that it knows their search attributes.
func (s *session) starting(ctx context.Context) (*temporalclient.Client, error) {
	tc, err := s.temporal(ctx)
	if err != nil {
		return nil, err
	}
	if err := tc.EnsureSearchAttributes(ctx, workflows.SearchAttributes()); err != nil {
		tc.Close()
		return nil, err
	}
	return tc, nil
}

// onConnection runs fn on the connection that the command's argument names: an id, ORG/NAME, or a NAME that only one org
// has.
func onConnection(c *cli.Context, fn func(*session, store.Listed) error) error {
	name, err := oneWord(c, "the connection: its id, ORG/NAME or NAME")
	if err != nil {
		return err
	}
	s, err := openSession(c)
	if err != nil {
		return err
	}
	defer s.close()
	l, err := s.store.FindConnection(c.Context, name)
	if err != nil {
		return err
	}
	return fn(s, l)
}

// onDatabase runs fn for a command that takes no argument.
func onDatabase(c *cli.Context, fn func(*session) error) error {
	if err := noWords(c); err != nil {
		return err
	}
	return onDatabaseWith(c, fn)
}

// onDatabaseWith runs fn for a command that has read its arguments.
func onDatabaseWith(c *cli.Context, fn func(*session) error) error {
	s, err := openSession(c)
	if err != nil {
		return err
	}
	defer s.close()
	return fn(s)
}

// state reads a connection.
func (s *session) state(ctx context.Context, l store.Listed) (store.ConnectionState, error) {
	var state store.ConnectionState
	err := s.store.InOrg(ctx, l.Org, func(tx *store.Tx) error {
		var err error
		state, err = tx.Connection(ctx, l.Connection)
		return err
	})
	return state, err
}

// inService reads a connection and fails for one that has been removed.
func (s *session) inService(ctx context.Context, l store.Listed) (store.ConnectionState, error) {
	state, err := s.state(ctx, l)
	if err == nil && state.RemovedAt != nil {
		err = fault.Newf("looking for the connection", fault.NotFound, "connection %s has been removed", l.Connection).
			WithFix("List the others with: starter connection list")
	}
	return state, err
}

// record leaves an audit record of what a person told the machinery to do.
func (s *session) record(ctx context.Context, l store.Listed, command string, outcome audit.Outcome, details map[string]any) error {
	all := map[string]any{"command": command}
	maps.Copy(all, details)
	return s.store.InOrg(ctx, l.Org, func(tx *store.Tx) error {
		tx.Audit(audit.Record{Kind: audit.OperatorCommand, Actor: s.actor, Connection: l.Connection, Outcome: outcome, Details: all})
		return nil
	})
}

// path is how a person names a connection.
func path(l store.Listed) string { return l.OrgName + "/" + l.Name }

// target is how the activities name a connection.
func target(l store.Listed) activities.Target {
	return activities.Target{Org: l.Org, Connection: l.Connection}
}

// typed puts the connection's name into commands that hold its id or the word CONNECTION.
func typed(commands []string, l store.Listed) []string {
	named := make([]string, len(commands))
	for i, c := range commands {
		named[i] = strings.NewReplacer("CONNECTION", path(l), string(l.Connection), path(l)).Replace(c)
	}
	return named
}

// terminal reports whether progress may be drawn on w.
func terminal(w any) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

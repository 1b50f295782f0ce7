package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/audit/seal"
	"github.com/cura-health/ehr-sync/internal/sandbox"
	"github.com/cura-health/ehr-sync/internal/secrets"
	"github.com/cura-health/ehr-sync/internal/stack"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/workflows"
)

// Where `starter dev` keeps everything, and the file in it that other commands find the running stack by: NAME=VALUE
// lines. It is gone when the stack is.
const (
	devDir  = ".cura"
	envFile = "env"
	// profilesDir is, in it, where the stack of --profiles keeps everything.
	profilesDir = "profiles"
)

// What a connection to a sandbox EHR needs, beside its state.
const (
	caFile     = "ca.pem"
	secretFile = "client-secret"
)

func devCommand() *cli.Command {
	return &cli.Command{
		Name:  "dev",
		Usage: "run the whole stack on this machine: PostgreSQL, Temporal, a sandbox EHR and the worker",
		Description: "Everything is kept under .cura: stop it with Ctrl-C and start it again, and it goes on.\n" +
			"With --demo it also onboards the sandbox hospital and shows how that goes.\n\n" +
			"With --profiles it runs, from a clean start and under .cura/profiles, a sandbox EHR for each vendor instead. It onboards\n" +
			"them all with faults on, compares them with Cura and ends: with code 0 if all are live and nothing is missing or extra.\n\n" +
			example("starter dev", "starter dev --demo", "starter dev --demo --data ./fhir --exit --output json", "starter dev --profiles", "starter dev --clean"),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dir", Value: devDir, Usage: "where everything is kept"},
			&cli.BoolFlag{Name: "clean", Usage: "remove everything that is kept, and end"},
			&cli.BoolFlag{Name: "demo", Usage: "onboard the sandbox hospital"},
			&cli.BoolFlag{Name: "profiles", Usage: "onboard a sandbox EHR of each vendor with faults on, compare, and end"},
			&cli.BoolFlag{Name: "exit", Usage: "with --demo: end once the connection is live (exit code 0) or needs a person (1)"},
			&cli.StringFlag{Name: "data", Usage: "serve the FHIR resources in this folder, instead of generated patients"},
			&cli.StringFlag{Name: "fault", Usage: "with --demo: what goes wrong during the monitoring window: auth, errors or throttle"},
			&cli.IntFlag{Name: "patients", Value: 40, Usage: "how many patients the sandbox generates", DefaultText: "40; with --profiles 20"},
			&cli.DurationFlag{Name: "monitor", Value: demoMonitor, Usage: "with --demo or --profiles: the length of the monitoring window", DefaultText: "1m; with --profiles 30s"},
			&cli.DurationFlag{Name: "interval", Value: demoInterval, Usage: "with --demo or --profiles: the interval of the schedule", DefaultText: "10s; with --profiles 5s"},
		},
		Action: func(c *cli.Context) error {
			dir, err := filepath.Abs(c.String("dir"))
			if err != nil {
				return fmt.Errorf("finding the folder %s: %w", c.String("dir"), err)
			}
			if c.Bool("clean") {
				return cleanDev(c.Context, dir)
			}
			if c.NArg() > 0 {
				return usagef("dev takes no arguments, only flags; it was given %q", c.Args().First())
			}
			if c.Duration("monitor") <= 0 || c.Duration("interval") < time.Second {
				return usagef("--monitor must be a positive time, and --interval at least a second")
			}
			if err := checkFault(c.String("fault")); err != nil {
				return err
			}
			if c.Bool("profiles") {
				if dir, err = rehearsalDir(c, dir); err != nil {
					return err
				}
			}
			return runDev(c, dir)
		},
	}
}

// cleanDev removes what `starter dev` keeps, the clusters' folders outside of it included.
func cleanDev(ctx context.Context, dir string) error {
	for _, stackDir := range []string{filepath.Join(dir, profilesDir), dir} {
		if err := stack.RemovePostgres(ctx, filepath.Join(stackDir, "postgres")); err != nil {
			return fmt.Errorf("removing the PostgreSQL cluster: %w", err)
		}
	}
	return os.RemoveAll(dir)
}

// devStack is the running stack.
type devStack struct {
	dir string
	// shown is the folder as the user wrote it.
	shown    string
	say      io.Writer
	postgres *stack.Postgres
	temporal *stack.Temporal
	// sandbox is the EHR of the demo; nil with --profiles.
	sandbox *sandbox.Server
	// hospitals are the EHRs of --profiles.
	hospitals []*hospital
	worker    *stack.Process
	// env holds the settings with which the other commands reach the stack, as NAME=VALUE; empty until they are written.
	env []string
}

func runDev(c *cli.Context, dir string) (err error) {
	d := &devStack{dir: dir, shown: c.String("dir"), say: c.App.ErrWriter}
	if c.Bool("profiles") {
		d.shown = filepath.Join(d.shown, profilesDir)
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	if err := d.start(c); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(c.Context)
	defer cancel(nil)
	go func() { cancel(d.watch(ctx)) }()
	switch {
	case c.Bool("profiles"):
		err = runRehearsal(ctx, c, d)
	case c.Bool("demo"):
		err = runDemo(ctx, c, d)
	default:
		d.describe()
		<-ctx.Done()
	}
	if cause := context.Cause(ctx); errors.As(cause, new(*pieceEndedError)) {
		return cause
	}
	if c.Err() != nil {
		d.tell("Stopping.")
		switch {
		case c.Bool("profiles"):
			return errors.New("the rehearsal was stopped before it came to its end; start it again, and it begins anew")
		case c.Bool("exit"):
			return errors.New("the demo was stopped before it came to its end; start it again, and it goes on")
		}
		return nil
	}
	return err
}

func (d *devStack) tell(format string, args ...any) {
	_, _ = fmt.Fprintf(d.say, format+"\n", args...)
}

// pieceEndedError says that a piece of the stack ended by itself.
type pieceEndedError struct {
	piece, log string
	err        error
}

func (e *pieceEndedError) Error() string {
	return fmt.Sprintf("the %s has ended by itself; its log is %s: %v", e.piece, e.log, e.err)
}

func (e *pieceEndedError) Unwrap() error { return e.err }

// watch waits until a piece ends by itself, or ctx does.
func (d *devStack) watch(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-d.postgres.Done():
		return &pieceEndedError{"database", d.log("postgres"), d.postgres.Err()}
	case <-d.temporal.Done():
		return &pieceEndedError{"Temporal server", d.log("temporal"), d.temporal.Err()}
	case <-d.worker.Done():
		return &pieceEndedError{"worker", d.log("worker"), d.worker.Err()}
	}
}

func (d *devStack) log(piece string) string { return filepath.Join(d.dir, "logs", piece+".log") }

// start starts the pieces in the order in which they need each other.
func (d *devStack) start(c *cli.Context) error {
	ctx := c.Context
	if err := os.MkdirAll(filepath.Join(d.dir, "logs"), 0o755); err != nil { //nolint:gosec // holds no secret; what does is 0600
		return fmt.Errorf("making the folder %s: %w", d.dir, err)
	}
	d.tell("Starting PostgreSQL.")
	if err := d.startPostgres(ctx); err != nil {
		return err
	}
	d.tell("Starting Temporal.")
	var err error
	attributes := map[string]string{}
	for _, name := range workflows.SearchAttributes() {
		attributes[name] = "Keyword"
	}
	d.temporal, err = stack.StartTemporal(ctx, stack.TemporalConfig{
		Dir: filepath.Join(d.dir, "temporal"), Log: d.log("temporal"), Port: 7233, UIPort: 8233, SearchAttributes: attributes,
	})
	if err != nil {
		return fmt.Errorf("starting Temporal: %w", err)
	}
	var settings []string
	if c.Bool("profiles") {
		d.tell("Starting a sandbox EHR for each vendor.")
		settings = rehearsalSettings()
		err = d.startHospitals(ctx, c)
	} else {
		d.tell("Starting the sandbox EHR.")
		err = d.startDemoSandbox(ctx, c)
	}
	if err != nil {
		return err
	}
	keyFile := filepath.Join(d.dir, "key.json")
	if _, err := os.Stat(keyFile); errors.Is(err, os.ErrNotExist) {
		if err := secrets.GenerateKeyFile(keyFile); err != nil {
			return err
		}
	}
	auditKeyFile := filepath.Join(d.dir, "audit-key")
	if _, err := os.Stat(auditKeyFile); errors.Is(err, os.ErrNotExist) {
		if _, err := seal.GenerateKeyFile(auditKeyFile); err != nil {
			return err
		}
	}
	d.env = []string{
		"CURA_DATABASE_URL=" + d.postgres.URL("cura_worker", "cura"),
		"CURA_KEY_FILE=" + keyFile,
		"CURA_AUDIT_KEY_FILE=" + auditKeyFile,
		"CURA_AUDIT_HEADS_DIR=" + filepath.Join(d.dir, "audit-heads"),
		"TEMPORAL_ADDRESS=" + d.temporal.Address(),
		"TEMPORAL_NAMESPACE=" + d.temporal.Namespace(),
	}
	if err := os.WriteFile(filepath.Join(d.dir, envFile), []byte(strings.Join(d.env, "\n")+"\n"), 0o600); err != nil {
		return fmt.Errorf("writing the settings: %w", err)
	}
	d.tell("Starting the worker.")
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding the worker: %w", err)
	}
	d.worker, err = stack.StartProcess(ctx, stack.ProcessConfig{
		Name: "worker", Path: filepath.Join(filepath.Dir(program), "worker"), Env: slices.Concat(os.Environ(), settings, d.env), Log: d.log("worker"),
	})
	if err != nil {
		return fmt.Errorf("starting the worker, which `make build` puts beside starter: %w", err)
	}
	return nil
}

func (d *devStack) startPostgres(ctx context.Context) error {
	var err error
	d.postgres, err = stack.StartPostgres(ctx, stack.PostgresConfig{Dir: filepath.Join(d.dir, "postgres"), Log: d.log("postgres"), Port: 54329})
	if err != nil {
		return fmt.Errorf("starting PostgreSQL: %w", err)
	}
	conn, err := pgx.Connect(ctx, d.postgres.SuperuserURL("postgres"))
	if err != nil {
		return fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	defer conn.Close(ctx)
	var exists bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = 'cura')").Scan(&exists); err != nil {
		return fmt.Errorf("looking for the database: %w", err)
	}
	if !exists {
		if _, err := conn.Exec(ctx, "CREATE DATABASE cura"); err != nil {
			return fmt.Errorf("creating the database: %w", err)
		}
	}
	err = store.Bootstrap(ctx, d.postgres.SuperuserURL("cura"), store.Passwords{
		Migrator: d.postgres.Password("cura_migrator"), Worker: d.postgres.Password("cura_worker"),
	})
	if err != nil {
		return err
	}
	_, err = store.Migrate(ctx, d.postgres.URL("cura_migrator", "cura"))
	return err
}

func (d *devStack) startDemoSandbox(ctx context.Context, c *cli.Context) error {
	port, err := stack.FreePort(9443)
	if err != nil {
		return err
	}
	control, err := stack.FreePort(9444)
	if err != nil {
		return err
	}
	d.sandbox, err = startSandbox(ctx, d.dir, sandbox.Config{
		Addr: fmt.Sprintf("127.0.0.1:%d", port), ControlAddr: fmt.Sprintf("127.0.0.1:%d", control),
		DataDir: c.String("data"), Patients: c.Int("patients"), Seed: 1,
	})
	if err != nil {
		return err
	}
	for _, problem := range d.sandbox.Problems() {
		d.tell("  note: %s", problem)
	}
	return nil
}

// startSandbox starts a sandbox EHR that keeps its state in dir, and puts there what a connection to it needs.
func startSandbox(ctx context.Context, dir string, cfg sandbox.Config) (*sandbox.Server, error) {
	cfg.StateDir = filepath.Join(dir, "sandbox")
	server, err := sandbox.Start(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("starting the sandbox EHR: %w", err)
	}
	for name, content := range map[string][]byte{caFile: server.CAPEM(), secretFile: []byte(server.ClientSecret())} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return nil, errors.Join(fmt.Errorf("writing %s: %w", name, err), server.Close()) //nolint:contextcheck // it must close even when ctx is over
		}
	}
	return server, nil
}

func (d *devStack) describe() {
	d.tell("\nThe stack runs. Other commands find it by %s, in this folder.", filepath.Join(d.shown, envFile))
	d.tell("  Temporal Web UI   %s", d.temporal.UIURL())
	d.tell("  Sandbox EHR       %s", d.sandbox.BaseURL())
	d.tell("    its CA          %s", filepath.Join(d.shown, caFile))
	d.tell("    client          %s, secret in %s", d.sandbox.ClientID(), filepath.Join(d.shown, secretFile))
	d.tell("    faults          starter sandbox faults --control %s", d.sandbox.ControlURL())
	d.tell("  Logs              %s", filepath.Join(d.shown, "logs"))
	d.tell("Ctrl-C stops it; what it holds stays.")
}

// openSession opens the stack as any other command would: by its settings, in the environment.
func (d *devStack) openSession(c *cli.Context) (*session, error) {
	for _, setting := range d.env {
		name, value, _ := strings.Cut(setting, "=")
		if err := os.Setenv(name, value); err != nil {
			return nil, fmt.Errorf("setting %s: %w", name, err)
		}
	}
	return openSession(c)
}

// stop stops the pieces in the reverse order.
func (d *devStack) stop() error {
	var errs []error
	if d.worker != nil {
		errs = append(errs, d.worker.Stop())
	}
	if d.sandbox != nil {
		errs = append(errs, d.sandbox.Close())
	}
	for _, h := range d.hospitals {
		errs = append(errs, h.ehr.Close())
	}
	if d.temporal != nil {
		errs = append(errs, d.temporal.Stop())
	}
	if d.postgres != nil {
		errs = append(errs, d.postgres.Stop())
	}
	if d.env != nil { // another run's settings are left alone
		_ = os.Remove(filepath.Join(d.dir, envFile))
	}
	return errors.Join(errs...)
}

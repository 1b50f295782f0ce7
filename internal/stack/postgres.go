package stack

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// Superuser is the cluster's bootstrap role. Nothing but migrations and tests should connect as it.
	Superuser = "postgres"

	postgresReady = time.Minute
	// A port that was free a moment ago may be taken by somebody quicker, and the backends of a killed postmaster need a
	// moment to go.
	postgresTries = 5
)

// PostgresConfig describes a private cluster.
type PostgresConfig struct {
	// Dir holds the cluster and what belongs to it: the secret its passwords come from and, when the cluster itself had
	// to go elsewhere, the file "location".
	Dir string
	// Port is the wanted TCP port; when it's taken, or 0, a free one is used.
	Port int
	// Log is the server's log file; empty means Dir/postgres.log.
	Log string
	// Fast gives up durability in a crash of the machine, not of the server. It's for tests.
	Fast bool
}

// Postgres is a running private cluster that listens on loopback TCP only.
type Postgres struct {
	process *Process
	lock    *os.File
	secret  []byte
	port    int

	unlocking sync.Once
	unlocked  error
}

// StartPostgres starts the cluster in cfg.Dir, which is made on the first start, and waits until it answers. PostgreSQL
// >= 15 is found on PATH or under /usr/lib/postgresql. PostgreSQL refuses to run as root: root runs it as the user
// postgres or nobody. A cluster that another live process runs is refused; one left behind by a killed process is
// stopped and started anew. ctx bounds the start only.
func StartPostgres(ctx context.Context, cfg PostgresConfig) (*Postgres, error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err := errors.Join(err, ctx.Err()); err != nil {
		return nil, fmt.Errorf("starting PostgreSQL: %w", err)
	}
	if cfg.Log == "" {
		cfg.Log = filepath.Join(dir, "postgres.log")
	}
	// Others may pass through, for the server's user is another when we are root; every file below is guarded by itself.
	if err := os.MkdirAll(dir, 0o711); err != nil { //nolint:gosec // see above
		return nil, fmt.Errorf("making the folder of the PostgreSQL cluster: %w", err)
	}
	lock, err := lockCluster(dir)
	if err != nil {
		return nil, err
	}
	p, err := startLocked(ctx, cfg, dir)
	if err != nil {
		return nil, errors.Join(err, unlockFile(lock))
	}
	p.lock = lock
	return p, nil
}

func startLocked(ctx context.Context, cfg PostgresConfig, dir string) (*Postgres, error) {
	home, err := prepareCluster(ctx, dir, cfg.Fast)
	if err != nil {
		return nil, err
	}
	var failed error
	for range postgresTries {
		port, err := FreePort(cfg.Port)
		if err != nil {
			return nil, err
		}
		p := &Postgres{port: port, secret: home.secret}
		p.process, err = StartProcess(ctx, ProcessConfig{
			Name:       "PostgreSQL",
			Path:       filepath.Join(home.bin, "postgres"),
			Args:       serverArgs(home.data(), port, cfg.Fast),
			Env:        serverEnv(),
			Dir:        home.folder,
			Log:        cfg.Log,
			StopSignal: syscall.SIGINT, // fast shutdown: open sessions are rolled back, the cluster is left clean
			Grace:      30 * time.Second,
			credential: home.user,
		})
		if err != nil {
			return nil, err
		}
		failed = p.awaitReady(ctx)
		if failed == nil {
			return p, nil
		}
		failed = errors.Join(failed, p.process.Stop())
		if !worthAnotherTry(failed) {
			return nil, failed
		}
	}
	return nil, failed
}

func worthAnotherTry(err error) bool {
	text := err.Error()
	return strings.Contains(text, "Address already in use") || strings.Contains(text, "pre-existing shared memory block")
}

func serverArgs(data string, port int, fast bool) []string {
	args := []string{
		"-D", data,
		"-p", strconv.Itoa(port),
		"-c", "listen_addresses=" + loopback,
		"-c", "unix_socket_directories=",
		"-c", "max_connections=200",
		"-c", "timezone=UTC",
		"-c", "log_timezone=UTC",
		// Statements and the DETAIL of errors quote rows: they stay out of the log.
		"-c", "log_error_verbosity=terse",
		"-c", "log_min_error_statement=panic",
	}
	if fast {
		args = append(args, "-c", "fsync=off", "-c", "full_page_writes=off")
	}
	return args
}

// serverEnv keeps PGDATA, PGPORT and the like of the caller's shell away from the server.
func serverEnv() []string {
	return []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
}

func (p *Postgres) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, postgresReady)
	defer cancel()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		err := p.ping(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.process.Done():
			if err := p.process.Err(); err != nil {
				return err
			}
			return errors.New("PostgreSQL ended while starting")
		case <-ctx.Done():
			return fmt.Errorf("waiting for PostgreSQL: %w; see its log %s", errors.Join(ctx.Err(), err), p.process.cfg.Log)
		case <-tick.C:
		}
	}
}

func (p *Postgres) ping(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, p.SuperuserURL("postgres"))
	if err != nil {
		return err
	}
	return errors.Join(conn.Ping(ctx), conn.Close(ctx))
}

// Port is the TCP port at 127.0.0.1.
func (p *Postgres) Port() int { return p.port }

// Password is the password of a role of this cluster, the same at every start. The superuser has it from the beginning;
// whoever creates another login role sets it: `CREATE ROLE … PASSWORD`.
func (p *Postgres) Password(role string) string { return rolePassword(p.secret, role) }

// URL is the connection URL of a role, with its [Postgres.Password], for a database. It is a secret.
func (p *Postgres) URL(role, database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(role, p.Password(role)),
		Host:     hostPort(p.port),
		Path:     "/" + database,
		RawQuery: "sslmode=disable", // the wire never leaves the loopback interface
	}
	return u.String()
}

// SuperuserURL is [Postgres.URL] for the superuser.
func (p *Postgres) SuperuserURL(database string) string { return p.URL(Superuser, database) }

// Done is closed when the server has ended, asked or not.
func (p *Postgres) Done() <-chan struct{} { return p.process.Done() }

// Err says why the server ended by itself; see [Process.Err].
func (p *Postgres) Err() error { return p.process.Err() }

// Stop shuts the cluster down, rolling back what is open, and waits until it is down. The cluster stays on disk.
func (p *Postgres) Stop() error {
	return errors.Join(p.process.Stop(), p.unlock())
}

// Kill ends the server as a crash would, for tests of recovery; the next StartPostgres recovers the cluster.
func (p *Postgres) Kill() error {
	return errors.Join(p.process.Kill(), p.unlock())
}

// unlock lets others start the cluster again, once.
func (p *Postgres) unlock() error {
	p.unlocking.Do(func() { p.unlocked = unlockFile(p.lock) })
	return p.unlocked
}

// rolePassword derives every role's password from one secret, so that there is one file to guard and none to forget.
func rolePassword(secret []byte, role string) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(role))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

func newSecret() []byte {
	secret := make([]byte, 32)
	rand.Read(secret) // never fails: it ends the process instead
	return secret
}

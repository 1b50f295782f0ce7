package stack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
)

const (
	// TemporalVersion is the version of the Temporal command line, server and Web UI included, that `make tools` builds
	// from tools/temporal.
	TemporalVersion = "v1.5.1"

	// DefaultNamespace is the namespace that every Temporal development server has.
	DefaultNamespace = "default"

	temporalReady = time.Minute
	temporalTries = 3
)

// TemporalConfig describes a Temporal server on this machine.
type TemporalConfig struct {
	// Binary is the `temporal` program; empty means the one that [FindTemporal] finds.
	Binary string
	// Dir holds the server's SQLite file.
	Dir string
	// Log is the server's log file; empty means Dir/temporal.log.
	Log string
	// Port and UIPort are the wanted ports of the frontend and of the Web UI; when taken, or 0, free ones are used.
	Port, UIPort int
	// Namespace is made at the start; empty means [DefaultNamespace].
	Namespace string
	// SearchAttributes are registered at the start: name to type (Keyword, Text, Int, Double, Bool, Datetime, KeywordList).
	SearchAttributes map[string]string
	// InMemory keeps nothing on disk. It's for tests.
	InMemory bool
}

// Temporal is a running Temporal server that listens on loopback only.
type Temporal struct {
	cfg     TemporalConfig
	process *Process
	port    int
	uiPort  int
}

// FindTemporal finds the `temporal` program: the file named by CURA_TEMPORAL_BIN, else the one that `make tools` has
// built, else the one on PATH.
func FindTemporal() (string, error) {
	if path := os.Getenv("CURA_TEMPORAL_BIN"); path != "" {
		if _, err := exec.LookPath(path); err != nil {
			return "", fmt.Errorf("CURA_TEMPORAL_BIN names no program: %w", err)
		}
		return path, nil
	}
	if cache, err := os.UserCacheDir(); err == nil {
		path := filepath.Join(cache, "cura-ehr-sync", "bin", "temporal-"+TemporalVersion)
		if _, err := exec.LookPath(path); err == nil {
			return path, nil
		}
	}
	if path, err := exec.LookPath("temporal"); err == nil {
		return path, nil
	}
	return "", errors.New("the Temporal server was not found: run make tools, or set CURA_TEMPORAL_BIN to a temporal program")
}

// StartTemporal starts the server and waits until its frontend answers, the namespace is there and the search
// attributes can be used. ctx bounds the start only.
func StartTemporal(ctx context.Context, cfg TemporalConfig) (*Temporal, error) {
	if cfg.Binary == "" {
		var err error
		if cfg.Binary, err = FindTemporal(); err != nil {
			return nil, err
		}
	}
	if cfg.Namespace == "" {
		cfg.Namespace = DefaultNamespace
	}
	if cfg.Log == "" {
		cfg.Log = filepath.Join(cfg.Dir, "temporal.log")
	}
	if err := os.MkdirAll(cfg.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("making the folder of the Temporal server: %w", err)
	}
	if cfg.InMemory {
		return startTemporal(ctx, cfg, nil)
	}
	// The server keeps the lock open as long as it lives: one that was left behind by a killed run, and is on its way
	// out, is waited for instead of being joined on the same file.
	lock, err := lockTemporal(ctx, cfg.Dir)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	return startTemporal(ctx, cfg, []*os.File{lock})
}

func startTemporal(ctx context.Context, cfg TemporalConfig, inherit []*os.File) (*Temporal, error) {
	var failed error
	for range temporalTries {
		t, err := launchTemporal(ctx, cfg, inherit)
		if err != nil {
			return nil, err
		}
		if failed = t.awaitReady(ctx); failed == nil {
			return t, nil
		}
		failed = errors.Join(failed, t.process.Stop())
		if !strings.Contains(failed.Error(), "address already in use") {
			return nil, failed
		}
	}
	return nil, failed
}

func launchTemporal(ctx context.Context, cfg TemporalConfig, inherit []*os.File) (*Temporal, error) {
	port, err := FreePort(cfg.Port)
	if err != nil {
		return nil, err
	}
	uiPort, err := FreePort(cfg.UIPort)
	if err != nil {
		return nil, err
	}
	t := &Temporal{cfg: cfg, port: port, uiPort: uiPort}
	t.process, err = StartProcess(ctx, ProcessConfig{
		Name: "Temporal",
		Path: cfg.Binary,
		Args: temporalArgs(cfg, port, uiPort),
		// Nothing of the caller's own Temporal settings may reach this server.
		Env:     []string{"PATH=" + filepath.Dir(cfg.Binary), "HOME=" + cfg.Dir, "TZ=UTC"},
		Log:     cfg.Log,
		inherit: inherit,
	})
	return t, err
}

func temporalArgs(cfg TemporalConfig, port, uiPort int) []string {
	args := []string{
		"server", "start-dev",
		"--ip", loopback, "--port", strconv.Itoa(port),
		"--ui-ip", loopback, "--ui-port", strconv.Itoa(uiPort),
		"--namespace", cfg.Namespace,
		"--log-level", "warn", "--color", "never",
		"--disable-config-file", "--disable-config-env",
		// The development server is throttled tenfold unless told otherwise: its one history shard is polled 20 times a
		// second, and tasks are forwarded slowly between the four partitions of each queue.
		"--dynamic-config-value", "history.transferProcessorMaxPollRPS=2000",
		"--dynamic-config-value", "matching.numTaskqueueReadPartitions=1",
		"--dynamic-config-value", "matching.numTaskqueueWritePartitions=1",
	}
	if !cfg.InMemory {
		args = append(args,
			"--db-filename", filepath.Join(cfg.Dir, "temporal.db"),
			"--sqlite-pragma", "journal_mode=WAL", "--sqlite-pragma", "synchronous=FULL")
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.SearchAttributes)) {
		args = append(args, "--search-attribute", name+"="+cfg.SearchAttributes[name])
	}
	return args
}

func (t *Temporal) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, temporalReady)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := t.ping(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-t.process.Done():
			if err := t.process.Err(); err != nil {
				return err
			}
			return errors.New("the Temporal server ended while starting")
		case <-ctx.Done():
			return fmt.Errorf("waiting for the Temporal server: %w; see its log %s", errors.Join(ctx.Err(), err), t.cfg.Log)
		case <-tick.C:
		}
	}
}

// ping asks for all that a worker will need: the frontend, the namespace and the search attributes.
func (t *Temporal) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, err := client.DialContext(ctx, client.Options{
		HostPort:  t.Address(),
		Namespace: t.cfg.Namespace,
		Logger:    log.NewStructuredLogger(slog.New(slog.DiscardHandler)),
	})
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.CheckHealth(ctx, &client.CheckHealthRequest{}); err != nil {
		return err
	}
	if _, err := c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: t.cfg.Namespace}); err != nil {
		return err
	}
	have, err := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: t.cfg.Namespace})
	if err != nil {
		return err
	}
	for name := range t.cfg.SearchAttributes {
		if _, ok := have.GetCustomAttributes()[name]; !ok {
			return fmt.Errorf("search attribute %s isn't registered yet", name)
		}
	}
	return t.pingUI(ctx)
}

// pingUI waits for the Web UI too: it comes up last, and takes the server down when its port was taken.
func (t *Temporal) pingUI(ctx context.Context) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp4", hostPort(t.uiPort))
	if err != nil {
		return err
	}
	return conn.Close()
}

// Address is host:port of the frontend.
func (t *Temporal) Address() string { return hostPort(t.port) }

// Namespace is the namespace that was asked for.
func (t *Temporal) Namespace() string { return t.cfg.Namespace }

// UIURL is the address of the Web UI.
func (t *Temporal) UIURL() string { return "http://" + hostPort(t.uiPort) }

// Done is closed when the server has ended, asked or not.
func (t *Temporal) Done() <-chan struct{} { return t.process.Done() }

// Err says why the server ended by itself; see [Process.Err].
func (t *Temporal) Err() error { return t.process.Err() }

// Stop ends the server in order and waits. Its SQLite file stays.
func (t *Temporal) Stop() error { return t.process.Stop() }

// Kill ends the server as a crash would, for tests of recovery.
func (t *Temporal) Kill() error { return t.process.Kill() }

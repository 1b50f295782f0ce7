// Command worker runs the workflows and activities of Cura EHR Sync. It reads its settings from the environment:
// CURA_* (internal/config) and Temporal's own TEMPORAL_*. With -health it asks the worker on CURA_HEALTH_ADDR whether it
// is well, for a container without a shell.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/config"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/secrets"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/temporalclient"
	"github.com/cura-health/ehr-sync/workflows"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	work := run
	if len(os.Args) == 2 && os.Args[1] == "-health" {
		work = askHealth
	}
	err := work(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(1)
	}
}

// stopTimeout is how long running activities get to end their page when the worker is told to stop.
const stopTimeout = 20 * time.Second

func run(ctx context.Context) error {
	cfg, err := config.Read()
	if err != nil {
		return err
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.LogLevel)); err != nil {
		return fmt.Errorf("CURA_LOG_LEVEL is %q; it must be debug, info, warn or error", cfg.LogLevel)
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	if cfg.KeyFile == "" {
		return fault.New("opening the key file", fault.Config, "CURA_KEY_FILE is not set").WithFix("Make one with: starter keygen FILE")
	}
	sealer, err := secrets.Open(cfg.KeyFile)
	if err != nil {
		return err
	}
	db, err := store.Open(ctx, cfg.DatabaseURL)
	if err != nil {
		return err
	}
	defer db.Close()
	temporal, err := temporalclient.Dial(ctx, log)
	if err != nil {
		return err
	}
	defer temporal.Close()
	if err := temporal.EnsureSearchAttributes(ctx, workflows.SearchAttributes()); err != nil {
		return err
	}
	acts, err := activities.New(db, sealer, cfg, temporal.Client, log)
	if err != nil {
		return err
	}
	defer acts.Close()

	workers := newWorkers(temporal.Client, acts)
	for i, w := range workers {
		if err := w.Start(); err != nil {
			for _, started := range workers[:i] {
				started.Stop()
			}
			return fmt.Errorf("starting the worker: %w", err)
		}
	}
	log.InfoContext(ctx, "worker started")
	err = serveHealth(ctx, cfg.HealthAddr, log)
	for _, w := range workers {
		w.Stop()
	}
	log.InfoContext(context.WithoutCancel(ctx), "worker stopped")
	return err
}

// newWorkers makes a worker for each task queue: long reads have slots of their own.
func newWorkers(temporal client.Client, acts *activities.Activities) []worker.Worker {
	// Cancellation reaches an activity on the answer to a heartbeat; the default throttle would hold it for most of the
	// heartbeat timeout.
	const throttle = 200 * time.Millisecond
	interactive := worker.New(temporal, workflows.QueueInteractive, worker.Options{
		MaxConcurrentActivityExecutionSize: 20, WorkerStopTimeout: stopTimeout,
		MaxHeartbeatThrottleInterval: throttle, DefaultHeartbeatThrottleInterval: throttle,
	})
	interactive.RegisterWorkflow(workflows.Onboarding)
	interactive.RegisterWorkflow(workflows.Backfill)
	interactive.RegisterWorkflow(workflows.IncrementalSync)
	for _, activity := range []any{
		acts.TestEndpoint, acts.RunPilot, acts.PurgePilot, acts.BeginRun, acts.FinishRun, acts.GiveUp, acts.RecordStanding,
		acts.EvaluateWindow, acts.EnableSchedule, acts.PauseSchedule, acts.DeleteSchedule,
	} {
		interactive.RegisterActivity(activity)
	}
	bulk := worker.New(temporal, workflows.QueueBulk, worker.Options{
		MaxConcurrentActivityExecutionSize: 4, WorkerStopTimeout: stopTimeout, DisableWorkflowWorker: true,
		MaxHeartbeatThrottleInterval: throttle, DefaultHeartbeatThrottleInterval: throttle,
	})
	bulk.RegisterActivity(acts.PullType)
	return []worker.Worker{interactive, bulk}
}

// serveHealth answers GET /healthz until ctx ends.
func serveHealth(ctx context.Context, addr string, log *slog.Logger) error {
	if addr == "" {
		<-ctx.Done()
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	})
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listening for health checks on CURA_HEALTH_ADDR: %w", err)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	log.InfoContext(ctx, "health checks are answered", "listen", listener.Addr().String())
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err = <-failed:
	case <-ctx.Done():
		err = server.Close()
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// askHealth asks the worker that answers on CURA_HEALTH_ADDR.
func askHealth(ctx context.Context) error {
	cfg, err := config.Read()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+cfg.HealthAddr+"/healthz", http.NoBody)
	if err != nil {
		return fmt.Errorf("CURA_HEALTH_ADDR is no address: %w", err)
	}
	client := &http.Client{}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("the worker doesn't answer on %s", cfg.HealthAddr)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("the worker answers with status %d", resp.StatusCode)
	}
	return nil
}

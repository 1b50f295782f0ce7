// Command worker runs the workflows and activities of Cura EHR Sync. It reads its settings from the environment:
// CURA_* (internal/config) and Temporal's own TEMPORAL_*. On CURA_HEALTH_ADDR it answers GET /healthz and GET /metrics
// (Prometheus). With -health it asks the worker there whether it is well, for a container without a shell.
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
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/audit/seal"
	"github.com/cura-health/ehr-sync/internal/config"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/metrics"
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
	limitMemory(cfg)
	if err := checkAlerts(ctx, cfg, log); err != nil {
		return err
	}
	if cfg.KeyFile == "" {
		return fault.New("opening the key file", fault.Config, "CURA_KEY_FILE is not set").WithFix("Make one with: starter keygen FILE")
	}
	sealer, err := secrets.Open(cfg.KeyFile)
	if err != nil {
		return err
	}
	auditKey, heads, err := openAudit(ctx, cfg, log)
	if err != nil {
		return err
	}
	db, err := store.Open(ctx, cfg.DatabaseURL)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := db.OpenSends(ctx, cfg.SendSlots); err != nil {
		return err
	}
	recorder, err := metrics.New()
	if err != nil {
		return err
	}
	temporal, err := temporalclient.Dial(ctx, log, func(o *client.Options) { o.MetricsHandler = recorder.Temporal() })
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
	acts.Measure(recorder)

	workers := newWorkers(temporal.Client, acts, cfg.BulkSlots)
	for i, w := range workers {
		if err := w.Start(); err != nil {
			for _, started := range workers[:i] {
				started.Stop()
			}
			return fmt.Errorf("starting the worker: %w", err)
		}
	}
	log.InfoContext(ctx, "worker started")
	relaying, stopRelay := context.WithCancel(ctx)
	var relay sync.WaitGroup
	relay.Go(func() { acts.Relay(relaying, startDelivery) })
	if auditKey != nil {
		relay.Go(func() { acts.SealAudit(relaying, auditKey, heads) })
	}
	err = serveHealth(ctx, cfg.HealthAddr, recorder.Handler(), log)
	stopRelay()
	relay.Wait()
	for _, w := range workers {
		w.Stop()
	}
	log.InfoContext(context.WithoutCancel(ctx), "worker stopped")
	return err
}

// limitMemory has garbage collected eagerly before the process outgrows its limit, unless GOMEMLIMIT says how.
func limitMemory(cfg config.Config) {
	if cfg.GoMemoryLimit == "" && cfg.MemoryLimit > 0 {
		debug.SetMemoryLimit(int64(cfg.MemoryLimit))
	}
}

// checkAlerts finds now what would otherwise be found with the first alert.
func checkAlerts(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	secret, err := cfg.AlertSecret()
	if err == nil && secret == nil && cfg.AlertWebhook != "" {
		log.WarnContext(ctx, "alerts go to the webhook unsigned; name a secret with CURA_ALERT_WEBHOOK_SECRET_FILE")
	}
	return err
}

// openAudit opens what seals the audit log; nil where the settings say that it isn't sealed.
func openAudit(ctx context.Context, cfg config.Config, log *slog.Logger) (*seal.Key, *seal.Folder, error) {
	seals, err := cfg.SealsAudit()
	if err != nil {
		return nil, nil, err
	}
	if !seals {
		log.WarnContext(ctx, "the audit log isn't sealed: nobody could prove that it wasn't changed; set CURA_AUDIT_KEY_FILE and CURA_AUDIT_HEADS_DIR")
		return nil, nil, nil
	}
	key, err := seal.OpenKeyFile(cfg.AuditKeyFile)
	if err != nil {
		return nil, nil, err
	}
	heads, err := seal.MakeFolder(cfg.AuditHeadsDir)
	return key, heads, err
}

// newWorkers makes a worker for each task queue: long reads have slots of their own, as many as bulkSlots.
func newWorkers(temporal client.Client, acts *activities.Activities, bulkSlots int) []worker.Worker {
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
	interactive.RegisterWorkflow(workflows.Reconcile)
	interactive.RegisterWorkflow(workflows.Remap)
	interactive.RegisterWorkflow(workflows.Delivery)
	// A person may wait for a sync of single patients, or for a few resources that are decided again: PullType and Retake are here as
	// well.
	for _, activity := range []any{
		acts.PullType, acts.Retake, acts.TestEndpoint, acts.RefreshRoster, acts.RunPilot, acts.PurgePilot, acts.BeginRun, acts.BeginRemap, acts.FinishRun, acts.GiveUp, acts.RecordStanding,
		acts.EvaluateWindow, acts.Deliver, acts.EnableSchedule, acts.PauseSchedule, acts.DeleteSchedule,
	} {
		interactive.RegisterActivity(activity)
	}
	bulk := worker.New(temporal, workflows.QueueBulk, worker.Options{
		MaxConcurrentActivityExecutionSize: bulkSlots, WorkerStopTimeout: stopTimeout, DisableWorkflowWorker: true,
		MaxHeartbeatThrottleInterval: throttle, DefaultHeartbeatThrottleInterval: throttle,
	})
	bulk.RegisterActivity(acts.PullType)
	bulk.RegisterActivity(acts.ReconcileType)
	bulk.RegisterActivity(acts.Retake)
	return []worker.Worker{interactive, bulk}
}

// answers is what the worker says of itself.
func answers(metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	})
	mux.Handle("GET /metrics", metrics)
	return mux
}

// serveHealth answers GET /healthz and GET /metrics until ctx ends.
func serveHealth(ctx context.Context, addr string, metrics http.Handler, log *slog.Logger) error {
	if addr == "" {
		<-ctx.Done()
		return nil
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listening for health checks on CURA_HEALTH_ADDR: %w", err)
	}
	server := &http.Server{Handler: answers(metrics), ReadHeaderTimeout: 5 * time.Second}
	log.InfoContext(ctx, "health checks and metrics are answered", "listen", listener.Addr().String())
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

// Package activities holds the effects that workflows decide on: reading an EHR, writing Cura's database, alerting.
// One file a flow, with the input and result of each activity beside it. What crosses into Temporal holds opaque ids,
// counts and words; never PHI.
package activities

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"golang.org/x/sync/semaphore"

	"github.com/cura-health/ehr-sync/internal/config"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/fhir"
	"github.com/cura-health/ehr-sync/internal/metrics"
	"github.com/cura-health/ehr-sync/internal/profile"
	"github.com/cura-health/ehr-sync/internal/secrets"
	"github.com/cura-health/ehr-sync/internal/store"
)

// Activities holds what the activities share. Its exported methods that take a context are the activities.
type Activities struct {
	store     *store.Store
	sealer    *secrets.Sealer
	cfg       config.Config
	temporal  client.Client
	validator *fhir.Validator
	webhook   *http.Client
	// deliveries, pacing and metrics belong to alert.go, pace.go and internal/metrics.
	deliveries *deliveries
	pacing     pacing
	metrics    *metrics.Recorder
	// sends are the writes under way (relay.go); sendSlots is held for each, since each holds a database session.
	sends     sends
	sendSlots *semaphore.Weighted
	// cpu is held while resources are validated and mapped.
	cpu processors
	log *slog.Logger

	mu      sync.Mutex
	clients map[cura.ConnectionID]openClient
	// parsed belongs to overrides.go.
	parsed map[cura.ConnectionID]parsedOverrides
}

// openClient is an EHR client with the version of the settings that it was opened with. It is kept between activities
// so that its token and its connections are.
type openClient struct {
	client  *ehr.Client
	profile *profile.Profile
	pace    *pacer
	version string
}

// New makes the activities.
func New(s *store.Store, sealer *secrets.Sealer, cfg config.Config, temporal client.Client, log *slog.Logger) (*Activities, error) {
	validator, err := fhir.NewValidator()
	if err != nil {
		return nil, err
	}
	return &Activities{
		store: s, sealer: sealer, cfg: cfg, temporal: temporal, validator: validator, log: log,
		webhook:    &http.Client{Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		deliveries: newDeliveries(),
		sendSlots:  semaphore.NewWeighted(int64(cfg.SendSlots)),
		cpu:        newProcessors(),
		clients:    map[cura.ConnectionID]openClient{},
		parsed:     map[cura.ConnectionID]parsedOverrides{},
	}, nil
}

// Measure has what the activities do counted. Call it before they run.
func (a *Activities) Measure(r *metrics.Recorder) { a.metrics = r }

// Close waits for alerts that are being delivered and closes the EHR clients.
func (a *Activities) Close() {
	a.deliveries.close()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.clients {
		c.client.Close()
	}
	a.clients = map[cura.ConnectionID]openClient{}
}

// Target names a connection of an org: the input of most activities.
type Target struct {
	Org        cura.OrgID        `json:"org"`
	Connection cura.ConnectionID `json:"connection"`
}

// beat is how often a long activity says that it is alive.
const beat = 2 * time.Second

// heartbeat keeps a long activity alive and its cancellation quick while fn runs. What it tells is for the Web UI.
func heartbeat(ctx context.Context, details func() any) (stop func()) {
	done := make(chan struct{})
	var once sync.Once
	go func() {
		ticker := time.NewTicker(beat)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ctx.Done():
				return
			case <-ticker.C:
				activity.RecordHeartbeat(ctx, details())
			}
		}
	}()
	return func() { once.Do(func() { close(done) }) }
}

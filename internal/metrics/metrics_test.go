package metrics_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/metrics"
)

// scrape is what Prometheus gets.
func scrape(t *testing.T, r *metrics.Recorder) string {
	t.Helper()
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody))
	require.Equal(t, http.StatusOK, w.Code)
	return w.Body.String()
}

func TestMetricsAreServedForPrometheus(t *testing.T) {
	t.Parallel()
	r, err := metrics.New()
	require.NoError(t, err)
	ctx := t.Context()
	r.Resources(ctx, cura.Observation, cura.Counts{Served: 7, Stored: 3, Unchanged: 4})
	for _, status := range []int{200, 204, 404, 429, 503, 0, 999} {
		r.Request(ctx, status)
	}
	r.Took(ctx, "search", 20*time.Millisecond)
	r.Throttled(ctx, "0d9c1c3e-0000-4000-8000-000000000001")
	r.Alert(ctx, "failing", "raised")
	r.WebhookFailed(ctx)
	r.Temporal().WithTags(map[string]string{"task_queue": "cura-bulk"}).Counter("temporal_request").Inc(2)
	r.Temporal().Timer("temporal_request_latency").Record(40 * time.Millisecond)

	text := scrape(t, r)
	for _, line := range []string{
		`cura_resources_total{outcome="stored",type="Observation"} 3`,
		`cura_resources_total{outcome="unchanged",type="Observation"} 4`,
		`cura_requests_total{status="2xx"} 2`,
		`cura_requests_total{status="4xx"} 1`,
		`cura_requests_total{status="429"} 1`,
		`cura_requests_total{status="5xx"} 1`,
		`cura_requests_total{status="none"} 2`,
		`cura_request_seconds_bucket{kind="search",le="0.025"} 1`,
		`cura_throttles_total{connection_id="0d9c1c3e-0000-4000-8000-000000000001"} 1`,
		`cura_alerts_total{about="failing",event="raised"} 1`,
		`cura_webhook_failures_total 1`,
		`temporal_request_total{task_queue="cura-bulk"} 2`,
		`temporal_request_latency_seconds_bucket{le="0.05"} 1`,
	} {
		require.Contains(t, text, line+"\n")
	}
	require.Contains(t, text, "process_resident_memory_bytes")
	require.NotContains(t, text, `outcome="withheld"`, "what never happened takes no room")
}

func TestRecordersAreApart(t *testing.T) {
	t.Parallel()
	one, err := metrics.New()
	require.NoError(t, err)
	other, err := metrics.New()
	require.NoError(t, err)
	one.WebhookFailed(t.Context())
	require.NotContains(t, scrape(t, other), "cura_webhook_failures_total")
}

func TestNoRecorderCountsNothing(t *testing.T) {
	t.Parallel()
	var r *metrics.Recorder
	r.Resources(t.Context(), cura.Patient, cura.Counts{Stored: 1})
	r.Request(t.Context(), 200)
	r.Took(t.Context(), "search", time.Second)
	r.Throttled(t.Context(), "c")
	r.Alert(t.Context(), "failing", "raised")
	r.WebhookFailed(t.Context())
}

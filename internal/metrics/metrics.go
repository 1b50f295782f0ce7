// Package metrics counts what the worker does, for Prometheus. Labels come from closed lists and opaque connection ids:
// no name of an org, nothing of a patient.
package metrics

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.temporal.io/sdk/client"

	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	temporalotel "go.temporal.io/sdk/contrib/opentelemetry"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// Recorder counts. A nil Recorder counts nothing, so that tests and commands need none.
type Recorder struct {
	meters   *sdkmetric.MeterProvider
	registry *prometheus.Registry

	resources metric.Int64Counter
	requests  metric.Int64Counter
	throttles metric.Int64Counter
	alerts    metric.Int64Counter
	webhooks  metric.Int64Counter
	seconds   metric.Float64Histogram
}

// New makes a recorder of its own; nothing is shared through the process.
func New() (*Recorder, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry), otelprometheus.WithoutScopeInfo(), otelprometheus.WithoutTargetInfo())
	if err != nil {
		return nil, fmt.Errorf("making the metrics exporter: %w", err)
	}
	// The SDK's own buckets are for milliseconds.
	buckets := sdkmetric.AggregationExplicitBucketHistogram{Boundaries: []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300}}
	r := &Recorder{registry: registry, meters: sdkmetric.NewMeterProvider(
		sdkmetric.WithReader(exporter),
		sdkmetric.WithView(sdkmetric.NewView(sdkmetric.Instrument{Kind: sdkmetric.InstrumentKindHistogram, Unit: "s"}, sdkmetric.Stream{Aggregation: buckets})),
	)}
	// The exporter appends _total to counters, and the unit.
	meter := r.meters.Meter("cura")
	for _, c := range []struct {
		counter           *metric.Int64Counter
		name, description string
	}{
		{&r.resources, "cura_resources", "Resources that EHRs served, by type and what became of them."},
		{&r.requests, "cura_requests", "Requests to EHRs, their token endpoints included, by the class of the answer."},
		{&r.throttles, "cura_throttles", "Answers of EHRs that asked to slow down."},
		{&r.alerts, "cura_alerts", "Alerts, by what they are about and whether they were raised or cleared."},
		{&r.webhooks, "cura_webhook_failures", "Alerts that the webhook didn't take."},
	} {
		if *c.counter, err = meter.Int64Counter(c.name, metric.WithDescription(c.description)); err != nil {
			return nil, fmt.Errorf("making the metric %s: %w", c.name, err)
		}
	}
	r.seconds, err = meter.Float64Histogram("cura_request", metric.WithUnit("s"), metric.WithDescription("How long EHRs took to answer."))
	if err != nil {
		return nil, fmt.Errorf("making the metric cura_request: %w", err)
	}
	return r, nil
}

// Handler serves the metrics in the Prometheus text format: ours, Temporal's, and those of the process.
func (r *Recorder) Handler() http.Handler {
	return promhttp.HandlerFor(r.registry, promhttp.HandlerOpts{})
}

// Temporal takes the metrics of Temporal's SDK.
func (r *Recorder) Temporal() client.MetricsHandler {
	return temporalotel.NewMetricsHandler(temporalotel.MetricsHandlerOptions{
		Meter: r.meters.Meter("temporal"), UseMonotonicCounters: true,
		OnError: func(error) {}, // a metric that can't be made is missing, which is no reason to stop
	})
}

// Resources counts what became of the resources of a page.
func (r *Recorder) Resources(ctx context.Context, t cura.ResourceType, c cura.Counts) {
	if r == nil {
		return
	}
	for _, o := range []struct {
		outcome string
		n       int
	}{
		{"stored", c.Stored}, {"unchanged", c.Unchanged}, {"quarantined", c.Quarantined}, {"in_review", c.InReview}, {"withheld", c.Withheld},
	} {
		if o.n > 0 {
			r.resources.Add(ctx, int64(o.n), metric.WithAttributes(attribute.String("type", string(t)), attribute.String("outcome", o.outcome)))
		}
	}
}

// Request counts an answer by its HTTP status; 0: there was none. Its label is the class, such as 2xx, and 429 by itself.
func (r *Recorder) Request(ctx context.Context, status int) {
	if r == nil {
		return
	}
	r.requests.Add(ctx, 1, metric.WithAttributes(attribute.String("status", class(status))))
}

func class(status int) string {
	switch {
	case status < 100 || status > 599:
		return "none"
	case status == http.StatusTooManyRequests:
		return "429"
	}
	return strconv.Itoa(status/100) + "xx"
}

// Took records how long an EHR took for something, such as a search: what is a word of ours.
func (r *Recorder) Took(ctx context.Context, what string, d time.Duration) {
	if r == nil {
		return
	}
	r.seconds.Record(ctx, d.Seconds(), metric.WithAttributes(attribute.String("kind", what)))
}

// Throttled counts an answer that asked to slow down.
func (r *Recorder) Throttled(ctx context.Context, id cura.ConnectionID) {
	if r == nil {
		return
	}
	r.throttles.Add(ctx, 1, metric.WithAttributes(attribute.String("connection_id", string(id))))
}

// Alert counts an alert by what it is about and its event: words of ours.
func (r *Recorder) Alert(ctx context.Context, about, event string) {
	if r == nil {
		return
	}
	r.alerts.Add(ctx, 1, metric.WithAttributes(attribute.String("about", about), attribute.String("event", event)))
}

// WebhookFailed counts an alert that the webhook didn't take.
func (r *Recorder) WebhookFailed(ctx context.Context) {
	if r == nil {
		return
	}
	r.webhooks.Add(ctx, 1)
}

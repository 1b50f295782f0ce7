package stack_test

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/cura-health/ehr-sync/internal/stack"
)

func startTemporal(t *testing.T, cfg stack.TemporalConfig) *stack.Temporal {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	server, err := stack.StartTemporal(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Stop()) })
	return server
}

func dial(t *testing.T, server *stack.Temporal) client.Client {
	t.Helper()
	c, err := client.DialContext(t.Context(), client.Options{
		HostPort:  server.Address(),
		Namespace: server.Namespace(),
		Logger:    log.NewStructuredLogger(slog.New(slog.DiscardHandler)),
	})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func greet(workflow.Context) (string, error) { return "hello", nil }

func TestTemporalKeepsItsRunsOverAStop(t *testing.T) {
	t.Parallel()
	cfg := stack.TemporalConfig{
		Dir:              t.TempDir(),
		Namespace:        "cura",
		SearchAttributes: map[string]string{"CuraOrg": "Keyword", "CuraPhase": "Keyword"},
	}
	server := startTemporal(t, cfg)
	c := dial(t, server)
	w := worker.New(c, "greetings", worker.Options{})
	w.RegisterWorkflow(greet)
	require.NoError(t, w.Start())

	run, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
		ID:                    "greet/1",
		TaskQueue:             "greetings",
		TypedSearchAttributes: temporal.NewSearchAttributes(temporal.NewSearchAttributeKeyKeyword("CuraOrg").ValueSet("org-1")),
	}, greet)
	require.NoError(t, err)
	var said string
	require.NoError(t, run.Get(t.Context(), &said))
	require.Equal(t, "hello", said)
	w.Stop()
	require.NoError(t, server.Stop())

	// The same attributes and the same namespace are asked for again: that is no error.
	server = startTemporal(t, cfg)
	require.NoError(t, dial(t, server).GetWorkflow(t.Context(), "greet/1", "").Get(t.Context(), &said))
}

func TestTemporalWebUI(t *testing.T) {
	t.Parallel()
	server := startTemporal(t, stack.TemporalConfig{InMemory: true})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.UIURL(), http.NoBody)
	require.NoError(t, err)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(request)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusOK, response.StatusCode)
}

func TestTemporalRefusesASecondRunOnItsFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	startTemporal(t, stack.TemporalConfig{Dir: dir})
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // don't wait for the first to end
	_, err := stack.StartTemporal(ctx, stack.TemporalConfig{Dir: dir})
	require.ErrorContains(t, err, "in use by another run: stop that one first")
}

func TestTemporalReplacesTakenPorts(t *testing.T) {
	t.Parallel()
	first := startTemporal(t, stack.TemporalConfig{InMemory: true})
	port, uiPort := first.Ports()
	second := startTemporal(t, stack.TemporalConfig{InMemory: true, Port: port, UIPort: uiPort})
	require.NotEqual(t, first.Address(), second.Address())
	require.NotEqual(t, first.UIURL(), second.UIURL())
}

func TestTemporalThatCannotStart(t *testing.T) {
	t.Parallel()
	_, err := stack.StartTemporal(t.Context(), stack.TemporalConfig{Binary: "/bin/false", Dir: t.TempDir(), InMemory: true})
	require.ErrorContains(t, err, "Temporal ended unexpectedly: exit status 1")
}

// `make tools` builds what tools/temporal/go.mod says, under a file name that FindTemporal knows.
func TestTemporalVersionIsTheOneThatIsBuilt(t *testing.T) {
	t.Parallel()
	mod, err := os.ReadFile("../../tools/temporal/go.mod")
	require.NoError(t, err)
	m := regexp.MustCompile(`github\.com/temporalio/cli (v\S+)`).FindSubmatch(mod)
	require.NotNil(t, m)
	require.Equal(t, stack.TemporalVersion, string(m[1]))
}

func TestFindTemporal(t *testing.T) {
	t.Run("the variable comes first", func(t *testing.T) {
		t.Setenv("CURA_TEMPORAL_BIN", "/bin/true")
		path, err := stack.FindTemporal()
		require.NoError(t, err)
		require.Equal(t, "/bin/true", path)
	})
	t.Run("a variable that names nothing is told", func(t *testing.T) {
		t.Setenv("CURA_TEMPORAL_BIN", "/nowhere/temporal")
		_, err := stack.FindTemporal()
		require.ErrorContains(t, err, "CURA_TEMPORAL_BIN")
	})
	t.Run("nothing to be found says what to do", func(t *testing.T) {
		t.Setenv("CURA_TEMPORAL_BIN", "")
		t.Setenv("XDG_CACHE_HOME", t.TempDir())
		t.Setenv("HOME", t.TempDir())
		t.Setenv("PATH", t.TempDir())
		_, err := stack.FindTemporal()
		require.ErrorContains(t, err, "run make tools")
	})
}

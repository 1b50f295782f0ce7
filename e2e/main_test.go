// Package e2e runs the programs as their users do: the built starter and worker, a real PostgreSQL, a real Temporal
// server and the sandbox EHR over TLS.
package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cura-health/ehr-sync/internal/sandbox"
	"github.com/cura-health/ehr-sync/internal/secrets"
	"github.com/cura-health/ehr-sync/internal/stack"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// What all tests share: programs, cluster and server. Each test has its own database, namespace and EHR.
var (
	programs string
	cluster  *storetest.Cluster
	temporal *stack.Temporal
	// temporalDir holds the server's database, which the PHI test searches.
	temporalDir string
)

func TestMain(m *testing.M) {
	os.Exit(storetest.Main(m, func(c *storetest.Cluster) { cluster = c }, shared))
}

// shared builds the programs, the worker with its failpoints, and starts the Temporal server.
func shared(ctx context.Context, dir string) (stop func() error, err error) {
	programs, temporalDir = filepath.Join(dir, "bin"), filepath.Join(dir, "temporal")
	for _, program := range []string{"../starter", "../worker", "./compare", "./arrivals", "./revoker"} {
		build := exec.CommandContext(ctx, "go", "build", "-tags", "failpoints", "-o", programs+string(os.PathSeparator), program)
		if out, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("building %s: %w\n%s", program, err, out)
		}
	}
	temporal, err = stack.StartTemporal(ctx, stack.TemporalConfig{Dir: temporalDir, Log: filepath.Join(dir, "temporal.log")})
	if err != nil {
		return nil, err
	}
	return temporal.Stop, nil
}

// rig is one test's hospital and everything around it.
type rig struct {
	t         testing.TB
	db        *storetest.DB
	ehr       *sandbox.Server
	temporal  client.Client
	dir       string
	namespace string
	env       []string
}

// newRig makes an org `hospital` with a connection `main` to a sandbox EHR of its own.
func newRig(tb testing.TB, cfg sandbox.Config, settings ...string) *rig {
	tb.Helper()
	r := newOrg(tb, cfg, settings...)
	r.connect(r.ehr.BaseURL())
	return r
}

// connect adds the connection `main`.
func (r *rig) connect(baseURL string, flags ...string) {
	r.t.Helper()
	r.ok(append([]string{
		"connection", "add", "--org", "hospital", "--name", "main", "--base-url", baseURL, "--client-id", r.ehr.ClientID(),
		"--secret-file", filepath.Join(r.dir, "secret"), "--ca-file", filepath.Join(r.dir, "ca.pem"), "--match", "mrn:" + r.ehr.MRNSystem(),
	}, flags...)...)
}

// newOrg makes an org `hospital` and a sandbox EHR, and no connection yet.
func newOrg(tb testing.TB, cfg sandbox.Config, settings ...string) *rig {
	tb.Helper()
	ctx := tb.Context()
	r := &rig{t: tb, db: cluster.New(tb), dir: tb.TempDir(), namespace: "test-" + uuid.NewString()}
	var err error
	r.ehr, err = sandbox.Start(ctx, cfg)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, r.ehr.Close()) })

	admin, err := client.DialContext(ctx, client.Options{HostPort: temporal.Address()})
	require.NoError(tb, err)
	defer admin.Close()
	_, err = admin.WorkflowService().RegisterNamespace(ctx, &workflowservice.RegisterNamespaceRequest{
		Namespace: r.namespace, WorkflowExecutionRetentionPeriod: durationpb.New(24 * time.Hour),
	})
	require.NoError(tb, err)
	r.temporal, err = client.NewLazyClient(client.Options{HostPort: temporal.Address(), Namespace: r.namespace})
	require.NoError(tb, err)
	tb.Cleanup(r.temporal.Close)

	keyFile := filepath.Join(r.dir, "key.json")
	require.NoError(tb, secrets.GenerateKeyFile(keyFile))
	r.write("ca.pem", string(r.ehr.CAPEM()))
	r.write("secret", r.ehr.ClientSecret())
	r.env = append(os.Environ(),
		"CURA_DATABASE_URL="+r.db.URL, "CURA_KEY_FILE="+keyFile, "TEMPORAL_ADDRESS="+temporal.Address(), "TEMPORAL_NAMESPACE="+r.namespace,
		"CURA_RETRY_INITIAL=10ms", "CURA_RETRY_MAX=50ms", "CURA_RETRY_ATTEMPTS=3", "CURA_PROBE_INITIAL=10ms", "CURA_PROBE_MAX=50ms", "CURA_AS=tester", "CURA_PAGE_SIZE=20")
	r.env = append(r.env, settings...)

	r.ok("org", "add", "hospital")
	return r
}

func (r *rig) write(name, text string) string {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	require.NoError(r.t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// starter types a command and gives what it prints and its exit code.
func (r *rig) starter(args ...string) (stdout, stderr string, code int) {
	r.t.Helper()
	cmd := exec.CommandContext(r.t.Context(), filepath.Join(programs, "starter"), args...)
	cmd.Env, cmd.Dir = r.env, r.dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(r.t, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// ok types a command that must succeed.
func (r *rig) ok(args ...string) string {
	r.t.Helper()
	out, errs, code := r.starter(args...)
	require.Zero(r.t, code, "starter %v\n%s%s", args, out, errs)
	return out
}

// worker starts a worker; with a failpoint "place:n" it kills itself there.
func (r *rig) worker(failpoint string) (process *stack.Process, reached string) {
	r.t.Helper()
	reached = filepath.Join(r.dir, "reached-"+uuid.NewString())
	process, err := stack.StartProcess(r.t.Context(), stack.ProcessConfig{
		Name: "worker", Path: filepath.Join(programs, "worker"), Log: filepath.Join(r.dir, "worker.log"), Dir: r.dir,
		Env: append(append([]string{}, r.env...), "CURA_FAILPOINT="+failpoint, "CURA_FAILPOINT_REACHED="+reached),
	})
	require.NoError(r.t, err)
	r.t.Cleanup(func() {
		if err := process.Stop(); err != nil {
			r.t.Error("stopping the worker:", err)
		}
	})
	return process, reached
}

// onboard runs an onboarding with a short window and follows it; it gives the exit code of --watch.
func (r *rig) onboard(args ...string) (out string, code int) {
	r.t.Helper()
	stdout, stderr, code := r.starter(append([]string{"onboard", "main", "--monitor", "10s", "--interval", "2s", "--watch"}, args...)...)
	return stdout + stderr, code
}

// count counts rows, past row level security.
func (r *rig) count(sql string, args ...any) int {
	r.t.Helper()
	return int(storetest.Query[int64](r.t, r.db, "SELECT count(*) FROM "+sql, args...)[0])
}

// schedule is the id of the connection's schedule.
func (r *rig) schedule() string {
	r.t.Helper()
	ids := storetest.Query[string](r.t, r.db, "SELECT connection_id::text FROM directory.connections JOIN directory.orgs o USING (org_id) WHERE o.kind = 'live'")
	require.Len(r.t, ids, 1)
	return "sync/" + ids[0]
}

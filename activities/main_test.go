package activities_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/testsuite"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/config"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/profile"
	"github.com/cura-health/ehr-sync/internal/sandbox"
	"github.com/cura-health/ehr-sync/internal/secrets"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// cluster is the PostgreSQL of this package's tests.
var cluster *storetest.Cluster

func TestMain(m *testing.M) {
	os.Exit(storetest.Main(m, func(c *storetest.Cluster) { cluster = c }))
}

// hospital is an org with a connection to a sandbox EHR, and the activities on it, run without a Temporal server.
type hospital struct {
	db      *storetest.DB
	ehr     *sandbox.Server
	target  activities.Target
	shadow  activities.Target
	a       *activities.Activities
	env     *testsuite.TestActivityEnvironment
	sealer  *secrets.Sealer
	baseURL string
}

// options are what a test changes of a hospital.
type options struct {
	sandbox sandbox.Config
	types   []cura.ResourceType
	config  func(*config.Config)
	match   string
	profile string
	params  map[string]string
	// strategy, where it isn't empty, is the operator's for all types.
	strategy cura.Strategy
	// roster puts every patient of the sandbox on the roster.
	roster bool
}

func newHospital(t *testing.T, o options) *hospital {
	t.Helper()
	ctx := t.Context()
	h := &hospital{db: cluster.New(t)}
	if o.sandbox.Patients == 0 {
		o.sandbox.Patients = 12
	}
	o.sandbox.StateDir = t.TempDir()
	ehr, err := sandbox.Start(ctx, o.sandbox)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ehr.Close()) })
	h.ehr, h.baseURL = ehr, ehr.BaseURL()

	keyFile := filepath.Join(t.TempDir(), "key.json")
	require.NoError(t, secrets.GenerateKeyFile(keyFile))
	sealer, err := secrets.Open(keyFile)
	require.NoError(t, err)
	org, err := h.db.AddOrg(ctx, "hospital", "test")
	require.NoError(t, err)
	sandboxOrg, err := h.db.SandboxOf(ctx, org.ID)
	require.NoError(t, err)

	types := o.types
	if types == nil {
		types = cura.ResourceTypes()
	}
	match := o.match
	if match == "" {
		match = "mrn:" + ehr.MRNSystem()
	}
	strategy, err := cura.ParseMatchStrategy(match)
	require.NoError(t, err)
	c := cura.Connection{
		ID: cura.ConnectionID(uuid.NewString()), Name: "main", BaseURL: ehr.BaseURL(), ClientID: ehr.ClientID(), CAPEM: string(ehr.CAPEM()),
		Match: strategy, EHRProfile: cmp.Or(o.profile, "generic"), ProfileParams: o.params, Types: types, Strategies: map[cura.ResourceType]cura.Strategy{},
		RosterSource: cura.RosterList,
	}
	if o.strategy != "" {
		for _, typ := range types {
			c.Strategies[typ] = o.strategy
		}
	}
	vendor, err := profile.Builtin(c.EHRProfile)
	require.NoError(t, err)
	c.Scopes = vendor.ScopesFor(types)
	sealed, err := sealer.Seal(org.ID, c.ID, secrets.ClientSecret, ehr.ClientSecret())
	require.NoError(t, err)
	require.NoError(t, h.db.InOrg(ctx, org.ID, func(tx *store.Tx) error {
		if err := tx.AddConnection(ctx, c, "", "test"); err != nil {
			return err
		}
		return tx.PutCredential(ctx, c.ID, string(secrets.ClientSecret), sealed, "test")
	}))
	h.target = activities.Target{Org: org.ID, Connection: c.ID}
	h.shadow = activities.Target{Org: sandboxOrg, Connection: cura.ConnectionID(uuid.NewString())}
	c.ID, c.ClientID = h.shadow.Connection, "none"
	require.NoError(t, h.db.InOrg(ctx, sandboxOrg, func(tx *store.Tx) error { return tx.AddConnection(ctx, c, h.target.Connection, "test") }))

	cfg, err := config.Read()
	require.NoError(t, err)
	cfg.PageSize = 7
	cfg.RetryAttempts, cfg.RetryInitial, cfg.RetryMax = 3, time.Millisecond, 2*time.Millisecond
	cfg.ProbeInitial, cfg.ProbeMax = time.Millisecond, 5*time.Millisecond
	if o.config != nil {
		o.config(&cfg)
	}
	h.a, err = activities.New(h.db.Store, sealer, cfg, nil, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(h.a.Close)
	h.sealer = sealer
	h.env = h.environment()
	if o.roster {
		h.follow(t, h.patients(t)...)
	}
	return h
}

// source is what the EHR has, as it serves it: the raw resources by type and id.
func (h *hospital) source(t *testing.T) map[string]map[string]json.RawMessage {
	t.Helper()
	var text bytes.Buffer
	require.NoError(t, h.ehr.Source(&text))
	all := map[string]map[string]json.RawMessage{}
	for line := range bytes.Lines(text.Bytes()) {
		var head struct {
			ResourceType string `json:"resourceType"`
			ID           string `json:"id"`
		}
		require.NoError(t, json.Unmarshal(line, &head))
		if all[head.ResourceType] == nil {
			all[head.ResourceType] = map[string]json.RawMessage{}
		}
		all[head.ResourceType][head.ID] = line
	}
	return all
}

// patients are the EHR's ids of all its patients.
func (h *hospital) patients(t *testing.T) []string {
	t.Helper()
	return slices.Sorted(maps.Keys(h.source(t)["Patient"]))
}

// follow puts patients on the roster, and gives their members' ids in the same order.
func (h *hospital) follow(t *testing.T, ids ...string) []string {
	t.Helper()
	members := make([]string, len(ids))
	require.NoError(t, h.db.InOrg(t.Context(), h.target.Org, func(tx *store.Tx) error {
		if _, _, err := tx.AddMembers(t.Context(), h.target.Connection, cura.RosterList, ids, "test"); err != nil {
			return err
		}
		found, err := tx.MembersByEHRID(t.Context(), h.target.Connection, ids)
		for i, id := range ids {
			members[i] = found[id].ID
		}
		return err
	}))
	return members
}

// environment runs activities; one environment runs one at a time.
func (h *hospital) environment() *testsuite.TestActivityEnvironment {
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.SetTestTimeout(2 * time.Minute)
	for _, activity := range []any{
		h.a.TestEndpoint, h.a.RunPilot, h.a.PurgePilot, h.a.BeginRun, h.a.FinishRun, h.a.GiveUp, h.a.RecordStanding, h.a.EvaluateWindow, h.a.PullType, h.a.ReconcileType, h.a.RefreshRoster, h.a.BeginRemap, h.a.Retake,
	} {
		env.RegisterActivity(activity)
	}
	return env
}

// twin makes a second connection of the same org to the same EHR.
func (h *hospital) twin(t *testing.T) activities.Target {
	t.Helper()
	c := h.connection(t).Connection
	c.ID, c.Name = cura.ConnectionID(uuid.NewString()), "twin"
	sealed, err := h.sealer.Seal(h.target.Org, c.ID, secrets.ClientSecret, h.ehr.ClientSecret())
	require.NoError(t, err)
	require.NoError(t, h.db.InOrg(t.Context(), h.target.Org, func(tx *store.Tx) error {
		if err := tx.AddConnection(t.Context(), c, "", "test"); err != nil {
			return err
		}
		return tx.PutCredential(t.Context(), c.ID, string(secrets.ClientSecret), sealed, "test")
	}))
	return activities.Target{Org: h.target.Org, Connection: c.ID}
}

// run executes an activity and gives its result.
func run[T any](t *testing.T, h *hospital, activity, in any) (T, error) {
	t.Helper()
	var result T
	value, err := h.env.ExecuteActivity(activity, in)
	if err == nil && value.HasValue() {
		require.NoError(t, value.Get(&result))
	}
	return result, err
}

// begin opens a run.
func (h *hospital) begin(t *testing.T, kind cura.RunKind) string {
	t.Helper()
	return h.beginFor(t, h.target, kind)
}

func (h *hospital) beginFor(t *testing.T, target activities.Target, kind cura.RunKind) string {
	t.Helper()
	id := uuid.NewString()
	_, err := run[activities.BeginResult](t, h, h.a.BeginRun, activities.BeginInput{Target: target, Run: id, Kind: kind, WorkflowID: "test"})
	require.NoError(t, err)
	return id
}

// pull reads a type to its end, as the workflow would, and gives the sum.
func (h *hospital) pull(t *testing.T, in activities.PullInput) (cura.Counts, error) {
	t.Helper()
	in.Target = h.target
	var sum cura.Counts
	for range 200 {
		result, err := run[activities.PullResult](t, h, h.a.PullType, in)
		sum = sum.Plus(result.Counts)
		if err != nil || result.Done {
			return sum, err
		}
	}
	require.Fail(t, "the pass never ends")
	return sum, nil
}

// pullAll reads everything as one run.
func (h *hospital) pullAll(t *testing.T, kind cura.RunKind) map[cura.ResourceType]cura.Counts {
	t.Helper()
	id := h.begin(t, kind)
	all := map[cura.ResourceType]cura.Counts{}
	for _, typ := range cura.ResourceTypes() {
		counts, err := h.pull(t, activities.PullInput{Run: id, Type: typ, Full: kind == cura.RunBackfill})
		require.NoError(t, err, typ)
		all[typ] = counts
	}
	return all
}

// stored counts what is really in a table, past row level security.
func (h *hospital) stored(t *testing.T, sql string, args ...any) int64 {
	t.Helper()
	return storetest.Query[int64](t, h.db, sql, args...)[0]
}

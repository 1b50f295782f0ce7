package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/sandbox"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// vendor is an EHR that is to be read without loss.
type vendor struct {
	profile string
	flags   []string
	// roster says that it is read patient by patient.
	roster bool
	// idsOnly says that it lists ids alone (_elements), so that a poisoned page can be read one by one.
	idsOnly bool
	// cursors says that its page links have no depth at which they could end.
	cursors bool
}

func vendors() []vendor {
	return []vendor{
		{profile: "generic", idsOnly: true},
		{profile: "hapi", idsOnly: true},
		{profile: "medplum", idsOnly: true, cursors: true},
		{profile: "oracle", roster: true, idsOnly: true},
		{profile: "epic", roster: true},
		{profile: "athena", roster: true, flags: []string{"--profile-param", "practice=Organization/a-1.Practice-1"}},
	}
}

// scenario is what goes wrong while a hospital is read.
type scenario struct {
	name   string
	faults sandbox.Faults
	// kill is the failpoint at which the first worker kills itself; patients, where the type is read patient by patient.
	kill, killByPatient string
	// cut has the network broken once while the backfill runs.
	cut bool
	// poison is the share of patients of whom one Observation can't be given.
	poison bool
}

func scenarios() []scenario {
	all := []scenario{
		{
			name: "faults on and killed", kill: "pull/page-committed:3", killByPatient: "pull/patient-finished:5",
			faults: sandbox.Faults{
				ErrorRate: 0.03, DuplicateRows: true, RelativeNext: true, EmptyPage: true, PageExpiresAfterUses: 2, TokenDiesAfterRequests: 9,
				Throttle: sandbox.Throttle{EveryN: 40, RetryAfterRaw: "1"},
			},
		},
		{name: "poisoned, and the network cut", poison: true, cut: true, kill: "pull/poison-passed:1", killByPatient: "pull/poison-passed:1"},
	}
	if os.Getenv("CURA_SOAK") == "" {
		return all
	}
	all = append(all,
		scenario{name: "skipped rows", faults: sandbox.Faults{SkipRows: true}},
		scenario{name: "late commits", faults: sandbox.Faults{LateCommitSeconds: 2}},
		scenario{name: "a clock some minutes behind", faults: sandbox.Faults{ClockSkewSeconds: -200}},
		scenario{name: "a clock some minutes ahead", faults: sandbox.Faults{ClockSkewSeconds: 200}},
		scenario{name: "expired cursors", faults: sandbox.Faults{PageExpiresAfterUses: 1, PageExpiresAfterSeconds: 1}},
		scenario{name: "links that end at a depth", faults: sandbox.Faults{PageDepth: 60}, kill: "pull/window-narrowed:2"},
		scenario{name: "absurd Retry-After", faults: sandbox.Faults{Throttle: sandbox.Throttle{EveryN: 40, RetryAfterRaw: "-5"}}},
		scenario{name: "throttled at the token endpoint too", faults: sandbox.Faults{Throttle: sandbox.Throttle{EveryN: 5, RetryAfterRaw: "1", Token: true}}},
		scenario{name: "an unreliable line", cut: true},
	)
	for n := 1; n <= 25; n += 4 {
		all = append(all, scenario{
			name: fmt.Sprintf("killed at %d", n), kill: fmt.Sprintf("pull/page-fetched:%d", n), killByPatient: fmt.Sprintf("pull/patient-finished:%d", 3*n),
		})
	}
	return all
}

// TestEveryVendorIsReadWithoutLoss runs every profile through the scenarios, from the first read to a comparison of the
// tables with the source, made by a program that shares no code with the pull.
func TestEveryVendorIsReadWithoutLoss(t *testing.T) {
	t.Parallel()
	for _, v := range vendors() {
		for _, s := range scenarios() {
			t.Run(v.profile+"/"+s.name, func(t *testing.T) {
				t.Parallel()
				h := newVendorRig(t, v, s)
				h.backfill(s)
				h.change()
				h.catchUp()
				h.requireSame()
				if v.profile == "epic" {
					h.saveHistories("-by-patient")
				}
			})
		}
	}
}

// verdict is how one type compares, as compare and starter reconcile print it.
type verdict struct {
	Source   int      `json:"source"`
	Cura     int      `json:"cura"`
	Missing  int      `json:"missing"`
	Extra    int      `json:"extra"`
	Changed  int      `json:"changed"`
	Doubled  int      `json:"doubled"`
	Untied   int      `json:"untied"`
	Examples []string `json:"examples"`
}

// vendorRig is a hospital with a vendor's EHR behind a proxy.
type vendorRig struct {
	*rig

	vendor vendor
	proxy  *toxiproxy.Proxy
	// poisoned are the resources that the EHR can't give: Type/id.
	poisoned []string
	// changed is how many resources the EHR has once all of change is seen.
	changed int
}

func newVendorRig(t *testing.T, v vendor, s scenario) *vendorRig {
	t.Helper()
	cfg := sandbox.Config{Patients: 14, Vendor: v.profile}
	if v.profile == "generic" {
		cfg.Vendor = ""
	}
	h := &vendorRig{vendor: v, rig: newOrg(t, cfg, "CURA_PAGE_SIZE=10", "CURA_OVERLAP=10m", "CURA_RETRY_ATTEMPTS=12", "CURA_PROBE_INITIAL=20ms", "CURA_PROBE_MAX=100ms")}
	if s.poison && v.idsOnly {
		observations := slices.Sorted(maps.Keys(h.source()["Observation"]))
		for i := 3; i < len(observations); i += len(observations) / 3 {
			h.poisoned = append(h.poisoned, "Observation/"+observations[i])
		}
	}
	faults := s.faults
	faults.Poison = h.poisoned
	require.NoError(t, h.ehr.SetFaults(faults))
	h.connect(h.through(t), append([]string{"--profile", v.profile}, v.flags...)...)
	if v.roster {
		h.ok("roster", "upload", "main", h.write("roster", strings.Join(slices.Sorted(maps.Keys(h.source()["Patient"])), "\n")+"\n"))
	}
	return h
}

// through puts a proxy between the worker and the EHR, and gives the base URL that leads through it.
func (h *vendorRig) through(t *testing.T) string {
	t.Helper()
	base, err := url.Parse(h.ehr.BaseURL())
	require.NoError(t, err)
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	h.proxy = toxiproxy.NewProxy(server, "ehr", "127.0.0.1:0", base.Host)
	require.NoError(t, h.proxy.Start())
	t.Cleanup(h.proxy.Stop)
	base.Host = h.proxy.Listen
	return base.String()
}

// source is what the EHR has, by type and id.
func (h *vendorRig) source() map[string]map[string]json.RawMessage {
	h.t.Helper()
	var text strings.Builder
	require.NoError(h.t, h.ehr.Source(&text))
	all := map[string]map[string]json.RawMessage{}
	for line := range strings.Lines(text.String()) {
		var head struct {
			ResourceType string `json:"resourceType"`
			ID           string `json:"id"`
		}
		require.NoError(h.t, json.Unmarshal([]byte(line), &head))
		if all[head.ResourceType] == nil {
			all[head.ResourceType] = map[string]json.RawMessage{}
		}
		all[head.ResourceType][head.ID] = json.RawMessage(line)
	}
	return all
}

// backfill onboards the hospital up to its monitoring, with all that goes wrong meanwhile.
func (h *vendorRig) backfill(s scenario) {
	h.t.Helper()
	kill := s.kill
	if h.vendor.roster {
		kill = s.killByPatient
	}
	if strings.Contains(kill, "poison") && len(h.poisoned) == 0 || strings.Contains(kill, "narrowed") && h.vendor.cursors {
		kill = ""
	}
	first, reached := h.worker(kill)
	h.ok("onboard", "main", "--monitor", "72h", "--interval", "1h", "--pilot-threshold", "1")
	if s.cut {
		h.cutOnce()
	}
	if kill != "" {
		select {
		case <-first.Done():
		case <-time.After(3 * time.Minute):
			require.Fail(h.t, "the place was never reached", kill)
		}
		text, err := os.ReadFile(reached)
		require.NoError(h.t, err, "it was the failpoint that killed the worker")
		place, _, _ := strings.Cut(kill, ":")
		require.Equal(h.t, place, string(text))
		h.worker("")
	}
	waits := func() []string {
		return storetest.Query[string](h.t, h.db, "SELECT phase || ': ' || why FROM sync.connections WHERE health = 'attention'")
	}
	require.Eventually(h.t, func() bool {
		return h.count("sync.connections WHERE phase IN ('monitoring', 'live')") == 1 || len(waits()) > 0
	}, 5*time.Minute, 100*time.Millisecond)
	require.Empty(h.t, waits(), "no step waits for a person")
}

// cutOnce breaks the line to the EHR, in the middle of what goes over it, for long enough to be noticed.
func (h *vendorRig) cutOnce() {
	h.t.Helper()
	require.Eventually(h.t, func() bool {
		return h.count("sync.run_counts JOIN sync.runs USING (org_id, run_id) WHERE kind = 'backfill'") > 0
	},
		3*time.Minute, 20*time.Millisecond)
	h.proxy.Stop()
	failures := func() int { return h.count("sync.pace WHERE failures_in_a_row > 0") }
	require.Eventually(h.t, func() bool {
		return failures() > 0 || h.count("sync.connections WHERE phase IN ('monitoring', 'live')") == 1
	}, time.Minute, 20*time.Millisecond)
	require.NoError(h.t, h.proxy.Start())
}

// change has the EHR change, add, invalidate and delete.
func (h *vendorRig) change() {
	h.t.Helper()
	before := h.resources()
	rehearsal, err := h.ehr.Rehearse(h.t.Context())
	require.NoError(h.t, err)
	deleted := []string{"Observation", "Encounter"}
	for _, typ := range deleted {
		ids := slices.Sorted(maps.Keys(h.source()[typ]))
		require.NoError(h.t, h.ehr.Delete(typ, ids[len(ids)/2]))
	}
	h.changed = before - len(deleted)
	for _, change := range rehearsal.Done {
		if change.Version == "1" {
			h.changed++
		}
	}
}

// resources is how many the EHR shows.
func (h *vendorRig) resources() int {
	n := 0
	for _, byID := range h.source() {
		n += len(byID)
	}
	return n
}

// catchUp is what the schedules do, done at once: two syncs, and the nightly comparison.
func (h *vendorRig) catchUp() {
	h.t.Helper()
	if h.ehr.Faults().LateCommitSeconds > 0 {
		// What was written shows after a while, with the time of when it was written, which is before the watermark that this
		// sync leaves: the next ones must find it.
		h.ok("sync", "main")
		require.Eventually(h.t, func() bool { return h.resources() == h.changed }, time.Minute, 50*time.Millisecond)
		require.Eventually(h.t, func() bool {
			h.ok("sync", "main")
			return !slices.ContainsFunc(slices.Collect(maps.Values(h.compare())), func(v verdict) bool { return v.Missing+v.Changed > 0 })
		}, time.Minute, time.Millisecond)
	}
	for range 2 {
		h.ok("sync", "main")
	}
	h.ok("reconcile", "main", "--repair")
}

// compare has the tables compared with the source by the program that shares no code with the pull.
func (h *vendorRig) compare() map[string]verdict {
	h.t.Helper()
	var source strings.Builder
	require.NoError(h.t, h.ehr.Source(&source))
	id := storetest.Query[string](h.t, h.db, "SELECT connection_id::text FROM sync.connections WHERE shadow_of IS NULL")[0]
	compare := exec.CommandContext(h.t.Context(), filepath.Join(programs, "compare"), "-database", h.db.SuperuserURL, "-connection", id,
		"-source", h.write("source.ndjson", source.String()), "-unreadable", strings.Join(h.poisoned, ","))
	out, err := compare.Output()
	require.NoError(h.t, err, string(out))
	var verdicts map[string]verdict
	require.NoError(h.t, json.Unmarshal(out, &verdicts))
	return verdicts
}

// requireSame requires that the tables hold what the source has, by compare's word and by starter's.
func (h *vendorRig) requireSame() {
	h.t.Helper()
	verdicts := h.compare()
	require.Len(h.t, verdicts, 7)
	for typ, v := range verdicts {
		require.Positive(h.t, v.Source, typ)
		require.Equal(h.t, v.Source, v.Cura, "%s %+v", typ, v)
		require.Zero(h.t, v.Missing+v.Extra+v.Changed+v.Doubled+v.Untied, "%s %+v", typ, v)
	}
	var reconciled struct {
		Outcome string    `json:"outcome"`
		Types   []verdict `json:"types"`
	}
	require.NoError(h.t, json.Unmarshal([]byte(h.ok("reconcile", "main", "--output", "json")), &reconciled))
	require.Equal(h.t, "complete", reconciled.Outcome)
	for _, v := range reconciled.Types {
		require.Equal(h.t, v.Source, v.Cura)
	}
	require.Zero(h.t, h.count("sync.run_counts WHERE served <> stored + unchanged + quarantined + in_review + withheld"))
	require.Zero(h.t, h.count("sync.dead_letters WHERE state = 'open'"))
}

package activities_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/config"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/sandbox"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// TestLinksThatEndAtADepthAreReadInWindows: of time, as many as it takes; killed between two chunks all the same.
func TestLinksThatEndAtADepthAreReadInWindows(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]options{
		"a server that counts":   {},
		"HAPI":                   {profile: "hapi", sandbox: sandbox.Config{Vendor: "hapi"}},
		"Medplum, by its cursor": {profile: "medplum", sandbox: sandbox.Config{Vendor: "medplum"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o.sandbox.Faults = sandbox.Faults{PageDepth: 40}
			o.config = func(c *config.Config) { c.ChunkResources = 25 }
			h := newHospital(t, o)
			h.pullAll(t, cura.RunBackfill)
			h.agrees(t)
			// What comes later is read from the watermark on, as ever.
			_, err := h.ehr.Rehearse(t.Context())
			require.NoError(t, err)
			h.pullAll(t, cura.RunIncremental)
			h.agrees(t)
		})
	}
}

func TestMoreThanAWindowCanHoldAtOneInstantIsToldOf(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var lines strings.Builder
	lines.WriteString(`{"resourceType":"Patient","id":"p","birthDate":"1980-01-01","identifier":[{"type":{"coding":[{"code":"MR"}]},"system":"urn:mrn","value":"M"}]}` + "\n")
	for i := range 60 {
		fmt.Fprintf(&lines, `{"resourceType":"Encounter","id":"e%02d","meta":{"lastUpdated":"2026-01-01T00:00:00.000Z"},"status":"finished","class":{"code":"AMB"},"subject":{"reference":"Patient/p"}}`+"\n", i)
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "all.ndjson"), []byte(lines.String()), 0o600))
	h := newHospital(t, options{sandbox: sandbox.Config{DataDir: dir, Faults: sandbox.Faults{PageDepth: 20}}, match: "mrn:urn:mrn"})
	id := h.begin(t, cura.RunBackfill)
	_, err := h.pull(t, activities.PullInput{Run: id, Type: cura.Patient, Full: true})
	require.NoError(t, err)
	_, err = h.pull(t, activities.PullInput{Run: id, Type: cura.Encounter, Full: true})
	require.Equal(t, fault.Depth, kindOf(t, err))
	require.ErrorContains(t, err, "--strategy Encounter=roster")
}

func TestSkippedRowsAreReadAfterAll(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{sandbox: sandbox.Config{Faults: sandbox.Faults{SkipRows: true}}})
	h.pullAll(t, cura.RunBackfill)
	h.agrees(t)
}

func TestADroppedLowerBoundCostsTimeAndLosesNothing(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	h.pullAll(t, cura.RunBackfill)
	require.NoError(t, h.ehr.SetFaults(sandbox.Faults{DropParams: []string{"_lastUpdated"}}))
	_, err := h.ehr.Rehearse(t.Context())
	require.NoError(t, err)
	h.pullAll(t, cura.RunIncremental)
	h.agrees(t)
}

// TestAServerThatIgnoresWhoseRecordsAreWantedIsRefused: it may tell, or not.
func TestAServerThatIgnoresWhoseRecordsAreWantedIsRefused(t *testing.T) {
	t.Parallel()
	for _, silently := range []bool{false, true} {
		t.Run(fmt.Sprint("silently ", silently), func(t *testing.T) {
			t.Parallel()
			h := newHospital(t, options{strategy: cura.StrategySnapshot})
			patients := h.patients(t)
			h.follow(t, patients[0])
			id := h.begin(t, cura.RunBackfill)
			_, err := h.pull(t, activities.PullInput{Run: id, Type: cura.Patient, Full: true})
			require.NoError(t, err)
			require.NoError(t, h.ehr.SetFaults(sandbox.Faults{DropParams: []string{"patient"}, DropSilently: silently}))
			counts, err := h.pull(t, activities.PullInput{Run: id, Type: cura.Observation, Full: true})
			require.NoError(t, err)
			if silently {
				require.Positive(t, counts.Withheld)
				require.True(t, counts.Balanced())
			} else {
				require.EqualValues(t, 1, h.stored(t, "SELECT count(*) FROM sync.dead_letters WHERE detail LIKE '%ignored which patient%'"))
			}
			theirs := `SELECT count(*) FROM sync.landing WHERE resource_type = 'Observation' AND raw IS NOT NULL`
			require.LessOrEqual(t, h.stored(t, theirs), int64(counts.Stored), "nothing of anybody else's is kept")
		})
	}
}

// TestAPoisonedResourceStopsOnlyItself: the server answers 500 for every page that it is on.
func TestAPoisonedResourceStopsOnlyItself(t *testing.T) {
	t.Parallel()
	for _, strategy := range []cura.Strategy{cura.StrategySystem, cura.StrategyRoster, cura.StrategySnapshot} {
		t.Run(string(strategy), func(t *testing.T) {
			t.Parallel()
			h := newHospital(t, options{strategy: strategy, roster: true, config: func(c *config.Config) { c.RetryAttempts = 3 }})
			ids := slices.Sorted(maps.Keys(h.source(t)["Observation"]))
			poison := []string{"Observation/" + ids[0], "Observation/" + ids[len(ids)/2], "Observation/" + ids[len(ids)-1]}
			require.NoError(t, h.ehr.SetFaults(sandbox.Faults{Poison: poison}))
			h.pullAll(t, cura.RunBackfill)
			h.agrees(t)
			require.EqualValues(t, 3, h.stored(t, "SELECT count(*) FROM sync.quarantine WHERE closed_at IS NULL AND reasons::text LIKE '%answers with an error for this resource alone%'"))
			require.EqualValues(t, 0, h.stored(t, "SELECT count(*) FROM sync.dead_letters"))

			require.NoError(t, h.ehr.SetFaults(sandbox.Faults{}))
			h.pullAll(t, cura.RunBackfill)
			require.EqualValues(t, len(ids), h.stored(t, "SELECT count(*) FROM labs.observations"), "once it can be given, it is taken")
			require.EqualValues(t, 0, h.stored(t, "SELECT count(*) FROM sync.quarantine WHERE closed_at IS NULL"))
		})
	}
}

func TestARangeIsReadAgainAndMovesNoWatermark(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	h.pullAll(t, cura.RunBackfill)
	watermarks := func() []time.Time {
		return storetest.Query[time.Time](t, h.db, "SELECT watermark FROM sync.watermarks ORDER BY resource_type")
	}
	before := watermarks()
	// Cura has lost something, and knows when the EHR had last changed it.
	lost := storetest.Query[string](t, h.db, `
		DELETE FROM labs.observations WHERE ehr_id IN (SELECT ehr_id FROM labs.observations ORDER BY last_updated LIMIT 3) RETURNING ehr_id`)
	storetest.Query[string](t, h.db, "UPDATE sync.resources SET content_hash = decode(repeat('00', 32), 'hex') WHERE ehr_id = ANY($1) RETURNING ehr_id", lost)
	marks := storetest.Query[time.Time](t, h.db, "SELECT last_updated FROM sync.resources WHERE ehr_id = ANY($1) ORDER BY 1", lost)
	since, until := marks[0], marks[len(marks)-1].Add(time.Second)
	id := h.begin(t, cura.RunRange)
	counts, err := h.pull(t, activities.PullInput{Run: id, Type: cura.Observation, Since: &since, Until: &until})
	require.NoError(t, err)
	require.Equal(t, 3, counts.Stored)
	h.agrees(t)
	require.Equal(t, before, watermarks())
	require.EqualValues(t, 0, h.stored(t, "SELECT count(*) FROM sync.cursors"))
}

func TestAPausedTypeIsLeftAtItsNextPage(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{config: func(c *config.Config) { c.ChunkResources = 8 }})
	id := h.begin(t, cura.RunBackfill)
	_, err := h.pull(t, activities.PullInput{Run: id, Type: cura.Patient, Full: true})
	require.NoError(t, err)
	in := activities.PullInput{Target: h.target, Run: id, Type: cura.Observation, Full: true}
	_, err = run[activities.PullResult](t, h, h.a.PullType, in)
	require.NoError(t, err)
	storetest.Query[string](t, h.db, `INSERT INTO sync.pauses (org_id, connection_id, resource_type, paused_by) VALUES ($1, $2, 'Observation', 'test') RETURNING paused_by`,
		h.target.Org, h.target.Connection)
	asked := len(h.ehr.Requests())
	result, err := run[activities.PullResult](t, h, h.a.PullType, in)
	require.NoError(t, err)
	require.True(t, result.Paused)
	require.Len(t, h.ehr.Requests(), asked, "the EHR isn't asked for anything")
	storetest.Query[string](t, h.db, "DELETE FROM sync.pauses RETURNING paused_by")
	_, err = h.pull(t, in)
	require.NoError(t, err)
	require.Len(t, h.have(t, "Observation"), h.ehr.Counts()["Observation"])
}

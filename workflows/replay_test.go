package workflows_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/cura-health/ehr-sync/workflows"
)

// TestHistoriesReplay replays the histories that real runs have left (CONTRIBUTING.md says how to add some): a change
// that breaks a run in flight fails here. Those named bad-* must fail, or this test would notice nothing.
func TestHistoriesReplay(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/histories/*.json")
	require.NoError(t, err)
	seen := map[string]bool{}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		bad := strings.HasPrefix(name, "bad-")
		kind, _, _ := strings.Cut(strings.TrimPrefix(name, "bad-"), "-")
		if bad {
			kind = "bad"
		}
		seen[kind] = true
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			replayer := worker.NewWorkflowReplayer()
			for _, w := range []any{workflows.Onboarding, workflows.Backfill, workflows.IncrementalSync, workflows.Reconcile, workflows.Remap, workflows.Delivery} {
				replayer.RegisterWorkflowWithOptions(w, workflow.RegisterOptions{})
			}
			err := replayer.ReplayWorkflowHistoryFromJSONFile(nil, file)
			if bad {
				require.ErrorContains(t, err, "nondeterministic")
				return
			}
			require.NoError(t, err)
		})
	}
	for _, kind := range []string{"onboarding", "backfill", "sync", "reconcile", "remap", "delivery", "bad"} {
		require.True(t, seen[kind], "there is a history of %s", kind)
	}
}

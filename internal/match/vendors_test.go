package match_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/match"
	"github.com/cura-health/ehr-sync/mappings"
)

// vendor is a file of testdata: a Patient as a vendor's server gives it, and what matching makes of it. The people and, but for
// the published ones, the systems are made up.
type vendor struct {
	// Domain are the facts of the domain that it shows.
	Domain  []string        `json:"domain"`
	Patient json.RawMessage `json:"patient"`
	Cases   []struct {
		Match     string         `json:"match"`
		Unmatched cura.Unmatched `json:"unmatched"`
		// Profiles are those that carry the identifier.
		Profiles []struct {
			ID        cura.ProfileID `json:"id"`
			BirthDate string         `json:"birth_date"`
			Family    string         `json:"family"`
			TakenBy   string         `json:"taken_by"`
		} `json:"profiles"`
		Keys    []string      `json:"keys"`
		Outcome match.Outcome `json:"outcome"`
		Because string        `json:"because"`
	} `json:"cases"`
}

// TestEachVendorsIdentifiers goes from the Patient as it comes over its mapping to the decision.
func TestEachVendorsIdentifiers(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, name := range []string{"epic", "oracle", "athena", "medplum", "hapi", "synthea"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			raw, err := os.ReadFile(filepath.Join("testdata", name+".json"))
			require.NoError(t, err)
			var v vendor
			require.NoError(t, json.Unmarshal(raw, &v))
			require.NotEmpty(t, v.Domain)
			record, err := mappings.Map(v.Patient)
			require.NoError(t, err)
			for _, c := range v.Cases {
				strategy, err := cura.ParseMatchStrategy(c.Match)
				require.NoError(t, err)
				strategy.Unmatched = c.Unmatched
				keys := match.KeysAt(record.Profile, strategy, now)
				require.Equal(t, c.Keys, keys, c.Match)
				var candidates []match.Candidate
				for _, p := range c.Profiles {
					candidates = append(candidates, match.Candidate{Profile: p.ID, BirthDate: p.BirthDate, Family: p.Family, TakenBy: p.TakenBy})
				}
				d := match.Decide(record.Profile, keys, strategy, candidates)
				require.Equal(t, c.Outcome, d.Outcome, "%s: %s", c.Match, d.Reason)
				require.Contains(t, d.Reason, c.Because)
			}
		})
	}
}

package store_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// TestThePolicyForUnmatchedPatientsIsKept: it is new where nobody has said otherwise, and another policy is no other identifier.
func TestThePolicyForUnmatchedPatientsIsKept(t *testing.T) {
	t.Parallel()
	f := newFixture(t, cluster.New(t))
	require.Equal(t, cura.UnmatchedNew, f.settings(t).Match.Unmatched)
	f.enrol(t, store.Enrolment{Value: "1", Family: "A"})
	f.settle(t, "1", store.Settlement{State: store.EnrolmentNotFound})

	f.edit(t, func(c *cura.Connection) { c.Match.Unmatched = cura.UnmatchedReview })
	require.Equal(t, cura.MatchStrategy{By: cura.MatchMRN, System: "urn:mrn", Unmatched: cura.UnmatchedReview}, f.settings(t).Match)
	require.Empty(t, f.due(t), "nobody is asked for anew")
	require.Equal(t, []string{"review"}, storetest.Query[string](t, f.db, "SELECT details->>'unmatched' FROM audit.records WHERE kind = 'connection.edited'"))

	f.edit(t, func(c *cura.Connection) { c.Match.Unmatched = "" })
	require.Equal(t, cura.UnmatchedNew, f.settings(t).Match.Unmatched)
}

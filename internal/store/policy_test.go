package store_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

func TestAnOrgsPolicyIsTheDefaultUntilItDecides(t *testing.T) {
	t.Parallel()
	f := newFixture(t, cluster.New(t))
	policy := func() (p cura.OrgPolicy) {
		require.NoError(t, f.in(t, func(tx *store.Tx) error {
			var err error
			p, err = tx.OrgPolicy(t.Context())
			return err
		}))
		return p
	}
	put := func(p cura.OrgPolicy) {
		require.NoError(t, f.in(t, func(tx *store.Tx) error { return tx.PutOrgPolicy(t.Context(), p, "sam") }))
	}
	require.Equal(t, cura.DefaultOrgPolicy(), policy())

	put(cura.OrgPolicy{Part2: true, Authors: map[cura.ArtefactKind][]cura.Role{cura.Note: {cura.RoleAdmin}}})
	p := policy()
	require.True(t, p.Part2)
	require.False(t, p.AnnounceConsent)
	require.True(t, p.MayAuthor(cura.RoleAdmin, cura.Note))
	require.False(t, p.MayAuthor(cura.RoleClinician, cura.Note), "the org's list takes the place of the default")
	require.True(t, p.MayAuthor(cura.RoleCoder, cura.Diagnosis), "of other kinds the default stands")

	put(cura.OrgPolicy{Authors: map[cura.ArtefactKind][]cura.Role{cura.Note: {}}})
	require.False(t, policy().MayAuthor(cura.RoleAdmin, cura.Note), "nobody may")
	require.False(t, policy().Part2)
	require.Equal(t, []string{"sam", "sam"}, storetest.Query[string](t, f.db, "SELECT actor FROM audit.records WHERE kind = 'policy.changed'"))
}

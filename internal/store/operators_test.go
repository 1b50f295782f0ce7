package store_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

func TestOperatorsHaveOneRoleEachInTheirOrg(t *testing.T) {
	t.Parallel()
	db := cluster.New(t)
	f := newFixture(t, db)
	operators := func(org cura.OrgID) (all []string) {
		t.Helper()
		require.NoError(t, db.InOrg(t.Context(), org, func(tx *store.Tx) error {
			list, err := tx.Operators(t.Context())
			for _, o := range list {
				require.False(t, o.AddedAt.IsZero())
				all = append(all, o.Name+" "+string(o.Role))
			}
			return err
		}))
		return all
	}
	put := func(name string, role cura.Role) error {
		return f.in(t, func(tx *store.Tx) error { return tx.PutOperator(t.Context(), name, role, "ada") })
	}
	require.NoError(t, put("kim", cura.RoleOps))
	require.NoError(t, put("ada", cura.RoleAdmin))
	require.NoError(t, put("kim", cura.RoleConsentOfficer))
	require.Equal(t, []string{"ada admin", "kim consent_officer"}, operators(f.org))

	other, err := db.AddOrg(t.Context(), "other", "test")
	require.NoError(t, err)
	require.Empty(t, operators(other.ID))
	remove := func(org cura.OrgID) error {
		return db.InOrg(t.Context(), org, func(tx *store.Tx) error { return tx.RemoveOperator(t.Context(), "kim", "ada") })
	}
	require.True(t, fault.Is(remove(other.ID), fault.NotFound), "another org's")
	require.NoError(t, remove(f.org))
	require.True(t, fault.Is(remove(f.org), fault.NotFound))
	require.Equal(t, []string{"ada admin"}, operators(f.org))

	require.True(t, fault.Is(put("kim", cura.RoleClinician), fault.Config), "an author's role")
	require.True(t, fault.Is(put("", cura.RoleOps), fault.Data))
	require.True(t, fault.Is(put(strings.Repeat("k", 101), cura.RoleOps), fault.Data))
	require.Equal(t, []int64{4}, storetest.Query[int64](t, db, "SELECT count(*) FROM audit.records WHERE kind = 'policy.changed' AND outcome = 'success'"))
}

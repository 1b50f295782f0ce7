package store_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// state reads the fixture's connection.
func (f *fixture) state(t *testing.T) store.ConnectionState {
	t.Helper()
	var c store.ConnectionState
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		var err error
		c, err = tx.Connection(t.Context(), f.connection)
		return err
	}))
	return c
}

func (f *fixture) setOverrides(t *testing.T, version int, text string, excluded ...cura.ResourceType) (fresh bool, err error) {
	t.Helper()
	err = f.in(t, func(tx *store.Tx) error {
		var err error
		fresh, err = tx.SetMappingOverrides(t.Context(), f.connection, store.MappingOverrides{Version: version, Text: text}, excluded, "operator:pat")
		return err
	})
	return fresh, err
}

func (f *fixture) clearOverrides(t *testing.T) (before int) {
	t.Helper()
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		var err error
		before, err = tx.ClearMappingOverrides(t.Context(), f.connection, "operator:pat")
		return err
	}))
	return before
}

// edits are the details of what the audit log says about settings of the fixture's connection that were changed.
func (f *fixture) edits(t *testing.T) []string {
	t.Helper()
	return storetest.Query[string](t, f.db, `SELECT details::text FROM audit.records WHERE kind = $1 ORDER BY seq`, audit.ConnectionEdited)
}

func TestMappingOverridesAreKeptByVersion(t *testing.T) {
	t.Parallel()
	f := newFixture(t, cluster.New(t))
	before := f.state(t)
	require.Zero(t, before.Overrides)

	fresh, err := f.setOverrides(t, 3, "version: 3\n")
	require.NoError(t, err)
	require.True(t, fresh)
	after := f.state(t)
	require.Equal(t, 3, after.Overrides)
	require.Equal(t, before.SettingsVersion+1, after.SettingsVersion)
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		file, err := tx.MappingOverrides(t.Context(), f.connection, 3)
		sum := sha256.Sum256([]byte("version: 3\n"))
		require.Equal(t, "version: 3\n", file.Text)
		require.Equal(t, hex.EncodeToString(sum[:]), file.SHA256)
		require.Equal(t, "operator:pat", file.SetBy)
		require.False(t, file.SetAt.IsZero())
		return err
	}))

	fresh, err = f.setOverrides(t, 3, "version: 3\n")
	require.NoError(t, err)
	require.False(t, fresh, "that very text holds already")
	require.Equal(t, after.SettingsVersion, f.state(t).SettingsVersion)
	require.Len(t, f.edits(t), 1)

	for _, version := range []int{2, 3} {
		_, err = f.setOverrides(t, version, fmt.Sprintf("version: %d # another\n", version))
		require.True(t, fault.Is(err, fault.Conflict))
		require.ErrorContains(t, err, fmt.Sprintf("version %d isn't higher than 3", version))
	}
	require.Equal(t, after, f.state(t), "nothing has changed")

	fresh, err = f.setOverrides(t, 5, "version: 5\n")
	require.NoError(t, err)
	require.True(t, fresh)
	_, err = f.setOverrides(t, 3, "version: 3\n")
	require.True(t, fault.Is(err, fault.Conflict), "an older one must not take the newer one's place unseen")

	require.Equal(t, 5, f.clearOverrides(t))
	require.Zero(t, f.state(t).Overrides)
	require.Zero(t, f.clearOverrides(t), "there is nothing to clear")
	_, err = f.setOverrides(t, 5, "version: 5 # another\n")
	require.True(t, fault.Is(err, fault.Conflict), "rows say version 5 of another file")
	fresh, err = f.setOverrides(t, 3, "version: 3\n")
	require.NoError(t, err)
	require.True(t, fresh, "the very file that was set as 3 may hold again, once none does")
	require.Equal(t, []int{3, 5}, storetest.Query[int](t, f.db, "SELECT version FROM sync.mapping_overrides ORDER BY version"))
	require.Len(t, f.edits(t), 4)
	require.JSONEq(t, `{"mapping_overrides": 0, "before": 5}`, f.edits(t)[2])
}

func TestMappingOverridesAreAppendOnlyAndTheConnectionsOwn(t *testing.T) {
	t.Parallel()
	db := cluster.New(t)
	f := newFixture(t, db)
	_, err := f.setOverrides(t, 1, "version: 1\n")
	require.NoError(t, err)
	for _, sql := range []string{"UPDATE sync.mapping_overrides SET text = 'x'", "DELETE FROM sync.mapping_overrides"} {
		as(t, session(t, db), "cura_app", string(f.org), func(tx pgx.Tx) {
			_, err := tx.Exec(t.Context(), sql)
			requireState(t, err, insufficientPrivilege)
		})
	}
	readable := storetest.Query[bool](t, db, `
		SELECT has_table_privilege('cura_reader', 'sync.mapping_overrides', 'SELECT') AND has_column_privilege('cura_reader', 'sync.connections', 'overrides_version', 'SELECT')`)
	require.Equal(t, []bool{true}, readable, "a file holds codes and no PHI")
	var missing error
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		_, missing = tx.MappingOverrides(t.Context(), f.connection, 2)
		return nil
	}))
	require.True(t, fault.Is(missing, fault.NotFound))
	_, missing = (&fixture{db: f.db, org: f.org, connection: cura.ConnectionID(uuid.NewString())}).setOverrides(t, 1, "version: 1\n")
	require.True(t, fault.Is(missing, fault.NotFound), "a connection that isn't there")
}

func TestExcludedTypesAreSwitchedOff(t *testing.T) {
	t.Parallel()
	f := newFixture(t, cluster.New(t))
	off := func() map[cura.ResourceType]string {
		reasons := map[cura.ResourceType]string{}
		require.NoError(t, f.in(t, func(tx *store.Tx) error {
			types, err := tx.TypesOff(t.Context(), f.connection)
			for _, o := range types {
				reasons[o.Type] = o.Reason
			}
			return err
		}))
		return reasons
	}
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		return tx.SwitchTypeOff(t.Context(), f.connection, cura.Encounter, "the EHR forbids it (403)")
	}))
	_, err := f.setOverrides(t, 1, "version: 1\n", cura.Observation, cura.Encounter)
	require.NoError(t, err)
	require.Equal(t, map[cura.ResourceType]string{cura.Observation: store.ExcludedType, cura.Encounter: "the EHR forbids it (403)"}, off())
	_, err = f.setOverrides(t, 2, "version: 2\n", cura.Consent)
	require.NoError(t, err)
	require.Equal(t, map[cura.ResourceType]string{cura.Consent: store.ExcludedType, cura.Encounter: "the EHR forbids it (403)"}, off())
	f.clearOverrides(t)
	require.Equal(t, map[cura.ResourceType]string{cura.Encounter: "the EHR forbids it (403)"}, off(), "what the EHR forbids, it still does")
}

func TestWhatHasLandedOfAPatient(t *testing.T) {
	t.Parallel()
	f := newFixture(t, cluster.New(t))
	landed := func(connection cura.ConnectionID, profile cura.ProfileID, limit int) []string {
		var raws []string
		require.NoError(t, f.in(t, func(tx *store.Tx) error {
			all, err := tx.LandedOf(t.Context(), connection, profile, limit)
			for _, l := range all {
				raws = append(raws, string(l.Type)+": "+string(l.Raw))
			}
			return err
		}))
		return raws
	}
	ada, bob := patient("p1", "1"), patient("p2", "2")
	f.applyPatient(t, f.pass(cura.Patient), ada, bob)
	f.applyPatient(t, f.pass(cura.Observation), observation("o1", "g", ada.Profile), observation("o2", "g", bob.Profile))
	f.applyPatient(t, f.pass(cura.Observation), observation("o3", "g", ada.Profile), observation("o1", "kg", ada.Profile))
	want := []string{"Patient: patient p1", "Observation: observation o1kg", "Observation: observation o3g"}
	require.ElementsMatch(t, want, landed(f.connection, ada.Profile, 10), "the newest version of each, and nobody else's")
	require.Equal(t, want[:1], landed(f.connection, ada.Profile, 1))
	require.Empty(t, landed(addConnection(t, f.db, f.org, "other"), ada.Profile, 10))

	superuser(t, f.db, `UPDATE sync.resources SET gone_at = now(), gone_reason = 'gone' WHERE ehr_id = 'o3'`)
	require.Equal(t, want[:2], landed(f.connection, ada.Profile, 10))
	superuser(t, f.db, `INSERT INTO cura.withheld (org_id, connection_id, profile_id, types, reason) VALUES ($1, $2, $3, '{Observation}', 'no-consent')`,
		f.org, f.connection, ada.Profile)
	require.Equal(t, want[:1], landed(f.connection, ada.Profile, 10), "what the patient's consents withhold isn't shown")
}

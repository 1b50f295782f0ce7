package store_test

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/cura-health/ehr-sync/internal/consent"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/gate"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// setPolicy changes the policy of the fixture's connection.
func (f *fixture) setPolicy(ctx context.Context, t require.TestingT, policy cura.PullConsent) {
	require.NoError(t, f.db.InOrg(ctx, f.org, func(tx *store.Tx) error {
		conn, err := tx.Connection(ctx, f.connection)
		if err != nil {
			return err
		}
		conn.PullConsent = policy
		return tx.EditConnection(ctx, conn.Connection, "test")
	}))
}

// change appends an entry to a patient's log, without settling it, and gives the consent's id.
func (f *fixture) change(ctx context.Context, t require.TestingT, profile cura.ProfileID, id string, entry cura.ConsentEntry) string {
	require.NoError(t, f.db.EnsureHead(ctx, f.org, profile))
	require.NoError(t, f.db.InOrg(ctx, f.org, func(tx *store.Tx) error {
		var err error
		id, err = tx.ChangeConsent(ctx, store.ConsentChange{Profile: profile, ConsentID: id, Entry: entry, Actor: "test", Role: cura.RoleAdmin})
		return err
	}))
	return id
}

func (f *fixture) withheld(ctx context.Context, t require.TestingT, policy cura.PullConsent, profiles ...cura.ProfileID) (withheld []cura.ProfileID) {
	require.NoError(t, f.db.InOrg(ctx, f.org, func(tx *store.Tx) error {
		found, err := tx.Withheld(ctx, f.connection, policy, cura.Observation, profiles)
		for _, profile := range profiles {
			if found[profile] {
				withheld = append(withheld, profile)
			}
		}
		return err
	}))
	return withheld
}

func (f *fixture) withheldPatients(ctx context.Context, t require.TestingT) (n int) {
	require.NoError(t, f.db.InOrg(ctx, f.org, func(tx *store.Tx) error {
		var err error
		n, err = tx.WithheldPatients(ctx, f.connection)
		return err
	}))
	return n
}

// TestWhoIsWithheld: whatever patients have consented to, a policy of none withholds nobody, and whoever is withheld by
// opt-out is by opt-in.
func TestWhoIsWithheld(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	f := newFixture(t, cluster.New(t))
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		var profiles []cura.ProfileID
		denying := map[cura.ProfileID]bool{}
		for range rapid.IntRange(1, 3).Draw(t, "patients") {
			n++
			it := patient("p"+strconv.Itoa(n), strconv.Itoa(n))
			require.NoError(t, f.db.InOrg(ctx, f.org, func(tx *store.Tx) error {
				_, err := tx.ApplyPatient(ctx, f.pass(cura.Patient), "1", []store.Item{it})
				return err
			}))
			profiles = append(profiles, it.Profile)
			for _, said := range rapid.SliceOfN(rapid.SampledFrom([]string{"permit", "deny", "withdrawn denial", "research"}), 0, 3).Draw(t, "said") {
				entry := consent.Grant(consent.Terms{})
				switch said {
				case "deny":
					entry, denying[it.Profile] = consent.Revocation(serverTime), true
				case "withdrawn denial":
					entry = consent.Revocation(serverTime)
					entry.Status = "inactive"
				case "research":
					entry = consent.Revocation(serverTime)
					entry.Scope.Codings[0].Code = "research"
				}
				f.change(ctx, t, it.Profile, "", entry)
			}
		}
		for _, policy := range []cura.PullConsent{"", cura.PullConsentNone} {
			require.Empty(t, f.withheld(ctx, t, policy, profiles...))
		}
		f.setPolicy(ctx, t, cura.PullConsentOptOut)
		out := f.withheld(ctx, t, cura.PullConsentOptOut, profiles...)
		f.setPolicy(ctx, t, cura.PullConsentOptIn)
		in := f.withheld(ctx, t, cura.PullConsentOptIn, profiles...)
		for _, profile := range profiles {
			require.Equal(t, denying[profile], slices.Contains(out, profile))
			require.False(t, slices.Contains(out, profile) && !slices.Contains(in, profile))
		}
		f.setPolicy(ctx, t, cura.PullConsentNone)
		require.Zero(t, f.withheldPatients(ctx, t))
	})
}

// TestTheLastConsentDecidesWhoIsHidden: however pulls and settlements come together.
func TestTheLastConsentDecidesWhoIsHidden(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	f := newFixture(t, cluster.New(t))
	it := patient("p", "1")
	f.applyPatient(t, f.pass(cura.Patient), it)
	f.setPolicy(ctx, t, cura.PullConsentOptOut)
	id := f.change(ctx, t, it.Profile, "", consent.Revocation(serverTime))
	for round := range 20 {
		entry := consent.Revocation(serverTime)
		if round%2 == 1 {
			entry.Status = "inactive"
		}
		var group errgroup.Group
		group.Go(func() error {
			f.change(ctx, t, it.Profile, id, entry)
			_, err := f.db.SettleConsent(ctx, f.org, it.Profile, gate.Permits)
			return err
		})
		for range 3 {
			group.Go(func() error {
				return f.db.InOrg(ctx, f.org, func(tx *store.Tx) error {
					_, err := tx.Withheld(ctx, f.connection, cura.PullConsentOptOut, cura.Observation, []cura.ProfileID{it.Profile})
					return err
				})
			})
		}
		require.NoError(t, group.Wait())
		require.Equal(t, (round+1)%2, f.withheldPatients(ctx, t), round)
	}
}

// TestAPeriodThatEndsIsNoticed: the head of a patient who has nothing queued knows when time changes what is pulled.
func TestAPeriodThatEndsIsNoticed(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	f := newFixture(t, cluster.New(t))
	it := patient("p", "1")
	f.applyPatient(t, f.pass(cura.Patient), it)
	consented := item("c", "a consent")
	consented.Profile = it.Profile
	consented.Record = cura.Record{Type: cura.Consent, EHRID: "c", PatientEHRID: "p", Consent: &cura.ConsentEntry{
		Status: "active", RootType: "permit", Provision: json.RawMessage(`{"type":"permit","period":{"end":"2999-01-01"}}`),
		Scope: consent.Grant(consent.Terms{}).Scope,
	}}
	f.applyPatient(t, f.pass(cura.Consent), consented)
	require.Empty(t, storetest.Query[string](t, f.db, "SELECT ref::text FROM directory.wakeups"), "without a policy nobody needs a head")
	f.setPolicy(ctx, t, cura.PullConsentOptIn)
	require.Equal(t, []string{string(it.Profile)}, storetest.Query[string](t, f.db, "SELECT ref::text FROM directory.wakeups WHERE kind = 'consent'"))
	_, err := f.db.SettleConsent(ctx, f.org, it.Profile, gate.Permits)
	require.NoError(t, err)
	require.Zero(t, f.withheldPatients(ctx, t))
	require.Equal(t, []int64{2999}, storetest.Query[int64](t, f.db, "SELECT extract(year FROM due_at)::bigint FROM directory.wakeups WHERE kind = 'consent'"))
}

// TestApplicationsSeeWhatIsntWithheld: cura_clinical reads its org's records but for those, and writes nothing.
func TestApplicationsSeeWhatIsntWithheld(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	f := newFixture(t, cluster.New(t))
	denies, permits := patient("p1", "1"), patient("p2", "2")
	f.applyPatient(t, f.pass(cura.Patient), denies, permits)
	f.applyPatient(t, f.pass(cura.Observation), observation("o1", "x", denies.Profile), observation("o2", "x", permits.Profile))
	f.setPolicy(ctx, t, cura.PullConsentOptOut)
	f.change(ctx, t, denies.Profile, "", consent.Revocation(serverTime))
	_, err := f.db.SettleConsent(ctx, f.org, denies.Profile, gate.Permits)
	require.NoError(t, err)
	super, err := pgx.Connect(ctx, f.db.SuperuserURL)
	require.NoError(t, err)
	defer super.Close(ctx)
	as(t, super, "cura_clinical", string(f.org), func(tx pgx.Tx) {
		require.Equal(t, 1, count(t, tx, "SELECT count(*) FROM labs.observations"))
		require.Equal(t, 2, count(t, tx, "SELECT count(*) FROM cura.profiles"))
		require.Equal(t, 1, count(t, tx, "SELECT count(profile_id) FROM cura.withheld"))
	})
	for _, org := range []string{"", uuid.NewString()} {
		as(t, super, "cura_clinical", org, func(tx pgx.Tx) {
			require.Zero(t, count(t, tx, "SELECT count(*) FROM labs.observations"))
			require.Zero(t, count(t, tx, "SELECT count(*) FROM cura.profiles"))
		})
	}
	for _, statement := range []string{"DELETE FROM labs.observations", "UPDATE cura.profiles SET name = ''", "SELECT reason FROM cura.withheld", "SELECT FROM sync.landing"} {
		as(t, super, "cura_clinical", string(f.org), func(tx pgx.Tx) {
			_, err := tx.Exec(ctx, statement)
			requireState(t, err, insufficientPrivilege)
		})
	}
	as(t, session(t, f.db), "cura_app", string(f.org), func(tx pgx.Tx) {
		require.Equal(t, 2, count(t, tx, "SELECT count(*) FROM labs.observations"), "the machinery compares and writes all rows")
	})
}

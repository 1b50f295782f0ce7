package store_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/consent"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

func (o *outbox) ensureHead(t *testing.T) {
	t.Helper()
	require.NoError(t, o.db.EnsureHead(t.Context(), o.org, o.profile))
}

func (o *outbox) head(t *testing.T) (h store.ConsentHead) {
	t.Helper()
	require.NoError(t, o.in(t, func(tx *store.Tx) error {
		var err error
		h, err = tx.ConsentHead(t.Context(), o.profile)
		return err
	}))
	return h
}

// change appends to the patient's log, and halts: it isn't effective yet. It gives the consent's id.
func (o *outbox) change(t *testing.T, id string, entry cura.ConsentEntry) string {
	t.Helper()
	require.NoError(t, o.in(t, func(tx *store.Tx) error {
		var err error
		id, err = tx.ChangeConsent(t.Context(), store.ConsentChange{Profile: o.profile, ConsentID: id, Entry: entry, Actor: "olga", Role: cura.RoleConsentOfficer})
		return err
	}))
	return id
}

func (o *outbox) log(t *testing.T) (log []store.ConsentEntry) {
	t.Helper()
	require.NoError(t, o.in(t, func(tx *store.Tx) error {
		var err error
		log, err = tx.ConsentLog(t.Context(), o.profile)
		return err
	}))
	return log
}

// pulled is a Consent of the fixture's patient as a page brings it.
func (o *outbox) pulled(id, version string) store.Item {
	entry := consent.Grant(consent.Terms{})
	it := item(id, "consent "+id+" "+version)
	it.Profile = o.profile
	it.Record = cura.Record{Type: cura.Consent, EHRID: id, PatientEHRID: "p1", VersionID: version, Consent: &entry}
	return it
}

func (o *outbox) applyConsents(t *testing.T, items ...store.Item) {
	t.Helper()
	_, err := o.apply(t, o.lease(t, o.pass(cura.Consent)), store.Advance{Candidate: serverTime}, items...)
	require.NoError(t, err)
}

func TestAChangeOfConsentIsLoggedAndHalts(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	requireKind(t, o.in(t, func(tx *store.Tx) error {
		_, err := tx.ConsentHead(t.Context(), o.profile)
		return err
	}), fault.NotFound)
	o.ensureHead(t)
	o.ensureHead(t)
	require.False(t, o.head(t).Halted)
	require.Zero(t, o.head(t).Epoch)

	id := o.change(t, "", consent.Grant(consent.Terms{}))
	require.True(t, o.head(t).Halted)
	require.Zero(t, o.head(t).Epoch, "it isn't effective")
	withdrawn := consent.Grant(consent.Terms{})
	withdrawn.Status = "inactive"
	require.Equal(t, id, o.change(t, id, withdrawn))

	log := o.log(t)
	require.Len(t, log, 2)
	require.Equal(t, []string{id, id}, []string{log[0].ConsentID, log[1].ConsentID})
	require.Equal(t, []string{"active", "inactive"}, []string{log[0].Consent.Status, log[1].Consent.Status})
	require.Equal(t, "cura", log[0].Source)
	require.Equal(t, "olga", log[0].Actor)
	require.Equal(t, cura.RoleConsentOfficer, log[0].Role)
	require.False(t, log[0].LoggedAt.IsZero())
	standing := store.StandingConsents(log)
	require.Len(t, standing, 1, "the last entry of each consent stands")
	require.Equal(t, "inactive", standing[0].Entry.Status)

	require.NoError(t, o.in(t, func(tx *store.Tx) error {
		halts, err := tx.ConsentHalts(t.Context(), o.profile, 10)
		require.Len(t, halts, 2)
		for _, h := range halts {
			require.Equal(t, store.HaltOperator, h.Cause)
			require.Equal(t, "olga", h.Actor)
			require.Nil(t, h.EffectiveAt)
		}
		return err
	}))
	due := o.due(t)
	require.Len(t, due, 1)
	require.Equal(t, store.WakeConsent, due[0].Kind)
	require.Equal(t, string(o.profile), due[0].Ref)
	require.Equal(t, []string{"olga", "olga"}, storetest.Query[string](t, o.db, "SELECT actor FROM audit.records WHERE kind = 'consent.changed'"))
}

func TestTheConsentLogIsAppendOnly(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	o.ensureHead(t)
	o.change(t, "", consent.Grant(consent.Terms{}))
	conn := session(t, o.db)
	as(t, conn, "cura_app", string(o.org), func(tx pgx.Tx) {
		tag, err := tx.Exec(t.Context(), "DELETE FROM cura.consent_log")
		require.NoError(t, err)
		require.Zero(t, tag.RowsAffected(), "only a sandbox org's rows are purged")
		_, err = tx.Exec(t.Context(), "UPDATE cura.consent_log SET status = 'inactive'")
		requireState(t, err, insufficientPrivilege)
	})
}

func TestPulledConsentsHaltWhoHasAHead(t *testing.T) {
	t.Parallel()
	t.Run("nothing was ever sent of the patient", func(t *testing.T) {
		t.Parallel()
		o := newOutbox(t)
		o.applyConsents(t, o.pulled("c1", "1"))
		require.Len(t, o.log(t), 1)
		require.Equal(t, []int64{0}, storetest.Query[int64](t, o.db, "SELECT count(*) FROM cura.consent_halts"))
		require.Empty(t, o.due(t))
		o.ensureHead(t)
		require.Equal(t, o.log(t)[0].ID, o.head(t).Entry, "the head stands for what the log says by then")
		require.False(t, o.head(t).Halted)
	})
	t.Run("the patient has a head", func(t *testing.T) {
		t.Parallel()
		o := newOutbox(t)
		o.ensureHead(t)
		o.applyConsents(t, o.pulled("c1", "1"))
		require.True(t, o.head(t).Halted)
		require.Len(t, o.due(t), 1)
		require.NoError(t, o.in(t, func(tx *store.Tx) error {
			halts, err := tx.ConsentHalts(t.Context(), o.profile, 10)
			require.Len(t, halts, 1)
			require.Equal(t, store.HaltPulled, halts[0].Cause)
			return err
		}))
	})
	t.Run("several consents of one patient are on a page", func(t *testing.T) {
		t.Parallel()
		o := newOutbox(t)
		o.ensureHead(t)
		o.applyConsents(t, o.pulled("c1", "1"), o.pulled("c2", "1"), o.pulled("c3", "1"))
		require.Len(t, o.log(t), 3)
		require.True(t, o.head(t).Halted)
		require.Len(t, o.due(t), 1)
	})
}

func TestAHeadThatIsMadeWhileAPageCommitsStandsForWhatThePageBrings(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	pass := o.lease(t, o.pass(cura.Consent))
	made := make(chan error, 1)
	require.NoError(t, o.in(t, func(tx *store.Tx) error {
		if _, err := tx.ApplyPage(t.Context(), pass, "1", []store.Item{o.pulled("c1", "1")}, store.Advance{Candidate: serverTime}); err != nil {
			return err
		}
		go func() { made <- o.db.EnsureHead(t.Context(), o.org, o.profile) }()
		o.awaitBlocked(t)
		return nil
	}))
	require.NoError(t, <-made)
	require.Equal(t, o.log(t)[0].ID, o.head(t).Entry)
	require.False(t, o.head(t).Halted, "no change was missed, so there is none to settle")
}

func TestAPageThatComesWhileAHeadIsMadeHalts(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	pass := o.lease(t, o.pass(cura.Consent))
	conn := session(t, o.db)
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	for _, statement := range []string{
		"SET LOCAL ROLE cura_app", "SELECT set_config('app.org', '" + string(o.org) + "', true)",
		"SELECT pg_advisory_xact_lock(hashtextextended('consent ' || '" + string(o.org) + "', 0))",
		"INSERT INTO cura.consent_heads (org_id, profile_id) VALUES ('" + string(o.org) + "', '" + string(o.profile) + "')",
	} {
		_, err := tx.Exec(t.Context(), statement)
		require.NoError(t, err)
	}
	applied := make(chan error, 1)
	go func() {
		applied <- o.db.InOrg(t.Context(), o.org, func(tx *store.Tx) error {
			_, err := tx.ApplyPage(t.Context(), pass, "1", []store.Item{o.pulled("c1", "1")}, store.Advance{Candidate: serverTime})
			return err
		})
	}()
	o.awaitBlocked(t)
	require.NoError(t, tx.Commit(t.Context()))
	require.NoError(t, <-applied)
	require.True(t, o.head(t).Halted)
}

func TestWhatAnEpochCameToIsFoundByWhoeverSettledIt(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	o.ensureHead(t)
	o.change(t, "", consent.Grant(consent.Terms{}))
	settled := o.settle(t)
	require.NoError(t, o.in(t, func(tx *store.Tx) error {
		found, err := tx.SettledConsent(t.Context(), o.profile, settled.Epoch)
		require.Equal(t, settled.Epoch, found.Epoch)
		require.Zero(t, found.Cancelled)
		require.WithinDuration(t, time.Now(), found.EffectiveAt, time.Hour)
		return err
	}))
	requireKind(t, o.db.EnsureHead(t.Context(), o.org, cura.ProfileID(uuid.NewString())), fault.Unknown)
}

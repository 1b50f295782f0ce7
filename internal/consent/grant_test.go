package consent_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cura-health/ehr-sync/internal/consent"
	"github.com/cura-health/ehr-sync/internal/cura"
)

// TestGrant shows what is written.
func TestGrant(t *testing.T) {
	t.Parallel()
	e := consent.Grant(consent.Terms{
		From: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Until: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
		Kinds: []cura.ArtefactKind{cura.Note, cura.Diagnosis}, Labels: []string{"R", "ETH"}, Purposes: []string{"TREAT", "HPAYMT"},
	})
	require.Equal(t, "active", e.Status)
	require.Equal(t, "patient-privacy", e.Scope.Codings[0].Code)
	require.Equal(t, "59284-0", e.Categories[0].Codings[0].Code)
	require.Equal(t, "OPTIN", e.PolicyRule.Codings[0].Code)
	require.Equal(t, "permit", e.RootType)
	require.Equal(t, time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), e.Period.End.End)
	require.JSONEq(t, systems().Replace(`{"type":"permit",
		"period":{"start":"2026-01-01T00:00:00.000000Z","end":"2026-12-31T23:59:59.999999Z"},
		"purpose":[{"system":"$PURPOSE","code":"TREAT"},{"system":"$PURPOSE","code":"HPAYMT"}],
		"class":[{"system":"$TYPES","code":"DocumentReference"},{"system":"$TYPES","code":"Condition"}],
		"provision":[{"type":"permit","securityLabel":[{"system":"$LEVEL","code":"R"},{"system":"$LABEL","code":"ETH"}]}]}`), string(e.Provision))
}

// TestGrantPermitsExactlyWhatItNames: every request is compared with what the terms say in plain words.
func TestGrantPermitsExactlyWhatItNames(t *testing.T) {
	t.Parallel()
	labels := []string{"N", "R", "V", "ETH", "SUD", "PSY", "PSYTHPN", "HIV", "SDV"}
	purposes := []string{"TREAT", "HPAYMT", "HOPERAT", "HRESCH"}
	some := func(t *rapid.T, name string, of []string) []string {
		return rapid.SliceOfNDistinct(rapid.SampledFrom(of), 0, 4, rapid.ID[string]).Draw(t, name)
	}
	instant := rapid.Custom(func(t *rapid.T) time.Time {
		return noon().Add(time.Duration(rapid.Int64Range(-5, 5).Draw(t, "microseconds")) * time.Microsecond)
	})
	rapid.Check(t, func(t *rapid.T) {
		terms := consent.Terms{
			Kinds:  rapid.SliceOfNDistinct(rapid.SampledFrom(cura.ArtefactKinds()), 0, 3, rapid.ID[cura.ArtefactKind]).Draw(t, "kinds"),
			Labels: some(t, "named", labels), Purposes: some(t, "purposes", purposes),
		}
		if rapid.Bool().Draw(t, "starts") {
			terms.From = instant.Draw(t, "from")
		}
		if rapid.Bool().Draw(t, "ends") {
			terms.Until = instant.Draw(t, "until")
		}
		r := consent.Request{
			Action: consent.Disclose, Kind: rapid.SampledFrom(cura.ArtefactKinds()).Draw(t, "kind"),
			Labels: some(t, "labels", labels), Purpose: rapid.SampledFrom(append(purposes, "")).Draw(t, "purpose"), Part2: rapid.Bool().Draw(t, "part2"),
		}
		if rapid.IntRange(0, 3).Draw(t, "pull") == 0 {
			r.Action, r.Types = consent.Collect, []cura.ResourceType{cura.Observation}
		}
		at := instant.Draw(t, "at")

		purpose := r.Purpose
		if purpose == "" {
			purpose = "TREAT"
		}
		named := func(label string) bool { return slices.Contains(terms.Labels, label) }
		want := (terms.From.IsZero() || !at.Before(terms.From)) && (terms.Until.IsZero() || at.Before(terms.Until)) &&
			(terms.From.IsZero() || terms.Until.IsZero() || terms.From.Before(terms.Until)) &&
			(len(terms.Kinds) == 0 || r.Action == consent.Disclose && slices.Contains(terms.Kinds, r.Kind)) &&
			(slices.Contains(terms.Purposes, purpose) || len(terms.Purposes) == 0 && purpose == "TREAT") &&
			(!r.Part2 || named("SUD") || named("ETH"))
		for _, label := range r.Labels {
			want = want && (label == "N" || named(label))
		}

		entry := consent.Grant(terms)
		d := consent.Decide(r, []consent.Consent{{ID: "1", Source: "cura", Entry: entry}}, at)
		require.Equal(t, want, d.Allow, "%s %+v", d.Code, d.Rules)

		// Grants add up, and a revocation beats them until it is withdrawn.
		other := consent.Consent{ID: "2", Source: "cura", Entry: consent.Grant(consent.Terms{Kinds: []cura.ArtefactKind{cura.Procedure}, Purposes: []string{"HMARKT"}})}
		require.Equal(t, want, consent.Decide(r, []consent.Consent{other, {ID: "1", Source: "cura", Entry: entry}}, at).Allow)
		revoked := consent.Consent{ID: "3", Source: "cura", Entry: consent.Revocation(at)}
		require.Equal(t, consent.Denied, consent.Decide(r, []consent.Consent{{ID: "1", Entry: entry}, revoked}, at).Code)
		revoked.Entry.Status = "inactive"
		require.Equal(t, want, consent.Decide(r, []consent.Consent{{ID: "1", Entry: entry}, revoked}, at).Allow)
	})
}

// TestRevocationNeedsNoClock: it denies from its commit on, whatever the time that it records.
func TestRevocationNeedsNoClock(t *testing.T) {
	t.Parallel()
	c := consent.Consent{ID: "1", Source: "cura", Entry: consent.Revocation(noon().Add(time.Hour))}
	for _, r := range []consent.Request{note(), pull(cura.Observation)} {
		d := consent.Decide(r, []consent.Consent{c}, noon())
		require.Equal(t, consent.Denied, d.Code)
		require.Equal(t, "1", d.ConsentID)
		require.Zero(t, d.Until)
	}
	require.Equal(t, noon().Add(time.Hour), c.Entry.DateTime.Start)
	require.Nil(t, consent.Revocation(time.Time{}).DateTime)
}

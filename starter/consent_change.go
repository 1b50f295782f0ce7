package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/consent"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/failpoint"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/gate"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/workflows"
)

// consentResult is what a change of a patient's consent came to.
type consentResult struct {
	Org     string         `json:"org"`
	Profile cura.ProfileID `json:"profile"`
	// Consents are Cura's ids of the consents that were made, changed or withdrawn.
	Consents []string `json:"consents"`
	store.ConsentSettlement

	// HaltMS and EffectiveMS are the times from the command's start to the commit after which nothing more is let through, and
	// until it was effective, in milliseconds.
	HaltMS      int64 `json:"halt_ms"`
	EffectiveMS int64 `json:"effective_ms"`
}

// lines show a change to a person; did says what was done.
func (r consentResult) lines(did string) []string {
	return []string{
		did,
		"Consents   " + strings.Join(r.Consents, ", "),
		fmt.Sprintf("Epoch      %d", r.Epoch),
		fmt.Sprintf("Cancelled  %d queued items", r.Cancelled),
		fmt.Sprintf("Halted     %d ms after the command began", r.HaltMS),
		fmt.Sprintf("Effective  %d ms after the command began, at %s", r.EffectiveMS, r.EffectiveAt.UTC().Format(time.RFC3339Nano)),
	}
}

// newEntries makes entries for a consent log that it is given, the oldest entry first.
type newEntries func(log []store.ConsentEntry) ([]store.ConsentChange, error)

// changeConsent is the revoker of DESIGN §5.4, whichever way consent changes: entries and halt in one commit, then the wait until
// they are effective. began is when the command did. It works without Temporal and without a worker; a worker that hears of it
// settles it just the same.
func (s *session) changeConsent(ctx context.Context, org store.Org, profile cura.ProfileID, began time.Time, decide newEntries) (consentResult, error) {
	r := consentResult{Org: org.Name, Profile: profile, Consents: []string{}}
	if err := s.store.EnsureHead(ctx, org.ID, profile); err != nil {
		return r, err
	}
	err := s.store.InOrg(ctx, org.ID, func(tx *store.Tx) error {
		log, err := tx.ConsentLog(ctx, profile)
		if err != nil {
			return err
		}
		entries, err := decide(log)
		if err != nil {
			return err
		}
		for _, e := range entries {
			id, err := tx.ChangeConsent(ctx, e)
			if err != nil {
				return err
			}
			r.Consents = append(r.Consents, id)
		}
		return nil
	})
	if err != nil {
		return r, err
	}
	r.HaltMS = time.Since(began).Milliseconds()
	failpoint.Reach(failpoint.ConsentHalted)
	if r.ConsentSettlement, err = s.settleConsent(ctx, org, profile); err != nil {
		return r, fault.Wrap("making the change of consent effective", fault.Unavailable, "it is recorded, and nothing more is let through; what is on its way isn't known to have ended", err).
			WithFix("A worker finishes it. See when with: starter consent show " + string(profile) + " --org " + org.Name)
	}
	r.EffectiveMS = time.Since(began).Milliseconds()
	s.signalRevoked(ctx, org, profile)
	return r, nil
}

func (s *session) settleConsent(ctx context.Context, org store.Org, profile cura.ProfileID) (store.ConsentSettlement, error) {
	settled, err := s.store.SettleConsent(ctx, org.ID, profile, gate.Permits)
	if err != nil || settled.Epoch > 0 {
		return settled, err
	}
	// A worker was quicker.
	err = s.store.InOrg(ctx, org.ID, func(tx *store.Tx) error {
		head, err := tx.ConsentHead(ctx, profile)
		if err != nil {
			return err
		}
		settled, err = tx.SettledConsent(ctx, profile, head.Epoch)
		return err
	})
	return settled, err
}

// signalTimeout is how long Temporal is waited for to wake the patient's queues; the database holds the halt without it.
const signalTimeout = time.Second

// signalRevoked wakes the queues of a patient that run. Where that can't be done they find the halt by themselves.
func (s *session) signalRevoked(ctx context.Context, org store.Org, profile cura.ProfileID) {
	ctx, cancel := context.WithTimeout(ctx, signalTimeout)
	defer cancel()
	var links []store.Link
	err := s.store.InOrg(ctx, org.ID, func(tx *store.Tx) error {
		var err error
		links, err = tx.LinksOf(ctx, profile)
		return err
	})
	if err != nil || len(links) == 0 {
		return
	}
	_ = s.withTemporal(ctx, func(tc client.Client) error { return wakeQueues(ctx, tc, links) })
}

// wakeQueues signals the deliveries of patient links; those that don't run are passed over.
func wakeQueues(ctx context.Context, tc client.Client, links []store.Link) error {
	for _, link := range links {
		err := tc.SignalWorkflow(ctx, workflows.DeliveryID(link.Connection, link.ID), "", workflows.SignalConsentRevoked, nil)
		if _, missing := errors.AsType[*serviceerror.NotFound](err); err != nil && !missing {
			return err
		}
	}
	return nil
}

// onConsent runs fn on the patient that the command names, for a person who may change consent.
func onConsent(c *cli.Context, fn func(s *session, org store.Org, profile cura.ProfileID, role cura.Role) error) error {
	name, err := oneWord(c, "the patient")
	if err != nil {
		return err
	}
	if err := need(c, "org"); err != nil {
		return err
	}
	return onOrg(c, c.String("org"), func(s *session, org store.Org) error {
		role, err := s.leave(c, org, demand{kind: audit.ConsentChanged, roles: []cura.Role{cura.RoleConsentOfficer}})
		if err != nil {
			return err
		}
		var profile cura.ProfileID
		err = s.store.InOrg(c.Context, org.ID, func(tx *store.Tx) error {
			profile, err = tx.ProfileOf(c.Context, name)
			return err
		})
		if err != nil {
			return err
		}
		return fn(s, org, profile, role)
	})
}

func revokeConsent(c *cli.Context) error {
	began := time.Now()
	return onConsent(c, func(s *session, org store.Org, profile cura.ProfileID, role cura.Role) error {
		r, err := s.changeConsent(c.Context, org, profile, began, func(log []store.ConsentEntry) ([]store.ConsentChange, error) {
			entries, err := revocation(log, c.String("consent"), time.Now())
			return signedBy(entries, profile, s.actor, role), err
		})
		if err != nil {
			return err
		}
		return printOne(c, r, r.lines("Consent is revoked, and nothing that it permitted leaves any more.")...)
	})
}

func signedBy(entries []store.ConsentChange, profile cura.ProfileID, actor string, role cura.Role) []store.ConsentChange {
	for i := range entries {
		entries[i].Profile, entries[i].Actor, entries[i].Role = profile, actor, role
	}
	return entries
}

// revocation makes the entries that revoke what stands in a log, or one consent of it: those made in Cura are withdrawn, and
// those of the hospital are overruled by a denial.
func revocation(log []store.ConsentEntry, only string, now time.Time) ([]store.ConsentChange, error) {
	const op = "revoking consent"
	var entries []store.ConsentChange
	overrule, overruled, known := false, false, only == ""
	for _, e := range standing(log) {
		switch {
		case only != "" && e.ConsentID != only:
		case e.Source != "cura":
			overrule = overrule || mayPermit(e, now)
		case mayPermit(e, now):
			known = true
			entries = append(entries, withdrawn(e))
		default:
			known = true
			overruled = overruled || isDenial(e, now)
		}
	}
	if !known {
		return nil, fault.New(op, fault.NotFound, "nothing to revoke: Cura has made no consent of that id for the patient").
			WithFix("Leave --consent out to revoke all, the hospital's too; list them with: starter consent show")
	}
	if overrule && !overruled {
		entries = append(entries, store.ConsentChange{Entry: consent.Revocation(now)})
	}
	if len(entries) == 0 {
		return nil, fault.New(op, fault.Conflict, "nothing to revoke: no consent of the patient permits anything").
			WithFix("See the history with: starter consent show")
	}
	return entries, nil
}

// standing are the last entries of each consent of a log, in the order of the consents' first.
func standing(log []store.ConsentEntry) []store.ConsentEntry {
	var last []store.ConsentEntry
	for _, e := range log {
		if i := slices.IndexFunc(last, func(other store.ConsentEntry) bool { return other.Key == e.Key }); i >= 0 {
			last[i] = e
		} else {
			last = append(last, e)
		}
	}
	return last
}

// withdrawn is the entry that withdraws a consent of Cura's own.
func withdrawn(e store.ConsentEntry) store.ConsentChange {
	change := store.ConsentChange{ConsentID: e.ConsentID, Entry: e.Consent}
	change.Entry.Status = "inactive"
	return change
}

// active reports whether an entry counts, now or later.
func active(e store.ConsentEntry, now time.Time) bool {
	return !e.EnteredInError && e.Consent.Status == "active" && !isOver(e.Consent.Period, now)
}

// isOver reports whether a period is over.
func isOver(p *cura.Period, now time.Time) bool {
	return p != nil && p.End != nil && !p.End.End.After(now)
}

// mayPermit reports whether an entry permits something, now or later, or might.
func mayPermit(e store.ConsentEntry, now time.Time) bool {
	return active(e, now) && aboutPrivacy(e.Consent.Scope) && !deniesAll(e.Consent)
}

// isDenial reports whether an entry is a revocation that stands.
func isDenial(e store.ConsentEntry, now time.Time) bool {
	return e.Source == "cura" && active(e, now) && deniesAll(e.Consent)
}

// aboutPrivacy reports whether a consent isn't for certain about something else.
func aboutPrivacy(scope cura.Concept) bool {
	for _, coding := range scope.Codings {
		switch coding.Code {
		case "patient-privacy":
			return true
		case "research", "adr", "treatment":
			return false
		}
	}
	return true
}

// deniesAll reports whether a consent denies, and has no exceptions to that.
func deniesAll(e cura.ConsentEntry) bool {
	var root struct {
		Type      string            `json:"type"`
		Provision []json.RawMessage `json:"provision"`
	}
	if len(e.Provision) > 0 && json.Unmarshal(e.Provision, &root) != nil {
		return false
	}
	if root.Type == "" {
		root.Type = e.RootType
	}
	optsOut := slices.ContainsFunc(e.PolicyRule.Codings, func(c cura.Coding) bool { return c.Code == "OPTOUT" })
	return len(root.Provision) == 0 && (root.Type == "deny" || root.Type == "" && optsOut)
}

package main

import (
	"context"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/store"
)

// takeUpReviews has the decided reviews of a connection applied soon; it needn't wait until they are.
type takeUpReviews func(c *cli.Context, s *session, l store.Listed) error

func resolveReview(c *cli.Context, takeUp takeUpReviews) error {
	choice, err := readChoice(c)
	if err != nil {
		return err
	}
	return onReview(c, func(s *session, l store.Listed, d store.ReviewDetails) error {
		if _, err := s.leave(c, orgOf(l), demand{audit.ReviewDecided, l.Connection, []cura.Role{cura.RoleOps}}); err != nil {
			return err
		}
		state, err := s.state(c.Context, l)
		if err != nil {
			return err
		}
		if patient, err := s.underReview(c.Context, l, d); err == nil {
			choice.MergedInto = replacedBy(patient, state.BaseURL)
		}
		r := d.Review
		err = s.store.InOrg(c.Context, l.Org, func(tx *store.Tx) error {
			r, err = tx.DecideReview(c.Context, r.ID, choice, s.actor)
			return err
		})
		if err != nil {
			return err
		}
		if err := takeUp(c, s, l); err != nil {
			if c.Err() != nil {
				hint(c, "The decision is kept; the next sync applies it.")
				return c.Err()
			}
			hint(c, "The decision is kept, but can't be applied now: %s", explain(err))
		} else if r, err = s.awaitApplied(c.Context, l, r); err != nil {
			return err
		}
		v := viewOfReview(l, r)
		switch r.State {
		case store.ReviewApplied:
			return printOne(c, v, "Review "+r.ID+" is decided ("+string(r.Decision)+") and applied.")
		case store.ReviewOvertaken:
			return printOne(c, v, "Review "+r.ID+" is decided, but the hospital has sent another version meanwhile: see starter reviews list "+path(l)+".")
		case store.ReviewOpen, store.ReviewWasDecided:
		}
		hint(c, "Have it applied sooner with: starter sync %s", path(l))
		return printOne(c, v, "Review "+r.ID+" is decided ("+string(r.Decision)+"). It is kept, and applied with the next sync.")
	})
}

func reopenReview(c *cli.Context) error {
	return onReview(c, func(s *session, l store.Listed, d store.ReviewDetails) error {
		if _, err := s.leave(c, orgOf(l), demand{audit.ReviewDecided, l.Connection, []cura.Role{cura.RoleOps}}); err != nil {
			return err
		}
		var again store.Review
		err := s.store.InOrg(c.Context, l.Org, func(tx *store.Tx) error {
			var err error
			again, err = tx.ReopenReview(c.Context, d.ID, s.actor)
			return err
		})
		if err != nil {
			return err
		}
		v := viewOfReview(l, again)
		return printOne(c, v, append([]string{"It is asked again as review " + again.ID + ". Decide with one of:"}, v.Commands...)...)
	})
}

// readChoice reads the one decision that the flags give.
func readChoice(c *cli.Context) (store.ReviewChoice, error) {
	var given []store.ReviewChoice
	if c.IsSet("keep") {
		switch side := c.String("keep"); side {
		case "ehr":
			given = append(given, store.ReviewChoice{Decision: cura.KeepEHR})
		case "cura":
			given = append(given, store.ReviewChoice{Decision: cura.KeepCura})
		default:
			return store.ReviewChoice{}, usagef("--keep is %q; it must be ehr or cura", side)
		}
	}
	if c.Bool("merge") {
		given = append(given, store.ReviewChoice{Decision: cura.DecideMerge})
	}
	if c.IsSet("link") {
		if _, err := uuid.Parse(c.String("link")); err != nil {
			return store.ReviewChoice{}, usagef("--link takes Cura's id of a profile; starter reviews show names those that may be meant")
		}
		given = append(given, store.ReviewChoice{Decision: cura.DecideLink, Profile: cura.ProfileID(c.String("link"))})
	}
	if c.Bool("new") {
		given = append(given, store.ReviewChoice{Decision: cura.DecideNew})
	}
	if len(given) != 1 {
		return store.ReviewChoice{}, usagef("say one of --keep ehr, --keep cura, --merge, --link PROFILE and --new; which fit is in: starter reviews show ID")
	}
	return given[0], nil
}

// replacedBy are the EHR ids of the patients by whom a patient says that they were replaced: of this EHR, whose base is given.
func replacedBy(p *cura.Profile, base string) []string {
	var ids []string
	for _, link := range p.Links {
		ours := link.PatientBase == "" || strings.TrimRight(link.PatientBase, "/") == strings.TrimRight(base, "/")
		if link.Type == "replaced-by" && ours {
			ids = append(ids, link.PatientEHRID)
		}
	}
	return ids
}

// awaitApplied waits a while until a decision has taken effect, and gives the review as it is then.
func (s *session) awaitApplied(ctx context.Context, l store.Listed, r store.Review) (store.Review, error) {
	timeout := time.NewTimer(answerTimeout)
	defer timeout.Stop()
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	for {
		err := s.store.InOrg(ctx, l.Org, func(tx *store.Tx) error {
			d, err := tx.Review(ctx, r.ID)
			r = d.Review
			return err
		})
		if err != nil || r.State != store.ReviewWasDecided {
			return r, err
		}
		select {
		case <-ctx.Done():
			return r, ctx.Err()
		case <-timeout.C:
			return r, nil
		case <-again.C:
		}
	}
}

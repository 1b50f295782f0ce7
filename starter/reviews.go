package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"
	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/match"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/mappings"
)

// reviewKinds are the kinds of reviews, in the order in which they are told.
func reviewKinds() []cura.ReviewKind {
	return []cura.ReviewKind{cura.ReviewMatch, cura.ReviewMerge, cura.ReviewSplit, cura.ReviewConflict}
}

// reviewsCommand makes the command; takeUp has decisions applied.
func reviewsCommand(takeUp takeUpReviews) *cli.Command {
	const id = "0b7c6a52-8c5e-4a55-9d0e-3f6b1f2f3a10"
	return &cli.Command{
		Name:  "reviews",
		Usage: "what a person decides about patients: whose they are, and which version is shown",
		Description: "A match is a patient of whom it isn't clear whose they are, a merge or a split what the hospital has done to its records,\n" +
			"a conflict two versions of which neither is known to be the later. Meanwhile the patient stays as they were.\n\n" +
			example("starter reviews list st-mary/main"),
		Subcommands: []*cli.Command{
			{
				Name:        "list",
				Usage:       "list what is open, of one connection or of all",
				ArgsUsage:   "[CONNECTION]",
				Description: example("starter reviews list", "starter reviews list st-mary/main --kind merge --all"),
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "kind", Usage: "only this `KIND`: " + words(reviewKinds())},
					&cli.BoolFlag{Name: "all", Usage: "what is applied or overtaken, too"},
				},
				Action: listReviews,
			},
			{
				Name:      "show",
				Usage:     "show a review: both sides element by element, and what decides it: patient data",
				ArgsUsage: "ID",
				Description: "Who looked, and at which review, is in the audit log.\n\n" +
					example("starter reviews show "+id),
				Action: showReview,
			},
			{
				Name:      "resolve",
				Usage:     "decide a review, and have it applied",
				ArgsUsage: "ID",
				Description: "One decision, once; starter reviews show says which fit. It holds until the hospital sends another version of the patient.\n" +
					"While Temporal is down the decision is kept, and the next sync applies it.\n\n" +
					example("starter reviews resolve "+id+" --link 5f0e0d52-7a7a-4b6d-8a58-0b0f6b1f2f3a", "starter reviews resolve "+id+" --keep cura --as kim"),
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "keep", Usage: "ehr: show the hospital's version; cura: leave everything as it is in Cura: `SIDE`"},
					&cli.BoolFlag{Name: "merge", Usage: "follow the hospital's merge: the patient belongs to the other record's profile"},
					&cli.StringFlag{Name: "link", Usage: "the patient belongs to this `PROFILE`"},
					&cli.BoolFlag{Name: "new", Usage: "the patient is somebody new: make a profile of their own"},
				},
				Action: func(c *cli.Context) error { return resolveReview(c, takeUp) },
			},
			{
				Name:      "reopen",
				Usage:     "ask again what was decided, to decide otherwise: a merge can be moved back",
				ArgsUsage: "ID",
				Description: "It opens another review, which starter reviews resolve decides. A conflict that was decided for the hospital's version\n" +
					"can't be taken back.\n\n" + example("starter reviews reopen "+id+" --as kim"),
				Action: reopenReview,
			},
		},
	}
}

// reviewView is a review with where it is and what decides it. It holds no PHI.
type reviewView struct {
	Path string `json:"connection"`
	store.Review

	// Commands are those that decide it; none where that is no longer asked.
	Commands []string `json:"commands"`

	listed store.Listed
}

func viewOfReview(l store.Listed, r store.Review) reviewView {
	v := reviewView{Path: path(l), Review: r, Commands: []string{}, listed: l}
	if r.State == store.ReviewOpen {
		for _, choice := range choices(r) {
			v.Commands = append(v.Commands, "starter reviews resolve "+r.ID+" "+choice)
		}
	}
	return v
}

// choices are the flags of resolve that decide a review.
func choices(r store.Review) []string {
	var all []string
	for _, d := range r.Kind.Decisions() {
		switch d {
		case cura.KeepEHR:
			all = append(all, "--keep ehr")
		case cura.KeepCura:
			all = append(all, "--keep cura")
		case cura.DecideMerge:
			all = append(all, "--merge")
		case cura.DecideNew:
			all = append(all, "--new")
		case cura.DecideLink:
			profiles := r.Candidates
			if r.Kind == cura.ReviewSplit {
				profiles = profiles[:max(0, len(profiles)-1)] // the last is where the patient is now
			}
			for _, p := range profiles {
				all = append(all, "--link "+string(p))
			}
			if len(profiles) == 0 {
				all = append(all, "--link PROFILE")
			}
		}
	}
	return all
}

// reviewsOf reads the reviews of the connections that f leaves, entering each org once.
func (s *session) reviewsOf(ctx context.Context, connections []store.Listed, f store.ReviewFilter) ([]reviewView, error) {
	var views []reviewView
	entered := map[cura.OrgID]bool{}
	for _, place := range connections {
		if entered[place.Org] {
			continue
		}
		entered[place.Org] = true
		err := s.store.InOrg(ctx, place.Org, func(tx *store.Tx) error {
			reviews, err := tx.Reviews(ctx, f)
			for _, r := range reviews {
				if i := slices.IndexFunc(connections, func(l store.Listed) bool { return l.Connection == r.Connection }); i >= 0 {
					views = append(views, viewOfReview(connections[i], r))
				}
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(views, func(a, b reviewView) int { return a.OpenedAt.Compare(b.OpenedAt) })
	return views, nil
}

func listReviews(c *cli.Context) error {
	if c.NArg() > 1 {
		return usagef("%s takes at most one argument, the connection; see: %s --help", c.Command.HelpName, c.Command.HelpName)
	}
	f := store.ReviewFilter{Kind: cura.ReviewKind(c.String("kind")), Open: !c.Bool("all")}
	if f.Kind != "" && !slices.Contains(reviewKinds(), f.Kind) {
		return usagef("--kind is %q; it must be one of %s", f.Kind, words(reviewKinds()))
	}
	return onDatabaseWith(c, func(s *session) error {
		connections, err := s.store.Connections(c.Context)
		if err != nil {
			return err
		}
		if name := c.Args().First(); name != "" {
			l, err := s.store.FindConnection(c.Context, name)
			if err != nil {
				return err
			}
			f.Connection, connections = l.Connection, []store.Listed{l}
		}
		views, err := s.reviewsOf(c.Context, connections, f)
		if err != nil {
			return err
		}
		if len(views) > 0 {
			hint(c, "Look first: starter reviews show ID. Then decide: starter reviews resolve ID and what is in the last column.")
		}
		return printRows(c, views, "No review fits; nobody waits for a decision here.",
			column[reviewView]{"id", func(v reviewView) string { return v.ID }},
			column[reviewView]{"connection", func(v reviewView) string { return v.Path }},
			column[reviewView]{"kind", func(v reviewView) string { return string(v.Kind) }},
			column[reviewView]{"reason", func(v reviewView) string { return v.Reason }},
			column[reviewView]{"since", func(v reviewView) string { return when(&v.OpenedAt) }},
			column[reviewView]{"state", func(v reviewView) string { return string(v.State) }},
			column[reviewView]{"decided by", reviewView.decides})
	})
}

// decides says what decides a review, or what did.
func (v reviewView) decides() string {
	if v.Decision == "" {
		return orDash(strings.ReplaceAll(strings.Join(v.Commands, "\n"), "starter reviews resolve "+v.ID+" ", ""))
	}
	return string(v.Decision) + ", " + v.DecidedBy
}

// onReview runs fn on the review that the command's argument names, in whichever org it is.
func onReview(c *cli.Context, fn func(*session, store.Listed, store.ReviewDetails) error) error {
	id, err := oneWord(c, "the review's id")
	if err != nil {
		return err
	}
	if _, err := uuid.Parse(id); err != nil {
		return usagef("%q isn't the id of a review; list them with: starter reviews list", id)
	}
	return onDatabaseWith(c, func(s *session) error {
		connections, err := s.store.Connections(c.Context)
		if err != nil {
			return err
		}
		asked := map[cura.OrgID]bool{}
		for _, place := range connections {
			if asked[place.Org] {
				continue
			}
			asked[place.Org] = true
			var d store.ReviewDetails
			err := s.store.InOrg(c.Context, place.Org, func(tx *store.Tx) error {
				d, err = tx.Review(c.Context, id)
				return err
			})
			if fault.Is(err, fault.NotFound) {
				continue
			}
			if err != nil {
				return err
			}
			for _, l := range connections {
				if l.Connection == d.Connection {
					return fn(s, l, d)
				}
			}
		}
		return fault.New("looking for the review", fault.NotFound, "there is no such review").WithFix("List them with: starter reviews list --all")
	})
}

// shownReview is a review with the patient's data: PHI.
type shownReview struct {
	reviewView

	// EHRUpdated is when the EHR's version was updated, as it says itself.
	EHRUpdated *time.Time `json:"ehr_last_updated,omitempty"`
	// Profiles are what Cura shows, in the order of the candidates.
	Profiles []reviewSide    `json:"profiles"`
	Elements []reviewElement `json:"elements"`
}

// reviewSide is one profile that a review is about.
type reviewSide struct {
	Profile cura.ProfileID `json:"profile_id"`
	// Role says what it is to the patient.
	Role        string         `json:"role"`
	LastUpdated *time.Time     `json:"last_updated,omitempty"`
	ChangedAt   *time.Time     `json:"changed_at,omitempty"`
	MergedInto  cura.ProfileID `json:"merged_into,omitempty"`
}

// reviewElement is one element on all sides.
type reviewElement struct {
	Path string `json:"path"`
	EHR  string `json:"ehr"`
	// Cura are the values in the order of the profiles.
	Cura []string `json:"cura"`
	// Differs: one of the profiles says something else than the EHR.
	Differs bool `json:"differs"`
}

func showReview(c *cli.Context) error {
	return onReview(c, func(s *session, l store.Listed, d store.ReviewDetails) error {
		if _, err := s.leave(c, orgOf(l), demand{audit.ReviewViewed, l.Connection, store.OperatorRoles()}); err != nil {
			return err
		}
		// The record comes first: nothing is shown that isn't in the log.
		err := s.store.InOrg(c.Context, l.Org, func(tx *store.Tx) error {
			tx.ViewReview(d.Review, s.actor)
			return nil
		})
		if err != nil {
			return err
		}
		v := shownReview{reviewView: viewOfReview(l, d.Review), EHRUpdated: d.LastUpdated}
		patient, err := s.underReview(c.Context, l, d)
		if err != nil {
			hint(c, "The EHR's version isn't shown: %s", explain(err))
		}
		v.Profiles, v.Elements = besides(patient, d)
		hint(c, "This is a patient's data; that you have looked at it is recorded.")
		return v.print(c)
	})
}

// underReview maps the version of a patient that a review is about, as the connection maps it now.
func (s *session) underReview(ctx context.Context, l store.Listed, d store.ReviewDetails) (*cura.Profile, error) {
	if d.Raw == nil {
		return nil, fault.New("reading the version under review", fault.Data, "it was too large to be kept").WithFix("Look at it in the EHR")
	}
	var o *mappings.Overrides
	err := s.store.InOrg(ctx, l.Org, func(tx *store.Tx) error {
		state, err := tx.Connection(ctx, l.Connection)
		if err != nil || state.Overrides == 0 {
			return err
		}
		file, err := tx.MappingOverrides(ctx, l.Connection, state.Overrides)
		if err != nil {
			return err
		}
		o, err = mappings.ParseOverrides("the connection's overrides", []byte(file.Text))
		return err
	})
	if err != nil {
		return nil, err
	}
	record, err := mappings.MapWith(d.Raw, o)
	if err != nil {
		return nil, err
	}
	return record.Profile, nil
}

// besides puts the patient beside each profile that the review is about. What nobody says anything of isn't there.
func besides(patient *cura.Profile, d store.ReviewDetails) ([]reviewSide, []reviewElement) {
	about := d.Candidates
	if d.Linked != "" && !slices.Contains(about, d.Linked) {
		about = append([]cura.ProfileID{d.Linked}, about...)
	}
	sides, elements := []reviewSide{}, []reviewElement{}
	for _, e := range match.Compare(patient, nil) {
		elements = append(elements, reviewElement{Path: e.Path, EHR: e.EHR, Cura: []string{}})
	}
	for _, id := range about {
		p := d.Profile(id)
		if p == nil {
			continue
		}
		sides = append(sides, reviewSide{
			Profile: p.ID, Role: roleInReview(d, p.ID), LastUpdated: p.LastUpdated, ChangedAt: p.ChangedAt, MergedInto: p.MergedInto,
		})
		for i, e := range match.Compare(patient, p.Record) {
			elements[i].Cura = append(elements[i].Cura, e.Cura)
			elements[i].Differs = elements[i].Differs || e.Differs
		}
	}
	return sides, slices.DeleteFunc(elements, func(e reviewElement) bool { return e.EHR == "" && !e.Differs })
}

// roleInReview says what a profile is to the patient that a review is about.
func roleInReview(d store.ReviewDetails, id cura.ProfileID) string {
	other := len(d.Candidates) > 1 && id == d.Candidates[1]
	switch {
	case d.Kind == cura.ReviewMerge && other:
		return "the other record's, that the hospital has merged the patient into"
	case d.Kind == cura.ReviewSplit && !other && id != d.Linked:
		return "the patient's before the merge"
	case id == d.Linked:
		return "the patient's now"
	}
	return "a candidate"
}

func (v shownReview) print(c *cli.Context) error {
	if asJSON(c) {
		return printJSON(c, v)
	}
	lines := []string{
		"Review      " + v.ID,
		"Connection  " + v.Path,
		"Kind        " + string(v.Kind) + ": " + v.Reason,
		"Since       " + when(&v.OpenedAt),
		"State       " + v.standing(),
		"EHR         last updated " + when(v.EHRUpdated),
	}
	columns := []column[reviewElement]{
		{"element", func(e reviewElement) string { return e.Path }},
		{"EHR", func(e reviewElement) string { return orDash(printable(e.EHR)) }},
	}
	for i, p := range v.Profiles {
		name := "Cura"
		if len(v.Profiles) > 1 {
			name = fmt.Sprintf("Cura %d", i+1)
		}
		about := "; last updated " + when(p.LastUpdated)
		if p.ChangedAt != nil {
			about += ", changed in Cura " + when(p.ChangedAt)
		}
		if p.MergedInto != "" {
			about += ", merged into profile " + string(p.MergedInto)
		}
		lines = append(lines, fmt.Sprintf("%-12sprofile %s: %s%s", name, p.Profile, p.Role, about))
		columns = append(columns, column[reviewElement]{name, func(e reviewElement) string {
			if e.Cura[i] == e.EHR {
				return orDash(printable(e.Cura[i]))
			}
			return "≠ " + orDash(printable(e.Cura[i]))
		}})
	}
	if len(v.Profiles) == 0 {
		lines = append(lines, "Cura        has no profile that may be meant")
	}
	fmt.Fprintln(c.App.Writer, strings.Join(append(lines, ""), "\n"))
	if err := printTable(c, v.Elements, "Neither side says anything.", columns...); err != nil {
		return err
	}
	if len(v.Commands) > 0 {
		fmt.Fprintln(c.App.Writer, "\nDecide it with one of:")
		for _, command := range v.Commands {
			fmt.Fprintln(c.App.Writer, "    "+command)
		}
	}
	return nil
}

// standing says in words how far a review has come.
func (v reviewView) standing() string {
	switch {
	case v.Decision == "":
		return string(v.State)
	case v.Chosen != "":
		return fmt.Sprintf("%s: %s, profile %s, by %s at %s", v.State, v.Decision, v.Chosen, v.DecidedBy, when(v.DecidedAt))
	}
	return fmt.Sprintf("%s: %s by %s at %s", v.State, v.Decision, v.DecidedBy, when(v.DecidedAt))
}

// printable is text of the EHR's as a terminal may be given it: no character of it commands the terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, text)
}

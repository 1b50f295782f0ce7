package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/store"
)

func rosterCommand() *cli.Command {
	return &cli.Command{
		Name:  "roster",
		Usage: "whom a connection reads, where its EHR can't be searched system-wide",
		Description: "By itself a roster is fed by whom Cura knows (--roster-source enrolment), by nothing (list) or by a Group of the\n" +
			"EHR (starter roster group). Each sync brings it up to date at its beginning.\n\n" +
			example("starter roster show st-mary/epic"),
		Subcommands: []*cli.Command{
			{
				Name:        "show",
				Usage:       "show a roster in numbers, and who wasn't found and why; without saying who it is",
				ArgsUsage:   "CONNECTION",
				Description: example("starter roster show st-mary/epic"),
				Action:      showRoster,
			},
			{
				Name:      "enrol",
				Usage:     "have the EHR asked for people, by the connection's match identifier",
				ArgsUsage: "CONNECTION FILE",
				Description: "FILE is a CSV file, - standard input, whose first line names its columns: identifier, family, given, birth_date\n" +
					"(YYYY-MM-DD, YYYY-MM or YYYY) and gender. Each person needs the identifier, and a family name or a birth date to be\n" +
					"told from others by. The next sync asks for them; who is found for certain is read.\n\n" +
					example("starter roster enrol st-mary/epic ./people.csv"),
				Action: enrol,
			},
			{
				Name:      "upload",
				Usage:     "add patients by their EHR ids",
				ArgsUsage: "CONNECTION FILE",
				Description: "FILE has one id of a Patient resource a line, # begins a comment; - is standard input. Whom the EHR\n" +
					"doesn't have is told by starter roster show after the next sync.\n\n" +
					example("starter roster upload st-mary/epic ./patients.txt"),
				Action: uploadRoster,
			},
			{
				Name:      "group",
				Usage:     "have a Group of the EHR feed the roster",
				ArgsUsage: "CONNECTION GROUP-ID",
				Description: "Each sync reads the Group: who is new joins, and who has left it isn't read any more. What was read of them stays.\n" +
					"Undo it with: starter connection edit CONNECTION --roster-source enrolment\n\n" +
					example("starter roster group st-mary/epic eIscQb2HmqkT.aPxBKDR1mIj3721CpVk1suC7rlu3yX83"),
				Action: followGroup,
			},
			{
				Name:      "remove",
				Usage:     "take patients off the roster",
				ArgsUsage: "CONNECTION FILE",
				Description: "FILE is as for upload. They aren't read any more; what was read of them stays. Where a Group feeds the roster,\n" +
					"whom it lists comes back with the next sync: have the hospital take them out of the Group.\n\n" +
					example("starter roster remove st-mary/epic ./patients.txt"),
				Action: removeFromRoster,
			},
		},
	}
}

// twoWords are the arguments of a command that takes a connection and something else; what says what that is.
func twoWords(c *cli.Context, what string) (connection, other string, err error) {
	if c.NArg() != 2 || c.Args().Get(0) == "" || c.Args().Get(1) == "" {
		return "", "", usagef("%s takes two arguments, the connection and %s; see: %s --help", c.Command.HelpName, what, c.Command.HelpName)
	}
	return c.Args().Get(0), c.Args().Get(1), nil
}

// onRoster runs fn on the connection of that name, which must be in service.
func onRoster(c *cli.Context, connection string, fn func(*session, store.Listed, store.ConnectionState) error) error {
	s, err := openSession(c)
	if err != nil {
		return err
	}
	defer s.close()
	l, err := s.store.FindConnection(c.Context, connection)
	if err != nil {
		return err
	}
	conn, err := s.inService(c.Context, l)
	if err != nil {
		return err
	}
	return fn(s, l, conn)
}

// rosterView is a roster as it is shown: numbers, and what a person may have to look at.
type rosterView struct {
	Source  cura.RosterSource `json:"source"`
	GroupID string            `json:"group_id,omitempty"`
	// ReadBy are the types that are read by the roster; none: the connection's EHR is searched system-wide.
	ReadBy []cura.ResourceType `json:"read_by"`
	store.RosterCounts

	// Open are enrolments whose person isn't a member.
	Open []store.Enrolment `json:"open,omitempty"`
}

// shownEnrolments is how many enrolments a table shows; JSON has up to all.
const (
	shownEnrolments = 50
	maxEnrolments   = 1_000_000
)

// viewOfRoster reads a roster with at most limit of its open enrolments; choices are how the connection's types are read.
func viewOfRoster(ctx context.Context, tx *store.Tx, conn cura.Connection, choices []cura.StrategyChoice, limit int) (rosterView, error) {
	v := rosterView{Source: conn.RosterSource, GroupID: conn.GroupID, ReadBy: []cura.ResourceType{}}
	for _, choice := range choices {
		if choice.Strategy.ByPatient() {
			v.ReadBy = append(v.ReadBy, choice.Type)
		}
	}
	var err error
	if v.RosterCounts, err = tx.RosterCounts(ctx, conn.ID); err != nil {
		return v, err
	}
	v.Open, err = tx.OpenEnrolments(ctx, conn.ID, limit)
	return v, err
}

// source says what feeds the roster by itself.
func (v rosterView) source() string {
	switch v.Source {
	case cura.RosterGroup:
		return "the Group " + v.GroupID + " of the EHR"
	case cura.RosterList:
		return "nothing by itself: what is uploaded or enrolled"
	case cura.RosterEnrolment:
	}
	return "whom Cura knows, by the connection's match identifier"
}

// members says in a line how many there are.
func (v rosterView) members() string {
	var parts []string
	for _, source := range []cura.RosterSource{cura.RosterEnrolment, cura.RosterList, cura.RosterGroup} {
		if n := v.Members[source]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d by %s", n, source))
		}
	}
	text := strconv.Itoa(v.Active())
	if len(parts) > 0 {
		text += " (" + strings.Join(parts, ", ") + ")"
	}
	if v.Unknown > 0 {
		text += fmt.Sprintf("; the EHR doesn't have %d of them (starter dead-letters list)", v.Unknown)
	}
	if v.Removed > 0 {
		text += fmt.Sprintf("; %d removed", v.Removed)
	}
	return text
}

// enrolments says in a line how far they have come.
func (v rosterView) enrolments() string {
	var parts []string
	for _, state := range []store.EnrolmentState{store.EnrolmentFound, store.EnrolmentPending, store.EnrolmentNotFound, store.EnrolmentAmbiguous} {
		if n := v.Enrolments[state]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, strings.ReplaceAll(string(state), "-", " ")))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// readBy says which types are read by the roster.
func (v rosterView) readBy() string {
	if len(v.ReadBy) == 0 {
		return "no type: the EHR is searched system-wide, and the roster isn't used"
	}
	return words(v.ReadBy)
}

func showRoster(c *cli.Context) error {
	return onConnection(c, func(s *session, l store.Listed) error {
		conn, err := s.state(c.Context, l)
		if err != nil {
			return err
		}
		limit := shownEnrolments
		if asJSON(c) {
			limit = maxEnrolments
		}
		var v rosterView
		err = s.store.InOrg(c.Context, l.Org, func(tx *store.Tx) error {
			choices, err := strategyChoices(c.Context, tx, conn.Connection)
			if err != nil {
				return err
			}
			v, err = viewOfRoster(c.Context, tx, conn.Connection, choices, limit)
			return err
		})
		if err != nil {
			return err
		}
		if asJSON(c) {
			return printJSON(c, v)
		}
		fmt.Fprintln(c.App.Writer, strings.Join([]string{
			"Roster      " + path(l),
			"Fed by      " + v.source(),
			"Members     " + v.members(),
			"Enrolments  " + v.enrolments(),
			"Read by it  " + v.readBy(),
		}, "\n"))
		if len(v.Open) == 0 {
			return nil
		}
		fmt.Fprintln(c.App.Writer)
		err = printTable(c, v.Open, "",
			column[store.Enrolment]{"enrolment", func(e store.Enrolment) string { return e.ID }},
			column[store.Enrolment]{"line", func(e store.Enrolment) string { return line(e.Line) }},
			column[store.Enrolment]{"state", func(e store.Enrolment) string { return string(e.State) }},
			column[store.Enrolment]{"why", func(e store.Enrolment) string { return orElse(e.Reason, "the EHR hasn't been asked yet") }},
			column[store.Enrolment]{"asked", func(e store.Enrolment) string { return when(e.AskedAt) }})
		if err != nil {
			return err
		}
		open := v.Enrolments[store.EnrolmentPending] + v.Enrolments[store.EnrolmentNotFound] + v.Enrolments[store.EnrolmentAmbiguous]
		if open > len(v.Open) {
			hint(c, "… and %d more; --output json lists all.", open-len(v.Open))
		}
		if v.Enrolments[store.EnrolmentAmbiguous] > 0 {
			hint(c, "Mend an ambiguous one by enrolling it again with better particulars, or by uploading the patient's EHR id.")
		}
		return nil
	})
}

// line is the line of a file that an enrolment came from.
func line(n int) string {
	if n == 0 {
		return "Cura"
	}
	return strconv.Itoa(n)
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

func enrol(c *cli.Context) error {
	name, file, err := twoWords(c, "the CSV file, or - for standard input")
	if err != nil {
		return err
	}
	text, err := readInput(c, file, maxRosterFile)
	if err != nil {
		return usagef("the CSV file: %s", err)
	}
	people, err := parsePeople(file, text)
	if err != nil {
		return err
	}
	return onRoster(c, name, func(s *session, l store.Listed, conn store.ConnectionState) error {
		if err := checkIdentifiers(file, people, conn.Match); err != nil {
			return err
		}
		var counts store.EnrolCounts
		err := s.store.InOrg(c.Context, l.Org, func(tx *store.Tx) error {
			var err error
			counts, err = tx.Enrol(c.Context, l.Connection, people, s.actor)
			return err
		})
		if err != nil {
			return err
		}
		hint(c, "The next sync asks the EHR for them. See what comes of it with: starter roster show %s", path(l))
		return printOne(c, counts, fmt.Sprintf("Enrolled %d of %s: %d new, %d to be asked for again, %d known already.",
			len(people), path(l), counts.Added, counts.Again, counts.Known))
	})
}

// uploadResult is what an upload came to.
type uploadResult struct {
	Added int `json:"added"`
	Known int `json:"known"`
}

func uploadRoster(c *cli.Context) error {
	var result uploadResult
	return editRoster(c, func(tx *store.Tx, l store.Listed, ids []string, actor string) error {
		var err error
		result.Added, result.Known, err = tx.AddMembers(c.Context, l.Connection, cura.RosterList, ids, actor)
		return err
	}, func(l store.Listed, conn store.ConnectionState) error {
		if conn.RosterSource == cura.RosterEnrolment {
			hint(c, "Whom Cura knows joins the roster too; to read the uploaded patients alone: starter connection edit %s --roster-source list", path(l))
		}
		return printOne(c, result, fmt.Sprintf("Added %d patients to the roster of %s; %d were known already.", result.Added, path(l), result.Known))
	})
}

// patientIDs reads patient ids from a file, or from standard input for -. Errors are usage errors that name lines, never ids.
func patientIDs(c *cli.Context, name string) ([]string, error) {
	text, err := readInput(c, name, maxRosterFile)
	if err != nil {
		return nil, usagef("the patient ids: %s", err)
	}
	if name == "-" {
		name = "standard input"
	}
	return parsePatientIDs(name, text)
}

// editRoster runs fn on the roster of the connection that the command names, with the ids in its file.
func editRoster(c *cli.Context, fn func(tx *store.Tx, l store.Listed, ids []string, actor string) error, done func(store.Listed, store.ConnectionState) error) error {
	name, file, err := twoWords(c, "the file of patient ids, or - for standard input")
	if err != nil {
		return err
	}
	ids, err := patientIDs(c, file)
	if err != nil {
		return err
	}
	return onRoster(c, name, func(s *session, l store.Listed, conn store.ConnectionState) error {
		if err := s.store.InOrg(c.Context, l.Org, func(tx *store.Tx) error { return fn(tx, l, ids, s.actor) }); err != nil {
			return err
		}
		return done(l, conn)
	})
}

// removal is what removing patients came to.
type removal struct {
	Removed int `json:"removed"`
	Unknown int `json:"unknown"`
}

func removeFromRoster(c *cli.Context) error {
	var result removal
	return editRoster(c, func(tx *store.Tx, l store.Listed, ids []string, actor string) error {
		var err error
		result.Removed, result.Unknown, err = tx.RemoveMembers(c.Context, l.Connection, ids, actor)
		return err
	}, func(l store.Listed, conn store.ConnectionState) error {
		if conn.RosterSource == cura.RosterGroup {
			hint(c, "Whom the Group lists comes back with the next sync; have the hospital take them out of it.")
		}
		return printOne(c, result, fmt.Sprintf("Removed %d patients from the roster of %s; %d weren't on it. What was read of them stays.",
			result.Removed, path(l), result.Unknown))
	})
}

func followGroup(c *cli.Context) error {
	name, group, err := twoWords(c, "the Group's id")
	if err != nil {
		return err
	}
	if !validGroupID(group) {
		return usagef("that can't be the id of a Group: give the id alone as the hospital has it, without Group/ and without blanks")
	}
	return onRoster(c, name, func(s *session, l store.Listed, conn store.ConnectionState) error {
		least := slices.Equal(conn.Scopes, defaultScopes(conn.Connection))
		conn.RosterSource, conn.GroupID = cura.RosterGroup, group
		if least {
			conn.Scopes = defaultScopes(conn.Connection)
		}
		if err := s.editConnection(c.Context, connectionEdit{conn: conn.Connection}); err != nil {
			return err
		}
		hint(c, "Read it now with: starter sync %s --types Patient", path(l))
		return printOne(c, map[string]string{"roster_source": string(conn.RosterSource), "group_id": group},
			"The Group feeds the roster of "+path(l)+" from the next sync on.")
	})
}

// validGroupID lets through what hospitals call Groups, such as mylist|42, and nothing that changes a URL's path.
func validGroupID(id string) bool {
	return len(id) <= 255 && strings.Trim(id, ".") != "" && !strings.ContainsFunc(id, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`/\?#%&`, r)
	})
}

// readInput reads a file, or standard input for -.
func readInput(c *cli.Context, name string, limit int64) ([]byte, error) {
	if name != "-" {
		return readSmall(name, limit)
	}
	text, err := io.ReadAll(io.LimitReader(c.App.Reader, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("standard input has more than %d bytes", limit)
	}
	return text, err
}

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/match"
	"github.com/cura-health/ehr-sync/internal/store"
)

func profileCommand() *cli.Command {
	const id = "5f0e0d52-7a7a-4b6d-8a58-0b0f6b1f2f3a"
	return &cli.Command{
		Name:  "profile",
		Usage: "a person as Cura shows them: patient data",
		Description: "Not to be confused with starter profiles, which are of EHRs.\n\n" +
			example("starter profile show st-mary "+id),
		Subcommands: []*cli.Command{
			{
				Name:        "show",
				Usage:       "show what Cura shows of a person, and what Cura itself has changed of it: patient data",
				ArgsUsage:   "ORG PROFILE",
				Description: "Who looked, and at whom, is in the audit log.\n\n" + example("starter profile show st-mary "+id),
				Action:      showPerson,
			},
			{
				Name:      "set",
				Usage:     "change what Cura shows of a person, as Cura's applications do",
				ArgsUsage: "ORG PROFILE",
				Description: "What isn't named stays; an empty value takes it away. When the hospital's next version differs, the later of the two is shown,\n" +
					"and a person decides where that can't be told (starter reviews). Values can be seen by others on this machine while the command\n" +
					"runs.\n\n" +
					example("starter profile set st-mary "+id+" --name-family Okafor --phone \"+44 20 7946 0000\" --as kim"),
				Flags:  demographicFlags(),
				Action: setPerson,
			},
		},
	}
}

func demographicFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "name-family", Usage: "the family `NAME`"},
		&cli.StringFlag{Name: "name-given", Usage: "the given `NAMES`, with blanks between"},
		&cli.StringFlag{Name: "birth-date", Usage: "the birth `DATE`: 1980-02-28, 1980-02 or 1980"},
		&cli.StringFlag{Name: "gender", Usage: "the administrative gender, a `CODE` of R4: " + strings.Join(store.AdministrativeGenders(), ", ")},
		&cli.StringFlag{Name: "phone", Usage: "the first phone `NUMBER`; others stay"},
		&cli.StringFlag{Name: "email", Usage: "the first e-mail `ADDRESS`; others stay"},
		&cli.StringFlag{Name: "address", Usage: "the first postal `ADDRESS`, as on an envelope with commas; others stay"},
	}
}

// orgAndProfile are the arguments of a command about a profile.
func orgAndProfile(c *cli.Context) (org string, id cura.ProfileID, err error) {
	if c.NArg() != 2 || c.Args().Get(0) == "" || c.Args().Get(1) == "" {
		return "", "", usagef("%s takes two arguments, the org and the profile's id; see: %s --help", c.Command.HelpName, c.Command.HelpName)
	}
	return c.Args().Get(0), cura.ProfileID(c.Args().Get(1)), nil
}

// personView is a profile with what Cura has changed of it: PHI.
type personView struct {
	Org string `json:"org"`
	store.ProfileState

	Changes []store.ProfileChange `json:"changes"`
}

func showPerson(c *cli.Context) error {
	orgName, id, err := orgAndProfile(c)
	if err != nil {
		return err
	}
	return onOrg(c, orgName, func(s *session, org store.Org) error {
		if _, err := s.leave(c, org, demand{kind: audit.ProfileViewed, roles: store.OperatorRoles()}); err != nil {
			return err
		}
		v := personView{Org: org.Name, Changes: []store.ProfileChange{}}
		// What is read is shown only when its record is in the log.
		err := s.store.InOrg(c.Context, org.ID, func(tx *store.Tx) error {
			if v.ProfileState, err = tx.ProfileState(c.Context, id); err != nil {
				return err
			}
			changes, err := tx.ProfileChanges(c.Context, id)
			v.Changes = append(v.Changes, changes...)
			tx.Audit(audit.Record{
				Kind: audit.ProfileViewed, Actor: s.actor, Outcome: audit.Success, Details: map[string]any{"profile": v.ID, "asserted": true},
			})
			return err
		})
		if err != nil {
			return err
		}
		hint(c, "This is a patient's data; that you have looked at it is recorded.")
		return v.print(c)
	})
}

func (v personView) print(c *cli.Context) error {
	if asJSON(c) {
		return printJSON(c, v)
	}
	lines := []string{
		"Profile  " + string(v.ID) + " of " + v.Org,
		"Version  of connection " + string(v.Connection) + ", last updated " + when(v.LastUpdated),
		"Changed  " + when(v.ChangedAt) + " in Cura",
	}
	if v.MergedInto != "" {
		lines = append(lines, "Merged   into profile "+string(v.MergedInto))
	}
	fmt.Fprintln(c.App.Writer, strings.Join(append(lines, ""), "\n"))
	elements := slices.DeleteFunc(match.Compare(nil, v.Record), func(e match.Element) bool { return e.Cura == "" })
	err := printTable(c, elements, "It says nothing.",
		column[match.Element]{"element", func(e match.Element) string { return e.Path }},
		column[match.Element]{"value", func(e match.Element) string { return printable(e.Cura) }})
	if err != nil || len(v.Changes) == 0 {
		return err
	}
	fmt.Fprintln(c.App.Writer)
	return printTable(c, v.Changes, "",
		column[store.ProfileChange]{"changed in Cura", func(p store.ProfileChange) string { return when(&p.ChangedAt) }},
		column[store.ProfileChange]{"by", func(p store.ProfileChange) string { return p.Actor }},
		column[store.ProfileChange]{"elements", func(p store.ProfileChange) string { return strings.Join(p.Elements, ", ") }})
}

// personSet is what a change came to. It holds no values.
type personSet struct {
	Org     string         `json:"org"`
	Profile cura.ProfileID `json:"profile_id"`
	// Changed are the paths of the elements that are others now; none: nothing was written.
	Changed []string `json:"changed"`
}

func setPerson(c *cli.Context) error {
	orgName, id, err := orgAndProfile(c)
	if err != nil {
		return err
	}
	edit, err := readEdit(c)
	if err != nil {
		return err
	}
	return onOrg(c, orgName, func(s *session, org store.Org) error {
		if _, err := s.leave(c, org, demand{kind: audit.ProfileChanged, roles: []cura.Role{cura.RoleOps}}); err != nil {
			return err
		}
		r := personSet{Org: org.Name, Profile: id, Changed: []string{}}
		err := s.store.InOrg(c.Context, org.ID, func(tx *store.Tx) error {
			changed, err := tx.ChangeProfile(c.Context, id, edit, s.actor)
			r.Changed = append(r.Changed, changed...)
			return err
		})
		if err != nil {
			return err
		}
		if len(r.Changed) == 0 {
			return printOne(c, r, "Nothing is changed: the profile says so already.")
		}
		return printOne(c, r, "Changed of profile "+string(id)+": "+strings.Join(r.Changed, ", ")+".")
	})
}

// readEdit makes the change that the flags ask for.
func readEdit(c *cli.Context) (func(*cura.Profile) error, error) {
	if !slices.ContainsFunc(demographicFlags(), func(f cli.Flag) bool { return c.IsSet(f.Names()[0]) }) {
		return nil, usagef("nothing is named that is to be changed; see: %s --help", c.Command.HelpName)
	}
	birth, err := birthDate(c.String("birth-date"))
	if err != nil {
		return nil, err
	}
	gender := c.String("gender")
	if gender != "" && !slices.Contains(store.AdministrativeGenders(), gender) {
		return nil, usagef("--gender isn't a code of R4's administrative-gender; give one of %s", strings.Join(store.AdministrativeGenders(), ", "))
	}
	return func(p *cura.Profile) error {
		if p.Name == nil {
			p.Name = &cura.Name{}
		}
		if c.IsSet("name-family") {
			p.Name.Family = strings.TrimSpace(c.String("name-family"))
		}
		if c.IsSet("name-given") {
			p.Name.Given = strings.Fields(c.String("name-given"))
		}
		if c.IsSet("birth-date") {
			p.BirthDate = birth
		}
		if c.IsSet("gender") {
			p.Gender = gender
		}
		if c.IsSet("phone") {
			p.Telecom = withContact(p.Telecom, "phone", strings.TrimSpace(c.String("phone")))
		}
		if c.IsSet("email") {
			p.Telecom = withContact(p.Telecom, "email", strings.TrimSpace(c.String("email")))
		}
		if c.IsSet("address") {
			p.Addresses = withAddress(p.Addresses, strings.TrimSpace(c.String("address")))
		}
		return nil
	}, nil
}

// birthDate reads a date that is a year, a month or a day; nil for an empty text.
func birthDate(text string) (*cura.Moment, error) {
	if text == "" {
		return nil, nil
	}
	for _, as := range []struct {
		layout              string
		precision           cura.Precision
		years, months, days int
	}{
		{time.DateOnly, cura.PrecisionDay, 0, 0, 1},
		{"2006-01", cura.PrecisionMonth, 0, 1, 0},
		{"2006", cura.PrecisionYear, 1, 0, 0},
	} {
		at, err := time.Parse(as.layout, text)
		if err != nil || at.Year() == 0 {
			continue
		}
		if at.After(time.Now()) {
			return nil, usagef("--birth-date is in the future")
		}
		return &cura.Moment{Text: text, Precision: as.precision, Start: at, End: at.AddDate(as.years, as.months, as.days)}, nil
	}
	return nil, usagef("--birth-date isn't a date; give it as 1980-02-28, 1980-02 or 1980")
}

// withContact puts a value into the first contact point of a system, or takes that one away for an empty value.
func withContact(telecom []cura.ContactPoint, system, value string) []cura.ContactPoint {
	first := slices.IndexFunc(telecom, func(p cura.ContactPoint) bool { return p.System == system })
	switch {
	case first < 0 && value == "":
	case first < 0:
		telecom = append(telecom, cura.ContactPoint{System: system, Value: value})
	case value == "":
		telecom = slices.Delete(telecom, first, first+1)
	default:
		telecom[first].Value = value
	}
	return telecom
}

// withAddress puts a text in the place of the first address, or takes that one away for an empty text. The parts that the EHR
// gave go with the old one.
func withAddress(addresses []cura.Address, text string) []cura.Address {
	switch {
	case len(addresses) == 0 && text == "":
	case len(addresses) == 0:
		addresses = append(addresses, cura.Address{Text: text})
	case text == "":
		addresses = addresses[1:]
	default:
		addresses[0] = cura.Address{Use: addresses[0].Use, Type: addresses[0].Type, Text: text}
	}
	return addresses
}

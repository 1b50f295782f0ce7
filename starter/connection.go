package main

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/profile"
	"github.com/cura-health/ehr-sync/internal/store"
)

func connectionCommand() *cli.Command {
	return &cli.Command{
		Name:        "connection",
		Usage:       "the connections to hospitals' EHRs",
		Description: example("starter connection list"),
		Subcommands: []*cli.Command{
			{
				Name:  "add",
				Usage: "add a connection of an org",
				Description: "Everything is checked before it is stored. The client secret comes from a file, from standard input\n" +
					"(--secret-file -) or from a prompt, never from the command line; it is sealed before it reaches the database.\n\n" +
					example("starter connection add --org st-mary --name main --base-url https://ehr.st-mary.example/fhir/R4 \\",
						"   --client-id cura --secret-file ./secret --match mrn:urn:oid:1.2.36.146.595.217.0.1"),
				Flags: append([]cli.Flag{
					&cli.StringFlag{Name: "org", Usage: "the `ORG` whose EHR it is"},
					&cli.StringFlag{Name: "name", Usage: "a `NAME` for it, its own within the org"},
				}, settingFlags()...),
				Action: addConnection,
			},
			{
				Name:        "list",
				Usage:       "list the connections",
				Description: example("starter connection list"),
				Action:      listConnections,
			},
			{
				Name:        "show",
				Usage:       "show a connection: settings, phase, how each type is read and why, last runs; never its secret",
				ArgsUsage:   "CONNECTION",
				Description: example("starter connection show st-mary/main"),
				Action:      showConnection,
			},
			{
				Name:      "edit",
				Usage:     "change settings of a connection",
				ArgsUsage: "CONNECTION",
				Description: "What isn't named stays. An onboarding that waits goes on with: starter retry CONNECTION\n" +
					"Another profile makes every type be read from the start, another strategy its type.\n\n" +
					example("starter connection edit st-mary/main --secret-file ./new-secret",
						"starter connection edit st-mary/main --profile epic --strategy Observation=snapshot --budget 120"),
				Flags:  settingFlags(),
				Action: editConnection,
			},
			{
				Name:      "remove",
				Usage:     "take a connection out of service",
				ArgsUsage: "CONNECTION",
				Description: "Its schedule and its secret are deleted, and what its pilot has written; what it brought into Cura stays.\n" +
					"A running onboarding has to be aborted first.\n\n" +
					example("starter connection remove st-mary/main --yes"),
				Flags:  []cli.Flag{&cli.BoolFlag{Name: "yes", Usage: "do it; without it nothing is removed"}},
				Action: removeConnection,
			},
		},
	}
}

func addConnection(c *cli.Context) error {
	if err := noWords(c); err != nil {
		return err
	}
	if err := need(c, "org", "name", "base-url", "client-id", "match"); err != nil {
		return err
	}
	conn := cura.Connection{
		ID: cura.ConnectionID(uuid.NewString()), Name: c.String("name"),
		EHRProfile: profile.Generic, Types: cura.ResourceTypes(), Phase: cura.PhaseNew, Health: cura.HealthOK,
		RosterSource: cura.RosterEnrolment,
	}
	if !validConnectionName(conn.Name) {
		return usagef("%q can't be the name of a connection: it takes 1 to 40 lower-case letters, digits and hyphens, and begins with a letter or digit", conn.Name)
	}
	conn.Scopes = defaultScopes(conn)
	conn, err := applySettings(c, conn)
	if err != nil {
		return err
	}
	edit := connectionEdit{}
	if edit.pace, err = readPaceSettings(c); err != nil {
		return err
	}
	if err := checkSecretSource(c); err != nil {
		return err
	}
	s, err := openSession(c)
	if err != nil {
		return err
	}
	defer s.close()
	org, err := s.store.OrgByName(c.Context, c.String("org"))
	if err != nil {
		return err
	}
	if edit.sealer, err = s.sealer(); err != nil {
		return err
	}
	if edit.secret, err = readSecret(c); err != nil {
		return err
	}
	conn.OrgID = org.ID
	edit.conn = conn
	if err := s.addConnection(c.Context, edit); err != nil {
		return err
	}
	name := org.Name + "/" + conn.Name
	hintRoster(c, conn, name)
	hintDeliveries(c, conn, name)
	hint(c, "Next: starter test %s", name)
	return printOne(c, map[string]string{"id": string(conn.ID), "org": org.Name, "name": conn.Name},
		"Added connection "+name+" ("+string(conn.ID)+").")
}

func editConnection(c *cli.Context) error {
	if _, err := oneWord(c, "the connection: its id, ORG/NAME or NAME"); err != nil {
		return err
	}
	if !anySet(c, settingFlags()) {
		return usagef("nothing is to be changed; %s --help lists the settings", c.Command.HelpName)
	}
	return onConnection(c, func(s *session, l store.Listed) error {
		old, err := s.inService(c.Context, l)
		if err != nil {
			return err
		}
		conn, err := applySettings(c, old.Connection)
		if err != nil {
			return err
		}
		if !c.IsSet("secret-file") && (sendsElsewhere(old.BaseURL, conn.BaseURL) || sendsElsewhere(old.TokenURL, conn.TokenURL)) {
			return usagef("the secret would be sent to another host than it was given for; give it again with --secret-file FILE")
		}
		edit := connectionEdit{conn: conn}
		if edit.pace, err = readPaceSettings(c); err != nil {
			return err
		}
		if c.IsSet("secret-file") {
			if edit.sealer, err = s.sealer(); err != nil {
				return err
			}
			if edit.secret, err = readSecret(c); err != nil {
				return err
			}
		}
		if err := s.editConnection(c.Context, edit); err != nil {
			return err
		}
		if old.EHRProfile != conn.EHRProfile {
			hintRoster(c, conn, path(l))
		}
		hintDeliveries(c, conn, path(l))
		next := "starter test " + path(l)
		if old.Health == cura.HealthAttention {
			next += ", then: starter retry " + path(l)
		}
		hint(c, "Next: %s", next)
		return printOne(c, map[string]string{"id": string(conn.ID), "org": l.OrgName, "name": conn.Name}, "Changed connection "+path(l)+".")
	})
}

// sendsElsewhere reports whether a changed URL leads to another host or port.
func sendsElsewhere(before, after string) bool {
	was, err := url.Parse(before)
	if err != nil {
		return true
	}
	is, err := url.Parse(after)
	return err != nil || was.Host != is.Host
}

func listConnections(c *cli.Context) error {
	return onDatabase(c, func(s *session) error {
		rows, err := s.connections(c.Context)
		if err != nil {
			return err
		}
		return printRows(c, rows, "There are no connections; add one with: starter connection add",
			column[connectionRow]{"connection", connectionRow.path},
			column[connectionRow]{"phase", func(r connectionRow) string { return string(r.Phase) }},
			column[connectionRow]{"health", func(r connectionRow) string { return string(r.Health) }},
			column[connectionRow]{"types", func(r connectionRow) string { return strconv.Itoa(len(r.Types)) }},
			column[connectionRow]{"base url", func(r connectionRow) string { return r.BaseURL }},
			column[connectionRow]{"id", func(r connectionRow) string { return string(r.ID) }})
	})
}

// anySet reports whether one of the flags was given.
func anySet(c *cli.Context, flags []cli.Flag) bool {
	for _, f := range flags {
		if c.IsSet(f.Names()[0]) {
			return true
		}
	}
	return false
}

// settingsFault makes a usage error of a fault in settings that were typed.
func settingsFault(err error) error {
	if fault.Is(err, fault.Config) {
		return usagef("%s", strings.TrimSuffix(explain(err), "."))
	}
	return err
}

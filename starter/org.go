package main

import (
	"regexp"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/store"
)

func orgCommand() *cli.Command {
	return &cli.Command{
		Name:        "org",
		Usage:       "the hospital organizations",
		Description: example("starter org add st-mary"),
		Subcommands: []*cli.Command{
			{
				Name:        "add",
				Usage:       "add an org, with the sandbox org that rehearses for it",
				ArgsUsage:   "NAME",
				Description: example("starter org add st-mary"),
				Action:      addOrg,
			},
			{
				Name:        "list",
				Usage:       "list the orgs",
				Description: example("starter org list"),
				Action:      listOrgs,
			},
			policyCommand(),
			operatorsCommand(),
		},
	}
}

func addOrg(c *cli.Context) error {
	name, err := oneWord(c, "the org's name")
	if err != nil {
		return err
	}
	if !validOrgName(name) {
		return usagef("%q can't be the name of an org: it takes 1 to 63 lower-case letters, digits and hyphens, and begins with a letter or digit", name)
	}
	s, err := openSession(c)
	if err != nil {
		return err
	}
	defer s.close()
	org, err := s.store.AddOrg(c.Context, name, s.actor)
	if err != nil {
		return err
	}
	hint(c, "Next: starter connection add --org %s --help", name)
	return printOne(c, org, "Added org "+org.Name+" ("+string(org.ID)+").")
}

func validOrgName(name string) bool {
	return regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`).MatchString(name)
}

func listOrgs(c *cli.Context) error {
	return onDatabase(c, func(s *session) error {
		orgs, err := s.store.Orgs(c.Context)
		if err != nil {
			return err
		}
		return printRows(c, orgs, "There are no orgs; add one with: starter org add NAME",
			column[store.Org]{"name", func(o store.Org) string { return o.Name }},
			column[store.Org]{"id", func(o store.Org) string { return string(o.ID) }})
	})
}

package main

import (
	"slices"
	"strings"
	"unicode"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
)

func operatorsCommand() *cli.Command {
	return &cli.Command{
		Name:  "operators",
		Usage: "who may act for an org, and as what",
		Description: "A viewer looks, ops moves pushes on, a consent_officer records and revokes consent, an admin does everything. People are\n" +
			"who they say with --as: that is recorded as asserted. An org without an admin lets anybody name one, and an org without\n" +
			"operators lets anybody act.\n\n" +
			example("starter org operators list st-mary"),
		Subcommands: []*cli.Command{
			{
				Name:        "list",
				Usage:       "list an org's operators",
				ArgsUsage:   "ORG",
				Description: example("starter org operators list st-mary"),
				Action:      listOperators,
			},
			{
				Name:      "add",
				Usage:     "give a person a role, instead of the one that they had",
				ArgsUsage: "ORG NAME",
				Description: example("starter org operators add st-mary pat --role admin",
					"starter org operators add st-mary kim --role consent_officer --as pat"),
				Flags:  []cli.Flag{&cli.StringFlag{Name: "role", Usage: "the `ROLE`: viewer, ops, consent_officer or admin"}},
				Action: addOperator,
			},
			{
				Name:        "remove",
				Usage:       "take a person's role away",
				ArgsUsage:   "ORG NAME",
				Description: example("starter org operators remove st-mary kim"),
				Action:      removeOperator,
			},
		},
	}
}

// onOrg runs fn on the live org of that name or id.
func onOrg(c *cli.Context, name string, fn func(*session, store.Org) error) error {
	s, err := openSession(c)
	if err != nil {
		return err
	}
	defer s.close()
	org, err := s.store.OrgByName(c.Context, name)
	if err != nil {
		return err
	}
	return fn(s, org)
}

// demand is what a person wants to do that takes a role.
type demand struct {
	// kind is what is recorded when they may not.
	kind       audit.Kind
	connection cura.ConnectionID
	roles      []cura.Role
}

// leave finds the role in which a person does something, and fails where none that they have allows it: that is recorded. Admins
// may do everything. An org without operators lets anybody act as admin, of which the person is told.
func (s *session) leave(c *cli.Context, org store.Org, d demand) (cura.Role, error) {
	operators, err := s.operators(c, org)
	if err != nil {
		return "", err
	}
	if len(operators) == 0 {
		hint(c, "Org %s has no operators, so anybody may do this. Name them with: starter org operators add %s NAME --role admin", org.Name, org.Name)
		return cura.RoleAdmin, nil
	}
	role := roleOf(operators, s.actor)
	if role == cura.RoleAdmin || slices.Contains(d.roles, role) {
		return role, nil
	}
	return "", s.refuse(c, org, d, role)
}

func (s *session) operators(c *cli.Context, org store.Org) ([]store.Operator, error) {
	var operators []store.Operator
	err := s.store.InOrg(c.Context, org.ID, func(tx *store.Tx) error {
		var err error
		operators, err = tx.Operators(c.Context)
		return err
	})
	return operators, err
}

// asserted is what an actor's name begins with.
const asserted = "asserted:"

// roleOf is the role of an actor; empty: they are no operator.
func roleOf(operators []store.Operator, actor string) cura.Role {
	for _, o := range operators {
		if o.Name == strings.TrimPrefix(actor, asserted) {
			return o.Role
		}
	}
	return ""
}

// refuse records that somebody wanted to do what they may not, and says so.
func (s *session) refuse(c *cli.Context, org store.Org, d demand, role cura.Role) error {
	err := s.store.InOrg(c.Context, org.ID, func(tx *store.Tx) error {
		tx.Audit(audit.Record{
			Kind: d.kind, Actor: s.actor, Connection: d.connection, Outcome: audit.Denied,
			Details: map[string]any{"command": c.Command.HelpName, "role": role, "asserted": true},
		})
		return nil
	})
	if err != nil {
		return err
	}
	allowed := d.roles
	if !slices.Contains(allowed, cura.RoleAdmin) {
		allowed = append(slices.Clip(allowed), cura.RoleAdmin)
	}
	who := "is no operator of org " + org.Name
	if role != "" {
		who = "is " + string(role) + " in org " + org.Name
	}
	return fault.Newf("asking for leave", fault.Config, "%s %s; this takes one of: %s", strings.TrimPrefix(s.actor, asserted), who, words(allowed)).
		WithFix("The refusal is recorded. Say who you are with --as NAME, or have an admin give you the role: starter org operators add " + org.Name + " NAME --role ROLE")
}

// manage is leave for changing who the operators are: without an admin anybody may, or nobody could ever.
func (s *session) manage(c *cli.Context, org store.Org) error {
	operators, err := s.operators(c, org)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(operators, func(o store.Operator) bool { return o.Role == cura.RoleAdmin }) {
		hint(c, "Org %s has no admin, so anybody may change its operators. Name one with: starter org operators add %s NAME --role admin", org.Name, org.Name)
		return nil
	}
	if role := roleOf(operators, s.actor); role != cura.RoleAdmin {
		return s.refuse(c, org, demand{kind: audit.PolicyChanged}, role)
	}
	return nil
}

func listOperators(c *cli.Context) error {
	name, err := oneWord(c, "the org")
	if err != nil {
		return err
	}
	return onOrg(c, name, func(s *session, org store.Org) error {
		operators, err := s.operators(c, org)
		if err != nil {
			return err
		}
		return printRows(c, operators, "Org "+org.Name+" has no operators, so anybody may act; add one with: starter org operators add "+org.Name+" NAME --role admin",
			column[store.Operator]{"name", func(o store.Operator) string { return o.Name }},
			column[store.Operator]{"role", func(o store.Operator) string { return string(o.Role) }},
			column[store.Operator]{"added", func(o store.Operator) string { return when(&o.AddedAt) }})
	})
}

// orgAndName are the arguments of a command about a person of an org.
func orgAndName(c *cli.Context) (org, name string, err error) {
	if c.NArg() != 2 || c.Args().Get(0) == "" {
		return "", "", usagef("%s takes two arguments, the org and the person's name; see: %s --help", c.Command.HelpName, c.Command.HelpName)
	}
	org, name = c.Args().Get(0), c.Args().Get(1)
	if name == "" || len(name) > 100 || strings.TrimSpace(name) != name || strings.ContainsFunc(name, unicode.IsControl) {
		return "", "", usagef("the person's name must be 1 to 100 bytes on one line, without blanks around it: what they give with --as")
	}
	return org, name, nil
}

func addOperator(c *cli.Context) error {
	orgName, name, err := orgAndName(c)
	if err != nil {
		return err
	}
	role := cura.Role(c.String("role"))
	if !slices.Contains(store.OperatorRoles(), role) {
		return usagef("--role is %q; it must be one of %s", role, words(store.OperatorRoles()))
	}
	return onOrg(c, orgName, func(s *session, org store.Org) error {
		if err := s.manage(c, org); err != nil {
			return err
		}
		err := s.store.InOrg(c.Context, org.ID, func(tx *store.Tx) error { return tx.PutOperator(c.Context, name, role, s.actor) })
		if err != nil {
			return err
		}
		return printOne(c, map[string]string{"org": org.Name, "name": name, "role": string(role)}, name+" is "+string(role)+" of org "+org.Name+".")
	})
}

func removeOperator(c *cli.Context) error {
	orgName, name, err := orgAndName(c)
	if err != nil {
		return err
	}
	return onOrg(c, orgName, func(s *session, org store.Org) error {
		if err := s.manage(c, org); err != nil {
			return err
		}
		err := s.store.InOrg(c.Context, org.ID, func(tx *store.Tx) error { return tx.RemoveOperator(c.Context, name, s.actor) })
		if err != nil {
			return err
		}
		return printOne(c, map[string]string{"org": org.Name, "name": name}, name+" is no operator of org "+org.Name+" any more.")
	})
}

package main

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/store"
)

func policyCommand() *cli.Command {
	return &cli.Command{
		Name:      "policy",
		Usage:     "show or set what an org has decided about pushes",
		ArgsUsage: "ORG",
		Description: "What isn't named stays. Setting it takes an admin.\n\n" +
			example("starter org policy st-mary", "starter org policy st-mary --part2=true --authors \"note=clinician;diagnosis=clinician,coder\""),
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "part2", Usage: "the org is a programme under 42 CFR Part 2: what has no sensitivity label inherits it"},
			&cli.BoolFlag{Name: "announce-consent", Usage: "tell the hospital of each change of consent"},
			&cli.StringFlag{Name: "authors", Usage: "the roles that may author each kind, as `KIND=ROLE,ROLE;KIND=…`; KIND= lets nobody"},
		},
		Action: orgPolicy,
	}
}

func orgPolicy(c *cli.Context) error {
	name, err := oneWord(c, "the org")
	if err != nil {
		return err
	}
	authors, err := parseAuthors(c.String("authors"))
	if err != nil {
		return err
	}
	set := c.IsSet("part2") || c.IsSet("announce-consent") || c.IsSet("authors")
	return onOrg(c, name, func(s *session, org store.Org) error {
		if set {
			if _, err := s.leave(c, org, demand{kind: audit.PolicyChanged}); err != nil {
				return err
			}
		}
		var policy cura.OrgPolicy
		err := s.store.InOrg(c.Context, org.ID, func(tx *store.Tx) error {
			var err error
			if policy, err = tx.OrgPolicy(c.Context); err != nil || !set {
				return err
			}
			if c.IsSet("part2") {
				policy.Part2 = c.Bool("part2")
			}
			if c.IsSet("announce-consent") {
				policy.AnnounceConsent = c.Bool("announce-consent")
			}
			maps.Copy(policy.Authors, authors)
			return tx.PutOrgPolicy(c.Context, policy, s.actor)
		})
		if err != nil {
			return err
		}
		lines := []string{
			"Org               " + org.Name,
			"42 CFR Part 2     " + strconv.FormatBool(policy.Part2),
			"Announce consent  " + strconv.FormatBool(policy.AnnounceConsent),
		}
		for _, kind := range cura.ArtefactKinds() {
			lines = append(lines, "May author a "+string(kind)+": "+orElse(words(policy.Authors[kind]), "nobody"))
		}
		return printOne(c, policy, lines...)
	})
}

// parseAuthors reads KIND=ROLE,ROLE;KIND=ROLE.
func parseAuthors(text string) (map[cura.ArtefactKind][]cura.Role, error) {
	authors := map[cura.ArtefactKind][]cura.Role{}
	for part := range strings.SplitSeq(text, ";") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, list, ok := strings.Cut(part, "=")
		kind := cura.ArtefactKind(strings.TrimSpace(name))
		if !ok || !kind.Known() {
			return nil, usagef("--authors takes KIND=ROLE,ROLE;KIND=…, with the kinds %s", words(cura.ArtefactKinds()))
		}
		roles := []cura.Role{}
		for _, word := range listed([]string{list}) {
			role := cura.Role(word)
			if !role.Known() {
				return nil, usagef("--authors of %s names %q; the roles are %s", kind, word, words(cura.Roles()))
			}
			if !slices.Contains(roles, role) {
				roles = append(roles, role)
			}
		}
		authors[kind] = roles
	}
	return authors, nil
}

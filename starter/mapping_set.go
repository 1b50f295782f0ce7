package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/mappings"
)

// mappingChange is what a connection is mapped with from now on.
type mappingChange struct {
	Connection string `json:"connection"`
	// Overrides is the file's own version; 0: none holds.
	Overrides int `json:"overrides_version"`
	// MappingVersion is what rows say from now on.
	MappingVersion string `json:"mapping_version"`
	// Changed is false where that held before.
	Changed  bool                `json:"changed"`
	Excluded []cura.ResourceType `json:"excluded"`
	// Commands show and apply what changes in what was read before.
	Commands []string `json:"commands"`
}

func changeTo(l store.Listed, o *mappings.Overrides, changed bool) mappingChange {
	return mappingChange{
		Connection: path(l), Overrides: o.Number(), MappingVersion: o.Version(), Changed: changed, Excluded: o.Excluded(),
		Commands: []string{"starter remap " + path(l) + " --dry-run", "starter remap " + path(l)},
	}
}

// lines tell a person what holds now, and what to do about what was read before.
func (v mappingChange) lines(first string) []string {
	lines := []string{first}
	if len(v.Excluded) > 0 {
		lines = append(lines, "It leaves out "+words(v.Excluded)+": that isn't read any more, and what was read of it stays.")
	}
	return append(lines, "What was read before stays as it was mapped.",
		"    "+v.Commands[0]+"    shows what changes in it",
		"    "+v.Commands[1]+"              applies it")
}

func setMapping(c *cli.Context) error {
	if c.NArg() != 2 || c.Args().Get(0) == "" || c.Args().Get(1) == "" {
		return usagef("%s takes two arguments, the connection and the file of overrides; see: %s --help", c.Command.HelpName, c.Command.HelpName)
	}
	o, text, err := readOverrides(c, c.Args().Get(1))
	if err != nil {
		return err
	}
	return onDatabaseWith(c, func(s *session) error {
		l, err := s.store.FindConnection(c.Context, c.Args().Get(0))
		if err != nil {
			return err
		}
		state, err := s.inService(c.Context, l)
		if err != nil {
			return err
		}
		if o.Excludes(cura.Consent) {
			if store.ConsentScoped(state.PullConsent, cura.Observation) {
				return fault.Newf("setting the mapping overrides", fault.Conflict,
					"the file leaves out Consent, and by %s's policy %s consents decide whose clinical types are pulled", path(l), state.PullConsent).
					WithFix("Take Consent out of types.exclude, or change the policy with: starter connection edit " + path(l) + " --pull-consent none")
			}
			hint(c, "The hospital's Consents aren't read any more: those read before stay in force, and nobody sees when one is revoked at the hospital.")
		}
		var fresh bool
		err = s.store.InOrg(c.Context, l.Org, func(tx *store.Tx) error {
			fresh, err = tx.SetMappingOverrides(c.Context, l.Connection, store.MappingOverrides{Version: o.Number(), Text: text}, o.Excluded(), s.actor)
			return err
		})
		if err != nil {
			return err
		}
		v := changeTo(l, o, fresh)
		if !fresh {
			return printOne(c, v, fmt.Sprintf("Unchanged: %s is mapped with that very file already; rows say %s.", v.Connection, v.MappingVersion))
		}
		return printOne(c, v, v.lines(fmt.Sprintf("What is read of %s is mapped with overrides %d from now on; rows say %s.", v.Connection, v.Overrides, v.MappingVersion))...)
	})
}

func clearMapping(c *cli.Context) error {
	return onConnection(c, func(s *session, l store.Listed) error {
		if _, err := s.inService(c.Context, l); err != nil {
			return err
		}
		var before int
		err := s.store.InOrg(c.Context, l.Org, func(tx *store.Tx) error {
			var err error
			before, err = tx.ClearMappingOverrides(c.Context, l.Connection, s.actor)
			return err
		})
		if err != nil {
			return err
		}
		v := changeTo(l, nil, before != 0)
		if before == 0 {
			return printOne(c, v, "Unchanged: "+v.Connection+" has no mapping overrides.")
		}
		return printOne(c, v, v.lines(fmt.Sprintf("What is read of %s is mapped without overrides from now on (they were version %d); rows say %s.",
			v.Connection, before, v.MappingVersion))...)
	})
}

func showMapping(c *cli.Context) error {
	return onConnection(c, func(s *session, l store.Listed) error {
		state, err := s.state(c.Context, l)
		if err != nil {
			return err
		}
		file, err := s.overridesOf(c.Context, state)
		if err != nil {
			return err
		}
		if file == nil {
			return fault.Newf("looking for the mapping overrides", fault.NotFound, "%s has none", path(l)).
				WithFix("Begin a file with starter mapping init, and set it with starter mapping set " + path(l) + " FILE")
		}
		if asJSON(c) {
			return printJSON(c, file)
		}
		_, err = fmt.Fprint(c.App.Writer, file.Text)
		return err
	})
}

// overridesOf reads the file that holds for a connection; nil: none does.
func (s *session) overridesOf(ctx context.Context, conn store.ConnectionState) (*store.MappingOverrides, error) {
	if conn.Overrides == 0 {
		return nil, nil //nolint:nilnil // that none holds is an answer, not an error
	}
	var file store.MappingOverrides
	err := s.store.InOrg(ctx, conn.OrgID, func(tx *store.Tx) error {
		var err error
		file, err = tx.MappingOverrides(ctx, conn.ID, conn.Overrides)
		return err
	})
	return &file, err
}

// parsedOverrides gives what a connection's resources are mapped with; nil: nothing on top of Cura's own mapping.
func (s *session) parsedOverrides(ctx context.Context, conn store.ConnectionState, l store.Listed) (*mappings.Overrides, error) {
	file, err := s.overridesOf(ctx, conn)
	if err != nil || file == nil {
		return nil, err
	}
	o, err := mappings.ParseOverrides(strings.ReplaceAll(path(l), "/", "-")+".yaml", []byte(file.Text))
	if err != nil {
		return nil, fault.Wrap("reading the mapping overrides", fault.Config, "this release doesn't take the file that is set: "+fault.Public(err), err).
			WithFix("Print it with starter mapping show " + path(l) + ", correct it, and set it again")
	}
	return o, nil
}

package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/mappings"
)

func mappingCommand() *cli.Command {
	return &cli.Command{
		Name:  "mapping",
		Usage: "a hospital's own rules on top of the mapping: begin a file, check it, see what it changes, set it",
		Description: "Identifier systems, the choice of names, translations of codes, units with their conversion, categories, and types left out, in a\n" +
			"YAML file per connection. Every row in Cura says by which version it was mapped. mappings/MAPPINGS.md has the rules.\n\n" +
			example("starter mapping init > st-mary.yaml", "starter mapping check st-mary.yaml", "starter mapping set st-mary/main st-mary.yaml"),
		Subcommands: []*cli.Command{
			{
				Name:        "init",
				Usage:       "print a commented file of overrides to begin with",
				Description: example("starter mapping init > st-mary.yaml"),
				Action:      initMapping,
			},
			{
				Name:      "check",
				Usage:     "check a file of overrides; - reads standard input",
				ArgsUsage: "FILE",
				Description: "Everything that is wrong is named by file, line and key, and the command ends with code 1. Nothing is stored.\n\n" +
					example("starter mapping check st-mary.yaml"),
				Action: checkMapping,
			},
			{
				Name:      "preview",
				Usage:     "show how a patient's resources, or one in a file, are mapped before and after a change: patient data",
				ArgsUsage: "[CONNECTION]",
				Description: "Source element, value, Cura field, and its value before and after. Nothing is stored and no EHR is asked.\n\n" +
					"With CONNECTION and --patient it takes what has landed of that patient. Before is the mapping that holds for the connection,\n" +
					"after the one with the file. Who looked at whom is in the audit log. ID is Cura's profile id, a patient link's id, or the EHR's\n" +
					"id of the patient, which others on this machine can see while the command runs. With --resource before is Cura's own mapping.\n\n" +
					example("starter mapping preview st-mary/main --patient 0b7c6a52-8c5e-4a55-9d0e-3f6b1f2f3a10 --overrides st-mary.yaml",
						"starter mapping preview --resource observation.json --overrides st-mary.yaml"),
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "patient", Usage: "what has landed of the patient with this `ID`"},
					&cli.StringFlag{Name: "resource", Usage: "the FHIR R4 resource as JSON in `FILE`; - reads standard input"},
					&cli.StringFlag{Name: "overrides", Usage: "the overrides in `FILE`; left out, nothing changes"},
				},
				Action: previewMapping,
			},
			{
				Name:      "set",
				Usage:     "have a connection's resources mapped with a file of overrides from now on; - reads standard input",
				ArgsUsage: "CONNECTION FILE",
				Description: "The file is checked first, and its version must be higher than every one that was set before. What was read before stays as it\n" +
					"was mapped until it is mapped again. It is audited.\n\n" +
					example("starter mapping set st-mary/main st-mary.yaml"),
				Action: setMapping,
			},
			{
				Name:        "show",
				Usage:       "print the file of overrides that holds for a connection, as it was set",
				ArgsUsage:   "CONNECTION",
				Description: example("starter mapping show st-mary/main > st-mary.yaml"),
				Action:      showMapping,
			},
			{
				Name:        "clear",
				Usage:       "have a connection's resources mapped by Cura's own mapping alone from now on",
				ArgsUsage:   "CONNECTION",
				Description: "The files that were set are kept. It is audited.\n\n" + example("starter mapping clear st-mary/main"),
				Action:      clearMapping,
			},
		},
	}
}

func initMapping(c *cli.Context) error {
	if err := noWords(c); err != nil {
		return err
	}
	_, err := fmt.Fprint(c.App.Writer, mappings.OverridesExample())
	return err
}

// mappingView is a file of overrides as programs are shown it.
type mappingView struct {
	Version string                  `json:"version"`
	Rules   mappings.OverrideCounts `json:"rules"`
}

func checkMapping(c *cli.Context) error {
	name, err := oneWord(c, "the file of overrides, or - for standard input")
	if err != nil {
		return err
	}
	o, _, err := readOverrides(c, name)
	if err != nil {
		return err
	}
	n := o.Counts()
	return printOne(c, mappingView{o.Version(), n}, fmt.Sprintf(
		"%s has no faults. Rows that it maps say %s. It holds: identifier systems %d, uses of names %d, codes %d, units %d, categories %d, types left out %d.",
		name, o.Version(), n.Identifiers, n.NameUses, n.Codes, n.Units, n.Categories, n.Excluded))
}

// readOverrides reads a file of overrides, and gives its text as well. What is wrong in it is told by its lines.
func readOverrides(c *cli.Context, name string) (*mappings.Overrides, string, error) {
	// One byte more than there may be: then the parser says so.
	text, err := readInput(c, name, mappings.MaxOverrides+1)
	if err != nil {
		return nil, "", usagef("the file of overrides: %s", err)
	}
	o, err := mappings.ParseOverrides(name, text)
	return o, string(text), err
}

package main

import (
	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/secrets"
)

func keygenCommand() *cli.Command {
	return &cli.Command{
		Name:      "keygen",
		Usage:     "make a key file, which seals the EHRs' credentials",
		ArgsUsage: "FILE",
		Description: "A file that is there already is left as it is: what its key has sealed opens with it alone. Keep a copy apart from\n" +
			"the database.\n\n" +
			example("starter keygen /etc/cura-ehr-sync/key"),
		Action: func(c *cli.Context) error {
			file, err := oneWord(c, "the file to make")
			if err != nil {
				return err
			}
			if err := secrets.GenerateKeyFile(file); err != nil {
				return err
			}
			hint(c, "Next: set CURA_KEY_FILE=%s for the worker and for starter, and keep a copy apart from the database.", file)
			return printOne(c, map[string]string{"key_file": file}, "Made the key file "+file+".")
		},
	}
}

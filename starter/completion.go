package main

import (
	_ "embed"
	"fmt"

	"github.com/urfave/cli/v2"
)

//go:embed completion.bash
var bashCompletion string

//go:embed completion.zsh
var zshCompletion string

func completionCommand() *cli.Command {
	return &cli.Command{
		Name:        "completion",
		Usage:       "print the completion script of a shell: bash or zsh",
		ArgsUsage:   "bash|zsh",
		Description: example("source <(starter completion bash)", "starter completion zsh > ~/.zfunc/_starter"),
		Action: func(c *cli.Context) error {
			shell, err := oneWord(c, "the shell: bash or zsh")
			if err != nil {
				return err
			}
			scripts := map[string]string{"bash": bashCompletion, "zsh": zshCompletion}
			script, ok := scripts[shell]
			if !ok {
				return usagef("there is no completion for %q; there is for bash and zsh", shell)
			}
			_, err = fmt.Fprint(c.App.Writer, script)
			return err
		},
	}
}

package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// level is one command on the way from the program to the command that is meant, with the flags that are its own.
type level struct {
	name     string
	flags    []cli.Flag
	commands []*cli.Command
	given    []string
}

// reorder puts flags before arguments, and global flags before the command: urfave/cli reads them only there, and people
// type them anywhere. It fails for a word that should be a command and isn't one.
func reorder(app *cli.App, args []string) ([]string, error) {
	if len(args) == 0 || args[len(args)-1] == "--generate-bash-completion" {
		return args, nil
	}
	levels := []*level{{name: args[0], flags: app.Flags, commands: app.Commands}}
	var words []string
	help := false
	for i := 1; i < len(args); i++ {
		arg, at := args[i], levels[len(levels)-1]
		switch {
		case arg == "--":
			words = append(words, args[i+1:]...)
			i = len(args)
		case len(arg) > 1 && arg[0] == '-':
			name, _, whole := strings.Cut(strings.TrimLeft(arg, "-"), "=")
			if name == "help" || name == "h" {
				help = true
				continue
			}
			owner, takesValue := ownerOf(levels, name)
			owner.given = append(owner.given, arg)
			if takesValue && !whole && i+1 < len(args) {
				i++
				owner.given = append(owner.given, args[i])
			}
		case len(at.commands) == 0:
			words = append(words, arg)
		case arg == "help":
			help = true
		default:
			next := slices.IndexFunc(at.commands, func(c *cli.Command) bool { return c.HasName(arg) })
			if next < 0 {
				return nil, noCommand(levels, arg)
			}
			c := at.commands[next]
			levels = append(levels, &level{name: arg, flags: c.Flags, commands: c.Subcommands})
		}
	}
	last := levels[len(levels)-1]
	if help {
		last.given, words = append(last.given, "--help"), nil
	}
	var ordered []string
	for _, l := range levels {
		ordered = append(append(ordered, l.name), l.given...)
	}
	if slices.ContainsFunc(words, func(w string) bool { return len(w) > 1 && w[0] == '-' }) {
		ordered = append(ordered, "--")
	}
	return append(ordered, words...), nil
}

// ownerOf finds the innermost level that has the flag, and whether the flag takes a value. A flag that nobody has stays
// with the innermost level, which then says so.
func ownerOf(levels []*level, name string) (owner *level, takesValue bool) {
	for _, l := range slices.Backward(levels) {
		for _, f := range l.flags {
			if slices.Contains(f.Names(), name) {
				value, ok := f.(cli.DocGenerationFlag)
				return l, ok && value.TakesValue()
			}
		}
	}
	return levels[len(levels)-1], false
}

// noCommand is the error for a word that is no command of the innermost level.
func noCommand(levels []*level, word string) error {
	path := []string{"starter"}
	for _, l := range levels[1:] {
		path = append(path, l.name)
	}
	var names []string
	for _, c := range levels[len(levels)-1].commands {
		if !c.Hidden && c.Name != "help" {
			names = append(names, c.Name)
		}
	}
	return usagef("there is no command %q; %s has: %s", word, strings.Join(path, " "), strings.Join(names, ", "))
}

// prepare gives every command the same manners: a wrong flag is a usage error, and the words after a command without
// sub-commands are arguments, "help" too.
func prepare(commands []*cli.Command) []*cli.Command {
	for _, c := range commands {
		c.OnUsageError = wrongFlag
		c.HideHelpCommand = true
		prepare(c.Subcommands)
	}
	return commands
}

func wrongFlag(c *cli.Context, err error, _ bool) error {
	return usagef("%s; see: %s --help", err, c.Command.HelpName)
}

// need checks that the flags are given.
func need(c *cli.Context, flags ...string) error {
	for _, f := range flags {
		if c.String(f) == "" {
			return usagef("%s needs --%s; see: %s --help", c.Command.HelpName, f, c.Command.HelpName)
		}
	}
	return nil
}

// noWords checks that no argument is given to a command that takes none.
func noWords(c *cli.Context) error {
	if c.NArg() > 0 {
		return usagef("%s takes no arguments; see: %s --help", c.Command.HelpName, c.Command.HelpName)
	}
	return nil
}

// oneWord is the only argument of a command; what says what it is.
func oneWord(c *cli.Context, what string) (string, error) {
	if c.NArg() != 1 || c.Args().First() == "" {
		return "", usagef("%s takes one argument, %s; see: %s --help", c.Command.HelpName, what, c.Command.HelpName)
	}
	return c.Args().First(), nil
}

// listed splits values that may be given as A,B or repeated.
func listed(values []string) []string {
	var all []string
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			if part = strings.TrimSpace(part); part != "" {
				all = append(all, part)
			}
		}
	}
	return all
}

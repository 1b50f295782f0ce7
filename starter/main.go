// Command starter is the command line of Cura EHR Sync: for ops who onboard hospitals, see what is stuck and move it on;
// and for anybody who wants to try it, with `starter dev`.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/config"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// Exit codes.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2
	exitWaiting = 3 // something waits for a person
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	config.UseFile(filepath.Join(devDir, envFile))
	code := run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run runs one command line and gives its exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	app := newApp(stdin, stdout, stderr)
	args, err := reorder(app, args)
	if err == nil {
		err = app.RunContext(ctx, args)
	}
	var waiting *waitingError
	var usage *usageError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &waiting):
		fmt.Fprintln(stderr, waiting.Error())
		return exitWaiting
	case errors.As(err, &usage):
		fmt.Fprintln(stderr, "starter:", usage.Error())
		return exitUsage
	default:
		fmt.Fprintln(stderr, "starter:", explain(err))
		return exitFailed
	}
}

// waitingError ends a command with exit code 3: it did what it could, and a person has to go on.
type waitingError struct{ text string }

func (e *waitingError) Error() string { return e.text }

// usageError ends a command with exit code 2: the command line itself is wrong.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error {
	return &usageError{text: fmt.Sprintf(format, args...)}
}

// explain is the text of an error for a person at the terminal.
func explain(err error) string {
	if errors.Is(err, context.Canceled) {
		return "interrupted"
	}
	if f, ok := errors.AsType[*fault.Error](err); ok {
		text := f.Op + ": " + f.Detail
		if f.Fix != "" {
			text += "\n  " + f.Fix + "."
		}
		return text
	}
	return err.Error()
}

func newApp(stdin io.Reader, stdout, stderr io.Writer) *cli.App {
	return &cli.App{
		Name:                 "starter",
		Usage:                "connect hospitals' EHRs to Cura, and keep them in sync",
		Reader:               stdin,
		Writer:               stdout,
		ErrWriter:            stderr,
		EnableBashCompletion: true,
		// Values such as JSON and scopes hold commas.
		DisableSliceFlagSeparator: true,
		Flags:                     globalFlags(),
		Commands: prepare([]*cli.Command{
			orgCommand(), connectionCommand(), profilesCommand(), rosterCommand(), testCommand(), onboardCommand(), pilotCommand(),
			retryCommand(), approveCommand(), extendCommand(), abortCommand(),
			pushCommand(), deliveriesCommand(), consentCommand(), haltCommand(), unhaltCommand(),
			syncCommand(), reconcileCommand(), mappingCommand(), remapCommand(), quarantineCommand(), reviewsCommand(applyDecisions), profileCommand(),
			pauseCommand(), resumeCommand(), statusCommand(), attentionCommand(), deadLettersCommand(), auditCommand(),
			devCommand(), sandboxCommand(), migrateCommand(), keygenCommand(), completionCommand(),
		}),
		Before:         checkGlobals,
		OnUsageError:   wrongFlag,
		ExitErrHandler: func(*cli.Context, error) {},
	}
}

// example is the part of a command's help that shows how it is typed.
func example(lines ...string) string {
	return "Example:\n   " + strings.Join(lines, "\n   ")
}

package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
)

func testCommand() *cli.Command {
	return &cli.Command{
		Name:      "test",
		Usage:     "test a connection's endpoints from here",
		ArgsUsage: "CONNECTION",
		Description: "Address, certificate, CapabilityStatement, SMART discovery, token, scopes, clock, and one real search of each type.\n" +
			"It needs the database and the key file, and no worker. It ends with code 1 when a check failed.\n\n" +
			example("starter test st-mary/main"),
		Action: testEndpoint,
	}
}

func testEndpoint(c *cli.Context) error {
	return onConnection(c, func(s *session, l store.Listed) error {
		acts, err := s.activities()
		if err != nil {
			return err
		}
		defer acts.Close()
		report, err := acts.RunEndpointTest(c.Context, target(l), s.actor)
		if err != nil {
			return err
		}
		failed := 0
		for _, check := range report.Checks {
			if check.Verdict == cura.VerdictFailed {
				failed++
			}
		}
		if err := printReport(c, report); err != nil {
			return err
		}
		if failed > 0 {
			return fault.Newf("testing the endpoints", fault.Config, "%d of %d checks failed", failed, len(report.Checks)).
				WithFix("Do what is said beside each, then: starter test " + path(l))
		}
		return nil
	})
}

// printReport prints each check with what was seen and, where something is to be done, what.
func printReport(c *cli.Context, report cura.EndpointReport) error {
	if asJSON(c) {
		return printJSON(c, struct {
			Verdict cura.Verdict `json:"verdict"`
			cura.EndpointReport
		}{report.Verdict(), report})
	}
	signs := map[cura.Verdict]string{cura.VerdictOK: "ok     ", cura.VerdictWarning: "warning", cura.VerdictFailed: "failed "}
	if terminal(c.App.Writer) {
		signs = map[cura.Verdict]string{cura.VerdictOK: "✓", cura.VerdictWarning: "!", cura.VerdictFailed: "✗"}
	}
	for _, check := range report.Checks {
		name := check.Name
		if check.Type != "" {
			name += " " + string(check.Type)
		}
		line := fmt.Sprintf("%s %-33s %s", signs[check.Verdict], name, check.Seen)
		if check.Fix != "" {
			line += "\n    fix: " + check.Fix
		}
		if _, err := fmt.Fprintln(c.App.Writer, line); err != nil {
			return err
		}
	}
	return nil
}

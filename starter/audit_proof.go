package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/audit/seal"
	"github.com/cura-health/ehr-sync/internal/cura"
)

func proveAudit(c *cli.Context) error {
	seq, err := strconv.ParseInt(c.Args().Get(1), 10, 64)
	if c.NArg() != 2 || err != nil || seq < 1 {
		return usagef("%s takes two arguments, the org and the number of the record; see: %s --help", c.Command.HelpName, c.Command.HelpName)
	}
	return onDatabaseWith(c, func(s *session) error {
		keys, err := verifiers(c, s.cfg.AuditKeyFile)
		if err != nil {
			return err
		}
		orgs, err := s.auditedOrgs(c, c.Args().First())
		if err != nil {
			return err
		}
		proof, err := s.store.ProveAudit(c.Context, orgs[0].ID, seq, keys)
		if err != nil {
			return err
		}
		return printJSON(c, proof)
	})
}

// proved is what starter audit check-proof prints.
type proved struct {
	InLog    bool         `json:"in_log"`
	OrgID    cura.OrgID   `json:"org_id"`
	Record   audit.Record `json:"record"`
	Size     int64        `json:"size"`
	Root     string       `json:"root"`
	SignedAt time.Time    `json:"signed_at"`
}

func checkProof(c *cli.Context) error {
	file, err := oneWord(c, "the file with the proof")
	if err != nil {
		return err
	}
	keys, err := verifiers(c, "")
	if err != nil {
		return err
	}
	from := c.App.Reader
	if file != "-" {
		opened, err := os.Open(file)
		if err != nil {
			return fmt.Errorf("opening the proof: %w", err)
		}
		defer opened.Close()
		from = opened
	}
	p, err := seal.CheckProof(from, keys)
	if err != nil {
		return err
	}
	r := p.Record.Record()
	return printOne(c, proved{InLog: true, OrgID: p.Record.Org, Record: r, Size: p.Head.Size, Root: p.Head.Root.String(), SignedAt: p.Head.At},
		fmt.Sprintf("Record %d of org %s is in the log: signed on %s, with %d records.", r.Seq, p.Record.Org, when(&p.Head.At), p.Head.Size),
		"",
		"At          "+r.At.Format(time.RFC3339Nano),
		"Kind        "+string(r.Kind),
		"Who         "+r.Actor,
		"Connection  "+orDash(string(r.Connection)),
		"Run         "+orDash(r.Run),
		"Outcome     "+string(r.Outcome),
		"Details     "+detailsText(r.Details))
}

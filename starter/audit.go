package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/audit/seal"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
)

func auditCommand() *cli.Command {
	return &cli.Command{
		Name:  "audit",
		Usage: "the audit log: read it, prove it, find what was changed in it",
		Description: "The worker seals each org's log every minute and after each change of consent: it signs what the log holds, and keeps that head in\n" +
			"a file outside of the database. Whatever is changed, taken out or put in before the last head is found, whoever did it.\n\n" +
			example("starter audit verify"),
		Subcommands: []*cli.Command{
			{
				Name:      "list",
				Usage:     "list an org's last records",
				ArgsUsage: "ORG",
				Description: example("starter audit list st-mary --limit 20",
					"starter audit list st-mary --connection st-mary/epic --kind consent.settled --since 36h"),
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "connection", Usage: "only of this `CONNECTION`"},
					&cli.StringFlag{Name: "kind", Usage: "only of this `KIND`, such as consent.settled"},
					&cli.StringFlag{Name: "since", Usage: "only since this `TIME`: 2026-03-01, 2026-03-01T08:00:00Z, or 36h ago"},
					&cli.IntFlag{Name: "limit", Value: 50, Usage: "how many of the last records, at most 10000"},
				},
				Action: listAudit,
			},
			{
				Name:  "verify",
				Usage: "compare the records, as they are, with every signed head",
				Description: "It ends with code 1 when anything was changed before the last head, and names the first bad record.\n" +
					"It takes the heads from the folder, not from the database, and needs no signing key.\n\n" +
					example("starter audit verify", "starter audit verify --org st-mary --heads /mnt/heads --key cura-ehr-sync-audit+… --output json"),
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "org", Usage: "only this `ORG`'s log"},
					headsFlag(), verifierFlag(),
				},
				Action: verifyAudit,
			},
			{
				Name:      "prove",
				Usage:     "print a proof that a record is in an org's log",
				ArgsUsage: "ORG SEQ",
				Description: "Whoever has the verifier key can check the proof without the database. It holds the record and no other.\n\n" +
					example("starter audit prove st-mary 4711 > proof.json"),
				Flags:  []cli.Flag{verifierFlag()},
				Action: proveAudit,
			},
			{
				Name:        "check-proof",
				Usage:       "check such a proof, without database or network",
				ArgsUsage:   "FILE",
				Description: "FILE may be -, standard input.\n\n" + example("starter audit check-proof proof.json --key cura-ehr-sync-audit+…"),
				Flags:       []cli.Flag{verifierFlag()},
				Action:      checkProof,
			},
			{
				Name:        "seal",
				Usage:       "seal now what the worker would seal within the minute",
				Description: "It needs the signing key, CURA_AUDIT_KEY_FILE, and the folder of heads, CURA_AUDIT_HEADS_DIR, as the worker does.\n\n" + example("starter audit seal"),
				Flags:       []cli.Flag{&cli.StringFlag{Name: "org", Usage: "only this `ORG`'s log"}},
				Action:      sealAudit,
			},
			{
				Name:      "keygen",
				Usage:     "make the key that signs heads, and print its verifier key",
				ArgsUsage: "FILE",
				Description: "A file that is there already is left as it is. To change the key, make another file and put the verifier keys of those before it\n" +
					"into it, a line each after the first.\n\n" +
					example("starter audit keygen /etc/cura-ehr-sync/audit-key"),
				Action: auditKeygen,
			},
		},
	}
}

func headsFlag() cli.Flag {
	return &cli.StringFlag{Name: "heads", Usage: "the folder, `DIR`, in which signed heads are kept", EnvVars: []string{"CURA_AUDIT_HEADS_DIR"}}
}

func verifierFlag() cli.Flag {
	return &cli.StringSliceFlag{
		Name: "key", Usage: "the verifier `KEY` of whoever signed the heads; repeat it after a change of keys", EnvVars: []string{"CURA_AUDIT_VERIFIER"},
		DefaultText: "that of CURA_AUDIT_KEY_FILE",
	}
}

// verifiers are the keys whose heads are believed: those given, or those of the signing key's file.
func verifiers(c *cli.Context, keyFile string) (seal.Verifiers, error) {
	if given := c.StringSlice("key"); len(given) > 0 {
		keys, err := seal.ParseVerifiers(given...)
		if err != nil {
			return nil, usagef("--key: %s", err)
		}
		return keys, nil
	}
	if keyFile == "" {
		return nil, usagef("%s needs --key, the verifier key that starter audit keygen printed; see: %s --help", c.Command.HelpName, c.Command.HelpName)
	}
	key, err := seal.OpenKeyFile(keyFile)
	if err != nil {
		return nil, err
	}
	return key.Verifiers(), nil
}

// auditedOrgs finds the org of that name or id, or all where none is named; sandbox orgs too.
func (s *session) auditedOrgs(c *cli.Context, name string) ([]store.Org, error) {
	orgs, err := s.store.AuditedOrgs(c.Context)
	if err != nil || name == "" {
		return orgs, err
	}
	for _, o := range orgs {
		if o.Name == name || string(o.ID) == name {
			return []store.Org{o}, nil
		}
	}
	return nil, fault.Newf("looking for the org", fault.NotFound, "there is no org %q", name).
		WithFix("List them with: starter org list")
}

func auditKeygen(c *cli.Context) error {
	file, err := oneWord(c, "the file to make")
	if err != nil {
		return err
	}
	verifier, err := seal.GenerateKeyFile(file)
	if err != nil {
		return err
	}
	hint(c, "Next: set CURA_AUDIT_KEY_FILE=%s and CURA_AUDIT_HEADS_DIR for the worker, and give the verifier key to whoever is to check the log.", file)
	return printOne(c, map[string]string{"key_file": file, "verifier": verifier}, "Made the key file "+file+".", "Verifier key: "+verifier)
}

func listAudit(c *cli.Context) error {
	name, err := oneWord(c, "the org")
	if err != nil {
		return err
	}
	if n := c.Int("limit"); n < 1 || n > 10_000 {
		return usagef("--limit is %d; it must be 1 to 10000", n)
	}
	since, err := instant(c, "since")
	if err != nil {
		return err
	}
	return onDatabaseWith(c, func(s *session) error {
		orgs, err := s.auditedOrgs(c, name)
		if err != nil {
			return err
		}
		filter := store.AuditFilter{Kind: audit.Kind(c.String("kind")), Limit: c.Int("limit")}
		if since != nil {
			filter.Since = *since
		}
		if ref := c.String("connection"); ref != "" {
			l, err := s.store.FindConnection(c.Context, ref)
			if err != nil {
				return err
			}
			filter.Connection = l.Connection
		}
		var records []audit.Record
		err = s.store.InOrg(c.Context, orgs[0].ID, func(tx *store.Tx) error {
			records, err = tx.AuditRecords(c.Context, filter)
			return err
		})
		if err != nil {
			return err
		}
		return printRows(c, records, "There are no such records.",
			column[audit.Record]{"seq", func(r audit.Record) string { return strconv.FormatInt(r.Seq, 10) }},
			column[audit.Record]{"at", func(r audit.Record) string { return when(&r.At) }},
			column[audit.Record]{"kind", func(r audit.Record) string { return string(r.Kind) }},
			column[audit.Record]{"who", func(r audit.Record) string { return r.Actor }},
			column[audit.Record]{"outcome", func(r audit.Record) string { return string(r.Outcome) }},
			column[audit.Record]{"details", func(r audit.Record) string { return detailsText(r.Details) }})
	})
}

// detailsText is the details of a record on one line.
func detailsText(details any) string {
	if text, ok := details.(json.RawMessage); ok {
		return string(text)
	}
	return fmt.Sprint(details)
}

// sealed is what starter audit seal prints of an org.
type sealed struct {
	Org      string     `json:"org"`
	OrgID    cura.OrgID `json:"org_id"`
	Records  int64      `json:"records"`
	SignedAt *time.Time `json:"signed_at,omitempty"`
	Head     string     `json:"head,omitempty"`
}

func sealAudit(c *cli.Context) error {
	return onDatabase(c, func(s *session) error {
		key, folder, err := s.auditKey()
		if err != nil {
			return err
		}
		orgs, err := s.auditedOrgs(c, c.String("org"))
		if err != nil {
			return err
		}
		var all []sealed
		for _, o := range orgs {
			head, err := s.store.SealAudit(c.Context, o.ID, key, folder)
			if err != nil {
				return err
			}
			row := sealed{Org: o.Name, OrgID: o.ID, Records: head.Size, Head: head.Note}
			if head.Size > 0 {
				row.SignedAt = &head.At
			}
			all = append(all, row)
		}
		return printRows(c, all, "There are no orgs.",
			column[sealed]{"org", func(r sealed) string { return r.Org }},
			column[sealed]{"records", func(r sealed) string { return strconv.FormatInt(r.Records, 10) }},
			column[sealed]{"last head", func(r sealed) string { return when(r.SignedAt) }})
	})
}

// auditKey opens the signing key and the folder of heads, as the worker does.
func (s *session) auditKey() (*seal.Key, *seal.Folder, error) {
	seals, err := s.cfg.SealsAudit()
	if err != nil {
		return nil, nil, err
	}
	if !seals {
		return nil, nil, fault.New("opening the audit log's key", fault.Config, "CURA_AUDIT_KEY_FILE and CURA_AUDIT_HEADS_DIR aren't set").
			WithFix("Make a key with starter audit keygen FILE, and set both as for the worker")
	}
	key, err := seal.OpenKeyFile(s.cfg.AuditKeyFile)
	if err != nil {
		return nil, nil, err
	}
	folder, err := seal.MakeFolder(s.cfg.AuditHeadsDir)
	return key, folder, err
}

package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/audit/seal"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
)

// verifiedOrg is what starter audit verify says of an org's log.
type verifiedOrg struct {
	Org   string     `json:"org"`
	OrgID cura.OrgID `json:"org_id"`
	// Records is how many were read, up to the first bad one; the first Sealed of them are what the last good head was signed for.
	Records int64 `json:"records"`
	Sealed  int64 `json:"sealed"`
	// Heads is how many of the file's heads the records agree with.
	Heads int `json:"heads"`
	// State is verified, bad, or unsealed: there is no head yet.
	State    string     `json:"state"`
	Verified bool       `json:"verified"`
	FirstBad *firstBad  `json:"first_bad,omitempty"`
	Why      string     `json:"why,omitempty"`
	Notes    []string   `json:"notes,omitempty"`
	SignedAt *time.Time `json:"signed_at,omitempty"`
	// Head is the last good head, as it was signed.
	Head string `json:"head,omitempty"`
}

// firstBad is the first bad record: the one of this number, or one from From to To.
type firstBad struct {
	From   int64     `json:"from"`
	To     int64     `json:"to"`
	What   seal.What `json:"what"`
	Sealed bool      `json:"sealed"`
}

func verifyAudit(c *cli.Context) error {
	return onDatabase(c, func(s *session) error {
		keys, err := verifiers(c, s.cfg.AuditKeyFile)
		if err != nil {
			return err
		}
		if err := need(c, "heads"); err != nil {
			return err
		}
		folder, err := seal.OpenFolder(c.String("heads"))
		if err != nil {
			return err
		}
		orgs, err := s.auditedOrgs(c, c.String("org"))
		if err != nil {
			return err
		}
		var all []verifiedOrg
		for _, o := range orgs {
			v, err := s.verifyOrg(c.Context, o, folder, keys)
			if err != nil {
				return err
			}
			all = append(all, v)
		}
		if c.String("org") == "" {
			gone, err := goneOrgs(folder, orgs)
			if err != nil {
				return err
			}
			all = append(all, gone...)
		}
		return printVerified(c, all)
	})
}

// verifyOrg verifies an org's log. That it isn't what it should be is in what it gives; an error is that it couldn't be read.
func (s *session) verifyOrg(ctx context.Context, o store.Org, folder *seal.Folder, keys seal.Verifiers) (verifiedOrg, error) {
	log, err := s.store.VerifyAudit(ctx, o.ID, folder, keys)
	v := verifiedOrg{Org: o.Name, OrgID: o.ID, Records: log.Records, Sealed: log.Last.Size, Heads: log.Heads, Head: log.Last.Note}
	if v.Sealed > 0 {
		v.SignedAt = &log.Last.At
	}
	switch {
	case fault.Is(err, fault.Data) || fault.Is(err, fault.Config):
		v.Why = fault.Public(err)
	case err != nil:
		return v, err
	case log.Bad != nil:
		v.FirstBad = &firstBad{From: log.Bad.From, To: log.Bad.To, What: log.Bad.What, Sealed: log.Bad.Sealed}
		v.Why = log.Bad.String()
	case log.TableSize > log.Last.Size:
		v.Why = fmt.Sprintf("the database has a signed head of %d records and the file ends with one of %d: the file was cut off, or isn't the one that the worker writes",
			log.TableSize, log.Last.Size)
	case log.HashesBroken:
		v.Why = "the records are what was sealed, but the stored hashes were changed: nothing can be proved or sealed with them"
	}
	if log.Unfinished {
		v.Notes = append(v.Notes, "the file ends in the middle of a head, which never counted: a worker died as it wrote it")
	}
	if v.Why == "" && int64(log.Heads) > log.TableHeads {
		v.Notes = append(v.Notes, "the file has a head more than the database, which agrees with the records: a worker died before it could commit, and the next one takes it up")
	}
	if after := v.Records - v.Sealed; v.Why == "" && after > 0 {
		v.Notes = append(v.Notes, fmt.Sprintf("%d records after the last head aren't sealed yet", after))
	}
	switch v.Verified = v.Why == "" && v.Heads > 0; {
	case v.Why != "":
		v.State = "bad"
	case v.Verified:
		v.State = "verified"
	default:
		v.State = "unsealed"
	}
	return v, nil
}

// goneOrgs are those that have signed heads and aren't in the database any more.
func goneOrgs(folder *seal.Folder, orgs []store.Org) ([]verifiedOrg, error) {
	kept, err := folder.Orgs()
	if err != nil {
		return nil, err
	}
	var gone []verifiedOrg
	for _, id := range kept {
		if !slices.ContainsFunc(orgs, func(o store.Org) bool { return o.ID == id }) {
			gone = append(gone, verifiedOrg{
				Org: "-", OrgID: id, State: "bad",
				Why: "the folder has signed heads of org " + string(id) + ", which the database doesn't know: its whole log is gone, or this is another database",
			})
		}
	}
	return gone, nil
}

// printVerified prints what was found, and fails when anything is bad.
func printVerified(c *cli.Context, all []verifiedOrg) error {
	number := func(get func(verifiedOrg) int64) func(verifiedOrg) string {
		return func(v verifiedOrg) string { return strconv.FormatInt(get(v), 10) }
	}
	err := printRows(c, all, "There are no orgs.",
		column[verifiedOrg]{"org", func(v verifiedOrg) string { return v.Org }},
		column[verifiedOrg]{"state", func(v verifiedOrg) string { return v.State }},
		column[verifiedOrg]{"records", number(func(v verifiedOrg) int64 { return v.Records })},
		column[verifiedOrg]{"sealed", number(func(v verifiedOrg) int64 { return v.Sealed })},
		column[verifiedOrg]{"heads", number(func(v verifiedOrg) int64 { return int64(v.Heads) })},
		column[verifiedOrg]{"last head", func(v verifiedOrg) string { return when(v.SignedAt) }},
		column[verifiedOrg]{"", func(v verifiedOrg) string { return strings.Join(append(compact(v.Why), v.Notes...), "; ") }})
	if err != nil {
		return err
	}
	bad := 0
	for _, v := range all {
		if v.State == "bad" {
			bad++
		}
	}
	if bad == 0 {
		return nil
	}
	return fault.Newf("verifying the audit log", fault.Data, "%d of %d logs can't be believed", bad, len(all)).
		WithFix("Leave the database, the folder of heads and the backups as they are, and tell whoever answers for security")
}

// compact is a text as a list, empty for none.
func compact(text string) []string {
	if text == "" {
		return nil
	}
	return []string{text}
}

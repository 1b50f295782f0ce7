package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/consent"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/gate"
	"github.com/cura-health/ehr-sync/internal/store"
)

func consentCommand() *cli.Command {
	org := &cli.StringFlag{Name: "org", Usage: "the patient's `ORG`"}
	return &cli.Command{
		Name:  "consent",
		Usage: "what patients allow, and how it came to be",
		Description: "PATIENT is Cura's profile id, a patient link's id, or the EHR's id of the patient, which others on this machine can see\n" +
			"while the command runs.\n\n" +
			example("starter consent show 0b7c6a52-8c5e-4a55-9d0e-3f6b1f2f3a10"),
		Subcommands: []*cli.Command{
			{
				Name:      "grant",
				Usage:     "record that a patient consents",
				ArgsUsage: "PATIENT",
				Description: "Takes a consent officer or an admin. Without terms it permits everything for treatment, but what is sensitive: each\n" +
					"label needs to be named. It doesn't revive what was cancelled (starter push retry), and takes back a revocation that was\n" +
					"recorded here. --file takes an R4 Consent in JSON instead of terms.\n\n" +
					example("starter consent grant 0b7c6a52-8c5e-4a55-9d0e-3f6b1f2f3a10 --org st-mary --until 2027-01-01 --kind note",
						"starter consent grant 0b7c6a52-8c5e-4a55-9d0e-3f6b1f2f3a10 --org st-mary --file ./consent.json"),
				Flags:  append([]cli.Flag{org}, grantFlags()...),
				Action: grantConsent,
			},
			{
				Name:      "revoke",
				Usage:     "record that a patient consents no more, and stop what is queued and in flight",
				ArgsUsage: "PATIENT",
				Description: "Takes a consent officer or an admin. From its first commit on nothing more is let through; it ends when it is effective:\n" +
					"no disclosure begins afterwards. Temporal needn't run. Consents of the hospital are overruled by a denial, which the next\n" +
					"grant takes back. It ends with code 1 where there is nothing to revoke.\n\n" +
					example("starter consent revoke 0b7c6a52-8c5e-4a55-9d0e-3f6b1f2f3a10 --org st-mary"),
				Flags:  []cli.Flag{org, &cli.StringFlag{Name: "consent", Usage: "only the consent with this `ID`, made in Cura (starter consent show)", DefaultText: "all"}},
				Action: revokeConsent,
			},
			{
				Name:        "show",
				Usage:       "show the history of a patient's consents, in codes and times",
				ArgsUsage:   "PATIENT",
				Description: example("starter consent show 0b7c6a52-8c5e-4a55-9d0e-3f6b1f2f3a10"),
				Flags:       []cli.Flag{&cli.StringFlag{Name: "org", Usage: "the patient's `ORG`", DefaultText: "the one that knows the patient"}},
				Action:      showConsent,
			},
			{
				Name:        "explain",
				Usage:       "explain whether an item may leave, rule by rule, and by what it was let through",
				ArgsUsage:   "PATIENT ITEM",
				Description: example("starter consent explain 0b7c6a52-8c5e-4a55-9d0e-3f6b1f2f3a10 5f0e0d52-7a7a-4b6d-8a58-0b0f6b1f2f3a"),
				Flags:       []cli.Flag{&cli.StringFlag{Name: "org", Usage: "the patient's `ORG`", DefaultText: "the one that knows the patient"}},
				Action:      explainConsent,
			},
		},
	}
}

// findPatient finds the org and the profile of a patient whom a person has named; without an org it looks in all of them.
func (s *session) findPatient(c *cli.Context, org, name string) (store.Org, cura.ProfileID, error) {
	orgs, err := s.store.Orgs(c.Context)
	if err != nil {
		return store.Org{}, "", err
	}
	if org != "" {
		one, err := s.store.OrgByName(c.Context, org)
		if err != nil {
			return one, "", err
		}
		orgs = []store.Org{one}
	}
	missing := fault.New("looking for the patient", fault.NotFound, "there is no such patient").
		WithFix("Name them by Cura's profile id, a patient link's id, or the EHR's id of a patient who has been pulled")
	var found store.Org
	var profile cura.ProfileID
	for _, o := range orgs {
		var p cura.ProfileID
		err := s.store.InOrg(c.Context, o.ID, func(tx *store.Tx) error {
			var err error
			p, err = tx.ProfileOf(c.Context, name)
			return err
		})
		switch {
		case fault.Is(err, fault.NotFound):
		case err != nil:
			return o, "", err
		case profile != "":
			return o, "", fault.New("looking for the patient", fault.Conflict, "several orgs have a patient of that id").WithFix("Say which with --org ORG")
		default:
			found, profile = o, p
		}
	}
	if profile == "" {
		return found, "", missing
	}
	return found, profile, nil
}

// consentView is the history of a patient's consents: codes and times, no PHI.
type consentView struct {
	Org     string              `json:"org"`
	Profile cura.ProfileID      `json:"profile"`
	Head    *store.ConsentHead  `json:"head,omitempty"`
	Entries []entryView         `json:"entries"`
	Halts   []store.ConsentHalt `json:"halts"`
}

// entryView is one entry of a consent log.
type entryView struct {
	Entry int64 `json:"entry"`
	// Consent is Cura's id of a consent that was made in Cura.
	Consent  string    `json:"consent,omitempty"`
	Source   string    `json:"source"`
	Actor    string    `json:"actor,omitempty"`
	Role     cura.Role `json:"role,omitempty"`
	LoggedAt time.Time `json:"logged_at"`
	Status   string    `json:"status"`
	// Rule is permit or deny as the root of the consent says, or the code of its policy rule.
	Rule string     `json:"rule,omitempty"`
	From *time.Time `json:"from,omitempty"`
	// Until is exclusive.
	Until *time.Time `json:"until,omitempty"`
	// Standing: no later entry has taken its place.
	Standing bool `json:"standing"`
}

func viewOfEntry(e store.ConsentEntry, last map[string]int64) entryView {
	v := entryView{
		Entry: e.ID, Consent: e.ConsentID, Source: e.Source, Actor: e.Actor, Role: e.Role, LoggedAt: e.LoggedAt,
		Status: e.Consent.Status, Rule: e.Consent.RootType, Standing: last[e.Key] == e.ID,
	}
	if e.EnteredInError {
		v.Status = "entered-in-error"
	}
	for _, coding := range e.Consent.PolicyRule.Codings {
		if v.Rule == "" && (coding.Code == "OPTIN" || coding.Code == "OPTOUT") {
			v.Rule = coding.Code
		}
	}
	if p := e.Consent.Period; p != nil {
		if p.Start != nil {
			v.From = &p.Start.Start
		}
		if p.End != nil {
			v.Until = &p.End.End
		}
	}
	return v
}

// shownHalts is how many changes of consent are shown.
const shownHalts = 20

func showConsent(c *cli.Context) error {
	name, err := oneWord(c, "the patient")
	if err != nil {
		return err
	}
	return onDatabaseWith(c, func(s *session) error {
		org, profile, err := s.findPatient(c, c.String("org"), name)
		if err != nil {
			return err
		}
		v := consentView{Org: org.Name, Profile: profile, Entries: []entryView{}}
		err = s.store.InOrg(c.Context, org.ID, func(tx *store.Tx) error {
			head, err := tx.ConsentHead(c.Context, profile)
			switch {
			case err == nil:
				v.Head = &head
			case !fault.Is(err, fault.NotFound):
				return err
			}
			log, err := tx.ConsentLog(c.Context, profile)
			if err != nil {
				return err
			}
			last := map[string]int64{}
			for _, e := range log {
				last[e.Key] = e.ID
			}
			for _, e := range log {
				v.Entries = append(v.Entries, viewOfEntry(e, last))
			}
			if v.Halts, err = tx.ConsentHalts(c.Context, profile, shownHalts); err != nil {
				return err
			}
			tx.Audit(audit.Record{
				Kind: audit.ConsentViewed, Actor: s.actor, Outcome: audit.Success, Details: map[string]any{"profile": profile, "asserted": true},
			})
			return nil
		})
		if err != nil {
			return err
		}
		return v.print(c)
	})
}

func (v consentView) print(c *cli.Context) error {
	if asJSON(c) {
		return printJSON(c, v)
	}
	epoch := "none: nothing was ever sent, and nothing recorded here"
	if h := v.Head; h != nil {
		epoch = fmt.Sprintf("%d since %s", h.Epoch, when(&h.ChangedAt))
		if h.Halted {
			epoch += "; a change is on its way, and nothing is sent until it is effective"
		}
		if h.NextAt != nil {
			epoch += "; time changes it at " + when(h.NextAt)
		}
	}
	fmt.Fprintln(c.App.Writer, strings.Join([]string{"Patient  profile " + string(v.Profile) + " of " + v.Org, "Epoch    " + epoch, ""}, "\n"))
	err := printTable(c, v.Entries, "No consent is recorded; record one with: starter consent grant "+string(v.Profile)+" --org "+v.Org,
		column[entryView]{"entry", func(e entryView) string { return strconv.FormatInt(e.Entry, 10) }},
		column[entryView]{"logged", func(e entryView) string { return when(&e.LoggedAt) }},
		column[entryView]{"made by", func(e entryView) string { return orElse(e.Actor, "the hospital") }},
		column[entryView]{"status", func(e entryView) string { return e.Status }},
		column[entryView]{"rule", func(e entryView) string { return orDash(e.Rule) }},
		column[entryView]{"from", func(e entryView) string { return when(e.From) }},
		column[entryView]{"until", func(e entryView) string { return when(e.Until) }},
		column[entryView]{"stands", func(e entryView) string { return map[bool]string{true: "yes", false: "-"}[e.Standing] }},
		column[entryView]{"consent", func(e entryView) string { return orDash(e.Consent) }})
	if err != nil || len(v.Halts) == 0 {
		return err
	}
	fmt.Fprintln(c.App.Writer)
	return printTable(c, v.Halts, "",
		column[store.ConsentHalt]{"change", func(h store.ConsentHalt) string { return string(h.Cause) }},
		column[store.ConsentHalt]{"by", func(h store.ConsentHalt) string { return orDash(h.Actor) }},
		column[store.ConsentHalt]{"halted", func(h store.ConsentHalt) string { return when(&h.OpenedAt) }},
		column[store.ConsentHalt]{"effective", func(h store.ConsentHalt) string { return when(h.EffectiveAt) }},
		column[store.ConsentHalt]{"epoch", func(h store.ConsentHalt) string {
			if h.Epoch == nil {
				return "-"
			}
			return strconv.FormatInt(*h.Epoch, 10)
		}})
}

// explanation is whether an item may leave now, and why it could then.
type explanation struct {
	Item    string            `json:"item"`
	Profile cura.ProfileID    `json:"profile"`
	Kind    cura.ArtefactKind `json:"kind"`
	State   cura.ItemState    `json:"state"`
	Why     string            `json:"why,omitempty"`
	Exempt  store.Exempt      `json:"exempt,omitempty"`
	Now     consent.Decision  `json:"now"`
	// Then is the delivery with the decision by which it was let through; none: it never was.
	Then *store.Delivery `json:"then,omitempty"`
	// Standing are the kill switches that stop its pushes.
	Halt *store.Halt `json:"halt,omitempty"`
}

func explainConsent(c *cli.Context) error {
	if c.NArg() != 2 || c.Args().Get(0) == "" || c.Args().Get(1) == "" {
		return usagef("%s takes two arguments, the patient and the item's id; see: %s --help", c.Command.HelpName, c.Command.HelpName)
	}
	return onDatabaseWith(c, func(s *session) error {
		org, profile, err := s.findPatient(c, c.String("org"), c.Args().Get(0))
		if err != nil {
			return err
		}
		var e explanation
		err = s.store.InOrg(c.Context, org.ID, func(tx *store.Tx) error {
			item, err := tx.Item(c.Context, c.Args().Get(1))
			if err != nil {
				return err
			}
			if item.Profile != profile {
				return fault.New("looking for the item", fault.NotFound, "it is another patient's").WithFix("List the patient's with: starter push list CONNECTION --patient ID")
			}
			e = explanation{
				Item: item.ID, Profile: profile, Kind: item.Artefact.Kind, State: item.State, Why: item.Why, Exempt: item.Exempt, Then: item.Delivery,
			}
			policy, err := tx.OrgPolicy(c.Context)
			if err != nil {
				return err
			}
			log, err := tx.ConsentLog(c.Context, profile)
			if err != nil {
				return err
			}
			if e.Halt, err = tx.Halted(c.Context, item.Connection, store.HaltPushes); err != nil {
				return err
			}
			e.Now = gate.Decide(item.Artefact, item.Exempt != store.NotExempt, policy, store.StandingConsents(log), time.Now())
			tx.Audit(audit.Record{
				Kind: audit.ConsentViewed, Actor: s.actor, Connection: item.Connection, Outcome: audit.Success,
				Details: map[string]any{"profile": profile, "item": item.ID, "asserted": true},
			})
			return nil
		})
		if err != nil {
			return err
		}
		return e.print(c)
	})
}

func (e explanation) print(c *cli.Context) error {
	if asJSON(c) {
		return printJSON(c, e)
	}
	verdict := "no"
	if e.Now.Allow {
		verdict = "yes"
	}
	lines := []string{
		"Item         " + e.Item + ", a " + string(e.Kind) + ", " + string(e.State),
		"Why          " + orDash(e.Why),
		"Allowed now  " + verdict + " (" + string(e.Now.Code) + "): " + e.Now.Reason,
	}
	if e.Now.ConsentID != "" {
		lines = append(lines, "Decided by   entry "+e.Now.ConsentID+" of the consent log")
	}
	if !e.Now.Until.IsZero() {
		lines = append(lines, "Until        "+when(&e.Now.Until)+", when time may change it")
	}
	if e.Halt != nil {
		lines = append(lines, "Halted       "+haltText(*e.Halt))
	}
	if e.Then != nil {
		lines = append(lines, "Let through  "+proof(*e.Then)+"; its delivery is "+string(e.Then.State))
	} else {
		lines = append(lines, "Let through  never")
	}
	fmt.Fprintln(c.App.Writer, strings.Join(lines, "\n"))
	if len(e.Now.Rules) == 0 {
		return nil
	}
	fmt.Fprintln(c.App.Writer)
	return printTable(c, e.Now.Rules, "",
		column[consent.Rule]{"entry", func(r consent.Rule) string { return orDash(r.Consent) }},
		column[consent.Rule]{"rule", func(r consent.Rule) string { return r.Path }},
		column[consent.Rule]{"says", func(r consent.Rule) string { return orDash(r.Effect) }},
		column[consent.Rule]{"bears on it", func(r consent.Rule) string { return map[bool]string{true: "yes", false: "no"}[r.Matched] }},
		column[consent.Rule]{"why", func(r consent.Rule) string { return r.Why }})
}

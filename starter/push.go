package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
)

func pushCommand() *cli.Command {
	return &cli.Command{
		Name:  "push",
		Usage: "what Cura wants in the hospitals' EHRs, and what came of it",
		Description: "Cura's applications queue notes, codes and consent events; a worker delivers what consent and role allow, in order for\n" +
			"each patient. An overview: starter deliveries\n\n" +
			example("starter push list st-mary/main --state review"),
		Subcommands: append([]*cli.Command{
			{
				Name:      "add",
				Usage:     "queue artefacts from a file",
				ArgsUsage: "CONNECTION FILE",
				Description: "FILE is one JSON object or one a line, - standard input: patient (Cura's profile id, a patient link's id, or the EHR's\n" +
					"id of the patient), kind (note, diagnosis, procedure, consent-event), artefact (its name for good), version (1), author\n" +
					"{name, role}, encounter, labels, authored_at (now), replaces (the version before), and note, diagnosis, procedure or\n" +
					"consent_event. All of a file is queued, or nothing.\n\n" +
					example("starter push add st-mary/main ./note.json", "starter push add st-mary/main - < artefacts.ndjson"),
				Action: addArtefacts,
			},
			{
				Name:        "list",
				Usage:       "list what was queued for a connection, the newest first",
				ArgsUsage:   "CONNECTION",
				Description: example("starter push list st-mary/main", "starter push list st-mary/main --state denied,review --kind note"),
				Flags: []cli.Flag{
					&cli.StringSliceFlag{Name: "state", Usage: "only those in a `STATE`: " + words(itemStates())},
					&cli.StringSliceFlag{Name: "kind", Usage: "only those of a `KIND`: " + words(cura.ArtefactKinds())},
					&cli.StringFlag{Name: "patient", Usage: "only those of this patient, named by an `ID`"},
					&cli.IntFlag{Name: "limit", Value: 50, Usage: "at most `N`"},
				},
				Action: listItems,
			},
			{
				Name:      "show",
				Usage:     "show one item: where it stands and why, and by which consent it was let through",
				ArgsUsage: "[CONNECTION] ITEM",
				Description: "What it says is a patient's data: --content shows that, and that somebody looked is recorded.\n\n" +
					example("starter push show st-mary/main 0b7c6a52-8c5e-4a55-9d0e-3f6b1f2f3a10"),
				Flags:  []cli.Flag{&cli.BoolFlag{Name: "content", Usage: "what it says, too: PHI; audited"}},
				Action: showItem,
			},
		}, pushChangeCommands()...),
	}
}

func itemStates() []cura.ItemState {
	return []cura.ItemState{
		cura.ItemQueued, cura.ItemSending, cura.ItemDelivered, cura.ItemHeld, cura.ItemDenied, cura.ItemCancelled, cura.ItemRejected,
		cura.ItemReview, cura.ItemManual,
	}
}

// maxItems is how many items a list shows at most.
const maxItems = 100_000

// itemView is an item as it is shown, without what it says.
type itemView struct {
	Connection string            `json:"connection"`
	Kind       cura.ArtefactKind `json:"kind"`
	Version    int               `json:"version"`
	Retracts   bool              `json:"retracts,omitempty"`
	AuthorRole cura.Role         `json:"author_role"`
	store.OutboxItem

	// Commands move it on.
	Commands []string `json:"commands,omitempty"`
	// Content and EHRID are PHI, there when they were asked for.
	Content *cura.Artefact `json:"content,omitempty"`
	EHRID   string         `json:"ehr_id,omitempty"`
}

func viewOfItem(l store.Listed, item store.OutboxItem) itemView {
	return itemView{
		Connection: path(l), Kind: item.Artefact.Kind, Version: item.Artefact.Version, Retracts: item.Artefact.Retracts,
		AuthorRole: item.Artefact.Author.Role, OutboxItem: item, Commands: commandsFor(l, item),
	}
}

// commandsFor are the commands that move an item on.
func commandsFor(l store.Listed, item store.OutboxItem) []string {
	does := func(what string) string { return "starter push " + what + " " + item.ID }
	switch item.State {
	case cura.ItemQueued, cura.ItemSending:
		return []string{does("cancel")}
	case cura.ItemDenied:
		return []string{"starter consent explain " + string(item.Profile) + " " + item.ID, does("retry"), does("cancel")}
	case cura.ItemCancelled, cura.ItemRejected:
		return []string{does("retry")}
	case cura.ItemReview:
		if unknown(item) {
			return []string{does("resolve") + " --written", does("resolve") + " --release"}
		}
		return []string{does("retry"), does("cancel")}
	case cura.ItemManual:
		return []string{does("show") + " --content", does("resolve") + " --written", does("cancel")}
	case cura.ItemHeld:
		return []string{does("resolve") + " --written", "starter push retract " + path(l) + " " + item.ID}
	case cura.ItemDelivered:
		if !item.Artefact.Retracts {
			return []string{"starter push retract " + path(l) + " " + item.ID}
		}
	}
	return nil
}

// unknown reports whether the EHR may have an item.
func unknown(item store.OutboxItem) bool {
	return item.Delivery != nil && item.Delivery.State == cura.DeliveryUnknown
}

// delivery is where an item's delivery stands.
func (v itemView) delivery() string {
	if v.Delivery == nil {
		return "-"
	}
	return string(v.Delivery.State)
}

func (v itemView) what() string {
	text := string(v.Kind)
	if v.Retracts {
		text = "retraction of a " + text
	}
	return text + ", version " + strconv.Itoa(v.Version)
}

func listItems(c *cli.Context) error {
	f := store.ItemFilter{Limit: c.Int("limit")}
	for _, word := range listed(c.StringSlice("state")) {
		state := cura.ItemState(word)
		if !slices.Contains(itemStates(), state) {
			return usagef("--state names %q; the states are %s", word, words(itemStates()))
		}
		f.States = append(f.States, state)
	}
	for _, word := range listed(c.StringSlice("kind")) {
		kind := cura.ArtefactKind(word)
		if !kind.Known() {
			return usagef("--kind names %q; the kinds are %s", word, words(cura.ArtefactKinds()))
		}
		f.Kinds = append(f.Kinds, kind)
	}
	if f.Limit < 1 || f.Limit > maxItems {
		return usagef("--limit is %d; it must be 1 to %d", f.Limit, maxItems)
	}
	return onConnection(c, func(s *session, l store.Listed) error {
		f.Connection = l.Connection
		var items []store.OutboxItem
		err := s.store.InOrg(c.Context, l.Org, func(tx *store.Tx) error {
			var err error
			if c.IsSet("patient") {
				if _, f.Profile, err = tx.LinkOf(c.Context, l.Connection, c.String("patient")); err != nil {
					return err
				}
			}
			items, err = tx.Items(c.Context, f)
			return err
		})
		if err != nil {
			return err
		}
		views := make([]itemView, len(items))
		for i, item := range items {
			views[i] = viewOfItem(l, item)
		}
		if len(views) == f.Limit {
			hint(c, "These are the newest %d; --limit shows more.", f.Limit)
		}
		return printRows(c, views, "Nothing was queued that fits; queue something with: starter push add "+path(l)+" FILE",
			column[itemView]{"item", func(v itemView) string { return v.ID }},
			column[itemView]{"what", itemView.what},
			column[itemView]{"state", func(v itemView) string { return string(v.State) }},
			column[itemView]{"delivery", itemView.delivery},
			column[itemView]{"queued", func(v itemView) string { return when(&v.CreatedAt) }},
			column[itemView]{"why", func(v itemView) string { return orDash(v.Why) }})
	})
}

// onItem runs fn on the item that the command's arguments name: by its id, or by the connection and its id.
func onItem(c *cli.Context, fn func(*session, store.Listed, store.OutboxItem) error) error {
	if c.NArg() < 1 || c.NArg() > 2 || slices.Contains(c.Args().Slice(), "") {
		return usagef("%s takes the item's id, and the connection before it if you like; see: %s --help", c.Command.HelpName, c.Command.HelpName)
	}
	s, err := openSession(c)
	if err != nil {
		return err
	}
	defer s.close()
	id := c.Args().Get(c.NArg() - 1)
	var places []store.Listed
	if c.NArg() == 2 {
		l, err := s.store.FindConnection(c.Context, c.Args().First())
		if err != nil {
			return err
		}
		places = []store.Listed{l}
	} else if places, err = s.store.Connections(c.Context); err != nil {
		return err
	}
	item, l, err := s.findItem(c, places, id)
	if err != nil {
		return err
	}
	return fn(s, l, item)
}

// findItem looks for an item at the connections, entering each org once.
func (s *session) findItem(c *cli.Context, places []store.Listed, id string) (store.OutboxItem, store.Listed, error) {
	asked := map[cura.OrgID]bool{}
	for _, place := range places {
		if asked[place.Org] {
			continue
		}
		asked[place.Org] = true
		var item store.OutboxItem
		err := s.store.InOrg(c.Context, place.Org, func(tx *store.Tx) error {
			var err error
			item, err = tx.Item(c.Context, id)
			return err
		})
		if fault.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return item, place, err
		}
		for _, l := range places {
			if l.Connection == item.Connection {
				return item, l, nil
			}
		}
	}
	return store.OutboxItem{}, store.Listed{}, fault.New("looking for the item", fault.NotFound, "there is no such item there").
		WithFix("List them with: starter push list CONNECTION")
}

func showItem(c *cli.Context) error {
	return onItem(c, func(s *session, l store.Listed, item store.OutboxItem) error {
		v := viewOfItem(l, item)
		if c.Bool("content") {
			if err := s.viewContent(c, l, item); err != nil {
				return err
			}
			v.Content = &item.Artefact
			if item.Delivery != nil {
				v.EHRID = item.Delivery.EHRID
			}
		}
		if asJSON(c) {
			return printJSON(c, v)
		}
		lines := v.lines()
		if v.Content != nil {
			text, err := json.MarshalIndent(v.Content, "", "  ")
			if err != nil {
				return err
			}
			lines = append(lines, "", "EHR id      "+orDash(v.EHRID), string(text))
		}
		_, err := fmt.Fprintln(c.App.Writer, strings.Join(lines, "\n"))
		return err
	})
}

// viewContent records that somebody looks at what an item says.
func (s *session) viewContent(c *cli.Context, l store.Listed, item store.OutboxItem) error {
	everyone := store.OperatorRoles()
	if _, err := s.leave(c, orgOf(l), demand{audit.PushViewed, l.Connection, everyone}); err != nil {
		return err
	}
	hint(c, "This is a patient's data; that you have looked at it is recorded.")
	return s.store.InOrg(c.Context, l.Org, func(tx *store.Tx) error {
		tx.ViewItem(item, s.actor)
		return nil
	})
}

// orgOf is the org of a connection.
func orgOf(l store.Listed) store.Org { return store.Org{ID: l.Org, Name: l.OrgName, Kind: l.OrgKind} }

// lines show an item to a person.
func (v itemView) lines() []string {
	lines := []string{
		"Item        " + v.ID,
		"Connection  " + v.Connection,
		"Patient     profile " + string(v.Profile) + ", link " + v.Link,
		"What        " + v.what() + ", authored by a " + string(v.AuthorRole),
		"State       " + string(v.State),
		"Why         " + orDash(v.Why),
		"Queued      " + when(&v.CreatedAt),
		"Moved       " + when(&v.UpdatedAt),
	}
	if v.Exempt != store.NotExempt {
		lines = append(lines, "Exempt      "+string(v.Exempt)+": it may go after consent was withdrawn")
	}
	if v.Attempts > 0 {
		lines = append(lines, fmt.Sprintf("Attempts    %d, next at %s", v.Attempts, when(v.DueAt)))
	}
	if d := v.Delivery; d != nil {
		lines = append(lines,
			"Delivery    "+string(d.State)+", as "+d.Resource,
			"Let through "+proof(*d),
			fmt.Sprintf("Sends       %d, first at %s; %d look-ups", d.Sends, when(d.FirstSentAt), d.Lookups),
			"Settled     "+when(d.SettledAt))
		if d.Status != 0 {
			lines = append(lines, fmt.Sprintf("Answer      HTTP %d", d.Status))
		}
	}
	if len(v.Commands) > 0 {
		lines = append(lines, "", "Move it on with:")
		for _, command := range v.Commands {
			lines = append(lines, "    "+command)
		}
	}
	return lines
}

// proof says by what a delivery was let through.
func proof(d store.Delivery) string {
	by := "exempt"
	if d.ConsentEntry != nil {
		by = "by entry " + strconv.FormatInt(*d.ConsentEntry, 10) + " of the consent log"
	}
	return fmt.Sprintf("%s, epoch %d, author's role %s, at %s", by, d.ConsentEpoch, d.AuthorRole, when(&d.DecidedAt))
}

package main

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/profile"
	"github.com/cura-health/ehr-sync/internal/store"
)

// profileFlags are the settings that say what kind of EHR it is, how it is read and how fast.
func profileFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "profile", Usage: "what kind of `EHR` it is; starter profiles lists them", DefaultText: profile.Generic},
		&cli.StringFlag{Name: "profile-file", Usage: "a `FILE` with a profile of its own; starter profiles check looks it over"},
		&cli.StringSliceFlag{Name: "profile-param", Usage: "what the profile needs to know, as `NAME=VALUE`, repeated as needed; NAME= takes it away; no secret: it is shown"},
		&cli.StringSliceFlag{Name: "strategy", Usage: "read a type otherwise than the profile says: `TYPE=system`, roster or snapshot, repeated as needed; TYPE= takes it back"},
		&cli.StringFlag{Name: "roster-source", Usage: "what feeds the roster by itself: `enrolment` (whom Cura knows) or list (nothing); a Group: starter roster group", DefaultText: string(cura.RosterEnrolment)},
		&cli.IntFlag{Name: "budget", Usage: "how many requests a minute all workers together may send; `N`, 0 for as many as the profile says", DefaultText: "the profile's"},
		&cli.IntFlag{Name: "alert-after", Usage: "after how many failures in a row people are told; `N`", DefaultText: "5"},
	}
}

// applyProfile puts the flags that say what kind of EHR it is over the settings of conn, and gives the profile, filled in.
// Types and scopes that were the defaults of the old settings follow the new ones.
func applyProfile(c *cli.Context, conn *cura.Connection) (*profile.Profile, error) {
	before := defaultScopes(*conn)
	if err := chooseProfile(c, conn); err != nil {
		return nil, err
	}
	if err := applyParams(c, conn); err != nil {
		return nil, err
	}
	p, err := connectionProfile(*conn)
	if err != nil {
		return nil, settingsFault(err)
	}
	if err := applyTypes(c, conn, p); err != nil {
		return nil, err
	}
	if err := applyStrategies(c, conn); err != nil {
		return nil, err
	}
	if err := applyRosterSource(c, conn); err != nil {
		return nil, err
	}
	if err := applyDeliveries(c, conn); err != nil {
		return nil, err
	}
	if slices.Equal(conn.Scopes, before) {
		conn.Scopes = defaultScopes(*conn)
	}
	return p, nil
}

// chooseProfile takes the profile that is named or given in a file. Another profile begins without the parameters of the old.
func chooseProfile(c *cli.Context, conn *cura.Connection) error {
	switch {
	case c.IsSet("profile") && c.IsSet("profile-file"):
		return usagef("--profile names a built-in profile and --profile-file gives one; give one of the two")
	case c.IsSet("profile"):
		name := strings.TrimSpace(c.String("profile"))
		if _, err := profile.Builtin(name); err != nil {
			return settingsFault(err)
		}
		if name != conn.EHRProfile || conn.ProfileText != "" {
			conn.EHRProfile, conn.ProfileText, conn.ProfileParams = name, "", nil
		}
	case c.IsSet("profile-file"):
		file, err := readProfile(c, c.String("profile-file"))
		if err != nil {
			return settingsFault(err)
		}
		conn.EHRProfile, conn.ProfileText = file.parsed.Name, file.text
		conn.ProfileParams = maps.Clone(conn.ProfileParams)
		maps.DeleteFunc(conn.ProfileParams, func(name, _ string) bool { return !slices.Contains(file.parsed.Params, name) })
	}
	return nil
}

func applyParams(c *cli.Context, conn *cura.Connection) error {
	params := maps.Clone(conn.ProfileParams)
	if params == nil {
		params = map[string]string{}
	}
	for _, given := range c.StringSlice("profile-param") {
		name, value, ok := strings.Cut(given, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		switch {
		case !ok || name == "":
			return usagef("--profile-param takes NAME=VALUE, such as practice=Organization/a-1.Practice-1")
		case value == "":
			delete(params, name)
		default:
			params[name] = value
		}
	}
	conn.ProfileParams = params
	return nil
}

// applyTypes sets the types that were asked for; without any, those of the profile remain.
func applyTypes(c *cli.Context, conn *cura.Connection, p *profile.Profile) error {
	offered := func(t cura.ResourceType) bool {
		_, ok := p.Rules(t)
		return ok
	}
	switch {
	case c.IsSet("types"):
		types, err := parseTypes(c.StringSlice("types"))
		if err != nil {
			return err
		}
		conn.Types = types
	case conn.Phase == cura.PhaseNew && slices.Equal(conn.Types, cura.ResourceTypes()):
		conn.Types = slices.DeleteFunc(slices.Clone(conn.Types), func(t cura.ResourceType) bool { return !offered(t) })
	}
	if !slices.Contains(conn.Types, cura.Patient) {
		return usagef("--types lacks Patient; every other type hangs on a patient")
	}
	for _, t := range conn.Types {
		if !offered(t) {
			return usagef("the profile %s says that the vendor doesn't offer %s; leave it out with --types", p.Name, t)
		}
	}
	return nil
}

// applyStrategies sets what an operator chooses instead of the profile's strategies.
func applyStrategies(c *cli.Context, conn *cura.Connection) error {
	chosen := map[cura.ResourceType]cura.Strategy{}
	for t, s := range conn.Strategies {
		if slices.Contains(conn.Types, t) {
			chosen[t] = s
		}
	}
	for _, given := range listed(c.StringSlice("strategy")) {
		name, value, ok := strings.Cut(given, "=")
		t, s := cura.ResourceType(strings.TrimSpace(name)), cura.Strategy(strings.TrimSpace(value))
		switch {
		case !ok:
			return usagef("--strategy takes TYPE=STRATEGY, such as Observation=snapshot; TYPE= takes it back")
		case !slices.Contains(conn.Types, t):
			return usagef("--strategy names %q, which isn't one of the connection's types: %s", t, words(conn.Types))
		case s == "":
			delete(chosen, t)
		case !s.Known():
			return usagef("--strategy of %s is %q; it must be one of %s", t, s, words(cura.Strategies()))
		default:
			chosen[t] = s
		}
	}
	conn.Strategies = chosen
	return nil
}

// words lists typed words for a sentence.
func words[T ~string](of []T) string {
	list := make([]string, len(of))
	for i, w := range of {
		list[i] = string(w)
	}
	return strings.Join(list, ", ")
}

func applyRosterSource(c *cli.Context, conn *cura.Connection) error {
	if !c.IsSet("roster-source") {
		return nil
	}
	switch source := cura.RosterSource(c.String("roster-source")); source {
	case cura.RosterEnrolment, cura.RosterList:
		conn.RosterSource, conn.GroupID = source, ""
		return nil
	case cura.RosterGroup:
		return usagef("--roster-source group needs to know which; say it with: starter roster group CONNECTION GROUP-ID")
	default:
		return usagef("--roster-source is %q; it must be enrolment or list, or a Group with: starter roster group", source)
	}
}

// defaultScopes are the scopes without which a pull of the connection's types and what it delivers by FHIR can't do, as its
// profile spells them; the Group's too that feeds its roster.
func defaultScopes(conn cura.Connection) []string {
	p, err := unfilledProfile(conn)
	if err != nil {
		return []string{} // a profile that is gone asks for nothing; the settings are refused for it elsewhere
	}
	types := slices.Clone(conn.Types)
	if conn.RosterSource == cura.RosterGroup {
		types = append(types, "Group")
	}
	scopes := append([]string{}, p.ScopesFor(types)...)
	for _, scope := range p.WriteScopes(conn.DeliveredBy(cura.RouteFHIR)) {
		if !slices.Contains(scopes, scope) {
			scopes = append(scopes, scope)
		}
	}
	return scopes
}

// hintRoster tells who has chosen a profile that reads patient by patient what else it needs.
func hintRoster(c *cli.Context, conn cura.Connection, name string) {
	p, err := unfilledProfile(conn)
	if err != nil {
		return // the settings were checked before
	}
	if slices.ContainsFunc(conn.Types, func(t cura.ResourceType) bool {
		return profile.Choose(p, t, profile.Evidence{}, conn.Strategies[t]).Strategy.ByPatient()
	}) {
		hint(c, "It is read patient by patient: whom Cura knows by its match identifier, and whom you name with starter roster (see starter roster show %s).", name)
	}
}

// paceSettings are how fast a connection may be asked; nil: it stays as it is.
type paceSettings struct {
	budget, alertAfter *int
}

func readPaceSettings(c *cli.Context) (paceSettings, error) {
	var p paceSettings
	if c.IsSet("budget") {
		n := c.Int("budget")
		if n < 0 {
			return p, usagef("--budget is %d; it is a number of requests a minute, or 0 for the profile's", n)
		}
		p.budget = &n
	}
	if c.IsSet("alert-after") {
		n := c.Int("alert-after")
		if n < 1 {
			return p, usagef("--alert-after is %d; it must be at least 1", n)
		}
		p.alertAfter = &n
	}
	return p, nil
}

// put stores the settings in the transaction of the others.
func (p paceSettings) put(ctx context.Context, tx *store.Tx, id cura.ConnectionID, actor string) error {
	if p.budget != nil {
		if err := tx.SetBudget(ctx, id, *p.budget, actor); err != nil {
			return err
		}
	}
	if p.alertAfter == nil {
		return nil
	}
	return tx.SetAlertAfter(ctx, id, *p.alertAfter, actor)
}

// strategyChoices are how the types of a connection are read, in their order: as the last endpoint test has found, else as
// the operator or the profile says.
func strategyChoices(ctx context.Context, tx *store.Tx, conn cura.Connection) ([]cura.StrategyChoice, error) {
	known, err := tx.Strategies(ctx, conn.ID)
	if err != nil {
		return nil, err
	}
	p, err := unfilledProfile(conn)
	if err != nil {
		return nil, fault.Wrap("reading the connection's profile", fault.Config, "it can't be used any more", err).
			WithFix("Give it another one with: starter connection edit CONNECTION --profile NAME")
	}
	choices := make([]cura.StrategyChoice, len(conn.Types))
	for i, t := range conn.Types {
		override := conn.Strategies[t]
		at := slices.IndexFunc(known, func(c cura.StrategyChoice) bool {
			return c.Type == t && (override == "" || c.ChosenBy == profile.ByOperator)
		})
		if at >= 0 {
			choices[i] = known[at]
		} else {
			choices[i] = profile.Choose(p, t, profile.Evidence{}, override)
		}
	}
	return choices, nil
}

package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/profile"
)

func profilesCommand() *cli.Command {
	return &cli.Command{
		Name:  "profiles",
		Usage: "list the EHR profiles: what each vendor's EHR can do and demands",
		Description: "A connection names its profile with --profile NAME, or gives one of its own with --profile-file FILE.\n\n" +
			example("starter profiles"),
		Action: listProfiles,
		Subcommands: []*cli.Command{
			{
				Name:        "show",
				Usage:       "show a profile: how each type is read, why, and what that can miss",
				ArgsUsage:   "NAME",
				Description: example("starter profiles show epic"),
				Action:      showProfile,
			},
			{
				Name:      "check",
				Usage:     "check a profile file; - reads standard input",
				ArgsUsage: "FILE",
				Description: "Everything that is wrong is named by file, line and field, and the command ends with code 1. Nothing is stored.\n\n" +
					example("starter profiles check ./our-epic.yaml"),
				Action: checkProfile,
			},
		},
	}
}

// profileView is a profile as people and programs are shown it.
type profileView struct {
	Name              string            `json:"name"`
	Title             string            `json:"title"`
	Scopes            profile.ScopeMode `json:"scopes"`
	Params            []string          `json:"params,omitempty"`
	RequestsPerMinute int               `json:"requests_per_minute,omitempty"`
	PageSize          int               `json:"page_size,omitempty"`
	Concurrency       int               `json:"concurrency,omitempty"`
	Find              profile.FindMode  `json:"find"`
	Types             []profileTypeView `json:"types"`
}

// profileTypeView is how a profile reads one type; without a strategy the vendor doesn't offer it.
type profileTypeView struct {
	Type       cura.ResourceType `json:"type"`
	Strategy   cura.Strategy     `json:"strategy,omitempty"`
	Categories []string          `json:"categories,omitempty"`
	Params     map[string]string `json:"params,omitempty"`
	PageSize   int               `json:"page_size,omitempty"`
	Why        string            `json:"why,omitempty"`
	CanMiss    string            `json:"can_miss,omitempty"`
}

func viewOfProfile(p *profile.Profile) profileView {
	v := profileView{
		Name: p.Name, Title: p.Title, Scopes: p.Scopes, Params: p.Params, RequestsPerMinute: p.RequestsPerMinute,
		PageSize: p.PageSize, Concurrency: p.Concurrency, Find: p.Find,
	}
	for _, t := range cura.ResourceTypes() {
		choice := profile.Choose(p, t, profile.Evidence{}, "")
		rules, _ := p.Rules(t)
		v.Types = append(v.Types, profileTypeView{
			Type: t, Strategy: choice.Strategy, Categories: rules.Categories, Params: rules.Params, PageSize: rules.PageSize,
			Why: choice.Reason, CanMiss: choice.CanMiss,
		})
	}
	return v
}

// inShort says how the types are read, in a few words: "system", or "snapshot; roster: Observation".
func (v profileView) inShort() string {
	byStrategy := map[cura.Strategy][]string{}
	for _, t := range v.Types {
		byStrategy[t.Strategy] = append(byStrategy[t.Strategy], string(t.Type))
	}
	most := slices.MaxFunc(cura.Strategies(), func(a, b cura.Strategy) int { return len(byStrategy[a]) - len(byStrategy[b]) })
	parts := []string{string(most)}
	for _, s := range append(cura.Strategies(), "") {
		switch types := strings.Join(byStrategy[s], ", "); {
		case s == most || types == "":
		case s == "":
			parts = append(parts, "not offered: "+types)
		default:
			parts = append(parts, string(s)+": "+types)
		}
	}
	return strings.Join(parts, "; ")
}

func listProfiles(c *cli.Context) error {
	if err := noWords(c); err != nil {
		return err
	}
	var views []profileView
	for _, name := range profile.Names() {
		p, err := profile.Builtin(name)
		if err != nil {
			return err
		}
		views = append(views, viewOfProfile(p))
	}
	return printRows(c, views, "",
		column[profileView]{"name", func(v profileView) string { return v.Name }},
		column[profileView]{"title", func(v profileView) string { return v.Title }},
		column[profileView]{"reads by", profileView.inShort},
		column[profileView]{"needs", func(v profileView) string { return strings.Join(v.Params, ", ") }})
}

func showProfile(c *cli.Context) error {
	name, err := oneWord(c, "the profile's name")
	if err != nil {
		return err
	}
	p, err := profile.Builtin(name)
	if err != nil {
		return settingsFault(err)
	}
	v := viewOfProfile(p)
	if asJSON(c) {
		return printJSON(c, v)
	}
	fmt.Fprintln(c.App.Writer, strings.Join(v.lines(), "\n"))
	fmt.Fprintln(c.App.Writer)
	return printTable(c, v.Types, "",
		column[profileTypeView]{"type", func(t profileTypeView) string { return string(t.Type) }},
		column[profileTypeView]{"read by", func(t profileTypeView) string { return orDash(string(t.Strategy)) }},
		column[profileTypeView]{"searches", profileTypeView.searches},
		column[profileTypeView]{"why", func(t profileTypeView) string { return t.Why }},
		column[profileTypeView]{"can miss", func(t profileTypeView) string { return orDash(t.CanMiss) }})
}

func (v profileView) lines() []string {
	number := func(n int, none string) string {
		if n == 0 {
			return none
		}
		return strconv.Itoa(n)
	}
	lines := []string{
		"Profile      " + v.Name + " (" + v.Title + ")",
		"Scopes       " + map[profile.ScopeMode]string{
			profile.ScopesNone: "none is asked for", profile.ScopesV1: "SMART v1, system/TYPE.read", profile.ScopesV2: "SMART v2, system/TYPE.rs",
		}[v.Scopes],
		"Patients     found by " + map[profile.FindMode]string{
			profile.FindByIdentifier: "a search by identifier", profile.FindByMatch: "Patient/$match",
		}[v.Find],
		"Pages        " + number(v.PageSize, "as large as the worker's setting") + " (the largest _count)",
		"At once      " + number(v.Concurrency, "as many as the worker's setting") + " requests",
		"Budget       " + number(v.RequestsPerMinute, "no limit on") + " requests a minute",
	}
	for _, name := range v.Params {
		lines = append(lines, "Needs        --profile-param "+name+"=VALUE")
	}
	return lines
}

// searches says what a search of the type names besides the patient or the time.
func (t profileTypeView) searches() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(t.Params)) {
		parts = append(parts, name+"="+t.Params[name])
	}
	if len(t.Categories) > 0 {
		parts = append(parts, "one for each category: "+strings.Join(t.Categories, ", "))
	}
	return orDash(strings.Join(parts, "; "))
}

func checkProfile(c *cli.Context) error {
	name, err := oneWord(c, "the profile file, or - for standard input")
	if err != nil {
		return err
	}
	p, err := readProfile(c, name)
	if err != nil {
		return err
	}
	return printOne(c, viewOfProfile(p.parsed), name+" is a profile without faults: "+p.parsed.Name+" ("+p.parsed.Title+").")
}

// profileFile is a profile with the text that it was read from.
type profileFile struct {
	text   string
	parsed *profile.Profile
}

// maxProfile is well above what a profile file may have, which profile.Parse says.
const maxProfile = 1 << 20

func readProfile(c *cli.Context, name string) (profileFile, error) {
	text, err := readInput(c, name, maxProfile)
	if err != nil {
		return profileFile{}, usagef("the profile file: %s", err)
	}
	p, err := profile.Parse(name, text)
	return profileFile{string(text), p}, err
}

// connectionProfile is the profile that a connection is read by: its own or a built-in one, with its parameters filled in.
func connectionProfile(conn cura.Connection) (*profile.Profile, error) {
	p, err := unfilledProfile(conn)
	if err != nil {
		return nil, err
	}
	return p.Fill(conn.ProfileParams)
}

func unfilledProfile(conn cura.Connection) (*profile.Profile, error) {
	if conn.ProfileText != "" {
		return profile.Parse(conn.EHRProfile+".yaml", []byte(conn.ProfileText))
	}
	return profile.Builtin(conn.EHRProfile)
}

// Package profile says what a vendor's EHR can do and demands: how each type is searched, what a search must name, how
// scopes are asked for, how fast it may be asked, what it takes and how. A profile is a data file (data/*.yaml); a hospital's own can be given in
// a file of the same form. It is pure: what a server really answers is found out in internal/ehr.
package profile

import (
	"embed"
	"fmt"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// Generic is the profile of general FHIR servers, and of a connection that names none.
const Generic = "generic"

//go:embed data/*.yaml
var data embed.FS

// Profile is one vendor's server. It is read only: Fill and Parse make new ones.
type Profile struct {
	// Name is how connections name it, such as epic: small letters, digits and dashes.
	Name string `yaml:"name"`
	// Title is for people, such as "Epic"; Parse sets it to the name where the file has none.
	Title string `yaml:"title"`
	// Scopes is how scopes are asked for: none (no scope parameter), v1 or v2.
	Scopes ScopeMode `yaml:"scopes"`
	// Headers are sent with every request under the FHIR base. A value may hold placeholders, see Params.
	Headers map[string]string `yaml:"headers"`
	// Query is added to the URL of every request under the FHIR base, such as athenahealth's practice. A value may hold
	// placeholders, see Params.
	Query map[string]string `yaml:"query"`
	// Params names the placeholders, spelled ${practice} in the values of Headers and Query and of the types' params, that a
	// connection must fill in; empty once Fill has done so.
	Params []string `yaml:"params"`
	// RequestsPerMinute is the budget that all workers share; 0: none.
	RequestsPerMinute int `yaml:"requests_per_minute"`
	// PageSize is the _count to begin with, and the most; 0: the worker's own.
	PageSize int `yaml:"page_size"`
	// Concurrency is how many requests may be under way at once; Parse makes 4 of 0.
	Concurrency int `yaml:"concurrency"`
	// PagingHosts are origins besides the FHIR base's that next links may name: they are rewritten to the base, and the
	// token goes nowhere else.
	PagingHosts []string `yaml:"paging_hosts"`
	// Find is how a patient is found: identifier (search by identifier) or match ($match); Parse makes identifier of none.
	Find FindMode `yaml:"find"`
	// FindByPost sends that search as POST _search, so that identifiers stay out of access logs.
	FindByPost bool `yaml:"find_by_post"`
	// Types are the rules of the resource types; one that isn't there isn't offered by the vendor.
	Types map[cura.ResourceType]Rules `yaml:"types"`
	// Writes are how artefacts are written, by kind; one that isn't there can't be written by FHIR.
	Writes map[cura.ArtefactKind]Write `yaml:"writes"`
}

// ScopeMode is how scopes are spelled.
type ScopeMode string

// The scope modes.
const (
	ScopesNone ScopeMode = "none"
	ScopesV1   ScopeMode = "v1"
	ScopesV2   ScopeMode = "v2"
)

// FindMode is how a patient is found at the EHR.
type FindMode string

// The find modes.
const (
	FindByIdentifier FindMode = "identifier"
	FindByMatch      FindMode = "match"
)

// Rules are how one type is searched. Patients that aren't read as a whole system are read one by one, by id.
type Rules struct {
	// Strategy is the one that the vendor's server allows.
	Strategy cura.Strategy `yaml:"strategy"`
	// PageSize is the type's own largest _count; 0: the profile's.
	PageSize int `yaml:"page_size"`
	// Categories are asked for one by one, a search each; none: one search without category.
	Categories []string `yaml:"categories"`
	// Params are sent with every search of the type, such as intent=order.
	Params map[string]string `yaml:"params"`
	// Why is the fact behind the strategy, one sentence with its source.
	Why string `yaml:"why"`
	// CanMiss says what reading so can overlook; empty: the strategy's own words.
	CanMiss string `yaml:"can_miss"`
}

// Names lists the built-in profiles in alphabetical order.
func Names() []string {
	files, err := data.ReadDir("data")
	if err != nil {
		return nil // the folder is compiled in
	}
	names := make([]string, 0, len(files))
	for _, f := range files {
		names = append(names, strings.TrimSuffix(f.Name(), ".yaml"))
	}
	return names
}

// Builtin gives a built-in profile by its name. The error for another name is a fault.Config that lists the known ones.
func Builtin(name string) (*Profile, error) {
	if !slices.Contains(Names(), name) {
		return nil, fault.Newf("finding the EHR profile", fault.Config, "%s isn't one of %s", quoted(name), strings.Join(Names(), ", ")).
			WithFix("Choose one of them (starter profiles describes each), or give a file of your own with --profile-file")
	}
	text, err := data.ReadFile(path.Join("data", name+".yaml"))
	if err != nil {
		return nil, fault.Wrap("finding the EHR profile", fault.Config, "the built-in profile can't be read", err)
	}
	return Parse(name+".yaml", text)
}

// Rules gives the rules of a type; false where the vendor doesn't offer it.
func (p *Profile) Rules(t cura.ResourceType) (Rules, bool) {
	r, ok := p.Types[t]
	return r, ok
}

// PageSizeFor gives the _count for a search of t: asked, or less where the profile's most is less. An asked of 0 or less
// asks for that most, and gives 0 where the profile has none.
func (p *Profile) PageSizeFor(t cura.ResourceType, asked int) int {
	most := p.PageSize
	if r := p.Types[t]; r.PageSize > 0 {
		most = r.PageSize
	}
	switch {
	case asked <= 0:
		return most
	case most > 0:
		return min(asked, most)
	default:
		return asked
	}
}

// ScopesFor lists the scopes to ask for in order to read types, as the profile spells them; nil where it asks for none.
func (p *Profile) ScopesFor(types []cura.ResourceType) []string {
	permission := ""
	switch p.Scopes {
	case ScopesV1:
		permission = ".read"
	case ScopesV2:
		permission = ".rs"
	case ScopesNone:
		return nil
	}
	scopes := make([]string, 0, len(types))
	for _, t := range types {
		scopes = append(scopes, "system/"+string(t)+permission)
	}
	return scopes
}

// Slices are the searches that together read the type once: one for each category that is offered, or a single one. Each
// holds the parameters of the type. There are none left where every category is notOffered.
func (r Rules) Slices(notOffered []string) []url.Values {
	if len(r.Categories) == 0 {
		return []url.Values{r.values()}
	}
	slicesOf := make([]url.Values, 0, len(r.Categories))
	for _, category := range r.Categories {
		if !slices.Contains(notOffered, category) {
			v := r.values()
			v.Set("category", category)
			slicesOf = append(slicesOf, v)
		}
	}
	return slicesOf
}

func (r Rules) values() url.Values {
	v := url.Values{}
	for name, value := range r.Params {
		v.Set(name, value)
	}
	return v
}

// Fill gives a copy of the profile with its placeholders filled in from values, such as practice. Errors are fault.Config:
// a value that is missing, that nothing asks for, or that can't stand in a header; they name placeholders, never values.
func (p *Profile) Fill(values map[string]string) (*Profile, error) {
	const op = "filling in the EHR profile"
	for _, name := range slices.Sorted(maps.Keys(values)) {
		switch value := values[name]; {
		case !slices.Contains(p.Params, name):
			return nil, fault.Newf(op, fault.Config, "the profile %s has no parameter %s", p.Name, quoted(name)).
				WithFix("Leave it out; starter profiles show NAME names the parameters of a profile")
		case !fieldValue(value) || strings.Contains(value, "${"):
			return nil, fault.Newf(op, fault.Config, "the value of %s is empty, or has characters that can't stand in a header", name).
				WithFix(fmt.Sprintf("Give it with --profile-param %s=VALUE as the vendor writes it", name))
		}
	}
	for _, name := range p.Params {
		if _, ok := values[name]; !ok {
			return nil, fault.Newf(op, fault.Config, "the profile %s needs %s", p.Name, name).
				WithFix(fmt.Sprintf("Give it with starter connection edit --profile-param %s=VALUE", name))
		}
	}

	filled := *p
	filled.Params = nil
	filled.Headers = replaced(p.Headers, values)
	filled.Query = replaced(p.Query, values)
	filled.Types = make(map[cura.ResourceType]Rules, len(p.Types))
	for t, r := range p.Types {
		r.Params = replaced(r.Params, values)
		filled.Types[t] = r
	}
	return &filled, nil
}

func replaced(in, values map[string]string) map[string]string {
	out := make(map[string]string, len(in))
	for name, value := range in {
		for param, with := range values {
			value = strings.ReplaceAll(value, "${"+param+"}", with)
		}
		out[name] = value
	}
	return out
}

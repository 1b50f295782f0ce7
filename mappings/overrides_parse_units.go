package mappings

import (
	"cmp"
	"fmt"
	"maps"
	"math/big"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3" //nolint:depguard // a site's file is YAML; it is read from memory, so a mapping still does no IO

	"github.com/cura-health/ehr-sync/internal/cura"
)

const anyCode = "any"

// unitRule is one entry of units.
type unitRule struct {
	// code is the code that it holds for, zero for any.
	code codeKey
	from string
	by   conversion
	path string
	line int
}

// units reads the list of units. It gives the conversions by code and unit, and the number of entries.
func (p *parser) units(n *yaml.Node) (map[codeKey]map[string]conversion, int) {
	rules := map[codeKey]map[string]unitRule{}
	list := p.list("units", n)
	for i, item := range list {
		if !p.count(item) {
			break
		}
		path := at("units", i)
		rule, ok := p.unit(path, item)
		if !ok {
			continue
		}
		if first, twice := rules[rule.code][rule.from]; twice {
			p.wrong(item, path, fmt.Sprintf("converts the same unit as line %d", first.line))
			continue
		}
		if rules[rule.code] == nil {
			rules[rule.code] = map[string]unitRule{}
		}
		rules[rule.code][rule.from] = rule
	}
	p.oneStep(rules)
	out := make(map[codeKey]map[string]conversion, len(rules))
	for code, own := range rules {
		out[code] = make(map[string]conversion, len(own))
		for from, rule := range own {
			out[code][from] = rule.by
		}
	}
	return out, len(list)
}

// oneStep reports the rules that lead to a unit which another leads on from: mapped again, what they made would become another thing.
func (p *parser) oneStep(rules map[codeKey]map[string]unitRule) {
	ofAny := rules[codeKey{}]
	anyTo := map[string][]unitRule{}
	for _, rule := range inOrder(ofAny) {
		anyTo[rule.by.to] = append(anyTo[rule.by.to], rule)
	}
	reported := map[string]bool{}
	chain := func(rule, next unitRule) {
		if next.by.to != next.from && !reported[rule.path] {
			reported[rule.path] = true
			p.add(rule.line, fmt.Sprintf("%s: leads to a unit that line %d leads on from: convert into the one that is wanted, in one step", rule.path, next.line))
		}
	}
	var all []unitRule
	for _, own := range rules {
		all = slices.AppendSeq(all, maps.Values(own))
	}
	slices.SortFunc(all, byLine)
	for _, rule := range all {
		own := rules[rule.code]
		if next, more := own[rule.by.to]; more {
			chain(rule, next)
		} else if next, more := ofAny[rule.by.to]; more {
			chain(rule, next)
		}
		// A rule for any code leads on by those of the code, unless the code has one of its own in its place.
		for _, before := range anyTo[rule.from] {
			if _, replaced := own[before.from]; !replaced {
				chain(before, rule)
				break
			}
		}
	}
}

func inOrder(rules map[string]unitRule) []unitRule {
	return slices.SortedFunc(maps.Values(rules), byLine)
}

func byLine(a, b unitRule) int { return cmp.Or(a.line-b.line, strings.Compare(a.path, b.path)) }

// unit reads an entry of units.
func (p *parser) unit(path string, item *yaml.Node) (rule unitRule, ok bool) {
	before := len(p.problems)
	keys := p.group(path, item, "resource", "code", "from", "to", "factor", "offset", "same")
	if item.Kind != yaml.MappingNode {
		return unitRule{}, false
	}
	p.oneOf(path+".resource", item, keys["resource"], string(cura.Observation))
	rule = unitRule{path: path, line: item.Line}
	switch code := keys["code"]; {
	case code == nil:
		p.wrong(item, path+".code", "missing: name the code whose unit it is, or say any: a factor between mass and substance holds for one analyte alone")
	case code.Kind == yaml.ScalarNode && code.Value == anyCode:
	case code.Kind == yaml.MappingNode:
		rule.code, _ = p.from(path+".code", item, code)
	default:
		p.mustBe(code, path+".code", "any, or a group of system and code")
	}
	rule.from = p.text(path+".from", item, keys["from"])
	rule.by.to = p.text(path+".to", item, keys["to"])
	if rule.by.to != "" && !ucum.MatchString(rule.by.to) {
		p.wrong(keys["to"], path+".to", "isn't a UCUM code: it has no blanks and no letters beyond ASCII, such as mg/dL, umol/L or mm[Hg]")
	}
	p.factor(path, item, keys, &rule)
	return rule, len(p.problems) == before
}

// ucum is the alphabet of UCUM (§1): whether a code means anything in it isn't checked.
var ucum = regexp.MustCompile(`^[\x21-\x7e]+$`)

// factor reads how a unit is converted: by a factor and an offset, or not at all.
func (p *parser) factor(path string, item *yaml.Node, keys map[string]*yaml.Node, rule *unitRule) {
	factor, offset, same := keys["factor"], keys["offset"], keys["same"]
	switch {
	case same != nil && (same.ShortTag() != "!!bool" || same.Value != "true"):
		p.wrong(same, path+".same", "must be true, or be left out")
	case same != nil && (factor != nil || offset != nil):
		p.wrong(same, path+".same", "the same unit has no factor and no offset: leave out one or the other")
	case same != nil:
	case factor == nil:
		p.wrong(item, path+".factor", "missing: give the factor that leads to the unit meant, or same: true where it is only written in another way")
	case rule.from != "" && rule.from == rule.by.to:
		p.wrong(item, path, "converts a unit into itself: give same: true, or leave it out")
	default:
		rule.by.offset = new(big.Rat)
		rule.by.factor, rule.by.places = p.decimal(path+".factor", item, factor)
		if rule.by.factor != nil && rule.by.factor.Sign() <= 0 {
			p.wrong(factor, path+".factor", "must be more than 0")
		}
		if offset != nil {
			var places int
			rule.by.offset, places = p.decimal(path+".offset", item, offset)
			rule.by.places = max(rule.by.places, places)
		}
	}
}

// plainDecimal is a decimal of at most 30 digits, without an exponent.
var plainDecimal = regexp.MustCompile(`^-?[0-9]{1,15}(\.[0-9]{1,15})?$`)

// decimal reads an exact number, and tells how many digits after the point it has.
func (p *parser) decimal(path string, of, n *yaml.Node) (exact *big.Rat, places int) {
	text := p.text(path, of, n)
	if text == "" {
		return nil, 0
	}
	if !plainDecimal.MatchString(text) {
		p.wrong(n, path, "isn't a decimal, such as 10 or 0.0555, with at most 15 digits on either side of the point")
		return nil, 0
	}
	exact, _ = new(big.Rat).SetString(text)
	_, fraction, _ := strings.Cut(text, ".")
	return exact, len(fraction)
}

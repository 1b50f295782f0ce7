package mappings

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3" //nolint:depguard // a site's file is YAML; it is read from memory, so a mapping still does no IO

	"github.com/cura-health/ehr-sync/internal/cura"
)

const (
	// MaxOverrides is the most bytes that a file of overrides may have.
	MaxOverrides = 1 << 20
	// maxEntries is how many rules it may hold.
	maxEntries = 10_000
	// maxSiteVersion keeps Version short.
	maxSiteVersion = 999_999
)

// ParseOverrides reads a site's file of overrides; file is its name for error texts. MAPPINGS.md tells what it may hold. The error is
// a fault.Config that names everything that is wrong by file, line and key: site.yaml:12: codes[1].to.code: isn't a LOINC code.
func ParseOverrides(file string, text []byte) (*Overrides, error) {
	p := parser{sheet: sheet{file: file}}
	if len(text) > MaxOverrides {
		p.add(1, fmt.Sprintf("the file has more than %d bytes", MaxOverrides))
		return nil, p.fault()
	}
	if line, ok := utf8Line(text); !ok {
		p.add(line, "isn't UTF-8 from here on: save the file as UTF-8")
		return nil, p.fault()
	}
	root := p.read(text)
	if root == nil {
		return nil, p.fault()
	}
	o := p.overrides(root)
	if err := p.fault(); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	o.version = fmt.Sprintf("%s+site.%d.%x", Version, o.number, sum[:4])
	return o, nil
}

// parser reads a file of overrides into what they mean.
type parser struct {
	sheet
	entries int
}

// count counts a rule. It reports once that there are too many, and is false from then on.
func (p *parser) count(n *yaml.Node) bool {
	p.entries++
	if p.entries == maxEntries+1 {
		p.add(n.Line, fmt.Sprintf("the file has more than %d rules", maxEntries))
	}
	return p.entries <= maxEntries
}

// overrides reads the whole file, but for what rows say of it.
func (p *parser) overrides(root *yaml.Node) *Overrides {
	keys := p.group("", root, "version", "identifiers", "name", "codes", "units", "categories", "types")
	if root.Kind != yaml.MappingNode {
		return nil
	}
	o := &Overrides{
		number:   p.version(root, keys["version"]),
		codes:    map[codedAs]translations{},
		excluded: map[cura.ResourceType]bool{},
	}
	if n := keys["identifiers"]; n != nil {
		o.systems = p.identifiers(n)
	}
	if n := keys["name"]; n != nil {
		o.uses = p.uses(n)
	}
	entries := map[codedAs][]translation{}
	if n := keys["codes"]; n != nil {
		o.counts.Codes = p.codes(n, entries)
	}
	if n := keys["categories"]; n != nil {
		o.counts.Categories = p.categories(n, entries)
	}
	for as, list := range entries {
		o.codes[as] = p.translations(list)
	}
	if n := keys["units"]; n != nil {
		o.units, o.counts.Units = p.units(n)
	}
	if n := keys["types"]; n != nil {
		p.types(n, o.excluded)
	}
	o.counts.Identifiers, o.counts.NameUses, o.counts.Excluded = len(o.systems), len(o.uses), len(o.excluded)
	return o
}

func (p *parser) version(root, n *yaml.Node) int {
	const whole = "give a whole number from 1 to 999999, a higher one with each change"
	if n == nil {
		p.wrong(root, "version", "missing: "+whole)
		return 0
	}
	number, err := strconv.Atoi(n.Value)
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || err != nil || number < 1 || number > maxSiteVersion {
		p.wrong(n, "version", "isn't a version: "+whole)
	}
	return number
}

// identifiers reads identifiers.rename.
func (p *parser) identifiers(n *yaml.Node) map[string]string {
	links := map[string]link[string]{}
	rename := p.group("identifiers", n, "rename")["rename"]
	if rename == nil {
		return nil
	}
	const path = "identifiers.rename"
	for _, m := range p.members(path, rename) {
		if !p.count(m.key) {
			break
		}
		from := p.text(path, rename, m.key)
		at := below(path, quoted(from))
		to := p.text(at, m.key, m.value)
		switch {
		case from == "" || to == "":
			continue
		case !isSystem(to):
			p.wrong(m.value, at, "leads to what isn't an absolute URI, such as http://hl7.org/fhir/sid/us-ssn or urn:oid:1.2.3")
		case from == IdentifierSystem || to == IdentifierSystem:
			p.wrong(m.value, at, "names the system of what Cura writes, which nobody else's identifiers may bear")
		}
		links[from] = link[string]{to, m.key.Line}
	}
	last, cycles := lastLinks(links)
	p.cycles("identifiers.rename", cycles)
	ends := make(map[string]string, len(last))
	for from, at := range last {
		ends[from] = links[at].to
	}
	return ends
}

// uses reads name.use.
func (p *parser) uses(n *yaml.Node) []string {
	list := p.group("name", n, "use")["use"]
	if list == nil {
		return nil
	}
	var uses []string
	for i, item := range p.list("name.use", list) {
		path := at("name.use", i)
		use := p.oneOf(path, list, item, nameUses()...)
		if use == useNone {
			use = ""
		} else if use == "" {
			continue
		}
		if slices.Contains(uses, use) {
			p.wrong(item, path, "stands here twice")
			continue
		}
		uses = append(uses, use)
	}
	return uses
}

// types reads types.exclude.
func (p *parser) types(n *yaml.Node, excluded map[cura.ResourceType]bool) {
	list := p.group("types", n, "exclude")["exclude"]
	if list == nil {
		return
	}
	for i, item := range p.list("types.exclude", list) {
		path := at("types.exclude", i)
		t := cura.ResourceType(p.oneOf(path, list, item, typeNames(cura.ResourceTypes())...))
		switch {
		case t == "":
		case t == cura.Patient:
			p.wrong(item, path, "patients can't be left out: everything hangs on them")
		case excluded[t]:
			p.wrong(item, path, "stands here twice")
		default:
			excluded[t] = true
		}
	}
}

func typeNames(types []cura.ResourceType) []string {
	names := make([]string, len(types))
	for i, t := range types {
		names[i] = string(t)
	}
	return names
}

// translation is one entry of codes or of categories.
type translation struct {
	from codeKey
	to   cura.Coding
	path string
	line int
}

// codes reads the list of codes. It gives the number of its entries.
func (p *parser) codes(n *yaml.Node, into map[codedAs][]translation) int {
	list := p.list("codes", n)
	for i, item := range list {
		if !p.count(item) {
			break
		}
		path := at("codes", i)
		keys := p.group(path, item, "resource", "field", "from", "to")
		if item.Kind != yaml.MappingNode {
			continue
		}
		as, ok := p.codedAs(path, item, keys)
		from, okFrom := p.from(path+".from", item, keys["from"])
		to, okTo := p.to(path+".to", item, keys["to"])
		if ok && okFrom && okTo {
			into[as] = append(into[as], translation{from, to, path, item.Line})
		}
	}
	return len(list)
}

// codedAs reads what a translation is of: its resource, and the field, which is code where it isn't given.
func (p *parser) codedAs(path string, item *yaml.Node, keys map[string]*yaml.Node) (as codedAs, ok bool) {
	var types []cura.ResourceType
	for _, t := range cura.ResourceTypes() {
		if len(codedFields(t)) > 0 {
			types = append(types, t)
		}
	}
	t := cura.ResourceType(p.oneOf(path+".resource", item, keys["resource"], typeNames(types)...))
	if t == "" {
		return codedAs{}, false
	}
	var fields []string
	for _, f := range codedFields(t) {
		fields = append(fields, f.name)
	}
	n := keys["field"]
	if n == nil && slices.Contains(fields, fieldCode) {
		return codedAs{t, fieldCode}, true
	}
	field := p.oneOf(path+".field", item, n, fields...)
	return codedAs{t, field}, field != ""
}

// from reads the coding that is translated. A coding without a system is named by its code alone.
func (p *parser) from(path string, of, n *yaml.Node) (key codeKey, ok bool) {
	if n == nil {
		p.wrong(of, path, "missing: give the system and the code that the EHR sends")
		return codeKey{}, false
	}
	before := len(p.problems)
	keys := p.group(path, n, "system", "code")
	if n.Kind == yaml.MappingNode {
		if system := keys["system"]; system != nil {
			key.system = p.text(path+".system", n, system)
		}
		key.code = p.text(path+".code", n, keys["code"])
	}
	return key, len(p.problems) == before
}

// to reads the coding that is meant, and checks it as what Cura itself writes.
func (p *parser) to(path string, of, n *yaml.Node) (to cura.Coding, ok bool) {
	if n == nil {
		p.wrong(of, path, "missing: give the system and the code that are meant")
		return cura.Coding{}, false
	}
	before := len(p.problems)
	keys := p.group(path, n, "system", "code", "display")
	if n.Kind != yaml.MappingNode {
		return cura.Coding{}, false
	}
	to.System = p.text(path+".system", n, keys["system"])
	to.Code = p.text(path+".code", n, keys["code"])
	if display := keys["display"]; display != nil {
		to.Display = p.text(path+".display", n, display)
	}
	if len(p.problems) == before {
		m := mapper{typ: typeArtefact}
		m.checkCoding(path, to)
		for _, r := range m.reasons {
			p.wrong(keys[r.Path[strings.LastIndexByte(r.Path, '.')+1:]], r.Path, r.Text)
		}
	}
	return to, len(p.problems) == before
}

// categories reads the categories by type. It gives the number of entries.
func (p *parser) categories(n *yaml.Node, into map[codedAs][]translation) int {
	known := observationCategories()
	names := make([]string, len(known))
	for i, c := range known {
		names[i] = c.Code
	}
	list := p.group("categories", n, string(cura.Observation))[string(cura.Observation)]
	if list == nil {
		return 0
	}
	const path = "categories.Observation"
	items := p.list(path, list)
	for i, item := range items {
		if !p.count(item) {
			break
		}
		path := at(path, i)
		keys := p.group(path, item, "from", "to")
		if item.Kind != yaml.MappingNode {
			continue
		}
		from, ok := p.from(path+".from", item, keys["from"])
		to := slices.Index(names, p.oneOf(path+".to", item, keys["to"], names...))
		if ok && to >= 0 {
			as := codedAs{cura.Observation, fieldCategories}
			meant := cura.Coding{System: systemObservationCategory, Code: known[to].Code, Display: known[to].Display}
			into[as] = append(into[as], translation{from, meant, path, item.Line})
		}
	}
	return len(items)
}

// translations follows the chains of what is translated in one field.
func (p *parser) translations(list []translation) translations {
	entries := make(map[codeKey]translation, len(list))
	links := make(map[codeKey]link[codeKey], len(list))
	for _, t := range list {
		if first, twice := entries[t.from]; twice {
			p.add(t.line, fmt.Sprintf("%s: translates the same code as line %d", t.path, first.line))
			continue
		}
		entries[t.from], links[t.from] = t, link[codeKey]{keyOf(t.to), t.line}
	}
	last, cycles := lastLinks(links)
	p.cycles("", cycles)
	out := make(translations, len(last))
	for from, at := range last {
		out[from] = entries[at].to
	}
	return out
}

// link leads from one name to the next; line is where the file says so.
type link[K comparable] struct {
	to   K
	line int
}

// lastLinks gives, for each name, the name that the last link of its chain leads from; and the lines of each chain that leads back
// into itself.
func lastLinks[K comparable](links map[K]link[K]) (last map[K]K, cycles [][]int) {
	last = make(map[K]K, len(links))
	lost := map[K]bool{} // what leads into a cycle
	for start := range links {
		var path []K
		on := map[K]int{}
		at := start
		for {
			if end, known := last[at]; known {
				for _, k := range path {
					last[k] = end
				}
				break
			}
			i, again := on[at]
			if again {
				var lines []int
				for _, k := range path[i:] {
					lines = append(lines, links[k].line)
				}
				slices.Sort(lines)
				cycles = append(cycles, lines)
			}
			if again || lost[at] {
				for _, k := range path {
					lost[k] = true
				}
				break
			}
			on[at] = len(path)
			path = append(path, at)
			next := links[at].to
			if _, more := links[next]; !more {
				for _, k := range path {
					last[k] = at
				}
				break
			}
			at = next
		}
	}
	return last, cycles
}

// cycles reports chains that lead back into themselves, at the first of their lines.
func (p *parser) cycles(path string, cycles [][]int) {
	const most = 10
	for _, lines := range cycles {
		text := "leads back to itself: change or remove it"
		if len(lines) > 1 {
			texts := make([]string, 0, most)
			for _, line := range lines[:min(len(lines), most)] {
				texts = append(texts, strconv.Itoa(line))
			}
			text = "the chain of lines " + strings.Join(texts, ", ")
			if more := len(lines) - most; more > 0 {
				text += fmt.Sprintf(" and %d more", more)
			}
			text += " leads back to itself: remove one of them"
		}
		p.add(lines[0], strings.TrimPrefix(path+": "+text, ": "))
	}
}

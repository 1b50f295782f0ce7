package mappings

import (
	_ "embed"
	"fmt"
	"io"
	"strings"

	"github.com/cura-health/ehr-sync/internal/cura"
)

//go:embed overrides_example.yaml
var overridesExample string

// OverridesExample is a commented file of overrides, to begin with. ParseOverrides takes it.
func OverridesExample() string { return overridesExample }

func overrideRules() []rule {
	return []rule{
		{"When they are applied", "After the mapping, to what it has made: identifiers, name, codes and categories, then units. What the mapping rejects stays rejected. The raw resource is kept as it " +
			"came. A row says by which version it was mapped: " + Version + " alone, or " + Version + "+site.VERSION.HASH, where VERSION is the file's own and HASH the first 8 digits of its " +
			"SHA-256. The order of the entries says nothing. A file with a fault is refused whole, and its faults are named by line. A file has 1 MiB and 10,000 rules at most; aliases aren't followed."},
		{"identifiers", "`rename` leads from the system that the EHR gives, exactly as it is written, to the one that is meant, an absolute URI. It holds for patients' and encounters' identifiers; values stay."},
		{"name", "`use` lists the uses of names that go first when the name to show is chosen; `none` is a name without a use. A name in force still goes before one that isn't. Uses that aren't listed " +
			"follow in the order of Names. Where another name is chosen, the one that the mapping would have shown goes first among the others."},
		{"codes", "`from` is the code that the EHR sends; without `system` it is one that comes without a system. `to` is what it means, put before all codings of its concept; `from` stays. Where `to` leads " +
			"on to another translation of the same resource and field, the last one counts; a chain that leads back to itself is refused. What the codes say (analyte, negative assertion) is decided anew. " +
			"`to` is checked as codes are that Cura writes: LOINC and SNOMED CT by check digit. An Encounter's class holds one coding, which `to` replaces. Consents are read as the hospital wrote them."},
		{"units", "`from` is a quantity's `code` or, where that isn't of UCUM, its `unit`, exactly as it is written: where `code` is of UCUM it alone says what the unit is. `to` is a UCUM code, and becomes " +
			"`unit` and `code`. The value becomes value × `factor` + `offset`, both decimals, `factor` above 0. The result is exact and never rounded; it has at least as many significant digits as the " +
			"value had: 5.40 × 10 is 54.0, 53.0 × 0.09148 + 2.152 is 7.00044; of a zero all digits count. A comparator stays. With `same: true` the value stays and its unit is only written anew. " +
			"A value of more than 40 digits, or with an exponent beyond 40, is rejected."},
		{"units, what they hold for", "`code` is one of the codes of the observation or component, translations included, or `any`. Where the first coding that has rules of its own has one for the unit, that counts, else the " +
			"one for any code. One step leads to the unit that is wanted: a rule that leads to a unit which another leads on from is refused. Quantities, both ends of ranges and both sides of " +
			"ratios are converted, and with them the reference ranges: an end without a unit has the value's. A range's text isn't converted; it gets the unit that it is in, unless it says it. Where a value " +
			"isn't converted, neither are its reference ranges. Strings, sampled data and the ages of reference ranges stay as they came."},
		{"categories", "As codes, of Observation alone; `to` is a code of " + systemObservationCategory + "."},
		{"types", "`exclude` lists the types that Cura doesn't take from this EHR: they are switched off, and what was read of them before stays. Patient can't be one. " +
			"Without Consent a change of the hospital's consents isn't seen: those read before stay in force."},
	}
}

// overrideKeys documents the keys of a file of overrides.
func overrideKeys() []outRow {
	var categories []string
	for _, c := range observationCategories() {
		categories = append(categories, c.Code)
	}
	var fields, types []string
	for _, t := range cura.ResourceTypes() {
		var names []string
		for _, f := range codedFields(t) {
			names = append(names, f.name)
		}
		if len(names) > 0 {
			types, fields = append(types, string(t)), append(fields, string(t)+": "+strings.Join(names, ", "))
		}
	}
	return []outRow{
		{"version", "a whole number from 1 to 999999, required; a higher one with each change"},
		{"identifiers.rename", "SYSTEM: SYSTEM, as many as there are"},
		{"name.use", "a list of " + strings.Join(nameUses(), ", ")},
		{"codes[].resource", strings.Join(types, ", ")},
		{"codes[].field", strings.Join(fields, "; ") + ". Left out, it is code. Of an Observation its components' is meant, too"},
		{"codes[].from", "{system, code}"},
		{"codes[].to", "{system, code, display}, the display only if there is one"},
		{"units[].resource", string(cura.Observation)},
		{"units[].code", "{system, code}, or any"},
		{"units[].from", "the unit that the EHR sends"},
		{"units[].to", "a UCUM code"},
		{"units[].factor", "a decimal of at most 15 digits on either side of the point"},
		{"units[].offset", "the same; 0 where it is left out"},
		{"units[].same", "true, in place of a factor"},
		{"categories.Observation[].from", "{system, code}"},
		{"categories.Observation[].to", strings.Join(categories, ", ")},
		{"types.exclude", "a list of types that Cura pulls, without Patient"},
	}
}

// WriteOverrides writes the section of MAPPINGS.md about a site's overrides. The error is w's.
func WriteOverrides(w io.Writer) error {
	var b strings.Builder
	b.WriteString("\n## Overrides of a site\n\nA YAML file per connection. `starter mapping init` prints one to begin with, `starter mapping check` looks one over, `starter mapping preview` shows what it changes, and `starter mapping set` has a connection mapped with it.\n")
	b.WriteString("\n| Key | What it holds |\n|---|---|\n")
	for _, r := range overrideKeys() {
		fmt.Fprintf(&b, "| %s | %s |\n", r.Element, r.How)
	}
	for _, r := range overrideRules() {
		fmt.Fprintf(&b, "\n### %s\n\n%s\n", r.Title, r.Text)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

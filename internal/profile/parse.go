package profile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/cura-health/ehr-sync/internal/cura"
)

const (
	opParse = "reading the EHR profile"
	// maxFile is the most that is read of a profile file; the largest built-in one has 3 KiB.
	maxFile            = 64 << 10
	maxCount           = 1000
	maxConcurrency     = 64
	maxRequests        = 100_000
	defaultConcurrency = 4
)

// Parse reads a profile file; file is its name for error texts. The error is a fault.Config that names, for everything
// that is wrong, file, line and field: epic2.yaml:14: types.Observation.strategy: "rooster" isn't one of system, roster,
// snapshot. Values of headers and parameters are never repeated: they may be secret.
func Parse(file string, text []byte) (*Profile, error) {
	at := lines{file: file}
	if len(text) > maxFile {
		at.add(1, fmt.Sprintf("the file has more than %d bytes", maxFile))
		return nil, at.fault()
	}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		at.broken(err)
		return nil, at.fault()
	}
	if root.Kind == 0 {
		at.add(1, "the file is empty")
		return nil, at.fault()
	}
	at.index("", root.Content[0])
	if err := at.fault(); err != nil {
		return nil, err
	}

	var p Profile
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&p); err != nil {
		at.broken(err)
		return nil, at.fault()
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		at.add(1, "the file holds more than one document")
		return nil, at.fault()
	}
	p.check(&at)
	if err := at.fault(); err != nil {
		return nil, err
	}
	if p.Title == "" {
		p.Title = p.Name
	}
	if p.Find == "" {
		p.Find = FindByIdentifier
	}
	if p.Concurrency == 0 {
		p.Concurrency = defaultConcurrency
	}
	return &p, nil
}

var (
	profileName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,39}$`)
	placeholder = regexp.MustCompile(`\$\{([^}]*)\}?`)
	// token is a code or a parameter's name as FHIR's vendors write them, so that a category is one category and a list of
	// them isn't taken for one.
	token = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.:-]*$`)
	// category is a code, or a code with its system.
	category = regexp.MustCompile(`^([a-z]+:[^\s,|$\\]*\|)?[A-Za-z0-9][A-Za-z0-9_.-]*$`)
	// fieldName is a header's name (RFC 9110 §5.1).
	fieldName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
)

func (p *Profile) check(at *lines) {
	if !profileName.MatchString(p.Name) {
		at.field("name", quoted(p.Name)+" isn't a name: small letters, digits and dashes, beginning with a letter")
	}
	oneOf(at, "scopes", p.Scopes, ScopesNone, ScopesV1, ScopesV2)
	if p.Find != "" {
		oneOf(at, "find", p.Find, FindByIdentifier, FindByMatch)
	}
	within(at, "requests_per_minute", p.RequestsPerMinute, 0, maxRequests)
	within(at, "concurrency", p.Concurrency, 0, maxConcurrency)
	pageSize(at, "page_size", p.PageSize)
	for i, host := range p.PagingHosts {
		if !httpsOrigin(host) {
			at.field("paging_hosts."+strconv.Itoa(i), "it isn't an https origin, such as https://internal.hospital.example:8443")
		}
	}

	used := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(p.Headers)) {
		field := "headers." + name
		switch {
		case !fieldName.MatchString(name):
			at.field(field, "it isn't a header's name")
		case reserved(name):
			at.field(field, "this header is Cura's own to set")
		}
		p.value(at, field, p.Headers[name], used)
	}
	p.values(at, "query", p.Query, used)
	if len(p.Types) == 0 {
		at.field("types", "it is missing: a profile needs at least Patient")
	} else if _, ok := p.Types[cura.Patient]; !ok {
		at.field("types", "Patient is missing: everything hangs on patients")
	}
	for _, t := range slices.Sorted(maps.Keys(p.Types)) {
		p.Types[t].check(at, t)
		p.values(at, "types."+string(t)+".params", p.Types[t].Params, used)
	}
	p.checkWrites(at)
	for i, name := range p.Params {
		switch field := "params." + strconv.Itoa(i); {
		case !profileName.MatchString(name):
			at.field(field, quoted(name)+" isn't a name: small letters, digits and dashes, beginning with a letter")
		case slices.Index(p.Params, name) < i:
			at.field(field, quoted(name)+" stands here twice")
		case !used[name]:
			at.field(field, "no value holds ${"+name+"}")
		}
	}
}

func (r Rules) check(at *lines, t cura.ResourceType) {
	field := "types." + string(t)
	if !t.Pulled() {
		known := make([]string, 0, len(cura.ResourceTypes()))
		for _, t := range cura.ResourceTypes() {
			known = append(known, string(t))
		}
		at.field(field, "it isn't one of the types that Cura pulls: "+strings.Join(known, ", "))
		return
	}
	oneOf(at, field+".strategy", r.Strategy, cura.Strategies()...)
	if t == cura.Patient && r.Strategy == cura.StrategyRoster {
		at.field(field+".strategy", "patients are read as a whole system or one by one by id: give system or snapshot")
	}
	pageSize(at, field+".page_size", r.PageSize)
	for i, c := range r.Categories {
		switch field := field + ".categories." + strconv.Itoa(i); {
		case !category.MatchString(c):
			at.field(field, quoted(c)+" isn't one category: give CODE or SYSTEM|CODE, each category an item of its own")
		case slices.Index(r.Categories, c) < i:
			at.field(field, quoted(c)+" stands here twice")
		}
	}
	if len(r.Categories) > 0 {
		if _, ok := r.Params["category"]; ok {
			at.field(field+".params.category", "give it either here or in categories")
		}
		if t == cura.Patient {
			at.field(field+".categories", "patients have no categories")
		}
	}
	for name := range r.Params {
		if name == "patient" || name == "_lastUpdated" || name == "_count" || name == "_id" {
			at.field(field+".params."+name, "this parameter is Cura's own to set")
		}
	}
	if r.Why == "" {
		at.field(field+".why", "it is missing: say in a sentence why the type is read so")
	}
}

func (p *Profile) values(at *lines, field string, values map[string]string, used map[string]bool) {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if !token.MatchString(name) {
			at.field(field+"."+name, "it isn't a parameter's name")
		}
		p.value(at, field+"."+name, values[name], used)
	}
}

// value checks one value that is sent, and notes the placeholders in it.
func (p *Profile) value(at *lines, field, value string, used map[string]bool) {
	if !fieldValue(value) {
		at.field(field, "its value is empty, or has characters that can't stand in a header")
	}
	for _, found := range placeholder.FindAllStringSubmatch(value, -1) {
		used[found[1]] = true
		if !slices.Contains(p.Params, found[1]) || !strings.HasSuffix(found[0], "}") {
			at.field(field, "its placeholder "+quoted(found[1])+" isn't among params")
		}
	}
}

// fieldValue reports whether text can be a header's value (RFC 9110 §5.5) without being changed on its way.
func fieldValue(text string) bool {
	return text != "" && strings.TrimSpace(text) == text && !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' })
}

// reserved names the headers that the client and HTTP itself set.
func reserved(name string) bool {
	switch http.CanonicalHeaderKey(name) {
	case "Authorization", "Proxy-Authorization", "Cookie", "Host", "Content-Length", "Content-Type", "Transfer-Encoding", "Connection",
		"Upgrade", "Te", "Trailer", "Expect", "Accept", "Accept-Encoding", "User-Agent", "X-Request-Id":
		return true
	default:
		return false
	}
}

func httpsOrigin(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Scheme == "https" && u.Hostname() != "" && u.User == nil && strings.Trim(u.Path, "/") == "" &&
		u.RawQuery == "" && !u.ForceQuery && u.Fragment == ""
}

func oneOf[S ~string](at *lines, field string, value S, known ...S) {
	if slices.Contains(known, value) {
		return
	}
	names := make([]string, 0, len(known))
	for _, k := range known {
		names = append(names, string(k))
	}
	what := quoted(string(value)) + " isn't"
	if value == "" {
		what = "it is missing: give"
	}
	at.field(field, what+" one of "+strings.Join(names, ", "))
}

func within(at *lines, field string, value, least, most int) {
	if value < least || value > most {
		at.field(field, fmt.Sprintf("%d isn't between %d and %d", value, least, most))
	}
}

// pageSize lets 0 through only where the file leaves the field out: then it means none.
func pageSize(at *lines, field string, value int) {
	if _, given := at.of[field]; given || value != 0 {
		within(at, field, value, 1, maxCount)
	}
}

// quoted prints text of the file's, cut to a length that fits a line.
func quoted(text string) string {
	const most = 40
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	return strconv.Quote(text)
}

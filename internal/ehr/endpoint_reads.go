package ehr

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/profile"
)

const (
	seenNoPatient = "no patient on the roster to try with"
	fixNoPatient  = "Add some with starter roster (enrol, upload or group), then test again"
)

// probeSince is older than any EHR's resources: the search is the incremental one, and everything matches.
func probeSince() time.Time { return time.Date(1990, time.January, 1, 0, 0, 0, 0, time.UTC) }

// reads tries each type as it will be read.
func (t *tester) reads(ctx context.Context) {
	offered := t.offered()
	for _, typ := range t.types {
		o, found := offered[string(typ)]
		p := probe{tester: t, typ: typ, offered: found, evidence: profile.Evidence{Known: true, Listed: o.searchesBy(lastUpdated)}}
		p.rules, _ = t.profile.Rules(typ) // none has no strategy
		goOn := p.read(ctx)
		if !p.unknown {
			t.report.Strategies = append(t.report.Strategies, profile.Choose(t.profile, typ, p.evidence, t.overrides[typ]))
		}
		if !goOn {
			return
		}
	}
	if len(t.report.Forbidden)+len(t.report.Missing) == len(t.types) {
		t.fail(CheckRead, "", "not one of the resource types can be read", "Ask the hospital to grant this client at least system/Patient.read (SMART v2: system/Patient.rs)")
	}
}

// probe tries one type.
type probe struct {
	*tester
	typ cura.ResourceType
	// offered says that metadata lists the type.
	offered  bool
	rules    profile.Rules
	evidence profile.Evidence
	// unknown says that the probe came to nothing, for now or because there is nothing to read: it decides no strategy.
	unknown bool
}

// read tries the type, and gives false where the rest can only fail likewise.
func (p *probe) read(ctx context.Context) bool {
	strategy := p.rules.Strategy
	if override := p.overrides[p.typ]; override != "" {
		strategy = override
	}
	switch {
	case strategy == "":
		p.unknown = true
		p.report.Missing = append(p.report.Missing, p.typ)
		p.skipped(p.typ, "the profile "+p.profile.Name+" doesn't have it", "Take it off the connection's types, or choose another profile (starter profiles)")
		return true
	case strategy == cura.StrategySystem:
		return p.wholeSystem(ctx)
	case p.patient == "":
		p.warn(CheckRead, p.typ, seenNoPatient, fixNoPatient)
		return true
	case p.typ == cura.Patient:
		return p.patientByID(ctx)
	}
	if err := p.byPatient(ctx, strategy == cura.StrategyRoster); err != nil {
		return p.unread(err)
	}
	p.saysByPatient(strategy)
	return true
}

// wholeSystem searches without a patient, as ever; where the server refuses that, and there is a patient to try with, it
// looks for the way that remains.
func (p *probe) wholeSystem(ctx context.Context) bool {
	page, err := p.categories(ctx, Query{Type: p.typ, Since: probeSince(), Count: 1})
	refusesBound := false
	if fault.Is(err, fault.Config) || fault.Is(err, fault.Unsupported) {
		// Is it the bound that it refuses, or the search? A second one without it tells.
		if again, againErr := p.categories(ctx, Query{Type: p.typ, Count: 1}); againErr == nil {
			page, err, refusesBound = again, nil, true
		}
	}
	ignoresBound := drops(page, lastUpdated)
	switch {
	case err != nil && !errors.Is(err, ErrRefused):
		return p.unread(err)
	case err == nil && !refusesBound && !ignoresBound:
		p.evidence.Probed, p.evidence.SystemSearch, p.evidence.TakesSince = true, true, true
		p.served(p.typ, page)
		p.saysBound()
		return true
	}
	p.evidence.Probed = true
	if p.patient != "" && p.overrides[p.typ] == "" {
		return p.fallBack(ctx, err)
	}
	if err != nil {
		return p.unread(err)
	}
	p.served(p.typ, page)
	if refusesBound {
		p.fail(CheckSearchParams, p.typ, "the server refuses _lastUpdated", fixStrategy)
	} else {
		p.fail(CheckSearchParams, p.typ, "the server ignores _lastUpdated: its self link doesn't show it", fixStrategy)
	}
	return true
}

// fallBack reads by patient what the server doesn't let be read as a whole: refusal says how it didn't, nil where only the
// bound isn't taken.
func (p *probe) fallBack(ctx context.Context, refusal error) bool {
	const seen = "the server doesn't take a search of the whole system by _lastUpdated, which the profile counts on; the type is read by patient"
	if p.typ == cura.Patient {
		p.warn(CheckSearchParams, p.typ, seen, fixStrategy)
		return p.patientByID(ctx)
	}
	if err := p.byPatient(ctx, true); err != nil {
		if refusal == nil || !errors.Is(err, ErrRefused) {
			refusal = err // more to the point: trouble that may pass, or a patient who is ignored
		}
		return p.unread(refusal)
	}
	p.ok(CheckRead, p.typ, "the search by patient works")
	p.warn(CheckSearchParams, p.typ, seen, fixStrategy)
	return true
}

// patientByID reads the patient to try with.
func (p *probe) patientByID(ctx context.Context) bool {
	_, err := p.c.ReadPage(ctx, cura.Patient, p.patient)
	switch {
	case fault.Is(err, fault.NotFound):
		p.warn(CheckRead, p.typ, "the patient of the roster who was tried isn't at the EHR any more", "See starter roster for who else isn't, and test again")
	case err != nil:
		return p.unread(err)
	default:
		p.ok(CheckRead, p.typ, "a patient of the roster can be read by id")
	}
	return true
}

// byPatient tries every category of one patient's resources, and with since whether the bound is taken beside the first
// that is offered. The error is why the type can't be read so.
func (p *probe) byPatient(ctx context.Context, since bool) error {
	query := Query{Type: p.typ, Count: 1, Params: url.Values{"patient": {p.patient}}}
	page, err := p.categories(ctx, query)
	if err != nil {
		return err
	}
	if drops(page, "patient") {
		return fault.New("searching "+string(p.typ), fault.Unsupported, "the server ignores patient: its self link doesn't show it, and anybody's resources came").
			WithFix("Ask the hospital to have its server honour the parameter patient; until then nothing is read by patient")
	}
	p.evidence.Probed = true
	if !since {
		return nil
	}
	query.Since = probeSince()
	switch page, err := p.firstOffered(ctx, query); {
	case err == nil:
		p.evidence.TakesSince = !drops(page, lastUpdated)
		return nil
	case errors.Is(err, ErrRefused):
		return nil
	default:
		return err
	}
}

// categories searches each of the rules' slices that isn't known to be refused, notes those that are, and gives the last
// page. Where all are refused it is the first one's error; any other error ends it.
func (p *probe) categories(ctx context.Context, query Query) (Page, error) {
	var last Page
	var refusal error
	var refusals []string
	params, served := query.Params, false
	for _, slice := range p.rules.Slices(p.evidence.NotOffered) {
		query.Params = maps.Clone(params)
		if query.Params == nil {
			query.Params = url.Values{}
		}
		maps.Copy(query.Params, slice)
		page, err := p.c.Search(ctx, query)
		switch {
		case errors.Is(err, ErrRefused):
			if refusals = append(refusals, slice.Get("category")); refusal == nil {
				refusal = err
			}
		case err != nil:
			return Page{}, err
		default:
			last, served = page, true
		}
	}
	if !served {
		return Page{}, refusal
	}
	p.evidence.NotOffered = append(p.evidence.NotOffered, refusals...)
	return last, nil
}

// firstOffered searches the first of the slices that isn't refused.
func (p *probe) firstOffered(ctx context.Context, query Query) (Page, error) {
	params := maps.Clone(query.Params)
	maps.Copy(params, p.rules.Slices(p.evidence.NotOffered)[0])
	query.Params = params
	return p.c.Search(ctx, query)
}

// drops reports whether the server has ignored a parameter of that name.
func drops(page Page, name string) bool {
	return slices.ContainsFunc(page.Dropped, func(dropped string) bool { return strings.EqualFold(dropped, name) })
}

func (p *probe) saysBound() {
	if p.evidence.Listed {
		p.ok(CheckSearchParams, p.typ, "_lastUpdated is listed in metadata and taken")
		return
	}
	p.ok(CheckSearchParams, p.typ, "_lastUpdated isn't listed in metadata but taken")
}

func (p *probe) saysByPatient(strategy cura.Strategy) {
	seen := "the search by patient works"
	if n := len(p.evidence.NotOffered); n > 0 {
		seen += fmt.Sprintf("; %d of %d categories aren't offered: %s", n, len(p.rules.Categories), strings.Join(p.evidence.NotOffered, ", "))
	}
	p.ok(CheckRead, p.typ, seen)
	switch {
	case strategy != cura.StrategyRoster:
	case p.evidence.TakesSince:
		p.saysBound()
	case p.overrides[p.typ] != "":
		p.fail(CheckSearchParams, p.typ, "the server doesn't take patient and _lastUpdated together, which the strategy roster needs",
			"Choose the strategy snapshot for the type: starter connection edit --strategy "+string(p.typ)+"=snapshot")
	default:
		p.warn(CheckSearchParams, p.typ, "the server doesn't take patient and _lastUpdated together: each patient is read whole every time",
			"Nothing to do; ask the hospital whether its server can search by _lastUpdated if that is too slow")
	}
}

func (t *tester) served(typ cura.ResourceType, page Page) {
	switch {
	case len(page.Entries) == 0 && page.Next == "" && typ == cura.Patient:
		t.warn(CheckRead, typ, "the search works and finds 0 resources: the server is empty for this client",
			"Ask the hospital whether this is the right environment, and which patients the client may see")
	case len(page.Entries) == 0 && page.Next == "":
		t.ok(CheckRead, typ, "the search works and finds 0 resources")
	case page.Total != nil:
		t.ok(CheckRead, typ, fmt.Sprintf("the search works; the server counts %d", *page.Total))
	default:
		t.ok(CheckRead, typ, "the search works; the server gives no count")
	}
}

// unread reports why the type can't be read, and gives false where the rest can only fail likewise.
func (p *probe) unread(err error) bool {
	f := asFault(err)
	p.unknown = !errors.Is(err, ErrRefused)
	switch kind := f.Kind; {
	case kind == fault.Scope:
		p.report.Forbidden = append(p.report.Forbidden, p.typ)
		p.skipped(p.typ, "forbidden (403)", f.Fix)
	case !p.offered && (kind == fault.Unsupported || kind == fault.Config):
		p.unknown = true
		p.report.Missing = append(p.report.Missing, p.typ)
		p.skipped(p.typ, "the server doesn't offer it", f.Fix)
	case kind == fault.Throttled:
		p.warn(CheckRead, p.typ, "the server asks to slow down, so this wasn't tried", "Try starter test again later")
	case kind == fault.Auth:
		p.failed(CheckRead, p.typ, err)
		return false
	default:
		p.failed(CheckRead, p.typ, err)
	}
	return true
}

// skipped is a warning, but for Patient a failure.
func (t *tester) skipped(typ cura.ResourceType, seen, fix string) {
	if typ == cura.Patient {
		t.fail(CheckRead, typ, seen+": without patients nothing can be pulled", fix)
		return
	}
	t.warn(CheckRead, typ, seen+": this type is switched off, the others go on", fix)
}

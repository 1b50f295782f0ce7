package consent

import (
	"slices"
	"strconv"
	"time"
)

// verdict is whether something matches a request. They are ordered: all of several match as the least of them does, one of
// several as the greatest.
type verdict int

const (
	no verdict = iota
	maybe
	yes
)

// outcomes are what a provision may come to, as a set: one that can't be evaluated may come to several.
type outcomes uint8

// The outcomes, in the order in which they win over each other.
const (
	silent outcomes = 1 << iota
	permits
	denies
)

// or is what siblings come to: of each pair of outcomes the one that wins.
func (a outcomes) or(b outcomes) outcomes {
	var both outcomes
	for _, x := range []outcomes{silent, permits, denies} {
		for _, y := range []outcomes{silent, permits, denies} {
			if a&x != 0 && b&y != 0 {
				both |= max(x, y)
			}
		}
	}
	return both
}

// effect is how a Rule calls them.
func (a outcomes) effect() string {
	if a == permits {
		return "permit"
	}
	if a == denies {
		return "deny"
	}
	return "unknown"
}

// evaluation is the work on one consent.
type evaluation struct {
	*facts
	opinion

	consent Consent
}

func (e *evaluation) rule(path, effect string, matched bool, why string) {
	e.rules = append(e.rules, Rule{Consent: e.consent.ID, Path: path, Effect: effect, Matched: matched, Why: why})
}

// cannotEvaluate says that the consent may come to anything.
func (e *evaluation) cannotEvaluate(path, why string) {
	e.says = silent | permits | denies
	e.rule(path, "unknown", true, why)
}

// root evaluates a consent that is active, as far as its status says.
func (e *evaluation) root(scope verdict) {
	if e.consent.ModifierExtension {
		e.cannotEvaluate("modifierExtension", "a modifier extension may change the meaning of all of it")
		return
	}
	if scope == maybe {
		e.rule("scope", "unknown", true, "its scope isn't known: what it permits doesn't count, what it denies does")
	}
	provision, why := e.provisionOf()
	if why != "" {
		e.cannotEvaluate("provision", why)
		return
	}
	if why := unreadable(provision); why != "" {
		e.cannotEvaluate("provision", why)
		return
	}
	when := period(provision["period"], e.at)
	e.start, e.end = when.start, when.end
	switch {
	case when.side < 0:
		e.outside, e.until = NotYet, when.start
		e.rule("provision.period", "", false, "it isn't in force yet")
		return
	case when.side > 0:
		e.outside = Expired
		e.rule("provision.period", "", false, "it has expired")
		return
	}
	e.says, e.named = e.provision(provision, "provision", e.base(provision), nil)
	if scope == maybe {
		e.says |= silent
		e.named = nil
	}
}

// provisionOf is the root provision; why is set where it can't be read.
func (e *evaluation) provisionOf() (root map[string]any, why string) {
	entry := e.consent.Entry
	if len(entry.Provision) > 0 {
		return decode(entry.Provision)
	}
	root = map[string]any{}
	if entry.Period != nil {
		span := map[string]any{}
		if entry.Period.Start != nil {
			span["start"] = entry.Period.Start.Text
		}
		if entry.Period.End != nil {
			span["end"] = entry.Period.End.Text
		}
		root["period"] = span
	}
	return root, ""
}

// base is the base rule: the root provision's type, though R4 doesn't permit one there, since IHE PCF and EHRs set it; else
// the policy rule.
func (e *evaluation) base(root map[string]any) outcomes {
	typ, given := root["type"]
	if !given && e.consent.Entry.RootType != "" && len(e.consent.Entry.Provision) == 0 {
		typ, given = e.consent.Entry.RootType, true
	}
	if given {
		return effectOf(typ)
	}
	var base outcomes
	for _, coding := range e.consent.Entry.PolicyRule.Codings {
		switch {
		case coding.System == systemActCode && coding.Code == "OPTIN":
			base |= permits
		case coding.System == systemActCode && coding.Code == "OPTOUT":
			base |= denies
		}
	}
	if base == 0 {
		base = permits | denies
	}
	e.rule("policyRule", base.effect(), true, "it is the base rule, since the provision has no type")
	return base
}

// effectOf reads a provision.type.
func effectOf(typ any) outcomes {
	switch typ {
	case "permit":
		return permits
	case "deny":
		return denies
	default:
		return permits | denies
	}
}

// provision evaluates a provision and its exceptions. Effect is its own. Inherited are the labels that the permits around it
// name, up to the next denial. It returns what the provision may come to, and the labels that the permits name which decide;
// none unless it surely permits.
func (e *evaluation) provision(p map[string]any, path string, effect outcomes, inherited []string) (outcomes, []string) {
	if why := unreadable(p); why != "" {
		// Not even what it is an exception to can be told.
		e.rule(path, "unknown", true, why)
		return silent | permits | denies, nil
	}
	matches, why := e.match(p)
	e.rule(path, effect.effect(), matches == yes || matches == maybe && effect&denies != 0, why)
	if matches == no {
		return silent, nil
	}
	var own []string
	if effect == permits {
		own = append(slices.Clone(inherited), namedLabels(p["securityLabel"])...)
	}
	inner, named := silent, []string(nil)
	for i, exception := range exceptions(p) {
		says, names := e.provision(exception, path+".provision["+strconv.Itoa(i)+"]", effectOf(exception["type"]), own)
		inner = inner.or(says)
		named = append(named, names...)
	}
	if inner&silent != 0 {
		inner = inner&^silent | effect
		named = own
	}
	if matches == maybe {
		inner |= silent
	}
	if inner != permits {
		return inner, nil
	}
	return inner, named
}

// match tells whether all that a provision lists matches, and of what doesn't, or can't be told, the first.
func (e *evaluation) match(p map[string]any) (matches verdict, why string) {
	matches, why = yes, "all that it lists matches"
	for _, d := range e.dimensions() {
		value, listed := p[d.name]
		if !listed {
			continue
		}
		got := maybe // null isn't JSON that FHIR knows
		if value != nil {
			got = d.match(value)
		}
		switch {
		case got >= matches:
		case got == no:
			matches, why = no, d.name+" doesn't match"
		default:
			matches, why = maybe, d.name+" can't be evaluated"
		}
	}
	return matches, why
}

// dimension is an element of a provision that restricts where it applies.
type dimension struct {
	name  string
	match func(value any) verdict
}

func (e *evaluation) dimensions() []dimension {
	return []dimension{
		{"period", e.matchPeriod},
		{"actor", e.matchActor},
		{"action", e.matchAction},
		{"securityLabel", e.matchLabel},
		{"purpose", e.matchPurpose},
		{"class", e.matchClass},
		{"code", e.matchCode},
		{"dataPeriod", e.matchDataPeriod},
		// It points at resources by the EHR's ids, which content of Cura's hasn't got.
		{"data", func(any) verdict { return maybe }},
	}
}

// matchPeriod also notes the period's next bound.
func (e *evaluation) matchPeriod(value any) verdict {
	when := period(value, e.at)
	e.until = earlier(e.until, when.next)
	return when.verdict()
}

func (e *evaluation) matchDataPeriod(value any) verdict {
	if e.DataFrom.IsZero() {
		return maybe
	}
	return period(value, e.DataFrom).verdict()
}

// span is where an instant is, seen from a Period.
type span struct {
	// side is -1 before it, 1 after it, 0 within it, or where that can't be told.
	side int
	ok   bool
	// start and end are its bounds, the end exclusive; zero: open.
	start, end time.Time
	// next is the first bound after the instant; zero: none.
	next time.Time
}

func (s span) verdict() verdict {
	switch {
	case !s.ok:
		return maybe
	case s.side == 0:
		return yes
	default:
		return no
	}
}

// period reads a Period. A missing one, which is nil, is open on both sides.
func period(value any, at time.Time) span {
	fields, isObject := value.(map[string]any)
	if value == nil {
		return span{ok: true}
	}
	if !isObject || !only(fields, "start", "end") || len(fields) == 0 {
		return span{}
	}
	s := span{ok: true}
	if text, given := fields["start"]; given {
		s.start, _, s.ok = moment(text)
	}
	if text, given := fields["end"]; given && s.ok {
		_, s.end, s.ok = moment(text)
	}
	if !s.ok {
		return span{}
	}
	switch {
	case !s.start.IsZero() && !s.end.IsZero() && !s.start.Before(s.end):
		return span{} // R4 per-1: it ends before it starts
	case !s.start.IsZero() && at.Before(s.start):
		s.side, s.next = -1, s.start
	case !s.end.IsZero() && !at.Before(s.end):
		s.side = 1
	default:
		s.next = s.end
	}
	return s
}

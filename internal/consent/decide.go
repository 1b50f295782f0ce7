package consent

import (
	"slices"
	"strings"
	"time"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// Decide decides whether the consents allow the request at an instant, by the rules of R4 Consent, those of IHE Privacy
// Consent on FHIR and what a patient's law adds to them:
//
//   - A consent counts when it is active, about privacy and within its period. Its base rule is the type of the root
//     provision or else the policy rule (OPTIN, OPTOUT); a root provision that lists something speaks about that only.
//   - A nested provision is an exception to its parent. The deepest that matches decides; among siblings a denial does.
//   - A denial by any consent beats every permit. Without a permit the answer is no.
//   - What can't be evaluated permits nothing and denies what it may deny. Of an unknown effect both are assumed.
//   - Each sensitivity label, and a record under 42 CFR Part 2, needs a permit that names it.
//
// The order of consents and of provisions changes the order of Rules and nothing else.
func Decide(r Request, consents []Consent, at time.Time) Decision {
	f, ok := newFacts(r, at)
	if !ok {
		return Decision{Code: CannotEvaluate, Reason: CannotEvaluate.reason()}
	}
	var d Decision
	var opinions []opinion
	for _, c := range consents {
		o := f.opinion(c)
		d.Rules = append(d.Rules, o.rules...)
		d.Until = earlier(d.Until, o.until)
		opinions = append(opinions, o)
	}
	d.Code, d.ConsentID = weigh(opinions)
	if d.Code == Permitted {
		var missing []Rule
		d.Code, d.ConsentID, missing = f.labelled(opinions)
		d.Rules = append(d.Rules, missing...)
	}
	d.Allow = d.Code == Permitted
	d.Reason = d.Code.reason()
	if d.Allow && r.Action == Disclose && f.isPart2() {
		i := slices.IndexFunc(opinions, func(o opinion) bool { return o.id == d.ConsentID && o.says == permits })
		d.Notice = f.notice(opinions[i])
	}
	return d
}

// opinion is what one consent says about a request.
type opinion struct {
	id string
	// outside is why the consent doesn't count; empty where it does.
	outside Code
	says    outcomes
	// named are the labels that the permits name which decide.
	named []string
	// start and end are the consent's period; zero: open.
	start, end time.Time
	until      time.Time
	rules      []Rule
}

// weigh makes one decision of what the consents say, labels aside.
func weigh(opinions []opinion) (Code, string) {
	for _, test := range []struct {
		code Code
		is   func(opinion) bool
	}{
		{Denied, func(o opinion) bool { return o.says == denies }},
		{CannotEvaluate, func(o opinion) bool { return o.says&denies != 0 }},
		{Permitted, func(o opinion) bool { return o.says == permits }},
		{CannotEvaluate, func(o opinion) bool { return o.says&permits != 0 }},
		{NoMatchingProvision, func(o opinion) bool { return o.outside == "" }},
		{NotYet, func(o opinion) bool { return o.outside == NotYet }},
		{Expired, func(o opinion) bool { return o.outside == Expired }},
		{NotActive, func(o opinion) bool { return o.outside == NotActive }},
	} {
		id, found := "", false
		for _, o := range opinions {
			if test.is(o) && (!found || older(o.id, id)) {
				id, found = o.id, true
			}
		}
		if !found {
			continue
		}
		if test.code == Denied || test.code == CannotEvaluate || test.code == Permitted {
			return test.code, id
		}
		return test.code, ""
	}
	return NoConsent, ""
}

// labelled says whether the permits name what they must, and which consent it is that names the most of it.
func (f *facts) labelled(opinions []opinion) (Code, string, []Rule) {
	var named []string
	best, most := "", -1
	for _, o := range opinions {
		if o.says != permits {
			continue
		}
		named = append(named, o.named...)
		n := len(f.needs()) - len(f.unnamed(o.named))
		if n > most || n == most && older(o.id, best) {
			best, most = o.id, n
		}
	}
	missing := f.unnamed(named)
	if len(missing) == 0 {
		return Permitted, best, nil
	}
	rules := make([]Rule, len(missing))
	for i, label := range missing {
		rules[i] = Rule{Path: "securityLabel", Effect: "deny", Matched: true, Why: "no permit names " + shown(label)}
	}
	switch {
	case slices.Contains(missing, "PSYTHPN"):
		return Psychotherapy, "", rules
	case slices.Contains(missing, part2Label):
		return Part2, "", rules
	default:
		return Sensitive, "", rules
	}
}

// needs are the labels that a permit must name.
func (f *facts) needs() []string {
	var needs []string
	for _, label := range f.labels {
		if level, known := confidentiality(label); !known || level > normal {
			needs = append(needs, label)
		}
	}
	if f.Part2 && !slices.Contains(needs, part2Label) {
		needs = append(needs, part2Label)
	}
	return needs
}

// unnamed are those of needs that aren't among named.
func (f *facts) unnamed(named []string) []string {
	return slices.DeleteFunc(f.needs(), func(need string) bool {
		return slices.ContainsFunc(named, func(name string) bool { return name == need || need == part2Label && namesPart2(name) })
	})
}

// isPart2 reports whether the content is, or may be, a record under 42 CFR Part 2: the notice does no harm to one that isn't.
func (f *facts) isPart2() bool {
	return f.Part2 || slices.ContainsFunc(f.labels, func(label string) bool { return family(label) == substanceUse })
}

// notice is statement 2 of 42 CFR 2.32(a), and the explanation of the consent's scope that 2.32(b) demands.
func (f *facts) notice(o opinion) string {
	var b strings.Builder
	b.WriteString("42 CFR part 2 prohibits unauthorized use or disclosure of these records.\n")
	b.WriteString("Scope of the patient's consent (entry " + o.id + " of the consent log): it permits disclosing this ")
	b.WriteString(string(f.Kind) + " to this recipient for the purpose " + shown(f.purpose))
	if needs := f.needs(); len(needs) > 0 {
		for i := range needs {
			needs[i] = shown(needs[i])
		}
		b.WriteString(", as a record labelled " + strings.Join(needs, ", "))
	}
	if !o.start.IsZero() {
		b.WriteString(", from " + o.start.Format(time.RFC3339))
	}
	if o.end.IsZero() {
		b.WriteString(", until it is revoked.")
	} else {
		b.WriteString(", until " + o.end.Format(time.RFC3339) + " or until it is revoked.")
	}
	return b.String()
}

// opinion asks one consent.
func (f *facts) opinion(c Consent) opinion {
	e := evaluation{facts: f, consent: c, opinion: opinion{id: c.ID, says: silent}}
	scope := scopeOf(c.Entry.Scope)
	switch {
	case scope == no:
		e.outside = NoConsent
		e.rule("scope", "", false, "its scope isn't patient-privacy: it doesn't speak about this")
	case c.EnteredInError:
		e.outside = NotActive
		e.rule("status", "", false, "it was entered in error")
	case c.Entry.Status != "active":
		e.outside = NotActive
		e.rule("status", "", false, "its status isn't active")
	default:
		e.root(scope)
	}
	return e.opinion
}

// scopeOf tells whether a consent speaks about privacy.
func scopeOf(scope cura.Concept) verdict {
	answer := maybe
	for _, coding := range scope.Codings {
		if coding.System != systemScope {
			continue
		}
		switch coding.Code {
		case "patient-privacy":
			return yes
		case "research", "adr", "treatment":
			answer = no
		}
	}
	return answer
}

// older orders ids of the log, which are numbers that grow.
func older(a, b string) bool {
	if len(a) != len(b) {
		return len(a) < len(b)
	}
	return a < b
}

// earlier is the earlier of two instants, of which a zero one is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// reason is the sentence for a person.
func (c Code) reason() string {
	switch c {
	case Permitted:
		return "An active consent of the patient permits this."
	case NoConsent:
		return "The patient has no consent about privacy: record one, or pull the hospital's."
	case Denied:
		return "An active consent of the patient denies this."
	case NotActive:
		return "The patient's consents are withdrawn, rejected, drafts or entered in error: ask the patient for a new one."
	case NotYet:
		return "The patient's consent isn't in force yet."
	case Expired:
		return "The patient's consent has expired: ask the patient for a new one."
	case NoMatchingProvision:
		return "No active consent of the patient is about this."
	case Sensitive:
		return "The content is sensitive, and no consent names each of its labels: ask the patient for one that does."
	case Psychotherapy:
		return "Psychotherapy notes go out only under a consent that names them (PSYTHPN)."
	case Part2:
		return "Records under 42 CFR Part 2 go out only under a consent that names them (42CFRPart2, SUD or ETH)."
	case CannotEvaluate:
	}
	return "Whether the patient's consents allow this can't be told: a consent officer must read them."
}

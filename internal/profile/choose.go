package profile

import (
	"github.com/cura-health/ehr-sync/internal/cura"
)

// Evidence is what is known of one server and type, from its metadata and from a probe.
type Evidence struct {
	// Known says that metadata was read, Listed that it lists _lastUpdated for the type, in whatever case.
	Known, Listed bool
	// Probed says that searches were tried as the profile would do them.
	Probed bool
	// SystemSearch says that a probe searched the whole system by _lastUpdated, and the server did so.
	SystemSearch bool
	// TakesSince says that the server took _lastUpdated in the last of the searches tried: of the whole system or, where
	// that fails or isn't the way, of one patient.
	TakesSince bool
	// NotOffered are the categories that the server refused.
	NotOffered []string
}

// The values of cura.StrategyChoice.ChosenBy, the strongest first.
const (
	ByOperator = "operator"
	ByProbe    = "probe"
	ByMetadata = "metadata"
	ByProfile  = "profile"
)

// Choose decides how a type is read, and says why: the operator's override ("" for none) goes before what the probe saw,
// that before the server's metadata, and that before the profile. A profile's snapshot stays: that a server takes
// _lastUpdated doesn't mean that it moves it. A type that the profile doesn't have, and nobody overrides, gets no strategy.
func Choose(p *Profile, t cura.ResourceType, e Evidence, override cura.Strategy) cura.StrategyChoice {
	rules, offered := p.Rules(t)
	c := cura.StrategyChoice{Type: t, NotOffered: e.NotOffered}
	switch {
	case override != "":
		c.ChosenBy = ByOperator
		c.Strategy, c.Reason = overridden(t, e, override)
	case !offered:
		c.ChosenBy = ByProfile
		c.Reason = "The profile " + p.Name + " doesn't have the type: the vendor doesn't offer it."
		return c
	case rules.Strategy == cura.StrategySnapshot || (!e.Probed && !e.Known):
		c.Strategy, c.ChosenBy, c.Reason = rules.Strategy, ByProfile, rules.Why
	case e.Probed:
		c.ChosenBy = ByProbe
		c.Strategy, c.Reason = probed(t, e, rules.Strategy)
	default:
		c.ChosenBy = ByMetadata
		c.Strategy, c.Reason = byMetadata(e, rules.Strategy)
	}
	c.CanMiss = canMiss(t, c.Strategy)
	if offered && rules.CanMiss != "" && c.Strategy == rules.Strategy {
		c.CanMiss = rules.CanMiss
	}
	return c
}

func overridden(t cura.ResourceType, e Evidence, override cura.Strategy) (strategy cura.Strategy, reason string) {
	const chosen = "An operator chose it"
	switch {
	case t == cura.Patient && override == cura.StrategyRoster:
		return cura.StrategySnapshot, "An operator chose roster; patients are read one by one by id, whole every time."
	case e.Probed && override == cura.StrategySystem && !e.SystemSearch:
		return override, chosen + ", though the server didn't take a search of the whole system by _lastUpdated when it was tried."
	case e.Probed && override == cura.StrategyRoster && !e.TakesSince:
		return override, chosen + ", though the server didn't take patient and _lastUpdated together when they were tried."
	default:
		return override, chosen + "."
	}
}

// probed decides by what the server did, where the profile says system or roster.
func probed(t cura.ResourceType, e Evidence, rule cura.Strategy) (strategy cura.Strategy, reason string) {
	const refused = "The server doesn't take a search of the whole system by _lastUpdated"
	switch {
	case rule == cura.StrategySystem && e.SystemSearch:
		return rule, "The server took a search of the whole system by _lastUpdated."
	case rule == cura.StrategyRoster && e.TakesSince:
		return rule, "The server took patient and _lastUpdated together."
	case rule == cura.StrategyRoster:
		return cura.StrategySnapshot, "The server takes a search by patient, but not with _lastUpdated: each patient is read whole."
	case t == cura.Patient:
		return cura.StrategySnapshot, refused + ": patients of the roster are read by id."
	case e.TakesSince:
		return cura.StrategyRoster, refused + ", but takes patient and _lastUpdated together."
	default:
		return cura.StrategySnapshot, refused + ", nor was it seen to take _lastUpdated with a patient: each patient is read whole."
	}
}

func byMetadata(e Evidence, rule cura.Strategy) (strategy cura.Strategy, reason string) {
	if e.Listed {
		return rule, "The server's metadata lists _lastUpdated for the type."
	}
	return cura.StrategySnapshot, "The server's metadata doesn't list _lastUpdated for the type, and no search was tried: each patient is read whole."
}

// canMiss says what each strategy can overlook. The words are shown beside the choice.
func canMiss(t cura.ResourceType, s cura.Strategy) string {
	const notOnRoster = "Patients who aren't on the roster; and "
	switch {
	case s == cura.StrategySystem:
		return "Resources whose lastUpdated the server doesn't move when they change, and deletions: found by the nightly reconcile."
	case s == cura.StrategyRoster:
		return notOnRoster + "resources whose lastUpdated the server doesn't move when they change, and deletions: found by the nightly reconcile."
	case s == cura.StrategySnapshot && t == cura.Patient:
		return notOnRoster + "what changes between two passes and changes back."
	case s == cura.StrategySnapshot:
		return notOnRoster + "what changes between two passes and changes back, or comes and goes between them."
	default:
		return ""
	}
}

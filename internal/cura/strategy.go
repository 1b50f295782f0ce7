package cura

import "slices"

// Strategy is how a resource type of a connection is read (DOMAIN §2).
type Strategy string

// The strategies.
const (
	// StrategySystem searches the whole system by _lastUpdated: one pass reads everything of the type.
	StrategySystem Strategy = "system"
	// StrategyRoster searches patient by patient, by patient and _lastUpdated.
	StrategyRoster Strategy = "roster"
	// StrategySnapshot reads all of each patient every time, and finds what changed by content.
	StrategySnapshot Strategy = "snapshot"
)

// Strategies lists the strategies, the least work for the EHR first.
func Strategies() []Strategy { return []Strategy{StrategySystem, StrategyRoster, StrategySnapshot} }

// Known reports whether s is one of Strategies.
func (s Strategy) Known() bool { return slices.Contains(Strategies(), s) }

// ByPatient reports whether the strategy reads patient by patient, and so needs a roster.
func (s Strategy) ByPatient() bool { return s == StrategyRoster || s == StrategySnapshot }

// StrategyChoice is the strategy by which a type is read, and why.
type StrategyChoice struct {
	Type     ResourceType `json:"type"`
	Strategy Strategy     `json:"strategy"`
	// ChosenBy is what decided: profile, metadata, probe or operator.
	ChosenBy string `json:"chosen_by"`
	// Reason is one sentence.
	Reason string `json:"reason"`
	// CanMiss says in words what reading so can overlook, and what finds it all the same.
	CanMiss string `json:"can_miss"`
	// NotOffered are the categories that the server has refused (400): they aren't asked for again.
	NotOffered []string `json:"not_offered,omitempty"`
}

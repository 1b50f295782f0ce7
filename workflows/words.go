package workflows

import (
	"fmt"
	"strings"
	"time"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// words is the status for a person who looks at the Web UI, as Markdown: where it stands, what it waits for, and the
// command that moves it on.
func (s OnboardingStatus) words() string {
	var b strings.Builder
	if s.WaitsFor != cura.WaitsForNobody {
		fmt.Fprintf(&b, "**Waits for a person: %s.** %s\n", s.WaitsFor, strings.Replace(s.Why, "\n- ", "\n\n- ", 1))
		b.WriteString("\nWhat moves it on:\n")
		for _, c := range s.Commands {
			fmt.Fprintf(&b, "\n    %s", c)
		}
		b.WriteString("\n\n")
	} else {
		fmt.Fprintf(&b, "**%s.** It waits for nobody.\n\n", phaseInWords(s.Phase))
	}
	for i, step := range s.Steps {
		fmt.Fprintf(&b, "%d. %s: %s", i+1, step.Name, step.State)
		if step.Text != "" && step.State != "waiting" {
			b.WriteString(". " + step.Text)
		}
		b.WriteString("\n")
	}
	if !s.Window.Ends.IsZero() {
		fmt.Fprintf(&b, "\nThe monitoring window ends at %s; it has been looked at %d times.", s.Window.Ends.UTC().Format(time.RFC3339), s.Window.Evaluations)
	}
	if len(s.Strategies) > 0 {
		b.WriteString("\n\nHow it is read:\n")
	}
	for _, c := range s.Strategies {
		fmt.Fprintf(&b, "\n- %s by %s (%s): %s", c.Type, c.Strategy, c.ChosenBy, c.Reason)
		if c.CanMiss != "" {
			b.WriteString(" Can miss: " + c.CanMiss)
		}
	}
	return b.String()
}

func phaseInWords(p cura.Phase) string {
	switch p {
	case cura.PhaseNew, cura.PhaseTesting:
		return "Testing the endpoints"
	case cura.PhasePilot:
		return "Piloting"
	case cura.PhaseApproval:
		return "Waiting for approval"
	case cura.PhaseBackfill:
		return "Reading everything"
	case cura.PhaseMonitoring:
		return "Watching over the first syncs"
	case cura.PhaseLive:
		return "Live"
	case cura.PhaseAborted:
		return "Aborted"
	}
	return string(p)
}

// countsInWords is the sum of a run, for a person.
func countsInWords(c cura.Counts) string {
	text := fmt.Sprintf("%d served: %d stored, %d unchanged, %d quarantined, %d in review", c.Served, c.Stored, c.Unchanged, c.Quarantined, c.InReview)
	if c.Withheld > 0 {
		text += fmt.Sprintf(", %d withheld", c.Withheld)
	}
	return text
}

// bullets are the items of a list that follows a sentence.
func bullets(items []string) string {
	var text strings.Builder
	for _, item := range items {
		text.WriteString("\n- " + item)
	}
	return text.String()
}

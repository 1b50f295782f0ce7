package activities

import (
	"context"
	"slices"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
)

// EndpointResult is what the workflow needs of an endpoint test; the report itself is in the database.
type EndpointResult struct {
	Verdict   cura.Verdict        `json:"verdict"`
	Checks    int                 `json:"checks"`
	Problems  []cura.Check        `json:"problems,omitempty"`
	Forbidden []cura.ResourceType `json:"forbidden,omitempty"`
	// Strategies say how each type will be read, and why.
	Strategies []cura.StrategyChoice `json:"strategies,omitempty"`
}

// TestEndpoint tests a connection's endpoints and keeps the report. A failed check is a result, not an error.
func (a *Activities) TestEndpoint(ctx context.Context, in Target) (EndpointResult, error) {
	defer heartbeat(ctx, func() any { return "testing" })()
	a.meetSomebody(ctx, in)
	report, err := a.RunEndpointTest(ctx, in, audit.Worker)
	result := EndpointResult{Verdict: report.Verdict(), Checks: len(report.Checks), Forbidden: report.Forbidden, Strategies: report.Strategies}
	for _, c := range report.Checks {
		if c.Verdict != cura.VerdictOK {
			result.Problems = append(result.Problems, c)
		}
	}
	return result, temporalError(ctx, err)
}

// meetSomebody looks after the roster of a connection that is read patient by patient, for the test to have somebody to try
// searches with. Where that can't be done the test says why, better than this could.
func (a *Activities) meetSomebody(ctx context.Context, in Target) {
	conn, open, err := a.connect(ctx, in)
	if err != nil {
		return
	}
	choice, _, err := a.strategy(ctx, conn, open.profile, cura.Patient)
	if err != nil || !choice.Strategy.ByPatient() {
		return
	}
	if _, err := a.refreshRoster(ctx, in); err != nil {
		a.log.InfoContext(ctx, "the roster couldn't be looked after before the endpoint test", "connection_id", string(in.Connection), "kind", string(fault.KindOf(err)))
	}
}

// RunEndpointTest is TestEndpoint without Temporal, for `starter test`. Types that answer 403 are switched off, and
// those that answer again are switched on.
func (a *Activities) RunEndpointTest(ctx context.Context, in Target, actor string) (cura.EndpointReport, error) {
	conn, cfg, err := a.settings(ctx, in)
	if err != nil {
		return cura.EndpointReport{}, err
	}
	overrides, err := a.overrides(ctx, conn)
	if err != nil {
		return cura.EndpointReport{}, err
	}
	read := slices.DeleteFunc(slices.Clone(conn.Types), overrides.Excludes)
	options := ehr.TestOptions{Types: read, Profile: cfg.Profile, Overrides: conn.Strategies, Deliveries: conn.DeliveredBy(cura.RouteFHIR)}
	err = a.store.InOrg(ctx, in.Org, func(tx *store.Tx) error {
		members, err := tx.Members(ctx, in.Connection, "", 1)
		if len(members) > 0 {
			options.Patient = members[0].EHRID
		}
		return err
	})
	if err != nil {
		return cura.EndpointReport{}, err
	}
	cfg.Pace = insisting{a.pace(in, cfg.Profile)} // a test of an EHR that is down mustn't wait for the next probe
	report := ehr.Test(ctx, cfg, options)
	err = a.store.InOrg(ctx, in.Org, func(tx *store.Tx) error {
		if err := tx.PutEndpointTest(ctx, in.Connection, report, actor); err != nil {
			return err
		}
		if len(report.Strategies) > 0 {
			if err := tx.PutStrategies(ctx, in.Connection, report.Strategies); err != nil {
				return err
			}
		}
		for _, t := range report.Forbidden {
			if err := tx.SwitchTypeOff(ctx, in.Connection, t, "the EHR forbids it (403)"); err != nil {
				return err
			}
		}
		for _, c := range report.Checks {
			if c.Name == ehr.CheckRead && c.Verdict == cura.VerdictOK {
				if err := tx.SwitchTypeOn(ctx, in.Connection, c.Type); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return report, err
}

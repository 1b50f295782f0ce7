package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// deliveryFlags are the settings that say what is delivered to an EHR and how, and whether pulling needs consent.
func deliveryFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "deliver", Usage: "how artefacts of a kind reach the hospital, as `KIND=fhir`, manual or off, repeated as needed; the kinds: " + words(cura.ArtefactKinds()), DefaultText: "off"},
		&cli.StringFlag{Name: "pull-consent", Usage: "whether pulling a patient's clinical types needs their consent: `none`, opt-out or opt-in", DefaultText: string(cura.PullConsentNone)},
	}
}

// applyDeliveries puts the flags over the settings of conn.
func applyDeliveries(c *cli.Context, conn *cura.Connection) error {
	deliveries := maps.Clone(conn.Deliveries)
	if deliveries == nil {
		deliveries = map[cura.ArtefactKind]cura.Route{}
	}
	for _, given := range listed(c.StringSlice("deliver")) {
		name, value, ok := strings.Cut(given, "=")
		kind, route := cura.ArtefactKind(strings.TrimSpace(name)), cura.Route(strings.TrimSpace(value))
		switch {
		case !ok:
			return usagef("--deliver takes KIND=ROUTE, such as note=fhir; KIND=off takes it back")
		case !kind.Known():
			return usagef("--deliver names %q; the kinds are %s", kind, words(cura.ArtefactKinds()))
		}
		switch route {
		case cura.RouteFHIR, cura.RouteManual:
			deliveries[kind] = route
		case cura.RouteOff, "":
			delete(deliveries, kind)
		case cura.RouteHL7v2:
			return usagef("--deliver %s=hl7v2: it comes with the HL7 v2 bridge; until then take fhir, manual or off", kind)
		default:
			return usagef("--deliver of %s is %q; it must be fhir, manual or off", kind, route)
		}
	}
	conn.Deliveries = deliveries
	if !c.IsSet("pull-consent") {
		return nil
	}
	switch policy := cura.PullConsent(c.String("pull-consent")); policy {
	case cura.PullConsentNone, cura.PullConsentOptOut, cura.PullConsentOptIn:
		conn.PullConsent = policy
		return nil
	default:
		return usagef("--pull-consent is %q; it must be none, opt-out or opt-in", policy)
	}
}

// hintDeliveries tells of kinds that were asked to be delivered by FHIR and that the vendor doesn't take so.
func hintDeliveries(c *cli.Context, conn cura.Connection, name string) {
	p, err := unfilledProfile(conn)
	if err != nil {
		return // the settings were checked before
	}
	for _, kind := range conn.DeliveredBy(cura.RouteFHIR) {
		if _, ok := p.Write(kind); !ok {
			hint(c, "%s takes no %s by FHIR, so it will be denied. Hand it over instead with: starter connection edit %s --deliver %s=manual", p.Title, kind, name, kind)
		}
	}
}

// pullConsent says in a line whether pulling needs consent, and of how many patients it isn't given.
func (v connectionView) pullConsent() string {
	withheld := fmt.Sprintf("; %d patients aren't read for it", v.Withheld)
	switch v.PullConsent {
	case cura.PullConsentOptOut:
		return "that the patient doesn't deny (opt-out)" + withheld
	case cura.PullConsentOptIn:
		return "the patient's consent (opt-in)" + withheld
	case cura.PullConsentNone:
	}
	return "no consent"
}

// deliveries says in a line what is delivered, and how.
func (v connectionView) deliveries() string {
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(v.Deliveries)) {
		parts = append(parts, string(kind)+" by "+string(v.Deliveries[kind]))
	}
	return orElse(strings.Join(parts, ", "), "nothing")
}

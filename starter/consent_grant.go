package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/consent"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/fhir"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/mappings"
)

func grantFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "from", Usage: "from this `TIME` on: 2026-03-01, midnight UTC, or 2026-03-01T08:00:00Z", DefaultText: "now"},
		&cli.StringFlag{Name: "until", Usage: "until just before this `TIME`", DefaultText: "revoked"},
		&cli.StringSliceFlag{Name: "kind", Usage: "only a `KIND` of artefact, repeated as needed: " + words(cura.ArtefactKinds()), DefaultText: "everything"},
		&cli.StringSliceFlag{Name: "label", Usage: "also what has this sensitivity `LABEL`, repeated as needed: " + strings.Join(grantLabels(), ", ")},
		&cli.StringSliceFlag{Name: "purpose", Usage: "for this `PURPOSE`, repeated as needed: " + strings.Join(grantPurposes(), ", "), DefaultText: "TREAT"},
		&cli.StringFlag{Name: "file", Usage: "the consent itself, an R4 Consent in JSON, from a `FILE`; - reads standard input"},
	}
}

// grantLabels are the sensitivity labels that a grant can name.
func grantLabels() []string {
	return []string{"R", "V", "42CFRPart2", "ETH", "SUD", "PSY", "PSYTHPN", "HIV", "SDV"}
}

// grantPurposes are the codes of v3-PurposeOfUse that a grant can name.
func grantPurposes() []string {
	return []string{"TREAT", "ETREAT", "HPAYMT", "HOPERAT", "HRESCH", "HMARKT", "PATRQT", "PUBHLTH"}
}

func grantConsent(c *cli.Context) error {
	began := time.Now()
	given, err := readGrant(c, began)
	if err != nil {
		return err
	}
	return onConsent(c, func(s *session, org store.Org, profile cura.ProfileID, role cura.Role) error {
		if given.patient != "" {
			if err := s.samePatient(c, org, profile, given); err != nil {
				return err
			}
		}
		hospitals := 0
		r, err := s.changeConsent(c.Context, org, profile, began, func(log []store.ConsentEntry) ([]store.ConsentChange, error) {
			var entries []store.ConsentChange
			hospitals = 0
			for _, e := range standing(log) {
				switch {
				case isDenial(e, began):
					entries = append(entries, withdrawn(e))
				case e.Source != "cura" && mayPermit(e, began):
					hospitals++
				}
			}
			if len(entries) == 0 {
				hospitals = 0
			}
			return signedBy(append(entries, store.ConsentChange{Entry: given.entry}), profile, s.actor, role), nil
		})
		if err != nil {
			return err
		}
		if hospitals > 0 {
			hint(c, "The revocation that was recorded is taken back with this, so %d consents of the hospital's count again. See: starter consent show %s --org %s",
				hospitals, profile, org.Name)
		}
		return printOne(c, r, r.lines("Consent is recorded. What was cancelled stays so; try it again with: starter push retry")...)
	})
}

// grant is the consent that a person gives in for a patient.
type grant struct {
	entry cura.ConsentEntry
	// patient is the EHR's id of the patient whom a file is about, base the FHIR base that it says so with; empty: terms.
	patient, base string
}

func readGrant(c *cli.Context, now time.Time) (grant, error) {
	if c.IsSet("file") {
		for _, flag := range []string{"from", "until", "kind", "label", "purpose"} {
			if c.IsSet(flag) {
				return grant{}, usagef("--file gives the consent itself, so --%s has nothing to say; give one of the two", flag)
			}
		}
		return readConsentFile(c, now)
	}
	terms := consent.Terms{Labels: listed(c.StringSlice("label")), Purposes: listed(c.StringSlice("purpose"))}
	for flag, at := range map[string]*time.Time{"from": &terms.From, "until": &terms.Until} {
		if !c.IsSet(flag) {
			continue
		}
		moment, ok := parseInstant(c.String(flag))
		if !ok {
			return grant{}, usagef("--%s is neither a date (2026-03-01) nor an instant with a zone (2026-03-01T08:00:00Z)", flag)
		}
		*at = moment
	}
	switch {
	case !terms.Until.IsZero() && !terms.From.IsZero() && !terms.From.Before(terms.Until):
		return grant{}, usagef("the consent ends before it begins: --until must be later than --from")
	case !terms.Until.IsZero() && !terms.Until.After(now):
		return grant{}, usagef("the consent has ended already: --until must be in the future")
	}
	for _, word := range listed(c.StringSlice("kind")) {
		kind := cura.ArtefactKind(word)
		if !kind.Known() {
			return grant{}, usagef("--kind names %q; the kinds are %s", word, words(cura.ArtefactKinds()))
		}
		terms.Kinds = append(terms.Kinds, kind)
	}
	for _, label := range terms.Labels {
		if !slices.Contains(grantLabels(), label) {
			return grant{}, usagef("--label names %q; the labels are %s", label, strings.Join(grantLabels(), ", "))
		}
	}
	for _, purpose := range terms.Purposes {
		if !slices.Contains(grantPurposes(), purpose) {
			return grant{}, usagef("--purpose names %q; the purposes are %s", purpose, strings.Join(grantPurposes(), ", "))
		}
	}
	return grant{entry: consent.Grant(terms)}, nil
}

// maxConsentFile is more than any Consent needs.
const maxConsentFile = 4 << 20

// readConsentFile reads an R4 Consent that permits something. What is wrong is told by element paths, never by values.
func readConsentFile(c *cli.Context, now time.Time) (grant, error) {
	name := c.String("file")
	text, err := readInput(c, name, maxConsentFile)
	if err != nil {
		return grant{}, usagef("the consent: %s", err)
	}
	if name == "-" {
		name = "standard input"
	}
	wrong := func(format string, args ...any) (grant, error) {
		return grant{}, usagef("%s\n  Nothing was stored", name+" "+fmt.Sprintf(format, args...))
	}
	head, err := fhir.Head(text)
	switch {
	case err != nil:
		return wrong("isn't JSON, or ends too early")
	case head.Type != string(cura.Consent):
		return wrong("isn't a Consent: its resourceType is another, or missing")
	}
	if head.ID == "" {
		if text, err = withID(text); err != nil {
			return wrong("isn't a JSON object")
		}
	}
	validator, err := fhir.NewValidator()
	if err != nil {
		return grant{}, err
	}
	if err := validator.Validate(text); err != nil {
		return wrong("is %s", err)
	}
	record, err := mappings.Map(text)
	if rejected, ok := errors.AsType[*mappings.RejectedError](err); ok {
		reasons := make([]string, len(rejected.Reasons))
		for i, r := range rejected.Reasons {
			reasons[i] = r.Path + ": " + r.Text
		}
		return wrong("can't be taken: %s", strings.Join(reasons, "; "))
	}
	if err != nil {
		return grant{}, err
	}
	e := store.ConsentEntry{Source: "cura", EnteredInError: record.EnteredInError, Consent: *record.Consent}
	period := e.Consent.Period
	switch {
	case record.PatientEHRID == "":
		return wrong("names no patient: Consent.patient is missing")
	case record.EnteredInError || e.Consent.Status != "active":
		return wrong("grants nothing: its status isn't active. A patient who consents no more: starter consent revoke")
	case period != nil && period.Start != nil && period.End != nil && period.End.End.Before(period.Start.Start):
		return wrong("ends before it begins: Consent.provision.period")
	case isOver(period, now):
		return wrong("has ended already: Consent.provision.period")
	case !aboutPrivacy(e.Consent.Scope):
		return wrong("isn't about privacy: Consent.scope must be patient-privacy")
	case deniesAll(e.Consent):
		return wrong("denies everything. A patient who consents no more: starter consent revoke")
	}
	return grant{entry: e.Consent, patient: record.PatientEHRID, base: record.PatientBase}, nil
}

// withID names a resource that has no id, as one that was never at a server hasn't.
func withID(text []byte) ([]byte, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return nil, err
	}
	members["id"] = json.RawMessage(`"given"`)
	return json.Marshal(members)
}

// samePatient fails where the Consent of a file is about somebody else than the patient who was named.
func (s *session) samePatient(c *cli.Context, org store.Org, profile cura.ProfileID, given grant) error {
	return s.store.InOrg(c.Context, org.ID, func(tx *store.Tx) error {
		links, err := tx.LinksOf(c.Context, profile)
		if err != nil {
			return err
		}
		for _, link := range links {
			conn, err := tx.Connection(c.Context, link.Connection)
			if err != nil {
				return err
			}
			if link.EHRID == given.patient && (given.base == "" || strings.TrimSuffix(given.base, "/") == conn.BaseURL) {
				return nil
			}
		}
		return fault.New("recording the consent", fault.Data, "its Consent.patient is another patient than the one named").
			WithFix("Nothing was stored. Name the patient whom the consent is about")
	})
}

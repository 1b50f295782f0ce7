package activities

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/cura-health/ehr-sync/internal/consent"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/fhir"
	"github.com/cura-health/ehr-sync/internal/match"
	"github.com/cura-health/ehr-sync/internal/store"
)

// This file heeds the connection's policy pull-consent. Patient and Consent are always read, and before the clinical types. Of a
// patient whose consents, as they stand in Cura, keep a type from being pulled, nothing is asked where it is read patient by
// patient; where the whole system is searched, what comes is withheld: counted, and not kept. A patient who isn't linked has
// no consents that could be read, so nothing clinical of theirs is kept either. Nothing gets lost by it: a member's watermark is
// dropped, and whom a search has brought in vain is read whole once they permit.

// withhold keeps out the resources of patients whose consents keep them out. It comes after everything else that settles them.
func (in *intake) withhold(ctx context.Context, items []store.Item) error {
	in.leftOut = nil
	if !store.ConsentScoped(in.policy, in.pass.Type) {
		return nil
	}
	var fresh []*store.Item
	var patients []string
	for i := range items {
		it := &items[i]
		if it.Outcome == store.Unchanged || it.Outcome == store.Withheld {
			continue
		}
		fresh = append(fresh, it)
		if patient := patientOf(it); patient != "" && !slices.Contains(patients, patient) {
			patients = append(patients, patient)
		}
	}
	pulled, err := in.a.pulled(ctx, in.target, in.policy, in.pass.Type, patients)
	if err != nil {
		return err
	}
	for _, it := range fresh {
		switch patient := patientOf(it); {
		case patient == "":
			// It can't be read, so whose it is isn't known: people see why, and not what.
			it.Raw, it.Packed = nil, nil
		case !pulled[patient]:
			it.Outcome, it.WaitsForPatient, it.Reasons = store.Withheld, "", nil
			if !slices.Contains(in.leftOut, patient) {
				in.leftOut = append(in.leftOut, patient)
			}
		}
	}
	return nil
}

// patientOf is the EHR id of the patient whom a resource is about; empty: it can't be told.
func patientOf(it *store.Item) string {
	if it.Record.PatientEHRID != "" {
		return it.Record.PatientEHRID
	}
	type reference struct {
		Reference string `json:"reference"`
	}
	var about struct {
		Subject reference `json:"subject"`
		Patient reference `json:"patient"`
	}
	if json.Unmarshal(it.Raw, &about) != nil {
		return ""
	}
	to, _, _ := strings.Cut(about.Subject.Reference+about.Patient.Reference, "/_history/")
	_, id, _ := strings.Cut("/"+to, "/Patient/")
	if !fhir.IsID(id) {
		return ""
	}
	return id
}

// pulled are those of patients, by EHR id, of whom a type may be pulled.
func (a *Activities) pulled(ctx context.Context, t Target, policy cura.PullConsent, typ cura.ResourceType, patients []string) (map[string]bool, error) {
	pulled := make(map[string]bool, len(patients))
	if len(patients) == 0 {
		return pulled, nil
	}
	err := a.store.InOrg(ctx, t.Org, func(tx *store.Tx) error {
		links, err := tx.Patients(ctx, t.Connection, patients)
		if err != nil {
			return err
		}
		var profiles []cura.ProfileID
		for _, link := range links {
			if link.Profile != "" {
				profiles = append(profiles, link.Profile)
			}
		}
		withheld, err := tx.Withheld(ctx, t.Connection, policy, typ, profiles)
		for patient, link := range links {
			pulled[patient] = link.Profile != "" && !withheld[link.Profile]
		}
		return err
	})
	return pulled, err
}

// permitting are those of members who may be asked for. Of the others nothing is asked: what they had been read is forgotten.
func (p *puller) permitting(ctx context.Context, members []store.Member) ([]store.Member, error) {
	if !store.ConsentScoped(p.conn.PullConsent, p.in.Type) || len(members) == 0 {
		return members, nil
	}
	patients, ids := make([]string, len(members)), make([]string, len(members))
	for i, m := range members {
		patients[i], ids[i] = m.EHRID, m.ID
	}
	pulled, err := p.a.pulled(ctx, p.in.Target, p.conn.PullConsent, p.in.Type, patients)
	if err != nil {
		return nil, err
	}
	var may []store.Member
	err = p.inOrg(ctx, func(tx *store.Tx) error {
		unread, err := tx.ConsentsUnread(ctx, p.in.Connection, ids)
		if err != nil {
			return err
		}
		var skipped []string
		for _, m := range members {
			if pulled[m.EHRID] && !slices.Contains(unread, m.ID) {
				may = append(may, m)
			} else {
				skipped = append(skipped, m.ID)
			}
		}
		switch {
		case len(skipped) == 0 || !p.choice.Strategy.ByPatient():
			return nil
		case p.comparing:
			return tx.SeenAsTheyAre(ctx, p.pass, skipped)
		}
		return tx.ForgetReads(ctx, p.pass, skipped)
	})
	return may, err
}

// types are the types of a pilot in the order of reading: Consent before the clinical ones, where it may keep them from being read.
func (p *pilot) types() []cura.ResourceType {
	types := cura.ResourceTypes()
	if !store.ConsentScoped(p.conn.PullConsent, cura.Observation) {
		return types
	}
	types = slices.DeleteFunc(types, func(t cura.ResourceType) bool { return t == cura.Consent })
	return slices.Insert(types, 1, cura.Consent)
}

// withheld are the clinical types that aren't piloted of a patient, by what Cura knows of their consents and by those that have
// just been read.
func (p *pilot) withheld(ctx context.Context, parts []part) (types []cura.ResourceType, err error) {
	if !store.ConsentScoped(p.conn.PullConsent, cura.Observation) {
		return nil, nil
	}
	var profile cura.ProfileID
	var fresh []consent.Consent
	for _, part := range parts {
		for _, d := range part.decisions {
			if d.Outcome == match.Matched {
				profile = d.Profile
			}
		}
		for i := range part.items {
			if r := part.items[i].Record; r.Consent != nil {
				fresh = append(fresh, consent.Consent{
					Source: "ehr", EnteredInError: r.EnteredInError, Entry: *r.Consent, ModifierExtension: r.Consent.ModifierExtension,
				})
			}
		}
	}
	err = p.a.store.InOrg(ctx, p.in.Org, func(tx *store.Tx) error {
		types, err = tx.WithheldTypes(ctx, p.conn.PullConsent, profile, fresh)
		return err
	})
	return types, err
}

// catchUp reads those whole whom searches of the whole system have brought in vain, and who permit by now. One who can't be
// read is tried again by the next pass, and keeps nobody else from being read. stop says to end the call, as end has it.
func (p *puller) catchUp(ctx context.Context) (stop bool, e end, err error) {
	if p.comparing || p.in.part() {
		return false, end{}, nil
	}
	for after := ""; ; {
		var members []store.Member
		err := p.inOrg(ctx, func(tx *store.Tx) error {
			var err error
			members, err = tx.LeftOut(ctx, p.pass, after, patientBatch)
			return err
		})
		if err != nil || len(members) == 0 {
			return false, end{}, err
		}
		if cursor, err := p.cursor(ctx); err != nil || cursor.Done {
			return false, end{}, err // the run has read the type to its end: the next one does it
		}
		after = members[len(members)-1].EHRID
		if members, err = p.permitting(ctx, members); err != nil {
			return false, end{}, err
		}
		for _, m := range members {
			if stop, e, err := p.interrupted(ctx); stop || err != nil {
				return true, e, err
			}
			v := &visit{puller: p, member: m, pass: p.pass, seen: map[string]bool{}}
			wait, err := v.search(ctx)
			switch {
			case wait > 0:
				return true, end{wait: wait}, nil
			case err != nil && aboutOnePatient(fault.KindOf(err)):
				p.a.log.WarnContext(ctx, "reading a patient who permits again", "kind", string(fault.KindOf(err)))
				continue
			case err != nil:
				return true, end{}, err
			case v.withheld:
				continue
			}
			if err := p.inOrg(ctx, func(tx *store.Tx) error { return tx.CaughtUp(ctx, p.pass, m.EHRID) }); err != nil {
				return true, end{}, err
			}
		}
	}
}

// modified reports whether a Consent is refused only because it has modifier extensions or implicit rules. It may deny: it
// is kept as one that can't be evaluated (DOMAIN §7), instead of being set aside and not heard.
func (in *intake) modified(raw []byte) bool {
	if in.pass.Type != cura.Consent {
		return false
	}
	var resource any
	if json.Unmarshal(raw, &resource) != nil {
		return false
	}
	stripped, err := json.Marshal(withoutModifiers(resource))
	return err == nil && in.a.validator.Validate(stripped) == nil
}

func withoutModifiers(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for name, member := range v {
			if name == "modifierExtension" || name == "implicitRules" || name == "_implicitRules" {
				delete(v, name)
				continue
			}
			v[name] = withoutModifiers(member)
		}
	case []any:
		for i := range v {
			v[i] = withoutModifiers(v[i])
		}
	}
	return value
}

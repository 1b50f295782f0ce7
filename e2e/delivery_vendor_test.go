package e2e

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// outcome is where an item ends, and a part of the words that say why.
type outcome struct{ state, why string }

// TestWhatEachVendorTakes pushes the same to every vendor's EHR. What it takes is there once; what it doesn't take says what to
// do instead, and nothing of it was sent.
func TestWhatEachVendorTakes(t *testing.T) {
	t.Parallel()
	delivered := outcome{state: "delivered"}
	all := map[string]outcome{
		"note": delivered, "note without an encounter": delivered, "problem": delivered, "encounter diagnosis": delivered, "procedure": delivered,
		"consent event": delivered,
	}
	manual := func(vendor, kind string) outcome {
		return outcome{"denied", vendor + " takes no " + kind + " by FHIR: starter connection edit --deliver " + kind + "=manual"}
	}
	const epic, oracle, athena = "Epic", "Oracle Health (Cerner)", "athenahealth"
	tests := map[string]map[string]outcome{
		"generic": all, "hapi": all, "medplum": all,
		"oracle": {
			"note": delivered, "note without an encounter": delivered, "problem": delivered, "encounter diagnosis": delivered, "procedure": delivered,
			"consent event": manual(oracle, "consent-event"),
		},
		"epic": {
			"note": delivered, "note without an encounter": {"denied", "encounter"},
			"problem": {state: "held"}, "encounter diagnosis": {"denied", "problem-list-item"},
			"procedure": manual(epic, "procedure"), "consent event": manual(epic, "consent-event"),
		},
		"athena": {
			"note": manual(athena, "note"), "note without an encounter": manual(athena, "note"), "problem": manual(athena, "diagnosis"),
			"encounter diagnosis": manual(athena, "diagnosis"), "procedure": manual(athena, "procedure"), "consent event": manual(athena, "consent-event"),
		},
	}
	for vendor, want := range tests {
		t.Run(vendor, func(t *testing.T) {
			t.Parallel()
			r := newDeliveryRig(t, vendor, 12)
			r.patients = []recipient{r.visited()}
			r.consent()
			to := r.patients[0]
			items := map[string]string{"consent event": storetest.Query[string](t, r.db, "SELECT item_id::text FROM push.outbox WHERE kind = 'consent-event'")[0]}
			for name, a := range r.oneOfEach(to) {
				items[name] = r.add(to, a)[0]
			}
			r.worker("")
			r.awaitIdle(time.Minute)
			accepted := 0
			for name, item := range items {
				state, why := r.state(item)
				require.Equal(t, want[name].state, state, "%s: %s", name, why)
				require.Contains(t, why, want[name].why, name)
				if state != "denied" {
					accepted++
				}
			}
			require.Len(t, r.ehr.Arrivals(), accepted, "what is denied isn't sent, and what is sent is taken")
			written := 0
			for _, typ := range []string{"DocumentReference", "Condition", "Procedure", "Consent"} {
				written += len(r.ehr.Written(typ))
			}
			require.Equal(t, accepted, written)
		})
	}
}

// visited is a patient who has an encounter.
func (r *deliveryRig) visited() recipient {
	r.t.Helper()
	visited := storetest.Query[string](r.t, r.db, "SELECT DISTINCT profile_id::text FROM cura.visits WHERE connection_id = $1::uuid", string(r.conn))
	at := slices.IndexFunc(r.patients, func(p recipient) bool { return slices.Contains(visited, string(p.profile)) })
	require.GreaterOrEqual(r.t, at, 0)
	return r.patients[at]
}

// oneOfEach is what a clinician may push about a patient's visit.
func (r *deliveryRig) oneOfEach(p recipient) map[string]cura.Artefact {
	r.t.Helper()
	encounter := storetest.Query[string](r.t, r.db, "SELECT ehr_id FROM cura.visits WHERE connection_id = $1::uuid AND profile_id = $2::uuid LIMIT 1",
		string(r.conn), string(p.profile))[0]
	note, alone := uniqueNote(), uniqueNote()
	note.EncounterEHRID = encounter
	artefact := func(kind cura.ArtefactKind) cura.Artefact {
		return cura.Artefact{
			Kind: kind, ID: uuid.NewString(), Version: 1, Author: cura.Author{Name: "Ada", Role: cura.RoleClinician}, AuthoredAt: note.AuthoredAt,
			EncounterEHRID: encounter,
		}
	}
	diagnosis := func(category, verification string) cura.Artefact {
		a := artefact(cura.Diagnosis)
		a.Diagnosis = &cura.DiagnosisContent{
			Code: cura.Concept{
				Text: "Type 2 diabetes", Codings: []cura.Coding{{System: "http://hl7.org/fhir/sid/icd-10-cm", Code: "E11.9", Display: "Type 2 diabetes mellitus without complications"}},
			},
			Category: category, ClinicalStatus: "active", VerificationStatus: verification,
		}
		return a
	}
	procedure := artefact(cura.Procedure)
	procedure.Procedure = &cura.ProcedureContent{
		Code:   cura.Concept{Codings: []cura.Coding{{System: "http://www.ama-assn.org/go/cpt", Code: "99213", Display: "Office visit"}}},
		Status: "completed", Performed: note.AuthoredAt.Format(time.DateOnly),
	}
	return map[string]cura.Artefact{
		"note": note, "note without an encounter": alone, "problem": diagnosis("problem-list-item", "provisional"),
		"encounter diagnosis": diagnosis("encounter-diagnosis", "confirmed"), "procedure": procedure,
	}
}

// TestWhatIsHeldStaysHeldWhereTheEHRDoesntShowIt: Epic keeps problems in a reconciliation queue, and doesn't show them to who wrote
// them; so they stay held in Cura until a person says what has become of them.
func TestWhatIsHeldStaysHeldWhereTheEHRDoesntShowIt(t *testing.T) {
	t.Parallel()
	r := newDeliveryRig(t, "epic", 12)
	r.patients = []recipient{r.visited()}
	r.consent()
	to := r.patients[0]
	artefacts := r.oneOfEach(to)
	item := r.add(to, artefacts["problem"])[0]
	r.worker("")
	r.awaitState(item, time.Minute, cura.ItemHeld)
	filed, err := r.ehr.FileHeld()
	require.NoError(t, err)
	require.Equal(t, 1, filed)
	next := r.add(to, artefacts["note"])[0] // which has the queue looked at again
	r.awaitState(next, time.Minute, cura.ItemDelivered)
	r.awaitIdle(time.Minute)
	state, _ := r.state(item)
	require.Equal(t, "held", state)
}

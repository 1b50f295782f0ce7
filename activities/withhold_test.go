package activities_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/config"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/gate"
	"github.com/cura-health/ehr-sync/internal/sandbox"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// consenting is a hospital whose patients' Consents are the test's: the EHR's own are gone.
func consenting(t *testing.T, strategy cura.Strategy, policy cura.PullConsent) *hospital {
	t.Helper()
	h := newHospital(t, options{
		strategy: strategy, roster: true, sandbox: sandbox.Config{Patients: 6},
		// No overlap brings by chance what would be missed.
		config: func(c *config.Config) { c.Overlap = 0 },
	})
	for id := range h.source(t)["Consent"] {
		require.NoError(t, h.ehr.Delete("Consent", id))
	}
	h.setPolicy(t, policy)
	return h
}

func (h *hospital) setPolicy(t *testing.T, policy cura.PullConsent) {
	t.Helper()
	require.NoError(t, h.db.InOrg(t.Context(), h.target.Org, func(tx *store.Tx) error {
		conn, err := tx.Connection(t.Context(), h.target.Connection)
		if err != nil {
			return err
		}
		conn.PullConsent = policy
		return tx.EditConnection(t.Context(), conn.Connection, "test")
	}))
}

// says has the EHR hold a patient's Consent, of which there is one; provision is R4 JSON.
func (h *hospital) says(t *testing.T, patient, provision string) {
	t.Helper()
	require.NoError(t, h.ehr.Put(json.RawMessage(`{"resourceType":"Consent","id":"consent-`+patient+`","status":"active",
		"scope":{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/consentscope","code":"patient-privacy"}]},
		"category":[{"coding":[{"system":"http://loinc.org","code":"59284-0"}]}],
		"policyRule":{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/v3-ActCode","code":"OPTIN"}]},
		"patient":{"reference":"Patient/`+patient+`"},"provision":`+provision+`}`)))
}

const (
	permit = `{"type":"permit"}`
	deny   = `{"type":"deny"}`
)

// pullConsented reads everything in the order of the workflow: Patient, Consent, the clinical types.
func (h *hospital) pullConsented(t *testing.T, kind cura.RunKind) map[cura.ResourceType]cura.Counts {
	t.Helper()
	id := h.begin(t, kind)
	all := map[cura.ResourceType]cura.Counts{}
	for _, typ := range append([]cura.ResourceType{cura.Patient, cura.Consent}, clinical()...) {
		counts, err := h.pull(t, activities.PullInput{Run: id, Type: typ, Full: kind == cura.RunBackfill})
		require.NoError(t, err, typ)
		require.True(t, counts.Balanced(), typ)
		all[typ] = counts
	}
	finished, err := run[activities.FinishResult](t, h, h.a.FinishRun, activities.FinishInput{Target: h.target, Run: id, Kind: kind})
	require.NoError(t, err, "the counts add up")
	require.Equal(t, "complete", finished.Outcome)
	return all
}

func clinical() []cura.ResourceType {
	return []cura.ResourceType{cura.AllergyIntolerance, cura.MedicationRequest, cura.MedicationStatement, cura.Observation, cura.Encounter}
}

// settle does what the worker's relay does: it settles what is due.
func (h *hospital) settle(t *testing.T) {
	t.Helper()
	due, _, err := h.db.DueWakeups(t.Context(), store.WakeConsent, 1000)
	require.NoError(t, err)
	for _, w := range due {
		_, err := h.db.SettleConsent(t.Context(), w.Org, cura.ProfileID(w.Ref), gate.Permits)
		require.NoError(t, err)
	}
}

const records = `(
	SELECT org_id, connection_id, profile_id, resource_type, ehr_id FROM cura.allergies
	UNION ALL SELECT org_id, connection_id, profile_id, resource_type, ehr_id FROM cura.medications
	UNION ALL SELECT org_id, connection_id, profile_id, resource_type, ehr_id FROM labs.observations
	UNION ALL SELECT org_id, connection_id, profile_id, resource_type, ehr_id FROM cura.visits) AS r`

// kept counts the clinical rows that Cura has of a patient.
func (h *hospital) kept(t *testing.T, patient string) int64 {
	t.Helper()
	return h.stored(t, `SELECT count(*) FROM `+records+` JOIN sync.patient_links l USING (org_id, connection_id, profile_id) WHERE l.ehr_id = $1`, patient)
}

// shown counts those of them that Cura's applications see.
func (h *hospital) shown(t *testing.T, patient string) (n int64) {
	t.Helper()
	profile := storetest.Query[string](t, h.db, "SELECT profile_id::text FROM sync.patient_links WHERE ehr_id = $1", patient)[0]
	conn, err := pgx.Connect(t.Context(), h.db.SuperuserURL)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	require.NoError(t, pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "SET LOCAL ROLE cura_clinical"); err != nil {
			return err
		}
		if _, err := tx.Exec(t.Context(), "SELECT set_config('app.org', $1, true)", h.target.Org); err != nil {
			return err
		}
		return tx.QueryRow(t.Context(), `SELECT count(*) FROM `+records+` WHERE profile_id = $1`, profile).Scan(&n)
	}))
	return n
}

// has counts the clinical resources that the EHR has of a patient.
func (h *hospital) has(t *testing.T, patient string) (n int64) {
	t.Helper()
	for _, typ := range clinical() {
		for _, raw := range h.source(t)[string(typ)] {
			type reference struct {
				Reference string `json:"reference"`
			}
			var about struct {
				Subject reference `json:"subject"`
				Patient reference `json:"patient"`
			}
			require.NoError(t, json.Unmarshal(raw, &about))
			if about.Subject.Reference+about.Patient.Reference == "Patient/"+patient {
				n++
			}
		}
	}
	return n
}

// asked counts the requests for something clinical that name a patient, or one resource.
func (h *hospital) asked(patient string) (n int) {
	for _, r := range h.ehr.Requests() {
		if slices.Contains(clinical(), cura.ResourceType(r.Type)) && (strings.Contains(r.Query, patient) || r.Kind == "read") {
			n++
		}
	}
	return n
}

func (h *hospital) withheldPatients(t *testing.T) (n int) {
	t.Helper()
	require.NoError(t, h.db.InOrg(t.Context(), h.target.Org, func(tx *store.Tx) error {
		var err error
		n, err = tx.WithheldPatients(t.Context(), h.target.Connection)
		return err
	}))
	return n
}

// TestPullConsent: each policy by each strategy. The first patient permits, the second denies, the third's consent can't be
// evaluated, the others have none.
func TestPullConsent(t *testing.T) {
	t.Parallel()
	for _, strategy := range cura.Strategies() {
		for policy, pulled := range map[cura.PullConsent]func(patient int) bool{
			cura.PullConsentNone:   func(int) bool { return true },
			cura.PullConsentOptOut: func(patient int) bool { return patient != 1 && patient != 2 },
			cura.PullConsentOptIn:  func(patient int) bool { return patient == 0 },
		} {
			t.Run(string(strategy)+" "+string(policy), func(t *testing.T) {
				t.Parallel()
				h := consenting(t, strategy, policy)
				patients := h.patients(t)
				h.says(t, patients[0], permit)
				h.says(t, patients[1], deny)
				h.says(t, patients[2], `{"type":"permit","provision":[{"type":"deny","action":[{"text":"whatever"}]}]}`)
				counts := h.pullConsented(t, cura.RunBackfill)
				withheld := 0
				for i, patient := range patients {
					if pulled(i) {
						require.Equal(t, h.has(t, patient), h.kept(t, patient), i)
						require.Equal(t, h.has(t, patient), h.shown(t, patient), i)
						continue
					}
					withheld++
					require.Zero(t, h.kept(t, patient), i)
					require.Zero(t, h.asked(patient), i)
				}
				require.Equal(t, withheld, h.withheldPatients(t))
				require.Equal(t, 3, counts[cura.Consent].Stored, "Consents are read of everybody")
				sum := cura.Counts{}
				for _, typ := range clinical() {
					sum = sum.Plus(counts[typ])
				}
				require.Equal(t, strategy == cura.StrategySystem && withheld > 0, sum.Withheld > 0, "what isn't asked for isn't served")
				require.EqualValues(t, sum.Landed+6+3, h.stored(t, "SELECT count(*) FROM sync.landing"), "nothing that is withheld lands")
			})
		}
	}
}

// TestARevocationHidesAndStopsAndAPermitBringsAll: what was read before is hidden, what changes meanwhile isn't read, and
// nothing of it is missing once the patient permits.
func TestARevocationHidesAndStopsAndAPermitBringsAll(t *testing.T) {
	t.Parallel()
	for _, strategy := range cura.Strategies() {
		for _, policy := range []cura.PullConsent{cura.PullConsentOptOut, cura.PullConsentOptIn} {
			t.Run(string(strategy)+" "+string(policy), func(t *testing.T) {
				t.Parallel()
				h := consenting(t, strategy, policy)
				for _, patient := range h.patients(t) {
					h.says(t, patient, permit)
				}
				h.pullConsented(t, cura.RunBackfill)
				h.settle(t)
				h.agrees(t)
				who, other := h.patients(t)[0], h.patients(t)[1]
				before := h.shown(t, who)
				require.Positive(t, before)

				h.says(t, who, deny)
				observe := func(id, patient string) {
					require.NoError(t, h.ehr.Put(json.RawMessage(
						`{"resourceType":"Observation","id":"`+id+`","status":"final","code":{"text":"x"},"subject":{"reference":"Patient/`+patient+`"}}`)))
				}
				observe("meanwhile", who)
				observe("another", other)
				asked := h.asked(who)
				h.pullConsented(t, cura.RunIncremental)
				h.settle(t)
				require.Equal(t, asked, h.asked(who), "nothing more is asked for")
				require.EqualValues(t, 0, h.stored(t, "SELECT count(*) FROM cura.withheld JOIN sync.patient_links USING (org_id, connection_id, profile_id) "+
					"JOIN sync.roster USING (org_id, connection_id, ehr_id) JOIN sync.watermarks w ON w.partition = member_id::text "+
					"WHERE w.resource_type NOT IN ('Patient', 'Consent')"), "nobody seems to lag because they are withheld")
				require.Zero(t, h.shown(t, who), "the rows are hidden")
				require.Equal(t, before, h.kept(t, who), "and stay")
				require.Equal(t, h.has(t, other), h.shown(t, other), "the others go on")
				require.Equal(t, 1, h.withheldPatients(t))

				h.pullConsented(t, cura.RunIncremental)
				require.Equal(t, before, h.kept(t, who))

				h.says(t, who, permit)
				h.pullConsented(t, cura.RunIncremental)
				h.settle(t)
				require.Zero(t, h.withheldPatients(t))
				require.Equal(t, h.has(t, who), h.shown(t, who))
				h.agrees(t)
				require.EqualValues(t, 0, h.stored(t, "SELECT count(*) FROM sync.left_out"))
			})
		}
	}
}

// TestARevocationInCuraHidesAtOnce: hidden by the transaction that makes it effective, before any pull.
func TestARevocationInCuraHidesAtOnce(t *testing.T) {
	t.Parallel()
	h := consenting(t, cura.StrategySystem, cura.PullConsentOptOut)
	h.pullConsented(t, cura.RunBackfill)
	who := h.patients(t)[0]
	profile := cura.ProfileID(storetest.Query[string](t, h.db, "SELECT profile_id::text FROM sync.patient_links WHERE ehr_id = $1", who)[0])
	require.Positive(t, h.shown(t, who))
	entry := func(status string) cura.ConsentEntry {
		return cura.ConsentEntry{
			Status: status, RootType: "deny", Provision: json.RawMessage(deny),
			Scope: cura.Concept{Codings: []cura.Coding{{System: "http://terminology.hl7.org/CodeSystem/consentscope", Code: "patient-privacy"}}},
		}
	}
	var id string
	change := func(status string) {
		require.NoError(t, h.db.EnsureHead(t.Context(), h.target.Org, profile))
		require.NoError(t, h.db.InOrg(t.Context(), h.target.Org, func(tx *store.Tx) error {
			var err error
			id, err = tx.ChangeConsent(t.Context(), store.ConsentChange{
				Profile: profile, ConsentID: id, Entry: entry(status), Actor: "officer", Role: cura.RoleConsentOfficer,
			})
			return err
		}))
		settled, err := h.db.SettleConsent(t.Context(), h.target.Org, profile, gate.Permits)
		require.NoError(t, err)
		require.Positive(t, settled.Epoch)
	}
	change("active")
	require.Zero(t, h.shown(t, who))
	change("inactive")
	require.Equal(t, h.has(t, who), h.shown(t, who))
}

// TestADenialOfOneTypeWithholdsThatTypeAlone: R4 provision.class.
func TestADenialOfOneTypeWithholdsThatTypeAlone(t *testing.T) {
	t.Parallel()
	h := consenting(t, cura.StrategySnapshot, cura.PullConsentOptOut)
	who := h.patients(t)[0]
	h.says(t, who, `{"type":"permit","provision":[{"type":"deny","class":[{"system":"http://hl7.org/fhir/resource-types","code":"Observation"}]}]}`)
	h.pullConsented(t, cura.RunBackfill)
	require.EqualValues(t, 0, h.stored(t, "SELECT count(*) FROM labs.observations o JOIN sync.patient_links l USING (org_id, connection_id, profile_id) WHERE l.ehr_id = $1", who))
	require.Positive(t, h.kept(t, who))
	require.Equal(t, [][]string{{"Observation"}}, storetest.Query[[]string](t, h.db, "SELECT types FROM cura.withheld"))
}

// TestAnotherPolicyTakesEffectAtOnce: without waiting for a pull, and on what was read before.
func TestAnotherPolicyTakesEffectAtOnce(t *testing.T) {
	t.Parallel()
	h := consenting(t, cura.StrategySystem, cura.PullConsentNone)
	patients := h.patients(t)
	h.says(t, patients[0], permit)
	h.says(t, patients[1], deny)
	h.pullConsented(t, cura.RunBackfill)
	h.agrees(t)
	require.EqualValues(t, 0, h.stored(t, "SELECT count(*) FROM cura.consent_heads"), "a policy of none costs nothing")
	require.Zero(t, h.withheldPatients(t))
	shown := func() (who []int) {
		for i, patient := range patients {
			if h.shown(t, patient) > 0 {
				who = append(who, i)
			}
		}
		return who
	}
	h.setPolicy(t, cura.PullConsentOptOut)
	require.Equal(t, []int{2, 3, 4, 5}, shown(), "whose consents have to be read is hidden until they are")
	h.settle(t)
	require.Equal(t, []int{0, 2, 3, 4, 5}, shown())
	h.setPolicy(t, cura.PullConsentOptIn)
	h.settle(t)
	require.Equal(t, []int{0}, shown())
	require.Equal(t, 5, h.withheldPatients(t))
	h.setPolicy(t, cura.PullConsentNone)
	require.Equal(t, []int{0, 1, 2, 3, 4, 5}, shown())
	h.pullConsented(t, cura.RunIncremental)
	h.agrees(t)
}

// TestAPolicyThatIsTakenBackBringsWhatItKeptOut: what searches of the system had brought in vain is read.
func TestAPolicyThatIsTakenBackBringsWhatItKeptOut(t *testing.T) {
	t.Parallel()
	for _, strategy := range cura.Strategies() {
		t.Run(string(strategy), func(t *testing.T) {
			t.Parallel()
			h := consenting(t, strategy, cura.PullConsentOptIn)
			h.pullConsented(t, cura.RunBackfill)
			require.Empty(t, h.have(t, "Observation"))
			h.setPolicy(t, cura.PullConsentNone)
			h.pullConsented(t, cura.RunIncremental)
			h.agrees(t)
		})
	}
}

// TestWhatIsntReadableIsWithheldToo: a resource that can't be mapped lands with its raw text, unless its patient denies.
func TestWhatIsntReadableIsWithheldToo(t *testing.T) {
	t.Parallel()
	h := consenting(t, cura.StrategySystem, cura.PullConsentOptOut)
	patients := h.patients(t)
	h.says(t, patients[0], deny)
	for i, subject := range []string{"Patient/" + patients[0], "Patient/" + patients[1], "Patient/nobody", "Group/1"} {
		require.NoError(t, h.ehr.Put(json.RawMessage(fmt.Sprintf(
			`{"resourceType":"Observation","id":"odd-%d","status":"no such status","code":{"text":"x"},"subject":{"reference":%q}}`, i, subject))))
	}
	counts := h.pullConsented(t, cura.RunBackfill)
	require.Equal(t, 2, counts[cura.Observation].Quarantined)
	require.Equal(t, []string{"odd-1 kept", "odd-3"}, storetest.Query[string](t, h.db, `
		SELECT ehr_id || CASE WHEN raw IS NULL THEN '' ELSE ' kept' END FROM sync.landing WHERE ehr_id LIKE 'odd-%' ORDER BY ehr_id`))
}

// TestAConsentWithAModifierExtensionIsHeard: it can't be evaluated, so it denies.
func TestAConsentWithAModifierExtensionIsHeard(t *testing.T) {
	t.Parallel()
	for where, consent := range map[string]string{
		"in the resource":  `"provision":{"type":"permit"},"modifierExtension":[{"url":"http://hospital.example/x","valueBoolean":true}]`,
		"in the provision": `"provision":{"type":"permit","modifierExtension":[{"url":"http://hospital.example/x","valueBoolean":true}]}`,
		"implicit rules":   `"provision":{"type":"permit"},"implicitRules":"http://hospital.example/rules"`,
	} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			h := consenting(t, cura.StrategyRoster, cura.PullConsentOptOut)
			who := h.patients(t)[0]
			require.NoError(t, h.ehr.Put(json.RawMessage(`{"resourceType":"Consent","id":"odd","status":"active",
				"scope":{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/consentscope","code":"patient-privacy"}]},
				"category":[{"coding":[{"system":"http://loinc.org","code":"59284-0"}]}],
				"policyRule":{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/v3-ActCode","code":"OPTIN"}]},
				"patient":{"reference":"Patient/`+who+`"},`+consent+`}`)))
			h.says(t, who, permit)
			counts := h.pullConsented(t, cura.RunBackfill)
			require.Equal(t, 2, counts[cura.Consent].Stored, "both are in the log, and the patient has one head and one halt")
			require.EqualValues(t, 1, h.stored(t, "SELECT count(*) FROM cura.consent_halts"))
			require.Zero(t, h.kept(t, who))
			require.Equal(t, []string{"cannot-evaluate"}, storetest.Query[string](t, h.db, "SELECT reason FROM cura.withheld"))
		})
	}
}

// TestAPatientWhoseConsentsCantBeReadIsntRead: nobody knows what they say.
func TestAPatientWhoseConsentsCantBeReadIsntRead(t *testing.T) {
	t.Parallel()
	h := consenting(t, cura.StrategyRoster, cura.PullConsentOptOut)
	who := h.patients(t)[0]
	h.says(t, who, permit)
	id := h.begin(t, cura.RunBackfill)
	_, err := h.pull(t, activities.PullInput{Run: id, Type: cura.Patient, Full: true})
	require.NoError(t, err)
	member := storetest.Query[string](t, h.db, "SELECT member_id::text FROM sync.roster WHERE ehr_id = $1", who)[0]
	require.NoError(t, h.db.InOrg(t.Context(), h.target.Org, func(tx *store.Tx) error {
		_, err := tx.OpenDeadLetter(t.Context(), store.DeadLetter{
			Connection: h.target.Connection, Type: cura.Consent, Partition: member, Run: id, Fault: fault.Transient, Detail: "a test", Attempts: 1,
		})
		return err
	}))
	_, err = h.pull(t, activities.PullInput{Run: id, Type: cura.Observation, Full: true})
	require.NoError(t, err)
	require.Zero(t, h.kept(t, who))
	h.pullConsented(t, cura.RunIncremental)
	require.Equal(t, h.has(t, who), h.kept(t, who))
}

// TestWhatIsWithheldIsNoDifference: the nightly comparison neither counts nor mends it.
func TestWhatIsWithheldIsNoDifference(t *testing.T) {
	t.Parallel()
	for _, strategy := range cura.Strategies() {
		t.Run(string(strategy), func(t *testing.T) {
			t.Parallel()
			h := consenting(t, strategy, cura.PullConsentOptOut)
			h.pullConsented(t, cura.RunBackfill)
			patients := h.patients(t)
			h.says(t, patients[0], deny)
			for _, id := range slices.Sorted(maps.Keys(h.source(t)["Observation"])) {
				require.NoError(t, h.ehr.Put(h.source(t)["Observation"][id])) // another version, of the same content
			}
			require.NoError(t, h.ehr.Put(json.RawMessage(
				`{"resourceType":"Observation","id":"meanwhile","status":"final","code":{"text":"x"},"subject":{"reference":"Patient/`+patients[0]+`"}}`)))
			h.pullConsented(t, cura.RunIncremental)
			asked := h.asked(patients[0])
			id := h.begin(t, cura.RunReconcile)
			for range 50 {
				result, err := run[activities.ReconcileResult](t, h, h.a.ReconcileType, activities.ReconcileInput{
					Target: h.target, Run: id, Type: cura.Observation, Repair: true,
				})
				require.NoError(t, err)
				if !result.Done {
					continue
				}
				r := result.Reconciliation
				require.Zero(t, r.Missing+r.Extra+r.Changed+r.Repaired)
				require.NotContains(t, h.have(t, "Observation"), "meanwhile")
				require.Equal(t, asked, h.asked(patients[0]), "nor does it ask for it")
				return
			}
			require.Fail(t, "the comparison never ends")
		})
	}
}

// TestAPilotHeedsConsentToo: of a patient who denies nothing clinical is read, whether Cura knows of it or not.
func TestAPilotHeedsConsentToo(t *testing.T) {
	t.Parallel()
	h := consenting(t, cura.StrategySystem, cura.PullConsentOptOut)
	patients := h.patients(t)
	h.says(t, patients[0], deny)
	h.says(t, patients[1], permit)
	id := h.beginFor(t, h.shadow, cura.RunPilot)
	result, err := run[activities.PilotResult](t, h, h.a.RunPilot, activities.PilotInput{Target: h.target, Run: id, WorkflowID: "test", Patients: len(patients)})
	require.NoError(t, err)
	require.Equal(t, len(patients), result.Patients)
	require.Zero(t, h.kept(t, patients[0]))
	for _, patient := range patients[1:] {
		require.Equal(t, h.has(t, patient), h.kept(t, patient))
	}
}

// comesLate has the EHR hold a Patient of whom it has had other resources before.
func (h *hospital) comesLate(t *testing.T) {
	t.Helper()
	require.NoError(t, h.ehr.Put(json.RawMessage(`{"resourceType":"Patient","id":"late","name":[{"family":"Late"}],"birthDate":"1980-01-01",
		"identifier":[{"system":"`+h.ehr.MRNSystem()+`","value":"L1"}]}`)))
}

// TestAPatientWhoComesLaterIsReadWhole: while a patient isn't linked, nobody knows their consents.
func TestAPatientWhoComesLaterIsReadWhole(t *testing.T) {
	t.Parallel()
	h := consenting(t, cura.StrategySystem, cura.PullConsentOptOut)
	require.NoError(t, h.ehr.Put(json.RawMessage(
		`{"resourceType":"Observation","id":"early","status":"final","code":{"text":"x"},"subject":{"reference":"Patient/late"}}`)))
	require.Equal(t, 1, h.pullConsented(t, cura.RunBackfill)[cura.Observation].Withheld)
	require.NotContains(t, h.have(t, "Observation"), "early")
	h.comesLate(t)
	h.pullConsented(t, cura.RunIncremental)
	h.agrees(t)
}

// TestWhatWaitsForItsPatientWaitsForTheirConsent: what has landed before its patient came is taken up once they may be pulled.
func TestWhatWaitsForItsPatientWaitsForTheirConsent(t *testing.T) {
	t.Parallel()
	h := consenting(t, cura.StrategySystem, cura.PullConsentNone)
	require.NoError(t, h.ehr.Put(json.RawMessage(
		`{"resourceType":"Observation","id":"early","status":"final","code":{"text":"x"},"subject":{"reference":"Patient/late"}}`)))
	require.Equal(t, 1, h.pullConsented(t, cura.RunBackfill)[cura.Observation].Quarantined)
	h.setPolicy(t, cura.PullConsentOptIn)
	h.comesLate(t)
	h.pullConsented(t, cura.RunIncremental)
	require.Zero(t, h.kept(t, "late"))
	h.says(t, "late", permit)
	h.pullConsented(t, cura.RunIncremental)
	h.settle(t)
	h.pullConsented(t, cura.RunIncremental)
	require.EqualValues(t, 1, h.shown(t, "late"))
}

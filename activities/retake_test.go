package activities_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/config"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/sandbox"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
	"github.com/cura-health/ehr-sync/mappings"
)

// retake decides again what has landed, as the workflow would, and gives what became of it by type.
func (h *hospital) retake(t *testing.T, in activities.RetakeInput, types ...cura.ResourceType) map[cura.ResourceType]activities.Retaken {
	t.Helper()
	id := uuid.NewString()
	begun, err := run[activities.BeginRemapResult](t, h, h.a.BeginRemap, activities.BeginRemapInput{Target: h.target, Run: id, WorkflowID: "test", Types: types})
	require.NoError(t, err)
	in.Target, in.Run, in.MappingVersion = h.target, id, begun.MappingVersion
	all := map[cura.ResourceType]activities.Retaken{}
	for _, typ := range begun.Types {
		in.Type = typ
		all[typ] = h.retakeType(t, in)
	}
	finished, err := run[activities.FinishResult](t, h, h.a.FinishRun, activities.FinishInput{Target: h.target, Run: id, Kind: cura.RunRemap})
	require.NoError(t, err)
	require.Equal(t, "complete", finished.Outcome)
	return all
}

func (h *hospital) retakeType(t *testing.T, in activities.RetakeInput) activities.Retaken {
	t.Helper()
	for range 200 {
		result, err := run[activities.RetakeResult](t, h, h.a.Retake, in)
		require.NoError(t, err, in.Type)
		if result.Done {
			return result.Retaken
		}
	}
	require.Fail(t, "it never ends")
	return activities.Retaken{}
}

// sum adds up what became of all types.
func sum(all map[cura.ResourceType]activities.Retaken) (n store.RetakeCounts) {
	for _, r := range all {
		n = n.Plus(r.RetakeCounts)
	}
	return n
}

// contents are all rows of what Cura has, and of what it knows of the EHR; not of runs, leases and the audit.
func (h *hospital) contents(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, table := range []string{
		"cura.profiles", "cura.profile_identifiers", "cura.allergies", "cura.medications", "labs.observations", "cura.visits", "cura.consent_log",
		"cura.consent_heads", "cura.consent_halts", "cura.withheld", "sync.patient_links", "sync.landing", "sync.resources", "sync.quarantine", "sync.reviews",
		"sync.watermarks", "sync.left_out",
	} {
		all[table] = storetest.Query[string](t, h.db, "SELECT coalesce(json_agg(t ORDER BY t::text)::text, '') FROM "+table+" t")[0]
	}
	return all
}

// landed is what the EHR has of a resource in Cura's landing.
func (h *hospital) relanded(t *testing.T, typ cura.ResourceType, id string, change func(raw map[string]any)) {
	t.Helper()
	var raw map[string]any
	require.NoError(t, json.Unmarshal(h.source(t)[string(typ)][id], &raw))
	change(raw)
	text, err := json.Marshal(raw)
	require.NoError(t, err)
	ids := storetest.Query[int64](t, h.db, `
		UPDATE sync.landing l SET raw = $1 FROM sync.resources r
		WHERE r.resource_type = $2 AND r.ehr_id = $3 AND l.landing_id = r.landing_id AND l.org_id = r.org_id RETURNING l.landing_id`,
		h.db.Pack(text), string(typ), id)
	require.Len(t, ids, 1)
}

func TestMappingAgainWhatIsAsItWasWritesNothing(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	h.pullAll(t, cura.RunBackfill)
	before, requests := h.contents(t), h.ehr.Requests()
	for range 2 {
		n := sum(h.retake(t, activities.RetakeInput{}))
		require.EqualValues(t, h.stored(t, "SELECT count(*) FROM sync.resources"), n.Same)
		require.Equal(t, n.Same, n.All())
		require.Equal(t, before, h.contents(t))
	}
	require.Len(t, h.ehr.Requests(), len(requests), "the EHR isn't asked")
}

func TestAChangeOfTheMappingReachesWhatWasReadBefore(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	h.glucose(t, h.patients(t)[0], "0.99")
	h.pullAll(t, cura.RunBackfill)
	o := h.setOverrides(t, h.target, "version: 1"+glucoseRules)
	before := h.contents(t)

	dry := h.retake(t, activities.RetakeInput{DryRun: true})
	require.Equal(t, before, h.contents(t), "a dry run writes nothing")
	require.Equal(t, map[string]int{
		"Observation.code.codings": 1, "Observation.value.quantity.code": 1, "Observation.value.quantity.system": 1,
		"Observation.value.quantity.unit": 1, "Observation.value.quantity.value": 1,
	}, dry[cura.Observation].Elements)
	require.Equal(t, 1, sum(dry).Changed)
	require.Equal(t, []string{"local-glucose"}, storetest.Query[string](t, h.db, "SELECT ehr_id FROM sync.remap_samples WHERE kind = 'changed'"))

	wet := h.retake(t, activities.RetakeInput{})
	require.Equal(t, dry, wet, "what the dry run said")
	require.Equal(t, "2345-7 99 mg/dL "+o.Version(), h.glucoseRow(t))
	for _, table := range []string{"cura.profiles", "cura.allergies", "cura.medications", "labs.observations", "cura.visits"} {
		require.Equal(t, []string{o.Version()}, storetest.Query[string](t, h.db, "SELECT DISTINCT mapping_version FROM "+table), table)
	}
	require.Empty(t, storetest.Query[string](t, h.db, "SELECT ehr_id FROM sync.remap_samples"), "the samples of the run before are dropped")
	after := h.contents(t)
	require.Zero(t, sum(h.retake(t, activities.RetakeInput{})).Changed)
	require.Equal(t, after, h.contents(t), "done again it changes nothing")
}

func TestMappingAgainGoesOnWhereItStood(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{config: func(c *config.Config) { c.PageSize, c.ChunkResources = 5, 5 }})
	h.pullAll(t, cura.RunBackfill)
	h.setOverrides(t, h.target, "version: 1"+glucoseRules)
	id := uuid.NewString()
	begun, err := run[activities.BeginRemapResult](t, h, h.a.BeginRemap, activities.BeginRemapInput{Target: h.target, Run: id, WorkflowID: "test"})
	require.NoError(t, err)
	in := activities.RetakeInput{Target: h.target, Run: id, Type: cura.Observation, MappingVersion: begun.MappingVersion}
	all := int(h.stored(t, "SELECT count(*) FROM sync.resources WHERE resource_type = 'Observation'"))
	calls := 0
	for done := false; !done; calls++ {
		result, err := run[activities.RetakeResult](t, h, h.a.Retake, in)
		require.NoError(t, err)
		require.Equal(t, min(5*(calls+1), all), result.Retaken.All(), "each call does one page more")
		done = result.Done
	}
	require.Equal(t, all/5+1, calls)
	require.Empty(t, storetest.Query[string](t, h.db, "SELECT after_ehr_id FROM sync.remaps")[0], "where it stood is PHI, and forgotten")
	again, err := run[activities.RetakeResult](t, h, h.a.Retake, in)
	require.NoError(t, err)
	require.True(t, again.Done)
	require.Equal(t, all, again.Retaken.All(), "an attempt that comes after the end doubles nothing")
}

func TestWhatCantBeMappedAnyMoreGoesIntoQuarantineAndComesOutAgain(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	const tooLong = "1.2345678901234567890123456789012345678901234567890"
	h.glucose(t, h.patients(t)[0], tooLong)
	h.pullAll(t, cura.RunBackfill)
	h.setOverrides(t, h.target, "version: 1"+glucoseRules)
	const reason = "Observation.valueQuantity: has more digits than can be converted"
	taken := h.retake(t, activities.RetakeInput{})[cura.Observation]
	require.Equal(t, 1, taken.Rejected)
	require.Equal(t, map[string]int{reason: 1}, taken.Reasons)
	open := storetest.Query[string](t, h.db, "SELECT quarantine_id::text FROM sync.quarantine WHERE closed_at IS NULL")
	require.Len(t, open, 1)

	retry := activities.RetakeInput{Selection: activities.Selection{Only: activities.RetakeQuarantined}, Ahead: true}
	for name, tc := range map[string]struct {
		selection activities.Selection
		same      int
	}{
		"all":                      {activities.Selection{}, 1},
		"by its id":                {activities.Selection{Quarantine: open[0]}, 1},
		"by another id":            {activities.Selection{Quarantine: uuid.NewString()}, 0},
		"by its element":           {activities.Selection{Path: "Observation.valueQuantity"}, 1},
		"by what it is within":     {activities.Selection{Path: "Observation"}, 1},
		"by the beginning of that": {activities.Selection{Path: "Observation.value"}, 0},
		"by words":                 {activities.Selection{Reason: "MORE DIGITS"}, 1},
		"by other words":           {activities.Selection{Reason: "missing"}, 0},
	} {
		retry.Selection = tc.selection
		retry.Only = activities.RetakeQuarantined
		require.Equal(t, store.RetakeCounts{Same: tc.same}, sum(h.retake(t, retry)), name)
	}
	require.Equal(t, open, storetest.Query[string](t, h.db, "SELECT quarantine_id::text FROM sync.quarantine WHERE closed_at IS NULL"), "its entry is the same")

	o := h.setOverrides(t, h.target, "version: 2\n")
	retry.Selection = activities.Selection{Only: activities.RetakeQuarantined}
	require.Equal(t, store.RetakeCounts{Accepted: 1}, sum(h.retake(t, retry)))
	require.EqualValues(t, 0, h.stored(t, "SELECT count(*) FROM sync.quarantine WHERE closed_at IS NULL"))
	require.Equal(t, "GLU "+tooLong+" g/L "+o.Version(), h.glucoseRow(t))
}

func TestTypesThatTheOverridesExcludeAreCountedAndStay(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	h.pullAll(t, cura.RunBackfill)
	h.setOverrides(t, h.target, "version: 1\ntypes:\n  exclude: [Encounter]\n")
	before := h.stored(t, "SELECT count(*) FROM cura.visits")
	taken := h.retake(t, activities.RetakeInput{})
	require.Equal(t, store.RetakeCounts{Excluded: int(before)}, taken[cura.Encounter].RetakeCounts)
	require.Equal(t, before, h.stored(t, "SELECT count(*) FROM cura.visits WHERE mapping_version = $1", mappings.Version))
}

func TestARunIsOfOneMapping(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	h.pullAll(t, cura.RunBackfill)
	in := activities.RetakeInput{Target: h.target, Run: uuid.NewString(), Type: cura.Patient, MappingVersion: mappings.Version}
	_, err := run[activities.BeginRemapResult](t, h, h.a.BeginRemap, activities.BeginRemapInput{Target: h.target, Run: in.Run, WorkflowID: "test"})
	require.NoError(t, err)
	h.setOverrides(t, h.target, "version: 1"+glucoseRules)
	_, err = run[activities.RetakeResult](t, h, h.a.Retake, in)
	require.Equal(t, fault.Conflict, kindOf(t, err))
	require.ErrorContains(t, err, "the mapping has changed since the run began")
}

func TestPatientsSelectWhatIsAboutThem(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	h.pullAll(t, cura.RunBackfill)
	who := h.patients(t)[0]
	link := storetest.Query[string](t, h.db, "SELECT link_id::text FROM sync.patient_links WHERE ehr_id = $1", who)
	taken := h.retake(t, activities.RetakeInput{Selection: activities.Selection{Patients: link}})
	require.Equal(t, 1, taken[cura.Patient].All())
	about := 0
	for _, typ := range clinical() {
		about += taken[typ].Same
	}
	require.EqualValues(t, h.has(t, who), about)
}

func TestWhatIsWithheldStaysWithheld(t *testing.T) {
	t.Parallel()
	h := consenting(t, cura.StrategySystem, cura.PullConsentOptOut)
	who := h.patients(t)[0]
	for _, patient := range h.patients(t) {
		h.says(t, patient, permit)
	}
	h.pullConsented(t, cura.RunBackfill)
	h.says(t, who, deny)
	h.pullConsented(t, cura.RunIncremental)
	h.settle(t)
	kept := h.kept(t, who)
	require.Positive(t, kept)
	o := h.setOverrides(t, h.target, "version: 1"+glucoseRules)
	n := sum(h.retake(t, activities.RetakeInput{}))
	require.EqualValues(t, kept, n.Withheld)
	require.Zero(t, h.shown(t, who))
	require.Equal(t, kept, h.stored(t, "SELECT count(*) FROM "+strings.ReplaceAll(records, "ehr_id FROM", "ehr_id, mapping_version FROM")+" WHERE mapping_version <> $1", o.Version()))
}

func TestResourcesThatLandedWithoutTheirContentAreSkipped(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	h.pullAll(t, cura.RunBackfill)
	storetest.Query[int64](t, h.db, `
		UPDATE sync.landing SET raw = NULL WHERE landing_id IN (SELECT landing_id FROM sync.resources WHERE resource_type = 'Encounter') RETURNING landing_id`)
	before := h.contents(t)
	taken := h.retake(t, activities.RetakeInput{})[cura.Encounter]
	require.Equal(t, taken.Skipped, taken.All())
	require.Positive(t, taken.Skipped)
	require.Equal(t, before, h.contents(t))
}

func TestAConsentThatComesOutOtherwiseIsLoggedOnceMore(t *testing.T) {
	t.Parallel()
	h := consenting(t, cura.StrategySystem, cura.PullConsentNone)
	who := h.patients(t)[0]
	h.says(t, who, permit)
	h.pullConsented(t, cura.RunBackfill)
	h.relanded(t, cura.Consent, "consent-"+who, func(raw map[string]any) { raw["status"] = "inactive" })
	dry := h.retake(t, activities.RetakeInput{DryRun: true})[cura.Consent]
	require.Equal(t, 1, dry.Changed)
	require.Equal(t, map[string]int{"Consent.status": 1}, dry.Elements)
	require.Equal(t, dry, h.retake(t, activities.RetakeInput{})[cura.Consent])
	require.Equal(t, []string{"active", "inactive"}, storetest.Query[string](t, h.db, "SELECT status FROM cura.consent_log ORDER BY entry_id"))
	require.Zero(t, h.retake(t, activities.RetakeInput{})[cura.Consent].Changed)
	require.EqualValues(t, 2, h.stored(t, "SELECT count(*) FROM cura.consent_log"))
}

func TestAWithdrawalFollowsTheMapping(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	h.glucose(t, h.patients(t)[0], "0.99")
	h.pullAll(t, cura.RunBackfill)
	for _, status := range []string{"entered-in-error", "final"} {
		h.relanded(t, cura.Observation, "local-glucose", func(raw map[string]any) { raw["status"] = status })
		require.Equal(t, 1, h.retake(t, activities.RetakeInput{})[cura.Observation].Changed)
		for _, table := range []string{"sync.resources", "labs.observations"} {
			gone := storetest.Query[bool](t, h.db, "SELECT gone_at IS NOT NULL FROM "+table+" WHERE ehr_id = 'local-glucose'")
			require.Equal(t, []bool{status == "entered-in-error"}, gone, table)
		}
	}
}

func TestWhatCuraHasChangedStaysAndNobodyIsAsked(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	h.pullAll(t, cura.RunBackfill)
	profile := cura.ProfileID(storetest.Query[string](t, h.db, "SELECT profile_id::text FROM cura.profiles ORDER BY 1 LIMIT 1")[0])
	storetest.Query[int64](t, h.db, "UPDATE sync.resources SET last_updated = NULL RETURNING landing_id") // as where the EHR says no times
	require.NoError(t, h.db.InOrg(t.Context(), h.target.Org, func(tx *store.Tx) error {
		_, err := tx.ChangeProfile(t.Context(), profile, func(p *cura.Profile) error {
			p.Name = &cura.Name{Display: "As Cura says", Family: "As Cura says"}
			return nil
		}, "test")
		return err
	}))
	before := h.contents(t)
	n := sum(h.retake(t, activities.RetakeInput{}))
	require.Equal(t, n.All(), n.Same)
	require.Equal(t, before["cura.profiles"], h.contents(t)["cura.profiles"])
	require.Equal(t, before["sync.reviews"], h.contents(t)["sync.reviews"])
}

func TestAReaderAndAMappingOfTheSameTypeLeaveEachOtherAlone(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{config: func(c *config.Config) { c.PageSize, c.ChunkTime = 3, 20*time.Millisecond }})
	h.pullAll(t, cura.RunBackfill)
	h.setOverrides(t, h.target, "version: 1"+glucoseRules)
	storetest.Query[int64](t, h.db, `
		UPDATE sync.leases SET holder = 'a reader', expires_at = now() + interval '1 minute' WHERE resource_type = 'Observation' RETURNING fence`)
	begun, err := run[activities.BeginRemapResult](t, h, h.a.BeginRemap, activities.BeginRemapInput{Target: h.target, Run: uuid.NewString(), WorkflowID: "test"})
	require.NoError(t, err)
	id := storetest.Query[string](t, h.db, "SELECT run_id::text FROM sync.runs WHERE kind = 'remap'")[0]
	in := activities.RetakeInput{Target: h.target, Run: id, Type: cura.Observation, MappingVersion: begun.MappingVersion}
	before := h.contents(t)
	held, err := run[activities.RetakeResult](t, h, h.a.Retake, in)
	require.NoError(t, err)
	require.True(t, held.Yielded, "it waits for the reader")
	require.Zero(t, held.Retaken.All())
	require.Equal(t, before, h.contents(t))
	storetest.Query[int64](t, h.db, "UPDATE sync.leases SET holder = '', expires_at = '-infinity' WHERE holder = 'a reader' RETURNING fence")
	require.Positive(t, h.retakeType(t, in).Same)
	require.Empty(t, storetest.Query[string](t, h.db, "SELECT holder FROM sync.leases WHERE holder <> ''"), "and keeps none out afterwards")
}

// TestAPullMeanwhileIsNeitherKeptOutNorUndone maps again and reads at once, with changes at the EHR.
func TestAPullMeanwhileIsNeitherKeptOutNorUndone(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{sandbox: sandbox.Config{Patients: 8}, config: func(c *config.Config) { c.Overlap, c.PageSize = 0, 3 }})
	h.pullAll(t, cura.RunBackfill)
	patient := h.patients(t)[0]
	reader := *h
	reader.env = h.environment()
	o := h.setOverrides(t, h.target, "version: 1"+glucoseRules)
	var both sync.WaitGroup
	both.Go(func() {
		for i := range 6 {
			reader.glucose(t, patient, fmt.Sprintf("0.%d", 90+i))
			reader.pullAll(t, cura.RunIncremental)
		}
	})
	for range 6 {
		h.retake(t, activities.RetakeInput{})
	}
	both.Wait()
	require.Equal(t, "2345-7 95 mg/dL "+o.Version(), h.glucoseRow(t), "the last version stands")
	h.agrees(t)
	n := sum(h.retake(t, activities.RetakeInput{}))
	require.Equal(t, n.All(), n.Same)
	require.EqualValues(t, 0, h.stored(t, "SELECT count(*) FROM sync.leases WHERE holder <> ''"))
}

// twins has the EHR serve two patients with the same identifier, and a record of the second, who waits for a person.
func (h *hospital) twins(t *testing.T) {
	t.Helper()
	for _, id := range []string{"twin-a", "twin-b"} {
		require.NoError(t, h.ehr.Put(json.RawMessage(`{"resourceType":"Patient","id":"`+id+`","birthDate":"1980-01-01","identifier":[{"system":"`+h.ehr.MRNSystem()+`","value":"SAME-1"}]}`)))
	}
	require.NoError(t, h.ehr.Put(json.RawMessage(`{"resourceType":"Observation","id":"of-b","status":"final","code":{"text":"x"},"subject":{"reference":"Patient/twin-b"}}`)))
}

func TestADecisionIsAppliedWithWhatWaitsForIt(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"at once", "by the next pull", "by mapping all again"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t, options{})
			h.twins(t)
			h.pullAll(t, cura.RunBackfill)
			reviews := storetest.Query[string](t, h.db, "SELECT review_id::text FROM sync.reviews WHERE closed_at IS NULL")
			require.Len(t, reviews, 1)
			before := h.contents(t)
			require.Zero(t, sum(h.retake(t, activities.RetakeInput{})).Changed)
			require.Equal(t, before, h.contents(t), "an open review keeps its place")

			require.NoError(t, h.db.InOrg(t.Context(), h.target.Org, func(tx *store.Tx) error {
				_, err := tx.DecideReview(t.Context(), reviews[0], store.ReviewChoice{Decision: cura.DecideNew}, "test")
				return err
			}))
			switch how {
			case "at once":
				h.retake(t, activities.RetakeInput{Selection: activities.Selection{Only: activities.RetakeDecided}, Ahead: true})
			case "by the next pull":
				h.pullAll(t, cura.RunIncremental)
			default:
				taken := h.retake(t, activities.RetakeInput{})
				require.Equal(t, 1, taken[cura.Patient].Accepted)
				require.Equal(t, 1, taken[cura.Observation].Accepted)
			}
			require.EqualValues(t, 1, h.stored(t, "SELECT count(*) FROM sync.reviews WHERE applied_at IS NOT NULL AND closed_at IS NOT NULL"))
			require.EqualValues(t, 1, h.stored(t, "SELECT count(*) FROM labs.observations WHERE ehr_id = 'of-b'"))
			require.EqualValues(t, 0, h.stored(t, "SELECT count(*) FROM sync.reviews WHERE closed_at IS NULL"))
		})
	}
}

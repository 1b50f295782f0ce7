package activities_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/errgroup"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/config"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/sandbox"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

func TestEverythingServedIsStoredAndASecondReadStoresNothing(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	served := h.ehr.Counts()
	for typ, counts := range h.pullAll(t, cura.RunBackfill) {
		require.Equal(t, served[string(typ)], counts.Served, typ)
		require.Equal(t, counts.Served, counts.Stored, typ)
		require.Equal(t, counts.Served, counts.Landed, typ)
		require.True(t, counts.Balanced(), typ)
	}
	tables := map[string]string{
		"Patient": "cura.profiles", "AllergyIntolerance": "cura.allergies", "Observation": "labs.observations", "Encounter": "cura.visits", "Consent": "cura.consent_log",
	}
	for typ, table := range tables {
		require.EqualValues(t, served[typ], h.stored(t, "SELECT count(*) FROM "+table), table)
	}
	require.EqualValues(t, served["MedicationRequest"]+served["MedicationStatement"], h.stored(t, "SELECT count(*) FROM cura.medications"))

	for typ, counts := range h.pullAll(t, cura.RunBackfill) {
		require.Equal(t, cura.Counts{Served: served[string(typ)], Unchanged: served[string(typ)]}, counts, typ)
	}
}

func TestTheIncrementalReadBringsWhatChanged(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	h.pullAll(t, cura.RunBackfill)
	rehearsal, err := h.ehr.Rehearse(t.Context())
	require.NoError(t, err)
	var sum cura.Counts
	for _, counts := range h.pullAll(t, cura.RunIncremental) {
		sum = sum.Plus(counts)
	}
	require.Equal(t, len(rehearsal.Done), sum.Landed, "each resource that was touched lands once")
	require.Equal(t, sum.Landed, sum.Stored+sum.Quarantined)
	require.Positive(t, sum.Quarantined, "the rehearsal makes one invalid")
	require.True(t, sum.Balanced())
	sum = cura.Counts{}
	for _, counts := range h.pullAll(t, cura.RunIncremental) {
		sum = sum.Plus(counts)
	}
	require.Zero(t, sum.Landed, "the overlap is read again and changes nothing")
	require.Positive(t, sum.Unchanged)
}

// TestServersAsTheyAre: what real servers do to pages; nothing is lost, nothing is doubled.
func TestServersAsTheyAre(t *testing.T) {
	t.Parallel()
	for name, faults := range map[string]sandbox.Faults{
		"a Bundle without total":                 {NoTotal: true},
		"an empty page with next":                {EmptyPage: true},
		"duplicate rows across pages":            {DuplicateRows: true},
		"relative next links":                    {RelativeNext: true},
		"one request in three throttled":         {Throttle: sandbox.Throttle{EveryN: 3}},
		"one request in five fails":              {ErrorRate: 0.2},
		"a slow server":                          {LatencyMS: 5},
		"page links that can be used once":       {PageExpiresAfterUses: 1},
		"a token that dies on the way":           {TokenLifetimeSeconds: 1},
		"a server whose clock is an hour behind": {ClockSkewSeconds: -3600},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t, options{sandbox: sandbox.Config{Faults: faults}, config: func(c *config.Config) { c.RetryAttempts = 20 }})
			served := h.ehr.Counts()
			for typ, counts := range h.pullAll(t, cura.RunBackfill) {
				require.Equal(t, served[string(typ)], counts.Stored, typ)
				require.Equal(t, served[string(typ)], counts.Landed, typ)
				require.True(t, counts.Balanced(), typ)
				require.GreaterOrEqual(t, counts.Served, counts.Stored, typ)
			}
		})
	}
}

func kindOf(t *testing.T, err error) fault.Kind {
	t.Helper()
	var app *temporal.ApplicationError
	require.ErrorAs(t, err, &app)
	return fault.Kind(app.Type())
}

func TestServersThatCantBeRead(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		faults sandbox.Faults
		kind   fault.Kind
	}{
		"an endless next-link loop": {sandbox.Faults{NextLoop: true}, fault.Protocol},
		"HTML instead of JSON":      {sandbox.Faults{HTML: true}, fault.Protocol},
		"a revoked client":          {sandbox.Faults{RevokedClient: true}, fault.Auth},
		"a forbidden type":          {sandbox.Faults{RefuseTypes: []string{"Observation"}}, fault.Scope},
		"a missing type":            {sandbox.Faults{MissingTypes: []string{"Observation"}}, fault.Unsupported},
		"nothing but 500":           {sandbox.Faults{ErrorRate: 1}, fault.Transient},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t, options{})
			id := h.begin(t, cura.RunBackfill)
			_, err := h.pull(t, activities.PullInput{Run: id, Type: cura.Patient, Full: true})
			require.NoError(t, err)
			require.NoError(t, h.ehr.SetFaults(c.faults))
			_, err = h.pull(t, activities.PullInput{Run: id, Type: cura.Observation, Full: true})
			require.Equal(t, c.kind, kindOf(t, err), "%v", err)
			var app *temporal.ApplicationError
			require.ErrorAs(t, err, &app)
			require.True(t, app.NonRetryable(), "it has been tried enough")
			require.EqualValues(t, 0, h.stored(t, "SELECT count(*) FROM sync.watermarks WHERE resource_type = 'Observation'"), "the watermark stands still")

			require.NoError(t, h.ehr.SetFaults(sandbox.Faults{}))
			counts, err := h.pull(t, activities.PullInput{Run: id, Type: cura.Observation, Full: true})
			require.NoError(t, err)
			require.Equal(t, h.ehr.Counts()["Observation"], int(h.stored(t, "SELECT count(*) FROM labs.observations")), "%+v", counts)
		})
	}
}

func TestANextLinkToAnotherHostIsNotFollowed(t *testing.T) {
	t.Parallel()
	var hits atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	defer other.Close()
	h := newHospital(t, options{sandbox: sandbox.Config{Faults: sandbox.Faults{NextOtherHost: other.URL}}})
	id := h.begin(t, cura.RunBackfill)
	_, err := h.pull(t, activities.PullInput{Run: id, Type: cura.Patient, Full: true})
	require.Equal(t, fault.Protocol, kindOf(t, err))
	require.NotContains(t, err.Error(), strings.TrimPrefix(other.URL, "http://"), "a link may hold PHI and isn't shown")
	require.Zero(t, hits.Load(), "neither the request nor the token went there")
}

func TestMalformedResourcesAreQuarantinedWithTheirReasons(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{sandbox: sandbox.Config{Faults: sandbox.Faults{Malformed: map[string]float64{"Observation": 0.3}}}})
	counts := h.pullAll(t, cura.RunBackfill)[cura.Observation]
	require.Positive(t, counts.Quarantined)
	require.Equal(t, h.ehr.Counts()["Observation"], counts.Stored+counts.Quarantined)
	type reason struct {
		Path string `json:"path"`
		Text string `json:"text"`
	}
	for _, text := range storetest.Query[string](t, h.db, "SELECT reasons::text FROM sync.quarantine") {
		var reasons []reason
		require.NoError(t, json.Unmarshal([]byte(text), &reasons))
		require.NotEmpty(t, reasons)
		for _, r := range reasons {
			require.True(t, strings.HasPrefix(r.Path, "Observation"), r.Path)
			require.NotEmpty(t, r.Text)
		}
	}
	require.EqualValues(t, counts.Quarantined, h.stored(t, "SELECT count(*) FROM audit.records WHERE kind = 'resource.rejected'"))
}

func TestAResourceAboveTheCapIsCountedAndTheRunGoesOn(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{sandbox: sandbox.Config{Faults: sandbox.Faults{Oversize: map[string]int{"Observation": 20 << 20}}}})
	for range 2 {
		all := h.pullAll(t, cura.RunBackfill)
		counts := all[cura.Observation]
		require.Equal(t, h.ehr.Counts()["Observation"], counts.Served)
		require.True(t, counts.Balanced())
	}
	require.EqualValues(t, 1, h.stored(t, "SELECT count(*) FROM sync.quarantine WHERE reasons::text LIKE '%above the cap%'"))
	require.EqualValues(t, 0, h.stored(t, "SELECT count(*) FROM sync.landing WHERE length(raw) > 1000000"), "its bytes aren't kept")
}

// TestWhatWaitedForItsPatientIsStoredOnceThePatientIsThere: also when the EHR never serves the record again, because it
// is older than the overlap.
func TestWhatWaitedForItsPatientIsStoredOnceThePatientIsThere(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{config: func(c *config.Config) { c.Overlap = 0 }})
	require.NoError(t, h.ehr.Put(json.RawMessage(`{"resourceType":"Observation","id":"early","status":"final","code":{"text":"x"},"subject":{"reference":"Patient/late-patient"}}`)))
	counts := h.pullAll(t, cura.RunBackfill)
	require.Equal(t, 1, counts[cura.Observation].Quarantined, "its patient hasn't been served")
	storetest.Query[string](t, h.db, "UPDATE sync.watermarks SET watermark = watermark + interval '2 seconds' RETURNING resource_type")

	late := `{"resourceType":"Patient","id":"late-patient","identifier":[{"system":"` + h.ehr.MRNSystem() + `","value":"LATE-1"}]}`
	require.NoError(t, h.ehr.Put(json.RawMessage(late)))
	id := h.begin(t, cura.RunIncremental)
	_, err := h.pull(t, activities.PullInput{Run: id, Type: cura.Patient, Full: true})
	require.NoError(t, err)
	served, err := h.pull(t, activities.PullInput{Run: id, Type: cura.Observation})
	require.NoError(t, err)
	require.Zero(t, served.Served, "the EHR doesn't serve it again")
	require.EqualValues(t, 1, h.stored(t, "SELECT count(*) FROM labs.observations WHERE ehr_id = 'early'"))
	require.EqualValues(t, 1, h.stored(t, "SELECT count(*) FROM sync.landing WHERE ehr_id = 'early'"), "its raw version had landed before")
	require.EqualValues(t, 0, h.stored(t, "SELECT count(*) FROM sync.quarantine WHERE closed_at IS NULL"))
	require.EqualValues(t, 1, h.stored(t, "SELECT count(*) FROM audit.records WHERE kind = 'resources.woken'"))
}

func TestPatientsThatSomeoneMustDecideAboutWaitWithTheirRecords(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	patient := func(id, mrn string) json.RawMessage {
		return json.RawMessage(`{"resourceType":"Patient","id":"` + id + `","birthDate":"1980-01-01","identifier":[{"system":"` + h.ehr.MRNSystem() + `","value":"` + mrn + `"}]}`)
	}
	require.NoError(t, h.ehr.Put(patient("twin-a", "SAME-1")))
	require.NoError(t, h.ehr.Put(patient("twin-b", "SAME-1")))
	require.NoError(t, h.ehr.Put(json.RawMessage(`{"resourceType":"Observation","id":"of-b","status":"final","code":{"text":"x"},"subject":{"reference":"Patient/twin-b"}}`)))
	counts := h.pullAll(t, cura.RunBackfill)
	require.Equal(t, 1, counts[cura.Patient].InReview, "two patients of one connection share the identifier")
	require.Equal(t, 1, counts[cura.Observation].InReview)
	require.EqualValues(t, 1, h.stored(t, "SELECT count(*) FROM sync.reviews WHERE closed_at IS NULL"))
	require.EqualValues(t, 0, h.stored(t, "SELECT count(*) FROM (SELECT 1 FROM sync.patient_links GROUP BY org_id, connection_id, profile_id HAVING count(*) > 1) shared"))
}

func TestAnotherRunThatHoldsTheLeaseIsLeftAlone(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{config: func(c *config.Config) { c.ChunkResources = 1 }})
	first, second := h.begin(t, cura.RunBackfill), h.begin(t, cura.RunIncremental)
	// A reader that was killed holds its lease until it runs out.
	require.Equal(t, []int64{1}, storetest.Query[int64](t, h.db, `
		INSERT INTO sync.leases (org_id, connection_id, resource_type, holder, fence, expires_at)
		VALUES ($1, $2, 'Patient', $3, 1, now() + interval '1 minute') RETURNING fence`, h.target.Org, h.target.Connection, first))
	_, err := run[activities.PullResult](t, h, h.a.PullType, activities.PullInput{Target: h.target, Run: second, Type: cura.Patient})
	require.Equal(t, fault.Busy, kindOf(t, err))
	var app *temporal.ApplicationError
	require.True(t, errors.As(err, &app) && app.NonRetryable(), "whether to wait is the workflow's to decide")
	_, err = run[activities.PullResult](t, h, h.a.PullType, activities.PullInput{Target: h.target, Run: first, Type: cura.Patient})
	require.NoError(t, err, "the same run takes over from itself")
}

func TestAChunkEndsAndTheNextGoesOn(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{config: func(c *config.Config) { c.ChunkResources = 10 }})
	id := h.begin(t, cura.RunBackfill)
	_, err := h.pull(t, activities.PullInput{Run: id, Type: cura.Patient, Full: true})
	require.NoError(t, err)
	in := activities.PullInput{Target: h.target, Run: id, Type: cura.Observation, Full: true}
	result, err := run[activities.PullResult](t, h, h.a.PullType, in)
	require.NoError(t, err)
	require.False(t, result.Done)
	require.Equal(t, 14, result.Counts.Served, "two pages of seven: at least ten resources")
	rest, err := h.pull(t, in)
	require.NoError(t, err)
	require.Equal(t, h.ehr.Counts()["Observation"], 14+rest.Served)
	again, err := run[activities.PullResult](t, h, h.a.PullType, in)
	require.NoError(t, err)
	require.Equal(t, activities.PullResult{Done: true}, again, "a pass that is over isn't read again by its run")
}

func TestASecretThatDoesntOpenIsAMatterOfConfiguration(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	storetest.Query[string](t, h.db, "UPDATE sync.credentials SET sealed = 'x' RETURNING kind")
	_, err := run[activities.PullResult](t, h, h.a.PullType, activities.PullInput{Target: h.target, Run: uuid.NewString(), Type: cura.Patient})
	require.Equal(t, fault.Config, kindOf(t, err))
	require.ErrorContains(t, err, "starter connection edit")
}

// TestOddValuesStopOnlyTheirOwnResource: values that are legal, or nearly, and that some index, column or text can't hold.
func TestOddValuesStopOnlyTheirOwnResource(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{sandbox: sandbox.Config{Patients: 2}})
	mrn := h.ehr.MRNSystem()
	long := strings.Repeat("ä", 5000)
	patient := func(id, rest string) {
		require.NoError(t, h.ehr.Put(json.RawMessage(`{"resourceType":"Patient","id":"`+id+`","birthDate":"1980-01-01"`+rest+`}`)), id)
	}
	observation := func(id, rest string) {
		require.NoError(t, h.ehr.Put(json.RawMessage(`{"resourceType":"Observation","id":"`+id+`","status":"final","subject":{"reference":"Patient/good"}`+rest+`}`)), id)
	}
	patient("good", `,"identifier":[{"system":"`+mrn+`","value":"GOOD"}]`)
	patient("long-identifier", `,"identifier":[{"system":"`+mrn+`","value":"`+long+`"}]`)
	patient("same-identifier-twice", `,"identifier":[{"system":"`+mrn+`","value":"T1"},{"system":"`+mrn+`","value":" T1 "},{"system":"`+mrn+`","value":"T1"}]`)
	patient("two-numbers", `,"identifier":[{"system":"`+mrn+`","value":"N1"},{"system":"`+mrn+`","value":"N2"}]`)
	patient("nul", `,"identifier":[{"system":"`+mrn+`","value":"NUL"}],"name":[{"family":"a\u0000b"}]`)
	patient("emoji", `,"identifier":[{"system":"`+mrn+`","value":"E1"}],"name":[{"family":"Ōe 健三郎 👩🏽‍⚕️"}]`)
	observation("long-code", `,"code":{"coding":[{"system":"urn:x","code":"`+strings.Repeat("c", 5000)+`"}]}`)
	observation("long-text", `,"code":{"text":"x"},"valueString":"`+long+`"`)
	observation("year-1", `,"code":{"text":"x"},"effectiveDateTime":"0001-01-01"`)
	observation("year-9999", `,"code":{"text":"x"},"effectiveDateTime":"9999-12-31"`)
	observation("digits", `,"code":{"text":"x"},"valueQuantity":{"value":1.2300000000000000000000000001e-5}`)
	counts := h.pullAll(t, cura.RunBackfill)
	require.Equal(t, h.ehr.Counts()["Patient"], counts[cura.Patient].Served)
	require.Equal(t, 1, counts[cura.Patient].Quarantined, "the one with a NUL")
	require.Equal(t, 1, counts[cura.Patient].InReview, "the one whose identifier is too long to be looked up by")
	require.Equal(t, h.ehr.Counts()["Observation"], counts[cura.Observation].Stored)
	require.Equal(t, []string{"Ōe 健三郎 👩🏽‍⚕️"}, storetest.Query[string](t, h.db, "SELECT family FROM cura.profiles WHERE ehr_id = 'emoji'"))
	require.Equal(t, []string{"1.2300000000000000000000000001e-5"}, storetest.Query[string](t, h.db, "SELECT value FROM labs.observations WHERE ehr_id = 'digits'"))
}

func TestAPageThatTheDatabaseRefusesLosesOnlyWhatItCantHold(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	// A stand-in for whatever nobody has thought of: one value that a table refuses.
	super, err := pgx.Connect(t.Context(), h.db.SuperuserURL)
	require.NoError(t, err)
	defer super.Close(t.Context())
	_, err = super.Exec(t.Context(), "ALTER TABLE labs.observations ADD CONSTRAINT odd CHECK (ehr_id <> 'odd')")
	require.NoError(t, err)
	require.NoError(t, h.ehr.Put(json.RawMessage(`{"resourceType":"Patient","id":"good","identifier":[{"system":"`+h.ehr.MRNSystem()+`","value":"GOOD"}]}`)))
	require.NoError(t, h.ehr.Put(json.RawMessage(`{"resourceType":"Observation","id":"odd","status":"final","code":{"text":"x"},"subject":{"reference":"Patient/good"}}`)))
	counts := h.pullAll(t, cura.RunBackfill)[cura.Observation]
	require.Equal(t, 1, counts.Quarantined)
	require.Equal(t, h.ehr.Counts()["Observation"]-1, counts.Stored)
	require.EqualValues(t, 1, h.stored(t, "SELECT count(*) FROM sync.quarantine WHERE reasons::text LIKE '%can''t hold%'"))
}

// TestAServerThatForgetsItsPageLinksIsReadInShorterChains: by the time that the next chunk begins, every link of the one
// before is forgotten.
func TestAServerThatForgetsItsPageLinksIsReadInShorterChains(t *testing.T) {
	t.Parallel()
	var later atomic.Int64
	clock := func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	h := newHospital(t, options{sandbox: sandbox.Config{Now: clock}, config: func(c *config.Config) { c.ChunkResources = 1 }})
	id := h.begin(t, cura.RunBackfill)
	for _, typ := range []cura.ResourceType{cura.Patient, cura.Observation} {
		in := activities.PullInput{Target: h.target, Run: id, Type: typ, Full: true}
		for calls := 0; ; calls++ {
			require.Less(t, calls, 500, "it ends")
			result, err := run[activities.PullResult](t, h, h.a.PullType, in)
			require.NoError(t, err)
			if result.Done {
				break
			}
			later.Add(int64(time.Hour))
		}
		require.Len(t, h.have(t, string(typ)), h.ehr.Counts()[string(typ)])
	}
}

func TestPagesThatAreTooLargeBecomeSmaller(t *testing.T) {
	t.Parallel()
	// Each of a page's resources is below the cap of a resource, and seven of them are above the cap of a page.
	h := newHospital(t, options{config: func(c *config.Config) { c.MaxResourceBytes = 20 << 20 }})
	id := h.begin(t, cura.RunBackfill)
	_, err := h.pull(t, activities.PullInput{Run: id, Type: cura.Patient, Full: true})
	require.NoError(t, err)
	big := map[string]int{}
	for _, found := range []string{"a", "b", "c", "d", "e"} {
		require.NoError(t, h.ehr.Put(json.RawMessage(`{"resourceType":"Encounter","id":"`+found+`","status":"finished","class":{"code":"AMB"},"subject":{"reference":"Patient/none"}}`)))
		big["Encounter/"+found] = 15 << 20
	}
	require.NoError(t, h.ehr.SetFaults(sandbox.Faults{Oversize: big}))
	counts, err := h.pull(t, activities.PullInput{Run: id, Type: cura.Encounter, Full: true})
	require.NoError(t, err)
	require.EqualValues(t, h.ehr.Counts()["Encounter"], h.stored(t, "SELECT count(*) FROM sync.resources WHERE resource_type = 'Encounter'"), "%+v", counts)
}

func TestATimeInTheFutureDoesntKeepLaterVersionsOut(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	observation := func(text, updated string) {
		require.NoError(t, h.ehr.Put(json.RawMessage(`{"resourceType":"Observation","id":"o","meta":{"lastUpdated":"`+updated+`"},"status":"final","code":{"text":"`+text+`"},"subject":{"reference":"Patient/p"}}`)))
	}
	require.NoError(t, h.ehr.Put(json.RawMessage(`{"resourceType":"Patient","id":"p","birthDate":"1980-01-01","identifier":[{"system":"`+h.ehr.MRNSystem()+`","value":"P"}]}`)))
	require.NoError(t, h.ehr.SetFaults(sandbox.Faults{ClockSkewSeconds: 86400}))
	observation("first", "")
	require.NoError(t, h.ehr.SetFaults(sandbox.Faults{}))
	h.pullAll(t, cura.RunBackfill)
	observation("second", "")
	h.pullAll(t, cura.RunBackfill)
	require.Equal(t, []string{"second"}, storetest.Query[string](t, h.db, "SELECT label FROM labs.observations WHERE ehr_id = 'o'"))
}

func TestTwoConnectionsThatServeTheSameNewPatientsMakeOneProfileEach(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var lines strings.Builder
	for i := range 200 {
		fmt.Fprintf(&lines, `{"resourceType":"Patient","id":"p%d","birthDate":"1980-01-01","identifier":[{"type":{"coding":[{"code":"MR"}]},"system":"urn:mrn","value":"M%d"}]}`+"\n", i, i)
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "patients.ndjson"), []byte(lines.String()), 0o600))
	h := newHospital(t, options{sandbox: sandbox.Config{DataDir: dir}, match: "mrn:urn:mrn"})
	second := h.twin(t)
	var group errgroup.Group
	for _, target := range []activities.Target{h.target, second} {
		id := h.beginFor(t, target, cura.RunBackfill)
		group.Go(func() error {
			env := h.environment()
			for range 100 {
				value, err := env.ExecuteActivity(h.a.PullType, activities.PullInput{Target: target, Run: id, Type: cura.Patient, Full: true})
				if err != nil {
					return err
				}
				var result activities.PullResult
				if err := value.Get(&result); err != nil || result.Done {
					return err
				}
			}
			return errors.New("the pass never ends")
		})
	}
	require.NoError(t, group.Wait())
	require.EqualValues(t, 200, h.stored(t, "SELECT count(*) FROM cura.profiles WHERE org_id = $1", h.target.Org))
}

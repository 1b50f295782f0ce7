package store

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// Exempt is why an outbox item may go without a permit, once consent was withdrawn (it is counted apart).
type Exempt string

// The exemptions.
const (
	NotExempt        Exempt = ""
	ExemptEvent      Exempt = "consent-event"
	ExemptRetraction Exempt = "retraction"
)

// OutboxItem is one thing that Cura wants in an EHR, with its delivery.
type OutboxItem struct {
	ID         string            `json:"id"`
	Connection cura.ConnectionID `json:"connection_id"`
	// Link is the patient link; Profile and PatientEHRID are who it leads to now.
	Link         string         `json:"link"`
	Profile      cura.ProfileID `json:"profile"`
	PatientEHRID string         `json:"-"`
	// Artefact is PHI.
	Artefact  cura.Artefact  `json:"-"`
	Exempt    Exempt         `json:"exempt,omitempty"`
	State     cura.ItemState `json:"state"`
	Why       string         `json:"why,omitempty"`
	DueAt     *time.Time     `json:"due_at,omitempty"`
	Attempts  int            `json:"attempts,omitempty"`
	CreatedAt time.Time      `json:"created_at"`
	UpdatedAt time.Time      `json:"updated_at"`
	// Delivery is the row of the ledger; nil where the gate hasn't let it through yet.
	Delivery *Delivery `json:"delivery,omitempty"`
	// Send is which of its sends (Delivery.Sends) a sender settles or withdraws: when the row is at another by then, somebody
	// has taken the item over. 0: whichever it is at.
	Send int `json:"-"`
}

// Delivery is a row of the ledger.
type Delivery struct {
	State        cura.DeliveryState `json:"state"`
	Resource     string             `json:"resource"`
	ContentHash  []byte             `json:"-"`
	ConsentEntry *int64             `json:"consent_entry,omitempty"`
	ConsentEpoch int64              `json:"consent_epoch"`
	AuthorRole   cura.Role          `json:"author_role"`
	DecidedAt    time.Time          `json:"decided_at"`
	SendDeadline *time.Time         `json:"send_deadline,omitempty"`
	Sends        int                `json:"sends"`
	Lookups      int                `json:"lookups"`
	FirstSentAt  *time.Time         `json:"first_sent_at,omitempty"`
	SettledAt    *time.Time         `json:"settled_at,omitempty"`
	// EHRID is what the EHR calls it: PHI.
	EHRID   string `json:"-"`
	Version string `json:"-"`
	ETag    string `json:"-"`
	Status  int    `json:"status,omitempty"`
}

// AddItem queues an artefact for a patient of the connection, who is named by link. An artefact version that is there already
// is a fault.Conflict, unless it is the same: then its id is returned again.
func (tx *Tx) AddItem(ctx context.Context, connection cura.ConnectionID, link string, a cura.Artefact, exempt Exempt, actor string) (string, error) {
	content, err := json.Marshal(a)
	if err != nil {
		return "", err
	}
	labels := a.Labels
	if labels == nil {
		labels = []string{}
	}
	id := uuid.NewString()
	tag, err := tx.tx.Exec(ctx, `
		INSERT INTO push.outbox (org_id, item_id, connection_id, link_id, kind, artefact_id, artefact_version, author, author_role, labels, content, exempt)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT (org_id, connection_id, artefact_id, artefact_version) DO NOTHING`,
		tx.org, id, connection, link, a.Kind, a.ID, a.Version, a.Author.Name, a.Author.Role, labels, string(content), exempt)
	if err != nil {
		return "", err
	}
	if tag.RowsAffected() == 0 {
		var same bool
		err := tx.tx.QueryRow(ctx, `
			SELECT item_id::text, content::text = $5::json::text AND link_id = $6 FROM push.outbox
			WHERE org_id = $1 AND connection_id = $2 AND artefact_id = $3 AND artefact_version = $4`,
			tx.org, connection, a.ID, a.Version, string(content), link).Scan(&id, &same)
		if err == nil && !same {
			return "", fault.Newf("queueing the artefact", fault.Conflict, "version %d of it is queued or sent already, with other content", a.Version).
				WithFix("A change is a new version: raise \"version\", and name the one before in \"replaces\"")
		}
		return id, err
	}
	tx.Audit(audit.Record{
		Kind: audit.PushQueued, Actor: actor, Connection: connection, Outcome: audit.Success,
		Details: map[string]any{"item": id, "kind": a.Kind, "version": a.Version, "role": a.Author.Role, "exempt": exempt},
	})
	return id, nil
}

const itemColumns = `
	o.item_id::text, o.connection_id, o.link_id::text, l.profile_id, l.ehr_id, o.content, o.exempt, o.state, o.why, nullif(o.due_at, '-infinity'),
	o.attempts, o.created_at, o.updated_at,
	d.state, d.resource, d.content_hash, d.consent_entry, d.consent_epoch, d.author_role, d.decided_at, d.send_deadline, d.sends, d.lookups,
	d.first_sent_at, d.settled_at, d.ehr_id, d.version_id, d.etag, d.status
	FROM push.outbox o
	JOIN sync.patient_links l ON l.org_id = o.org_id AND l.link_id = o.link_id
	LEFT JOIN push.ledger d ON d.org_id = o.org_id AND d.item_id = o.item_id`

func scanItem(row pgx.CollectableRow) (OutboxItem, error) {
	var i OutboxItem
	var d Delivery
	var state, resource, role, ehrID, version, etag *string
	var epoch *int64
	var decided *time.Time
	var sends, lookups, status *int
	err := row.Scan(&i.ID, &i.Connection, &i.Link, &i.Profile, &i.PatientEHRID, &i.Artefact, &i.Exempt, &i.State, &i.Why, &i.DueAt,
		&i.Attempts, &i.CreatedAt, &i.UpdatedAt,
		&state, &resource, &d.ContentHash, &d.ConsentEntry, &epoch, &role, &decided, &d.SendDeadline, &sends, &lookups,
		&d.FirstSentAt, &d.SettledAt, &ehrID, &version, &etag, &status)
	if err != nil || state == nil {
		return i, err
	}
	d.State, d.Resource, d.ConsentEpoch, d.AuthorRole, d.DecidedAt = cura.DeliveryState(*state), *resource, *epoch, cura.Role(*role), *decided
	d.Sends, d.Lookups, d.EHRID, d.Version, d.ETag, d.Status = *sends, *lookups, *ehrID, *version, *etag, *status
	i.Delivery = &d
	return i, nil
}

// NextItem is the first item of a patient link that is queued or on its way; nil: there is none.
func (tx *Tx) NextItem(ctx context.Context, link string) (*OutboxItem, error) {
	rows, err := tx.tx.Query(ctx, `SELECT `+itemColumns+`
		WHERE o.org_id = $1 AND o.link_id = $2 AND o.state IN ('queued', 'sending') ORDER BY o.position LIMIT 1`, tx.org, link)
	if err != nil {
		return nil, err
	}
	item, err := pgx.CollectExactlyOneRow(rows, scanItem)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // that nothing is queued is an answer
	}
	return &item, err
}

// HeldItems are the items of a patient link that the EHR holds for sign-off.
func (tx *Tx) HeldItems(ctx context.Context, link string) ([]OutboxItem, error) {
	rows, err := tx.tx.Query(ctx, `SELECT `+itemColumns+` WHERE o.org_id = $1 AND o.link_id = $2 AND o.state = 'held' ORDER BY o.position LIMIT 100`, tx.org, link)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanItem)
}

// queuedOf are the items of a patient that wait and of which nothing can be on its way.
func (tx *Tx) queuedOf(ctx context.Context, profile cura.ProfileID) ([]OutboxItem, error) {
	rows, err := tx.tx.Query(ctx, `SELECT `+itemColumns+`
		WHERE o.org_id = $1 AND l.profile_id = $2 AND o.state IN ('queued', 'sending') AND o.exempt = '' AND (d.state IS NULL OR d.state = 'intent')
		ORDER BY o.position`, tx.org, profile)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanItem)
}

// Item reads one item; fault.NotFound where the org has none of that id.
func (tx *Tx) Item(ctx context.Context, id string) (OutboxItem, error) {
	if _, err := uuid.Parse(id); err != nil {
		return OutboxItem{}, fault.New("looking for the item", fault.NotFound, "that isn't an item's id").WithFix("List them with: starter push list")
	}
	rows, err := tx.tx.Query(ctx, `SELECT `+itemColumns+` WHERE o.org_id = $1 AND o.item_id = $2`, tx.org, id)
	if err != nil {
		return OutboxItem{}, err
	}
	item, err := pgx.CollectExactlyOneRow(rows, scanItem)
	if errors.Is(err, pgx.ErrNoRows) {
		return item, fault.New("looking for the item", fault.NotFound, "the org has no item of that id").WithFix("List them with: starter push list")
	}
	return item, err
}

// LockItem is Item for who is going to change it: until the transaction ends nobody else moves it on.
func (tx *Tx) LockItem(ctx context.Context, id string) (OutboxItem, error) {
	if _, err := uuid.Parse(id); err == nil {
		if _, err := tx.tx.Exec(ctx, `SELECT FROM push.outbox WHERE org_id = $1 AND item_id = $2 FOR UPDATE`, tx.org, id); err != nil {
			return OutboxItem{}, err
		}
	}
	return tx.Item(ctx, id)
}

// Versions lists the items of all versions of an artefact at a connection, the oldest version first.
func (tx *Tx) Versions(ctx context.Context, connection cura.ConnectionID, artefact string) ([]OutboxItem, error) {
	rows, err := tx.tx.Query(ctx, `SELECT `+itemColumns+`
		WHERE o.org_id = $1 AND o.connection_id = $2 AND o.artefact_id = $3 ORDER BY o.artefact_version`, tx.org, connection, artefact)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanItem)
}

// ItemFilter narrows a list of items; what is empty doesn't.
type ItemFilter struct {
	Connection cura.ConnectionID
	Profile    cura.ProfileID
	States     []cura.ItemState
	Kinds      []cura.ArtefactKind
	Limit      int
}

// Items lists items, the newest first.
func (tx *Tx) Items(ctx context.Context, f ItemFilter) ([]OutboxItem, error) {
	rows, err := tx.tx.Query(ctx, `SELECT `+itemColumns+`
		WHERE o.org_id = $1 AND ($2 = '' OR o.connection_id = nullif($2, '')::uuid) AND ($3 = '' OR l.profile_id = nullif($3, '')::uuid)
			AND (cardinality($4::text[]) = 0 OR o.state = ANY($4)) AND (cardinality($5::text[]) = 0 OR o.kind = ANY($5))
		ORDER BY o.position DESC LIMIT $6`, tx.org, string(f.Connection), string(f.Profile), texts(f.States), texts(f.Kinds), f.Limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanItem)
}

func texts[T ~string](of []T) []string {
	all := make([]string, len(of))
	for i, t := range of {
		all[i] = string(t)
	}
	return all
}

// ItemCounts counts a connection's items by state and, of those that are exempt, by exemption.
func (tx *Tx) ItemCounts(ctx context.Context, connection cura.ConnectionID) (map[cura.ItemState]int, error) {
	rows, err := tx.tx.Query(ctx, `SELECT state, count(*) FROM push.outbox WHERE org_id = $1 AND connection_id = $2 GROUP BY state`, tx.org, connection)
	if err != nil {
		return nil, err
	}
	counts := map[cura.ItemState]int{}
	var state cura.ItemState
	var n int
	_, err = pgx.ForEachRow(rows, []any{&state, &n}, func() error {
		counts[state] = n
		return nil
	})
	return counts, err
}

// ItemGroup is a number of items of a connection that stand at the same place for the same reason.
type ItemGroup struct {
	Connection cura.ConnectionID `json:"connection_id"`
	State      cura.ItemState    `json:"state"`
	Exempt     Exempt            `json:"exempt,omitempty"`
	Why        string            `json:"why,omitempty"`
	Items      int               `json:"items"`
	// Oldest is when the oldest of them was queued, Item its id.
	Oldest time.Time `json:"oldest"`
	Item   string    `json:"item"`
}

// ItemGroups counts the org's items by where and why they stand.
func (tx *Tx) ItemGroups(ctx context.Context) ([]ItemGroup, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT connection_id, state, exempt, why, count(*), min(created_at), (array_agg(item_id::text ORDER BY position))[1] FROM push.outbox
		WHERE org_id = $1 GROUP BY connection_id, state, exempt, why ORDER BY connection_id, state, exempt, why`, tx.org)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[ItemGroup])
}

// SetItem moves an item to a state, and says why. One that was taken out of the queue meanwhile doesn't go back to sending. due is when it is tried next; zero: at once.
func (tx *Tx) SetItem(ctx context.Context, id string, state cura.ItemState, why string, due time.Time) error {
	_, err := tx.tx.Exec(ctx, `
		UPDATE push.outbox SET state = $3, why = $4, due_at = coalesce($5::timestamptz, '-infinity'), updated_at = clock_timestamp(),
			attempts = CASE WHEN $3 IN ('queued', 'sending') THEN attempts ELSE 0 END
		WHERE org_id = $1 AND item_id = $2 AND ($3 <> 'sending' OR state IN ('queued', 'sending'))`, tx.org, id, state, why, orNull(due))
	return err
}

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// PutOff leaves an item queued for a while after an attempt that came to nothing, and says why. It returns how many attempts
// there have been.
func (tx *Tx) PutOff(ctx context.Context, id, why string, wait time.Duration) (attempts int, err error) {
	err = tx.tx.QueryRow(ctx, `
		UPDATE push.outbox SET why = $3, due_at = clock_timestamp() + $4, attempts = attempts + 1, updated_at = clock_timestamp()
		WHERE org_id = $1 AND item_id = $2 RETURNING attempts`, tx.org, id, why, wait).Scan(&attempts)
	return attempts, err
}

// heldFor is how long a queue rests in which the EHR holds something for sign-off, before it is looked at again.
const heldFor = 15 * time.Minute

// RestDelivery notes that a patient link's queue is empty, unless more has come since seq; left reports that. The queue is
// asked too: a wakeup that another has deleted and an item has made anew begins with the same seq.
func (tx *Tx) RestDelivery(ctx context.Context, link string, seq int64) (left bool, err error) {
	const resting = `
		WHERE org_id = $1 AND kind = 'delivery' AND ref = $2 AND seq = $3
			AND NOT EXISTS (SELECT FROM push.outbox WHERE org_id = $1 AND link_id = $2 AND state IN ('queued', 'sending'))`
	tag, err := tx.tx.Exec(ctx, `UPDATE directory.wakeups SET due_at = clock_timestamp() + $4`+resting+`
			AND EXISTS (SELECT FROM push.outbox WHERE org_id = $1 AND link_id = $2 AND state = 'held')`, tx.org, link, seq, heldFor)
	if err != nil || tag.RowsAffected() > 0 {
		return false, err
	}
	tag, err = tx.tx.Exec(ctx, `DELETE FROM directory.wakeups`+resting, tx.org, link, seq)
	return err == nil && tag.RowsAffected() == 0 && seq != 0, err
}

// DeliverySeq reads what RestDelivery compares: call it before the queue is read. 0: there is no wakeup.
func (tx *Tx) DeliverySeq(ctx context.Context, link string) (seq int64, err error) {
	err = tx.tx.QueryRow(ctx, `SELECT seq FROM directory.wakeups WHERE org_id = $1 AND kind = 'delivery' AND ref = $2`, tx.org, link).Scan(&seq)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	return seq, err
}

// LinkOf finds the patient link of a connection that a patient is named by: the link's id, the EHR's id of the patient, or
// the profile's id. fault.NotFound where the connection has no such patient.
func (tx *Tx) LinkOf(ctx context.Context, connection cura.ConnectionID, name string) (link string, profile cura.ProfileID, err error) {
	id := uuid.NullUUID{}
	if parsed, err := uuid.Parse(name); err == nil {
		id = uuid.NullUUID{UUID: parsed, Valid: true}
	}
	err = tx.tx.QueryRow(ctx, `
		SELECT link_id::text, profile_id FROM (
			SELECT link_id, profile_id FROM sync.patient_links WHERE org_id = $1 AND connection_id = $2 AND ehr_id = $3
			UNION SELECT link_id, profile_id FROM sync.patient_links WHERE org_id = $1 AND link_id = $4 AND connection_id = $2
			UNION SELECT link_id, profile_id FROM sync.patient_links WHERE org_id = $1 AND profile_id = $4 AND connection_id = $2 AND replaced_by = ''
		) AS l ORDER BY link_id LIMIT 1`, tx.org, connection, name, id).Scan(&link, &profile)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", "", fault.New("looking for the patient", fault.NotFound, "the connection has no such patient").
			WithFix("Name them by Cura's profile id, a patient link's id, or the EHR's id of a patient who has been pulled")
	}
	return link, profile, err
}

// Link is a patient link: who a profile is at a connection.
type Link struct {
	ID         string
	Connection cura.ConnectionID
	// EHRID is PHI.
	EHRID string
}

// LinksOf lists the patient links of a profile, at all connections, without those of patients who were merged into another.
func (tx *Tx) LinksOf(ctx context.Context, profile cura.ProfileID) ([]Link, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT link_id::text, connection_id, ehr_id FROM sync.patient_links WHERE org_id = $1 AND profile_id = $2 AND replaced_by = ''
		ORDER BY connection_id, link_id`,
		tx.org, profile)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Link])
}

// HasEncounter reports whether Cura has an Encounter of that EHR id of that patient at the connection.
func (tx *Tx) HasEncounter(ctx context.Context, connection cura.ConnectionID, profile cura.ProfileID, ehrID string) (has bool, err error) {
	err = tx.tx.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM cura.visits WHERE org_id = $1 AND connection_id = $2 AND resource_type = 'Encounter' AND ehr_id = $3 AND profile_id = $4)`,
		tx.org, connection, ehrID, profile).Scan(&has)
	return has, err
}

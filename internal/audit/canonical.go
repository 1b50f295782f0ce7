package audit

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// Entry is a record as the database holds it, to the letter of its details: what is sealed and proved.
type Entry struct {
	Org cura.OrgID
	// Seq numbers the records of an org from 1, without holes.
	Seq int64
	// At is in microseconds since 1970, UTC, which is as exact as the database is.
	At         int64
	Kind       Kind
	Actor      string
	Connection cura.ConnectionID
	Run        string
	Outcome    Outcome
	// Details is the JSON text as it is stored.
	Details string
}

// Record is the entry for people and programs to read: Details are a json.RawMessage, or a string where the text isn't JSON.
func (e Entry) Record() Record {
	var details any = e.Details
	if json.Valid([]byte(e.Details)) {
		details = json.RawMessage(e.Details)
	}
	return Record{
		Seq: e.Seq, At: time.UnixMicro(e.At).UTC(), Kind: e.Kind, Actor: e.Actor, Connection: e.Connection, Run: e.Run, Outcome: e.Outcome,
		Details: details,
	}
}

// canonicalForm names the form, as its first field: another form gets another name, and hashes that were made stay as they are.
const canonicalForm = "cura-ehr-sync audit record 1"

// AppendCanonical appends the bytes that stand for the record in the Merkle tree: form, org, seq, at, kind, actor, connection, run,
// outcome and details, each as four bytes of length, the highest first, and the text; numbers in decimal. No two records have
// the same bytes.
func (e Entry) AppendCanonical(b []byte) []byte {
	b = appendField(b, canonicalForm)
	b = appendField(b, string(e.Org))
	b = appendField(b, strconv.FormatInt(e.Seq, 10))
	b = appendField(b, strconv.FormatInt(e.At, 10))
	b = appendField(b, string(e.Kind))
	b = appendField(b, e.Actor)
	b = appendField(b, string(e.Connection))
	b = appendField(b, e.Run)
	b = appendField(b, string(e.Outcome))
	return appendField(b, e.Details)
}

func appendField(b []byte, text string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(text))) //nolint:gosec // a field of the database has less than a gigabyte
	return append(b, text...)
}

var errNotCanonical = errors.New("these bytes aren't an audit record in the form " + strconv.Quote(canonicalForm))

// ParseCanonical reads what AppendCanonical wrote, and nothing else: the same bytes come out of what it gives.
func ParseCanonical(b []byte) (Entry, error) {
	var fields [10]string
	rest := b
	for i := range fields {
		if len(rest) < 4 {
			return Entry{}, errNotCanonical
		}
		n := uint64(binary.BigEndian.Uint32(rest))
		if rest = rest[4:]; uint64(len(rest)) < n {
			return Entry{}, errNotCanonical
		}
		fields[i], rest = string(rest[:n]), rest[n:]
	}
	seq, seqErr := strconv.ParseInt(fields[2], 10, 64)
	at, atErr := strconv.ParseInt(fields[3], 10, 64)
	e := Entry{
		Org: cura.OrgID(fields[1]), Seq: seq, At: at, Kind: Kind(fields[4]), Actor: fields[5],
		Connection: cura.ConnectionID(fields[6]), Run: fields[7], Outcome: Outcome(fields[8]), Details: fields[9],
	}
	// Numbers can be written in several ways, and another form begins otherwise: only what comes out the same is canonical.
	if seqErr != nil || atErr != nil || !bytes.Equal(e.AppendCanonical(nil), b) {
		return Entry{}, errNotCanonical
	}
	return e, nil
}

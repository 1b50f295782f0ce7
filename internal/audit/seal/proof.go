package seal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// Proof shows that a record is in the log that a head was signed for, to whoever has the verifier key: neither the database nor we
// are asked.
type Proof struct {
	// Format is ProofFormat.
	Format string     `json:"format"`
	Org    cura.OrgID `json:"org_id"`
	Seq    int64      `json:"seq"`
	// Record is audit.Entry.AppendCanonical's form; base64 in JSON.
	Record []byte `json:"record"`
	// Head is the signed note.
	Head string `json:"head"`
	// Hashes are those on the way from the record to the root (RFC 6962, 2.1.1), the lowest first; base64 in JSON.
	Hashes tlog.RecordProof `json:"hashes"`
}

// ProofFormat is the format of a proof.
const ProofFormat = "cura-ehr-sync audit proof 1"

// MaxProof is the size above which nothing is read as a proof: a record is small, and a head has few signatures.
const MaxProof = 16 << 20

// Prove makes the proof of a record that is under a head, from the hashes that were stored. It fails where the record, the hashes and
// the head don't agree.
func Prove(record audit.Entry, head SignedHead, hashes tlog.HashReader) (Proof, error) {
	const op = "proving an audit record"
	path, err := tlog.ProveRecord(head.Size, record.Seq-1, hashes)
	if err != nil {
		return Proof{}, fault.Wrap(op, fault.Data, "the stored hashes aren't all there", err).WithFix(askVerify)
	}
	p := Proof{Format: ProofFormat, Org: record.Org, Seq: record.Seq, Record: record.AppendCanonical(nil), Head: head.Note, Hashes: path}
	if err := tlog.CheckRecord(path, head.Size, head.Root, record.Seq-1, tlog.RecordHash(p.Record)); err != nil {
		return Proof{}, fault.Newf(op, fault.Data, "record %d, the stored hashes and the signed head don't agree", record.Seq).WithFix(askVerify)
	}
	return p, nil
}

const askVerify = "See what was changed with: starter audit verify"

// Proved is what a proof has shown.
type Proved struct {
	Record audit.Entry
	Head   SignedHead
}

// CheckProof reads a proof and checks it with nothing but the verifier keys.
func CheckProof(r io.Reader, keys Verifiers) (Proved, error) {
	const op = "checking the proof"
	text, err := io.ReadAll(io.LimitReader(r, MaxProof+1))
	if err != nil {
		return Proved{}, fmt.Errorf("reading the proof: %w", err)
	}
	if len(text) > MaxProof {
		return Proved{}, fault.Newf(op, fault.Data, "it has more than %d bytes, which no proof has", MaxProof)
	}
	var p Proof
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&p); err != nil || p.Format != ProofFormat {
		return Proved{}, fault.Newf(op, fault.Data, "it isn't a proof in the format %q", ProofFormat).
			WithFix("Give the file that starter audit prove has written, as it is")
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Proved{}, fault.New(op, fault.Data, "something follows the proof").WithFix("Give the file that starter audit prove has written, as it is")
	}
	head, err := OpenHead(p.Head, keys)
	if known, ok := errors.AsType[*fault.Error](err); ok {
		return Proved{}, fault.Wrap(op, known.Kind, "its head: "+known.Detail, err).WithFix(known.Fix)
	}
	if err != nil {
		return Proved{}, err
	}
	record, err := audit.ParseCanonical(p.Record)
	if err != nil {
		return Proved{}, fault.Wrap(op, fault.Data, "its record isn't an audit record", err)
	}
	switch {
	case record.Org != p.Org || record.Seq != p.Seq:
		return Proved{}, fault.New(op, fault.Data, "what it says of the record isn't what the record says itself")
	case record.Org != head.Org:
		return Proved{}, fault.New(op, fault.Data, "its record is of one org's log and its head of another's")
	case record.Seq > head.Size:
		return Proved{}, fault.Newf(op, fault.Data, "its head covers %d records, and the record is number %d", head.Size, record.Seq)
	}
	if err := tlog.CheckRecord(p.Hashes, head.Size, head.Root, record.Seq-1, tlog.RecordHash(p.Record)); err != nil {
		return Proved{}, fault.New(op, fault.Data, "the record isn't in the log that the head was signed for: the record, its place or the hashes were changed, or are another log's")
	}
	return Proved{Record: record, Head: head}, nil
}

package seal

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// Head says what an org's log holds: its first Size records hash to Root.
type Head struct {
	Org  cura.OrgID
	Size int64
	Root tlog.Hash
	// At is when it was signed, by the signer's clock, to the second.
	At time.Time
}

// SignedHead is a head with the note that says it and whose signature has been found good.
type SignedHead struct {
	Head

	// Note is the text and its signature, as golang.org/x/mod/sumdb/note writes them.
	Note string
}

// headTitle begins the first line of a head, before the org's id.
const headTitle = "cura-ehr-sync audit "

// Text is what is signed: title and org, size, root in base64, and time, each on a line.
func (h Head) Text() string {
	return fmt.Sprintf("%s%s\n%d\n%s\n%s\n", headTitle, h.Org, h.Size, h.Root, h.At.UTC().Format(time.RFC3339))
}

var errNoHead = errors.New("it isn't the head of an audit log")

// parseHead reads what Text wrote, and nothing else.
func parseHead(text string) (Head, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 5 || !strings.HasPrefix(lines[0], headTitle) {
		return Head{}, errNoHead
	}
	h := Head{Org: cura.OrgID(strings.TrimPrefix(lines[0], headTitle))}
	var errs [3]error
	h.Size, errs[0] = strconv.ParseInt(lines[1], 10, 64)
	h.Root, errs[1] = tlog.ParseHash(lines[2])
	h.At, errs[2] = time.Parse(time.RFC3339, lines[3])
	if errors.Join(errs[:]...) != nil || h.Size < 1 || !validOrg(h.Org) || h.Text() != text {
		return Head{}, errNoHead
	}
	return h, nil
}

// validOrg reports whether an id is a UUID as Cura writes it, and so may name a file.
func validOrg(org cura.OrgID) bool {
	id, err := uuid.Parse(string(org))
	return err == nil && id.String() == string(org)
}

// OpenHead reads a signed head, and fails unless one of the keys has signed it.
func OpenHead(text string, keys Verifiers) (SignedHead, error) {
	const op = "reading the head of an audit log"
	opened, err := note.Open([]byte(text), keys)
	var unverified *note.UnverifiedNoteError
	var wrong *note.InvalidSignatureError
	switch {
	case errors.As(err, &unverified):
		return SignedHead{}, fault.New(op, fault.Config, "none of the keys given has signed it").
			WithFix("Give the verifier key of whoever sealed the log: starter audit keygen printed it")
	case errors.As(err, &wrong):
		return SignedHead{}, fault.New(op, fault.Data, "its signature is wrong: the head has been changed, or was signed by another key of the same name")
	case err != nil:
		return SignedHead{}, fault.Wrap(op, fault.Data, "it isn't a signed note", err)
	}
	head, err := parseHead(opened.Text)
	if err != nil {
		return SignedHead{}, fault.Wrap(op, fault.Data, "the note is signed, but isn't the head of an audit log of Cura EHR Sync", err)
	}
	return SignedHead{Head: head, Note: text}, nil
}

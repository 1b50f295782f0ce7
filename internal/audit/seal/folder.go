package seal

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// Folder is where heads are kept outside of the database: a file an org, to which one signed head after another is appended, each
// with an empty line behind it. Whoever can write to it can hide the last heads, so it belongs where the database's
// administrators can't.
type Folder struct{ dir string }

// headsSuffix ends the name of a file of heads, after the org's id.
const headsSuffix = ".heads"

// maxNote is the longest signed head that is read. Ours have some 250 bytes, and room for the signatures of witnesses.
const maxNote = 16 << 10

// OpenFolder opens the folder of heads to read it.
func OpenFolder(dir string) (*Folder, error) {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = errors.New("it isn't a folder")
	}
	if err != nil {
		return nil, fmt.Errorf("opening the folder of the audit log's heads: %w", err)
	}
	return &Folder{dir}, nil
}

// MakeFolder opens the folder of heads to write to it, and makes it where it isn't there.
func MakeFolder(dir string) (*Folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the folder of the audit log's heads: %w", err)
	}
	probe, err := os.CreateTemp(dir, ".writable-*")
	if err != nil {
		return nil, fmt.Errorf("the folder of the audit log's heads can't be written to: %w", err)
	}
	return &Folder{dir}, errors.Join(probe.Close(), os.Remove(probe.Name()))
}

func (f *Folder) path(org cura.OrgID) string { return filepath.Join(f.dir, string(org)+headsSuffix) }

// Orgs lists the orgs that have a file.
func (f *Folder) Orgs() ([]cura.OrgID, error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, fmt.Errorf("listing the audit log's heads: %w", err)
	}
	var orgs []cura.OrgID
	for _, e := range entries {
		if org, ok := strings.CutSuffix(e.Name(), headsSuffix); ok && validOrg(cura.OrgID(org)) {
			orgs = append(orgs, cura.OrgID(org))
		}
	}
	return orgs, nil
}

// Last is the last head of an org's file; a Size of 0 where there is none.
func (f *Folder) Last(org cura.OrgID, keys Verifiers) (SignedHead, error) {
	file, err := os.Open(f.path(org))
	if errors.Is(err, fs.ErrNotExist) {
		return SignedHead{}, nil
	}
	if err != nil {
		return SignedHead{}, fmt.Errorf("opening the audit log's heads: %w", err)
	}
	defer file.Close()
	text, _, err := lastNote(file)
	if err != nil || text == "" {
		return SignedHead{}, err
	}
	return openOf(org, text, keys)
}

// openOf opens a head and sees that it is the org's.
func openOf(org cura.OrgID, text string, keys Verifiers) (SignedHead, error) {
	head, err := OpenHead(text, keys)
	if err == nil && head.Org != org {
		err = fault.New("reading the head of an audit log", fault.Data, "it is another org's").
			WithFix("Put each org's file of heads back in its place: its name is the org's id")
	}
	return head, err
}

// Append appends heads to an org's file, and returns once they are on the disk. It fails with fault.Conflict unless the file still
// ends with after: somebody else has appended. What a process that died has left of a head is cut off.
func (f *Folder) Append(org cura.OrgID, after SignedHead, heads ...SignedHead) (err error) {
	file, err := os.OpenFile(f.path(org), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("opening the audit log's heads: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }() // which lets go of the lock
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("locking the audit log's heads: %w", err)
	}
	last, end, err := lastNote(file)
	if err != nil {
		return err
	}
	if last != after.Note {
		return fault.New("appending to the audit log's heads", fault.Conflict, "somebody else has appended meanwhile")
	}
	if err := file.Truncate(end); err != nil {
		return fmt.Errorf("cutting off an unfinished head: %w", err)
	}
	var text bytes.Buffer
	for _, h := range heads {
		text.WriteString(h.Note + "\n")
	}
	if _, err := file.WriteAt(text.Bytes(), end); err != nil {
		return fmt.Errorf("appending to the audit log's heads: %w", err)
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("bringing the audit log's heads to the disk: %w", err)
	}
	if end > 0 {
		return nil
	}
	// The file may be new: then its name has to reach the disk too.
	dir, err := os.Open(f.dir)
	if err != nil {
		return fmt.Errorf("opening the folder of the audit log's heads: %w", err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// signatureMark begins the line of a signature.
const signatureMark = "— "

// lastNote finds the last whole note of a file, and where it ends; 0 where there is none.
func lastNote(file *os.File) (text string, end int64, err error) {
	info, err := file.Stat()
	if err != nil {
		return "", 0, fmt.Errorf("looking at the audit log's heads: %w", err)
	}
	// An unfinished note, a whole one and the end of the one before it.
	begin := max(0, info.Size()-3*maxNote)
	tail := make([]byte, info.Size()-begin)
	if _, err := file.ReadAt(tail, begin); err != nil && !errors.Is(err, io.EOF) {
		return "", 0, fmt.Errorf("reading the audit log's heads: %w", err)
	}
	last, before := -1, -1
	for at := 0; ; {
		blank := bytes.Index(tail[at:], []byte("\n\n"))
		if blank < 0 {
			break
		}
		blank += at
		if line := tail[bytes.LastIndexByte(tail[:blank], '\n')+1 : blank]; bytes.HasPrefix(line, []byte(signatureMark)) {
			last, before = blank+2, last
		}
		at = blank + 1
	}
	if before < 0 {
		before = 0
	}
	if last < 0 || begin > 0 && before == 0 {
		if info.Size() > maxNote {
			return "", 0, fault.New("reading the audit log's heads", fault.Data, "the file doesn't end with a head").
				WithFix("Something else was written to the file; put it back from a copy")
		}
		return "", 0, nil
	}
	return string(tail[before : last-1]), begin + int64(last), nil
}

// Heads reads the heads of an org's file that were there when it was opened, one after the other.
type Heads struct {
	org   cura.OrgID
	keys  Verifiers
	file  *os.File
	lines *bufio.Scanner
	last  int64
	// Count is how many have been read.
	Count int
	// Unfinished tells, at the end, that the file ends in the middle of a head: a process died while it wrote it, so it never counted.
	Unfinished bool
}

// Heads opens an org's file; one that isn't there has no heads.
func (f *Folder) Heads(org cura.OrgID, keys Verifiers) (*Heads, error) {
	h := &Heads{org: org, keys: keys}
	file, err := os.Open(f.path(org))
	if errors.Is(err, fs.ErrNotExist) {
		h.lines = bufio.NewScanner(strings.NewReader(""))
		return h, nil
	}
	if err != nil {
		return nil, fmt.Errorf("opening the audit log's heads: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("looking at the audit log's heads: %w", err), file.Close())
	}
	h.file, h.lines = file, bufio.NewScanner(io.LimitReader(file, info.Size()))
	h.lines.Buffer(nil, maxNote)
	return h, nil
}

// Close closes the file.
func (h *Heads) Close() error {
	if h.file == nil {
		return nil
	}
	return h.file.Close()
}

// Next is the next head; io.EOF after the last. Each covers more than the one before.
func (h *Heads) Next() (SignedHead, error) {
	const op = "reading the audit log's heads"
	text, err := h.chunk()
	if err != nil {
		return SignedHead{}, err
	}
	head, err := openOf(h.org, text, h.keys)
	if err == nil && head.Size <= h.last {
		err = fault.New(op, fault.Data, "it covers no more than the one before it").WithFix("Something else has written to the file; put it back from a copy")
	}
	if known, ok := errors.AsType[*fault.Error](err); ok {
		return SignedHead{}, fault.Wrap(op, known.Kind, fmt.Sprintf("head %d of the file: %s", h.Count+1, known.Detail), err).WithFix(known.Fix)
	}
	if err != nil {
		return SignedHead{}, err
	}
	h.last = head.Size
	h.Count++
	return head, nil
}

// chunk is the text of the next head: to the empty line behind its signatures.
func (h *Heads) chunk() (string, error) {
	var text strings.Builder
	signed := false
	for h.lines.Scan() {
		line := h.lines.Text()
		if line == "" && signed {
			return text.String(), nil
		}
		signed = strings.HasPrefix(line, signatureMark)
		if text.WriteString(line + "\n"); text.Len() > maxNote {
			break
		}
	}
	if err := h.lines.Err(); err != nil && !errors.Is(err, bufio.ErrTooLong) {
		return "", fmt.Errorf("reading the audit log's heads: %w", err)
	} else if err != nil || text.Len() > maxNote {
		return "", fault.Newf("reading the audit log's heads", fault.Data, "head %d of the file is no head: it is too long", h.Count+1).
			WithFix("Something else was written to the file; put it back from a copy")
	}
	h.Unfinished = text.Len() > 0
	return "", io.EOF
}

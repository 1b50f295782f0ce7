package sandbox

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// maxBroken is how many broken places one start tells of.
const maxBroken = 10

// The meta.lastUpdated of resources that come without one: the same at every start.
const (
	folderBase = "2020-01-01T00:00:00Z"
	folderStep = time.Millisecond
)

// folderLoader reads the FHIR resources of a data folder into a store.
type folderLoader struct {
	store  *store
	base   time.Time
	broken []string

	// fullURLs maps the fullUrl of bundle entries that is no address (urn:uuid:, urn:oid:) to Type/id.
	fullURLs map[string]string
	// pending are the resources that still have a reference to a urn, to be resolved when everything is loaded.
	pending map[string]struct{}

	passedOver []string       // files that are no JSON
	twice      map[string]int // resources that came again, by type
	skipped    map[string]int // bundle entries that hold nothing to serve, by file
	total      int
}

// loadFolder reads every file below dir. Files that do not begin like JSON are passed over and named in problems;
// broken JSON and JSON without a resourceType is an error that names up to ten places as file:line.
func loadFolder(ctx context.Context, dir string, s *store) (problems []string, err error) {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errors.New("the data folder does not exist: name a folder with NDJSON or JSON files of FHIR resources")
	case err != nil:
		return nil, fmt.Errorf("opening the data folder: %w", err)
	case !info.IsDir():
		return nil, errors.New("the data folder is a file: name the folder that it lies in")
	}
	base, err := time.Parse(time.RFC3339, folderBase)
	if err != nil {
		return nil, fmt.Errorf("reading the base instant: %w", err)
	}
	l := &folderLoader{
		store: s, base: base, fullURLs: map[string]string{}, pending: map[string]struct{}{},
		twice: map[string]int{}, skipped: map[string]int{},
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || d.IsDir() {
			return err
		}
		// Stat follows links: a linked file is data, a linked folder is not walked.
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if len(l.broken) >= maxBroken {
			return fs.SkipAll
		}
		return l.file(path, filepath.ToSlash(name))
	})
	if err != nil {
		return nil, fmt.Errorf("reading the data folder: %w", err)
	}
	if len(l.broken) > 0 {
		more := ""
		if len(l.broken) >= maxBroken {
			more = fmt.Sprintf("\n(the first %d places; there may be more)", maxBroken)
		}
		return nil, fmt.Errorf("the data folder has broken files; mend or remove them and start again:\n%s%s",
			strings.Join(l.broken, "\n"), more)
	}
	if err := l.resolvePending(); err != nil {
		return nil, err
	}
	return l.problems(), nil
}

func (l *folderLoader) file(path, name string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	in := bufio.NewReaderSize(file, 1<<16)
	if bom, err := in.Peek(3); err == nil && bytes.Equal(bom, []byte("\xef\xbb\xbf")) {
		_, _ = in.Discard(3) // peeked just now
	}
	if !beginsLikeJSON(in) {
		l.passedOver = append(l.passedOver, name)
		return nil
	}
	var failed error
	err = newSplitter(in).each(
		func(raw []byte, line int) bool {
			failed = l.value(document{name, line, raw}, span{0, len(raw)})
			return failed == nil && len(l.broken) < maxBroken
		},
		func(b brokenError) bool {
			l.broken = append(l.broken, name+":"+b.Error())
			return len(l.broken) < maxBroken
		},
	)
	return cmp.Or(failed, err)
}

// beginsLikeJSON looks at the first bytes that are no white space: an object, or an array of objects. A text that begins
// with a bracket, as a page with a link does, is none.
func beginsLikeJSON(in *bufio.Reader) bool {
	inArray := false
	for n := 1; n <= in.Size(); n++ {
		head, err := in.Peek(n)
		if err != nil {
			return false
		}
		switch c := head[n-1]; {
		case isSpace(c):
		case c == '{', inArray && c == ']':
			return true
		case c == '[' && !inArray:
			inArray = true
		default:
			return false
		}
	}
	return false
}

// document is one top-level JSON value of a data file.
type document struct {
	name string // of the file, below the data folder
	line int    // on which text begins
	text []byte
}

func (d document) lineOf(at span) int { return d.line + bytes.Count(d.text[:at.start], []byte("\n")) }

func (d document) raw(at span) []byte { return d.text[at.start:at.end] }

// value takes in a resource, a Bundle, or an array of such.
func (l *folderLoader) value(d document, at span) error {
	switch raw := d.raw(at); {
	case raw[0] == '[':
		for _, element := range elements(raw) {
			if err := l.value(d, element.within(at)); err != nil {
				return err
			}
		}
		return nil
	case raw[0] != '{':
		l.note(d, at, "a resource is needed here, as a JSON object")
		return nil
	case getText(raw, "resourceType") == "Bundle":
		return l.bundle(d, at)
	default:
		return l.resource(d, at, "")
	}
}

func (l *folderLoader) note(d document, at span, reason string) {
	if len(l.broken) < maxBroken {
		l.broken = append(l.broken, fmt.Sprintf("%s:%d: %s", d.name, d.lineOf(at), reason))
	}
}

// bundle takes in the entries of a Bundle of any type, Bundles within it too. A history has its newest version first,
// so it is read from its end.
func (l *folderLoader) bundle(d document, at span) error {
	list, _ := find(d.raw(at), "entry")
	list = list.within(at)
	entries := elements(d.raw(list))
	if getText(d.raw(at), "type") == "history" {
		slices.Reverse(entries)
	}
	for _, entry := range entries {
		entry = entry.within(list)
		body, ok := find(d.raw(entry), "resource")
		if !ok || getText(get(d.raw(entry), "search"), "mode") == "outcome" {
			l.entryWithoutResource(d, entry)
			continue
		}
		body = body.within(entry)
		var err error
		if getText(d.raw(body), "resourceType") == "Bundle" {
			err = l.bundle(d, body)
		} else {
			err = l.resource(d, body, getText(d.raw(entry), "fullUrl"))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// entryWithoutResource carries out a DELETE; anything else has nothing to serve.
func (l *folderLoader) entryWithoutResource(d document, entry span) {
	request := get(d.raw(entry), "request")
	if getText(request, "method") == "DELETE" {
		typ, id, _ := strings.Cut(localReference(getText(request, "url")), "/")
		if l.store.forget(typ, l.store.servedID(typ, id)) {
			return
		}
	}
	l.skipped[d.name]++
}

// resource takes in one resource. One without an id is given that of its fullUrl, or one made from its content.
func (l *folderLoader) resource(d document, at span, fullURL string) error {
	raw := d.raw(at)
	h, err := readHeader(raw)
	if err != nil {
		l.note(d, at, strings.TrimPrefix(err.Error(), errResource.Error()+": "))
		return nil // noted: the start fails with all such places together
	}
	if h.id == "" {
		h.id = idFor(h.typ, fullURL, raw)
		raw = set(raw, "id", quote(h.id), "resourceType")
	}
	key := h.typ + "/" + l.store.servedID(h.typ, h.id)
	if strings.HasPrefix(fullURL, "urn:") {
		l.fullURLs[fullURL] = key
	}
	if bytes.Contains(raw, []byte(`"urn:`)) {
		l.pending[key] = struct{}{}
	}
	replaced, err := l.store.load(raw, l.base, folderStep)
	if err != nil {
		return err
	}
	l.total++
	if replaced {
		l.twice[h.typ]++
	}
	return nil
}

// idFor makes the id of a resource that has none: the uuid of its fullUrl, the id at the end of an address, or else
// the hash of its content.
func idFor(typ, fullURL string, raw []byte) string {
	if uuid, ok := strings.CutPrefix(fullURL, "urn:uuid:"); ok && uuid != "" && !strings.ContainsAny(uuid, "/?# ") {
		return uuid
	}
	if ref := localReference(fullURL); strings.HasPrefix(ref, typ+"/") && !strings.HasSuffix(ref, "/") {
		return strings.TrimPrefix(ref, typ+"/")
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:16])
}

// resolvePending rewrites references to the urn of a bundle entry as Type/id. A urn that no entry has stays.
func (l *folderLoader) resolvePending() error {
	if len(l.fullURLs) == 0 {
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(l.pending)) {
		typ, id, _ := strings.Cut(key, "/")
		err := l.store.revise(typ, id, func(raw []byte) []byte {
			return rewriteReferences(raw, func(ref string) (string, bool) {
				target, ok := l.fullURLs[ref]
				return target, ok
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *folderLoader) problems() []string {
	var out []string
	for _, name := range l.passedOver {
		out = append(out, name+": passed over, it holds no JSON")
	}
	for _, name := range slices.Sorted(maps.Keys(l.skipped)) {
		out = append(out, fmt.Sprintf("%s: %d bundle entries hold no resource to serve", name, l.skipped[name]))
	}
	for _, typ := range slices.Sorted(maps.Keys(l.twice)) {
		out = append(out, fmt.Sprintf("%s: %d came again with the same id; the last one is served", typ, l.twice[typ]))
	}
	if l.total == 0 {
		out = append(out, "the data folder holds no FHIR resources")
	}
	return out
}

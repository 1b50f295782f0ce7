package fhir

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"io"
	"strconv"

	"github.com/cura-health/ehr-sync/internal/fault"
)

const (
	opReadBundle = "reading a Bundle"
	// maxMember caps the members of a Bundle that are held whole: links, an entry's search, a fullUrl.
	maxMember = 1 << 20
	// maxOpen caps how many objects and arrays may be open at once in a page. Below it, a resource that is nested too
	// deep spoils only itself: Validate refuses it.
	maxOpen = 10_000
)

// ReadBundle reads a Bundle (R4 §2.36) from r and calls yield with each entry as it comes; an error of yield ends the
// reading and is returned as it is. Memory holds one resource of at most maxResource bytes at a time (DefaultMaxResource
// where maxResource isn't positive), whatever the page holds. Members may come in any order; entries without a resource,
// pages without entries or total, and members named twice are taken as they are. The inside of a resource isn't looked at
// beyond its brackets and its head, so a broken resource spoils only itself: Validate says what is wrong with it.
//
// Errors are faults. fault.Protocol: the body isn't a Bundle in JSON; its text says what came instead (HTML, XML, JSON but
// resourceType Patient). fault.Transient: the body ended or broke off in the middle. A fault can come after entries were
// yielded: what was done with them must be undone. A reader's own fault is returned as it is.
func ReadBundle(r io.Reader, maxResource int64, yield func(Entry) error) (Bundle, error) {
	if maxResource <= 0 {
		maxResource = DefaultMaxResource
	}
	p := bundleReader{
		in:     stream{r: r, buf: make([]byte, 0, 32<<10), tee: &capture{max: maxMember}},
		max:    maxResource,
		yield:  yield,
		bundle: Bundle{Links: map[string]string{}},
	}
	if err := p.read(); err != nil {
		return Bundle{}, p.in.fault(err)
	}
	return p.bundle, nil
}

type bundleReader struct {
	in     stream
	max    int64
	yield  func(Entry) error
	bundle Bundle

	resourceType string
	canonical    canonicaliser
	scratch      []byte // reused for small resources
}

// yieldError marks an error of the caller's own function, which is passed through.
type yieldError struct{ error }

func (p *bundleReader) read() error {
	if err := p.in.begin(); err != nil {
		return err
	}
	if err := p.in.object(p.member); err != nil {
		return err
	}
	switch p.resourceType {
	case "Bundle":
	case "OperationOutcome":
		if p.in.tee.over {
			return notBundle("an OperationOutcome of more than 1 MiB", "Ask the hospital's IT what the server reports")
		}
		p.bundle.Outcome = bytes.TrimSpace(p.in.tee.buf)
	default:
		return notBundle("JSON without a resourceType", fixBaseURL)
	}
	return p.in.finish()
}

// member reads one member of the Bundle itself.
func (p *bundleReader) member(key string) error {
	switch key {
	case "resourceType":
		value, err := p.in.small()
		if err != nil {
			return err
		}
		p.resourceType = textOf(value)
		switch p.resourceType {
		case "Bundle":
			p.in.tee = nil
		case "OperationOutcome":
		default:
			what := "JSON but resourceType isn't one of R4"
			if isResourceType(p.resourceType) {
				what = "JSON but resourceType " + p.resourceType
			}
			return notBundle(what, fixBaseURL)
		}
	case "type":
		value, err := p.in.small()
		if err != nil {
			return err
		}
		p.bundle.Type = textOf(value)
	case "total":
		value, err := p.in.small()
		if err != nil {
			return err
		}
		// A total that isn't a number is as good as none: nothing counts by it.
		if n, err := strconv.Atoi(string(value)); err == nil {
			p.bundle.Total = &n
		}
	case "link":
		return p.links()
	case "entry":
		if p.resourceType != "OperationOutcome" {
			p.in.tee = nil
		}
		return p.in.array(p.entry)
	default:
		return p.in.value(nil)
	}
	return nil
}

func (p *bundleReader) links() error {
	value, err := p.in.small()
	if err != nil {
		return err
	}
	var links []struct {
		Relation string `json:"relation"`
		URL      string `json:"url"`
	}
	// Without its links the page can't be followed by the next: that is no page to go on from.
	if value == nil || json.Unmarshal(value, &links) != nil {
		return notBundle("a Bundle whose link can't be read", "Report it to the EHR's vendor: Bundle.link must be a list of relation and url")
	}
	for _, l := range links {
		p.bundle.Links[l.Relation] = l.URL
	}
	return nil
}

// entry reads one Bundle.entry and yields it.
func (p *bundleReader) entry() error {
	var e Entry
	err := p.in.object(func(key string) error {
		switch key {
		case "fullUrl":
			value, err := p.in.small()
			e.FullURL = textOf(value)
			return err
		case "search":
			value, err := p.in.small()
			e.Mode = modeOf(value)
			return err
		case "resource":
			return p.resource(&e)
		default:
			return p.in.value(nil)
		}
	})
	if err != nil {
		return err
	}
	if err := p.yield(e); err != nil {
		return yieldError{err}
	}
	return nil
}

// modeOf reads the mode of a Bundle.entry.search; anything unreadable counts as a match, so that nothing is lost.
func modeOf(search []byte) string {
	var mode string
	s := scanner{data: search}
	_ = s.object(func(key, value []byte) {
		if string(key) == "mode" {
			mode = textOf(value)
		}
	})
	return mode
}

func (p *bundleReader) resource(e *Entry) error {
	c := capture{buf: p.scratch[:0], max: p.max}
	if err := p.in.value(&c); err != nil {
		return err
	}
	e.Size = c.size
	if string(c.buf) == "null" {
		e.Size = 0
		return nil
	}
	// A broken resource keeps what was found of its head: Validate refuses it.
	head, _ := Head(c.buf)
	e.Type, e.ID, e.VersionID, e.LastUpdated = head.Type, head.ID, head.VersionID, head.LastUpdated
	if c.over {
		e.Oversize = true
		c.sum.Sum(e.Hash[:0])
		return nil
	}
	var err error
	if e.Hash, err = p.canonical.hash(c.buf); err != nil {
		e.Hash = sha256.Sum256(c.buf)
	}
	const large = 64 << 10
	if cap(c.buf) > large {
		// Handed over, not copied: a page must not be held twice.
		e.Resource = c.buf
		return nil
	}
	e.Resource = bytes.Clone(c.buf)
	p.scratch = c.buf
	return nil
}

const fixBaseURL = "Check the FHIR base URL of the connection: it must lead to the R4 server itself"

func notBundle(what, fix string) error {
	return fault.New(opReadBundle, fault.Protocol, "the EHR answered with "+what).WithFix(fix)
}

func brokenJSON() error {
	return notBundle("broken JSON", "Try again; if it stays, report it to the EHR's vendor")
}

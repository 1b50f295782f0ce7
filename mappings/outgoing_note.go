package mappings

import (
	"crypto/sha1" //nolint:gosec // R4 defines Attachment.hash as SHA-1; it finds accidents of transport and secures nothing
	"mime"
	"regexp"
	"strings"
	"time"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// MaxNote is how many bytes a note may have: what US Core asks servers to take (DOMAIN §4).
const MaxNote = 5 << 20

const (
	// maxNotice keeps a notice within what servers take in a string.
	maxNotice = 10_000
	plain     = "text/plain"
	html      = "text/html"
	pdf       = "application/pdf"
	pdfMagic  = "%PDF-"
)

// document writes a note, and a consent event for a server that takes no Consent, as a DocumentReference (US Core).
func (w *writer) document() outDocument {
	a := w.artefact
	out := outDocument{
		outResource:   w.resource(),
		Status:        "current",
		DocStatus:     "final",
		Category:      []outConcept{codeOf("http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category", "clinical-note")},
		Subject:       w.patient("subject"),
		Date:          instantOf(a.AuthoredAt),
		Author:        []outReference{w.author()},
		Description:   w.notice("description"),
		SecurityLabel: labelConcepts(a.Labels),
	}
	if w.to.WrittenEHRID != "" && !a.Retracts {
		out.RelatesTo = []outRelatesTo{{Code: "replaces", Target: outReference{Reference: "DocumentReference/" + w.to.WrittenEHRID}}}
	}
	var start, end time.Time
	switch {
	case a.Retracts:
		out.Status, out.DocStatus = "entered-in-error", "entered-in-error"
		out.Type = codeOf("http://terminology.hl7.org/CodeSystem/v3-NullFlavor", "UNK")
		// The server that takes no plain text gets the title alone.
		attachment := outAttachment{Title: withdrawn}
		if _, taken := w.contentType(plain); taken {
			attachment = w.attachment(plain, withdrawn, []byte("This document was entered in error and is withdrawn.\n"))
		}
		out.Content = []outContent{{Attachment: attachment}}
	case a.ConsentEvent != nil:
		e := a.ConsentEvent
		start, end = e.At, e.At
		out.Type = noteType(consentDocument)
		out.Content = []outContent{{Attachment: w.attachment(plain, "Change of consent", []byte(consentText(e)))}}
	default:
		n := a.Note
		start, end = n.Start, n.End
		if n.Draft {
			out.DocStatus = "preliminary"
		}
		out.Type = noteType(n.Type)
		out.Content = []outContent{{Attachment: w.attachment(n.ContentType, n.Title, noteBytes(n))}}
	}
	out.Context = w.context(start, end)
	return out
}

// context says when and in which encounter; nil where neither is known.
func (w *writer) context(start, end time.Time) *outDocumentCtx {
	if w.to.PeriodEnd && end.IsZero() {
		// The note is about nothing later than its signing, unless it says so itself.
		end = w.artefact.AuthoredAt
		if end.Before(start) {
			end = start
		}
	}
	var out outDocumentCtx
	if encounter := w.encounter(); encounter != nil {
		out.Encounter = []outReference{*encounter}
	}
	if !start.IsZero() || !end.IsZero() {
		out.Period = &outPeriod{}
		if !start.IsZero() {
			out.Period.Start = instantOf(start)
		}
		if !end.IsZero() {
			out.Period.End = instantOf(end)
		}
	}
	if out.Encounter == nil && out.Period == nil {
		return nil
	}
	return &out
}

// attachment writes content with the notice before it, where its type has a place for one.
func (w *writer) attachment(contentType, title string, data []byte) outAttachment {
	spelled, taken := w.contentType(contentType)
	if !taken {
		w.reject(w.path("content[0].attachment.contentType"), "this EHR doesn't take it: send one of the types of its profile")
	}
	data = withNotice(contentType, w.to.Notice, data)
	if len(data) > MaxNote {
		w.reject(w.path("content[0].attachment.data"), "has more than 5 MiB with the notice that must go along: shorten the note")
	}
	sum := sha1.Sum(data) //nolint:gosec // as above
	return outAttachment{ContentType: spelled, Data: data, Size: len(data), Hash: sum[:], Title: title}
}

// contentType spells a content type as the server wants it: with the parameters that it names itself, else with our charset.
// Without one text/* would be US-ASCII (RFC 2046 §4.1.2), and Oracle refuses it (DOMAIN §4).
func (w *writer) contentType(contentType string) (spelled string, taken bool) {
	spelled = contentType
	if contentType != pdf {
		spelled += "; charset=utf-8"
	}
	for _, accepted := range w.to.ContentTypes {
		if media, params, err := mime.ParseMediaType(accepted); err == nil && media == contentType {
			if len(params) > 0 {
				spelled = accepted
			}
			return spelled, true
		}
	}
	return spelled, len(w.to.ContentTypes) == 0
}

// noteBytes gives what a note says, as text or as a document.
func noteBytes(n *cura.NoteContent) []byte {
	if n.Text != "" {
		return []byte(n.Text)
	}
	return n.Data
}

// bodyTag matches HTML's body tag.
var bodyTag = regexp.MustCompile(`(?i)<body(?:\s(?:[^>"']|"[^"]*"|'[^']*')*)?>`)

// withNotice puts the notice where it is read first. XML, RTF and PDF aren't taken apart for it: DocumentReference.description
// carries it for them, as for all.
func withNotice(contentType, notice string, data []byte) []byte {
	if notice == "" {
		return data
	}
	text := strings.TrimPrefix(string(data), "\ufeff")
	switch contentType {
	case plain:
		return []byte(notice + "\n\n" + text)
	case html:
		at := 0
		// A body tag that a comment could hide is none to rely on: browsers show what comes before the document, too.
		if found := bodyTag.FindStringIndex(text); len(found) == 2 && !strings.Contains(text[:found[0]], "<!--") {
			at = found[1]
		}
		return []byte(text[:at] + paragraphs(notice) + text[at:])
	}
	return data
}

// consentText tells what has changed and when: no reason, no clinical content.
func consentText(e *cura.ConsentContent) string {
	what := map[string]string{
		"granted": "The patient has given consent to the exchange of records with Cura.",
		"revoked": "The patient has withdrawn consent to the exchange of records with Cura.",
		"expired": "The patient's consent to the exchange of records with Cura has expired.",
		"changed": "The patient has changed the consent to the exchange of records with Cura. Ask Cura for what it covers now.",
	}[e.Event]
	return what + "\n" + changeNumber(e) + ", " + instantOf(e.At) + "\n"
}

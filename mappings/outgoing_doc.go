package mappings

import (
	"fmt"
	"io"
	"strings"
)

// outRow documents an element that is written.
type outRow struct{ Element, How string }

// outTable documents a resource that is written.
type outTable struct {
	Resource, Of string
	Rows         []outRow
}

func outTables() []outTable {
	return []outTable{
		{"DocumentReference", "a note; a consent event where the delivery profile says so", []outRow{
			{"status", "current; entered-in-error of a retraction"},
			{"docStatus", "final; preliminary of a draft; entered-in-error of a retraction"},
			{"type", "the note's LOINC code, with LOINC's name where Cura knows it (see Note types); 59284-0 of a consent event; UNK of a retraction"},
			{"category", "clinical-note, which US Core demands"},
			{"subject", "Patient/id"},
			{"date", "authored_at, in UTC with milliseconds"},
			{"author", "name and role as display; Practitioner/id where it is known"},
			{"relatesTo", "replaces the document of the version before, where the EHR holds it"},
			{"description", "the 42 CFR Part 2 notice"},
			{"securityLabel", "the labels, one concept each"},
			{"content", "exactly one, always inline: contentType, with charset=utf-8 for all but PDF unless the profile names parameters; size; SHA-1 hash; title"},
			{"context.encounter", "Encounter/id"},
			{"context.period", "the time that the note is about; where the server demands an end, authored_at stands in for one that isn't said"},
		}},
		{"Condition", "a diagnosis", []outRow{
			{"clinicalStatus", "left out of a retraction (R4 con-5)"},
			{"verificationStatus", "entered-in-error of a retraction"},
			{"category", "encounter-diagnosis or problem-list-item"},
			{"code", "all codings, ICD-10-CM or SNOMED CT among them, and the text; the text Withdrawn alone of a retraction"},
			{"subject", "Patient/id"},
			{"encounter", "Encounter/id"},
			{"onsetDateTime", "as it is given"},
			{"recordedDate", "authored_at"},
			{"recorder", "as DocumentReference.author"},
			{"note", "the 42 CFR Part 2 notice"},
		}},
		{"Procedure", "a procedure", []outRow{
			{"status", "as it is given; entered-in-error of a retraction"},
			{"code", "all codings, CPT, HCPCS, SNOMED CT or ICD-10-PCS among them, and the text; the text Withdrawn alone of a retraction"},
			{"subject", "Patient/id"},
			{"encounter", "Encounter/id"},
			{"performedDateTime", "as it is given"},
			{"recorder", "as DocumentReference.author"},
			{"note", "the 42 CFR Part 2 notice"},
		}},
		{"Consent", "a consent event", []outRow{
			{"status", "active after granted and changed, inactive after revoked and expired; entered-in-error of a retraction"},
			{"scope", "patient-privacy"},
			{"category", "LOINC 59284-0"},
			{"patient", "Patient/id"},
			{"dateTime", "when the consent changed"},
			{"policyRule", "OPTIN after granted, OPTOUT after revoked and expired; the number and the kind of the change as text"},
			{"provision.type", "permit after granted, deny after revoked and expired; after changed neither rule nor type, since the event doesn't tell what is covered"},
			{"text", "the 42 CFR Part 2 notice: a Consent has no annotations"},
		}},
	}
}

func outRules() []rule {
	return []rule{
		{"On every resource", "`identifier` holds artefact.version under " + IdentifierSystem + ", or the connection's own system: If-None-Exist and look-ups go by it. " +
			"`meta.tag` " + TagSystem + "|" + TagPushed + " lets a pull know what Cura wrote. `meta.security` holds the labels: R and V of v3-Confidentiality, the others of v3-ActCode."},
		{"Versions", "A new version of a note is a new document that replaces the old one. A new version of anything else updates the resource of the version before and carries its " +
			"id; where the EHR holds none, it is created."},
		{"Retractions", "A retraction updates the resource that the EHR holds to entered-in-error. It may go out after consent was withdrawn, so it repeats no clinical content: what R4 or US " +
			"Core demands is the word Withdrawn or the code UNK. The EHR's own history keeps what was there."},
		{"Notice of 42 CFR Part 2", "It stands before the text of text/plain and text/html notes, and in `description` of every document; other types of document aren't taken apart for it. " +
			"Conditions and procedures carry it in `note`, consents in their narrative."},
		{"Consent events", "They hold what happened, when, and its number: no reason, no encounter's content, no label that tells of the patient's health."},
		{"Content hash", "Servers that store no identifier are read back by what a resource says: type of document and decoded attachments, without regard to line ends; codes, categories and dates " +
			"of conditions and procedures, to the second; a consent's date, status and rule; and whether it is entered-in-error. Other statuses aren't part of it: servers set their own."},
	}
}

// WriteOutgoing writes the section of MAPPINGS.md about what Cura writes into an EHR. The error is w's.
func WriteOutgoing(w io.Writer) error {
	var b strings.Builder
	b.WriteString("\n## What is written\n\nHow Cura's artefacts become FHIR R4 resources. Elements that nothing is known for are left out.\n")
	for _, t := range outTables() {
		fmt.Fprintf(&b, "\n### %s ← %s\n\n| FHIR element | How |\n|---|---|\n", t.Resource, t.Of)
		for _, r := range t.Rows {
			fmt.Fprintf(&b, "| %s.%s | %s |\n", t.Resource, r.Element, strings.ReplaceAll(r.How, "|", `\|`))
		}
	}
	for _, r := range outRules() {
		fmt.Fprintf(&b, "\n### %s\n\n%s\n", r.Title, r.Text)
	}
	b.WriteString("\n### Note types\n\nOther LOINC codes are written without a name, if their check digit is right.\n\n| LOINC | Name |\n|---|---|\n")
	for _, c := range noteTypes() {
		fmt.Fprintf(&b, "| %s | %s |\n", c.Code, c.Display)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

package sandbox

import (
	"encoding/json"
	"time"
)

// drug is a medication as RxNorm names it.
type drug struct {
	code, name, dose string
	perDay           int
}

func drugs() []drug {
	return []drug{
		{"310798", "Hydrochlorothiazide 25 MG Oral Tablet", "1 tablet", 1},
		{"314231", "Simvastatin 10 MG Oral Tablet", "1 tablet", 1},
		{"197604", "Digoxin 0.125 MG Oral Tablet", "1 tablet", 1},
		{"855332", "Warfarin Sodium 5 MG Oral Tablet", "1 tablet", 1},
		{"313782", "Acetaminophen 325 MG Oral Tablet", "2 tablets", 3},
		{"310965", "Ibuprofen 200 MG Oral Tablet", "1 tablet", 3},
		{"308192", "Amoxicillin 500 MG Oral Tablet", "1 tablet", 3},
		{"849574", "Naproxen sodium 220 MG Oral Tablet", "1 tablet", 2},
	}
}

func encounters(p *person) []obj {
	classes := []struct{ code, display, typ, text string }{
		{"AMB", "ambulatory", "185345009", "Encounter for symptom"},
		{"EMER", "emergency", "50849002", "Emergency room admission"},
		{"IMP", "inpatient encounter", "183452005", "Emergency hospital admission"},
	}
	var out []obj
	for i := range 2 + p.r.IntN(2) {
		class := classes[(p.n+i)%len(classes)]
		id := uuid(p.r)
		p.encounters = append(p.encounters, id)
		start := p.past(i)
		status, period := "finished", obj{{"start", moment(start)}, {"end", moment(start.Add(time.Duration(1+p.r.IntN(60)) * time.Hour))}}
		switch {
		case i == 0 && p.trait() == 3: // still there: no end
			status, period = "in-progress", obj{{"start", moment(start)}}
		case i == 0 && p.trait() == 4:
			status = "cancelled"
		}
		e := obj{
			{"resourceType", "Encounter"},
			{"id", id},
			{"status", status},
			{"class", coding(sysTerminology+"v3-ActCode", class.code, class.display)},
			{"type", list{concept(sysSNOMED, class.typ, class.text)}},
			{"subject", p.ref()},
			{"participant", list{obj{
				{"type", list{concept(sysTerminology+"v3-ParticipationType", "PPRF", "primary performer")}},
				{"individual", reference("Practitioner/" + clinicianID(p.r.IntN(clinicians)))},
			}}},
			{"period", period},
			{"reasonCode", list{concept(sysSNOMED, "38341003", "Hypertensive disorder")}},
		}
		if class.code == "IMP" {
			e = append(e, field{"hospitalization", obj{{"dischargeDisposition", obj{{"text", "Home"}}}}})
		}
		out = append(out, append(e, field{"serviceProvider", reference("Organization/" + hospitalID)}))
	}
	return out
}

func allergies(p *person) []obj {
	substances := []struct{ code, name, category, reaction, manifestation string }{
		{"91936005", "Allergy to penicillin", "medication", "271807003", "Eruption of skin"},
		{"91935009", "Allergy to peanut", "food", "39579001", "Anaphylaxis"},
		{"300916003", "Allergy to latex", "environment", "247472004", "Weal"},
	}
	base := func(verification string) obj {
		out := obj{{"resourceType", "AllergyIntolerance"}, {"id", uuid(p.r)}}
		if verification != "entered-in-error" { // R4 ait-1, ait-2
			out = append(out, field{"clinicalStatus", obj{{"coding", list{coding(sysTerminology+"allergyintolerance-clinical", "active", "")}}}})
		}
		return append(out, field{"verificationStatus", obj{{"coding", list{coding(sysTerminology+"allergyintolerance-verification", verification, "")}}}})
	}
	if p.n%5 == 1 { // a statement that there is none (DOMAIN §6)
		return []obj{append(base("confirmed"),
			field{"code", concept(sysSNOMED, "716186003", "No known allergy")},
			field{"patient", p.ref()},
			field{"recordedDate", day(p.past(0))},
		)}
	}
	var out []obj
	for i := range p.r.IntN(3) + p.n%2 {
		s := substances[(p.n+i)%len(substances)]
		verification := "confirmed"
		if p.trait() == 3 && i == 0 {
			verification = "entered-in-error"
		}
		out = append(out, append(base(verification),
			field{"type", "allergy"},
			field{"category", list{s.category}},
			field{"criticality", pick(p.r, []string{"low", "high", "unable-to-assess"})},
			field{"code", concept(sysSNOMED, s.code, s.name)},
			field{"patient", p.ref()},
			field{"recordedDate", moment(p.past(i))},
			field{"reaction", list{obj{
				{"manifestation", list{concept(sysSNOMED, s.reaction, s.manifestation)}},
				{"severity", pick(p.r, []string{"mild", "moderate", "severe"})},
			}}},
		))
	}
	return out
}

func medications(p *person) []obj {
	var out []obj
	for i := range 1 + p.r.IntN(3) {
		d := drugs()[(p.n+3*i)%len(drugs())]
		dosage := list{obj{
			{"text", d.dose + " by mouth"},
			{"timing", obj{{"repeat", obj{{"frequency", d.perDay}, {"period", json.Number("1")}, {"periodUnit", "d"}}}}},
			{"doseAndRate", list{obj{{"doseQuantity", obj{{"value", json.Number(d.dose[:1])}, {"unit", "tablet"}}}}}},
		}}
		status := pick(p.r, []string{"active", "active", "completed", "stopped"})
		out = append(out, obj{
			{"resourceType", "MedicationRequest"},
			{"id", uuid(p.r)},
			{"status", status},
			{"intent", "order"},
			{"category", list{concept(sysTerminology+"medicationrequest-category", "outpatient", "Outpatient")}},
			{"medicationCodeableConcept", concept(sysRxNorm, d.code, d.name)},
			{"subject", p.ref()},
			{"encounter", p.encounter()},
			{"authoredOn", moment(p.past(i))},
			{"requester", reference("Practitioner/" + clinicianID(p.r.IntN(clinicians)))},
			{"dosageInstruction", dosage},
		})
	}
	if p.n%3 == 0 { // what the patient says to take
		d := drugs()[(p.n+1)%len(drugs())]
		status := "active"
		if p.trait() == 9 {
			status = "entered-in-error"
		}
		out = append(out, obj{
			{"resourceType", "MedicationStatement"},
			{"id", uuid(p.r)},
			{"status", status},
			{"medicationCodeableConcept", concept(sysRxNorm, d.code, d.name)},
			{"subject", p.ref()},
			{"effectivePeriod", obj{{"start", p.past(2).Format("2006-01")}}}, // a partial date
			{"dateAsserted", day(p.past(0))},
			{"informationSource", p.ref()},
			{"dosage", list{obj{{"text", d.dose + " as needed"}, {"asNeededBoolean", true}}}},
		})
	}
	return out
}

// consents makes what the patient agreed to (DOMAIN §7). R4: the root provision has no type; the base rule comes from
// policyRule.
func consents(p *person) []obj {
	if p.trait() == 18 {
		return nil // most stay without consent somewhere
	}
	status, rule := "active", "OPTIN"
	switch p.trait() {
	case 7:
		status = "inactive"
	case 12:
		rule = "OPTOUT"
	case 17:
		status = "entered-in-error"
	}
	signed := p.past(0)
	provision := obj{{"period", obj{{"start", day(signed)}, {"end", day(signed.AddDate(8, 0, 0))}}}}
	if p.trait() == 2 { // all but psychotherapy
		provision = append(provision, field{"provision", list{obj{
			{"type", "deny"},
			{"securityLabel", list{coding(sysTerminology+"v3-ActCode", "PSY", "psychiatry disorder information sensitivity")}},
		}}})
	}
	return []obj{{
		{"resourceType", "Consent"},
		{"id", uuid(p.r)},
		{"status", status},
		{"scope", obj{{"coding", list{coding(sysTerminology+"consentscope", "patient-privacy", "Privacy Consent")}}}},
		{"category", list{concept(sysLOINC, "59284-0", "Consent Document")}},
		{"patient", p.ref()},
		{"dateTime", moment(signed)},
		{"performer", list{p.ref()}},
		{"organization", list{reference("Organization/" + hospitalID)}},
		{"policyRule", obj{{"coding", list{coding(sysTerminology+"v3-ActCode", rule, "")}}}},
		{"provision", provision},
	}}
}

// encounter refers to one of the patient's encounters.
func (p *person) encounter() obj { return reference("Encounter/" + pick(p.r, p.encounters)) }

// past gives a moment in 2019 to 2023, the earlier the larger i.
func (p *person) past(i int) time.Time {
	start := time.Date(2023-i%5, 1, 1, 8, 0, 0, 0, hospitalZone())
	return start.Add(time.Duration(p.r.IntN(300*24*60)) * time.Minute)
}

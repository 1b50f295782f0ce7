package sandbox

import "net/http"

// metadata answers the CapabilityStatement (R4 §3.1.0.9 capabilities). It needs no token.
func (s *Server) metadata(w http.ResponseWriter, r *http.Request) {
	if s.hinder(w, kindMetadata) {
		return
	}
	if p := s.acceptable(r); p != nil {
		p.write(w)
		return
	}
	writeJSON(w, fhirJSON, http.StatusOK, s.capabilities(r))
}

func (s *Server) capabilities(r *http.Request) obj {
	f := s.faults.get()
	fhirVersion := "4.0.1"
	if f.STU3 {
		fhirVersion = "3.0.2"
	}
	var resources list
	for _, typ := range s.servedTypes() {
		interactions := list{obj{{"code", "read"}}}
		versioning := "versioned"
		if s.vendor.hidesVersions {
			versioning = "no-version"
		} else {
			interactions = append(interactions, obj{{"code", "vread"}}, obj{{"code", "history-instance"}})
		}
		if s.createOnly(typ) && !s.store.based(typ) {
			interactions = nil
		}
		if s.vendor.writes.offers(typ, "c") {
			interactions = append(interactions, obj{{"code", "create"}})
		}
		if s.vendor.writes.offers(typ, "u") {
			interactions = append(interactions, obj{{"code", "update"}})
		}
		var params list
		for _, name := range s.vendor.offered(typ) {
			shown := name
			if name == "_lastUpdated" && s.vendor.spellsLower {
				shown = "_lastupdated"
			}
			params = append(params, obj{{"name", shown}, {"type", paramType(name)}})
		}
		resource := obj{
			{"type", typ},
			{"interaction", interactions},
			{"versioning", versioning},
			{"readHistory", !s.vendor.hidesVersions},
			{"conditionalCreate", s.vendor.writes.conditional && s.vendor.writes.offers(typ, "c")},
		}
		if typ != groupType && (!s.createOnly(typ) || s.store.based(typ)) {
			resource = resource.with("interaction", append(interactions, obj{{"code", "search-type"}}))
			resource = append(resource, field{"searchParam", params})
		}
		if typ == "Patient" && s.vendor.nearPatients {
			resource = append(resource, field{"operation", list{obj{
				{"name", "match"}, {"definition", "http://hl7.org/fhir/OperationDefinition/Patient-match"},
			}}})
		}
		resources = append(resources, resource)
	}
	security := obj{
		{"extension", list{obj{
			{"url", "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"},
			{"extension", list{obj{{"url", "token"}, {"valueUri", s.origin(r) + "/oauth/token"}}}},
		}}},
		{"service", list{obj{{"coding", list{obj{
			{"system", "http://terminology.hl7.org/CodeSystem/restful-security-service"}, {"code", "SMART-on-FHIR"},
		}}}}}},
	}
	return obj{
		{"resourceType", "CapabilityStatement"},
		{"status", "active"},
		{"date", "2026-01-01"},
		{"publisher", "Cura"},
		{"kind", "instance"},
		{"software", obj{{"name", s.vendor.software}}},
		{"implementation", obj{{"description", "An EHR to rehearse on"}, {"url", s.base(r)}}},
		{"fhirVersion", fhirVersion},
		{"format", list{"json", "application/fhir+json"}},
		{"rest", list{obj{{"mode", "server"}, {"security", security}, {"resource", resources}}}},
	}
}

// paramType is the type of a search parameter (R4 §3.1.1.4).
func paramType(name string) string {
	switch name {
	case "_lastUpdated", "date", "birthdate", "recorded-date":
		return "date"
	case "family", "given":
		return "string"
	case "patient", "subject", "encounter":
		return "reference"
	default:
		return "token"
	}
}

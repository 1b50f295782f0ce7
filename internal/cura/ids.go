// Package cura is the vocabulary that every other package speaks: opaque ids, the closed lists of states, and the
// records that a hospital's resources become. It is plain data and imports the standard library alone.
package cura

import (
	"crypto/rand"
	"fmt"
	"slices"
)

// The ids below are UUIDs in their canonical text form, made by Cura. They mean nothing outside Cura, so they may
// appear in workflow ids, logs and error texts. The ids that an EHR gives its resources are PHI and are plain strings
// named EHRID, so that the two can't be mixed up.
type (
	// OrgID names a hospital organization, the unit of isolation.
	OrgID string
	// ConnectionID names one EHR endpoint of an org.
	ConnectionID string
	// ProfileID names a Cura profile, a person as Cura knows them.
	ProfileID string
	// DeadLetterID names work that used up its retries.
	DeadLetterID string
)

// ResourceType is a FHIR R4 resource type name, spelled as in the specification.
type ResourceType string

// The resource types that Cura pulls.
const (
	Patient             ResourceType = "Patient"
	AllergyIntolerance  ResourceType = "AllergyIntolerance"
	MedicationRequest   ResourceType = "MedicationRequest"
	MedicationStatement ResourceType = "MedicationStatement"
	Observation         ResourceType = "Observation"
	Encounter           ResourceType = "Encounter"
	Consent             ResourceType = "Consent"
)

// ResourceTypes lists what Cura pulls, patients first: every other type hangs on a patient.
func ResourceTypes() []ResourceType {
	return []ResourceType{
		Patient, AllergyIntolerance, MedicationRequest, MedicationStatement, Observation, Encounter, Consent,
	}
}

// Pulled reports whether Cura pulls resources of this type.
func (t ResourceType) Pulled() bool {
	return slices.Contains(ResourceTypes(), t)
}

// NewRunID makes the id of a run: a UUID, version 4.
func NewRunID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // crypto/rand never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

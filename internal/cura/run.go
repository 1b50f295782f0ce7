package cura

// RunKind is what kind of run reads the EHR.
type RunKind string

// The kinds of run.
const (
	RunBackfill    RunKind = "backfill"
	RunIncremental RunKind = "incremental"
	RunPilot       RunKind = "pilot"
	RunReplay      RunKind = "replay"
	// RunRange reads a range again that a person has named.
	RunRange RunKind = "range"
	// RunPatient reads single patients at once.
	RunPatient RunKind = "patient"
	// RunReconcile compares the source with Cura.
	RunReconcile RunKind = "reconcile"
	// RunRemap maps again what has landed, without the EHR.
	RunRemap RunKind = "remap"
)

// GoneReason is why a record is a tombstone: the EHR has it no more, and its row stays for the audit.
type GoneReason string

// The reasons.
const (
	// GoneDeleted: the EHR answers 410 for it.
	GoneDeleted GoneReason = "gone"
	// GoneAbsent: two whole reads haven't brought it, and the EHR answers 404 for it.
	GoneAbsent GoneReason = "absent"
	// GoneEnteredInError: the EHR has withdrawn it.
	GoneEnteredInError GoneReason = "entered-in-error"
)

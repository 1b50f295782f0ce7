package cura

// RunKind is what kind of run reads the EHR.
type RunKind string

// The kinds of run.
const (
	RunBackfill    RunKind = "backfill"
	RunIncremental RunKind = "incremental"
	RunPilot       RunKind = "pilot"
	RunReplay      RunKind = "replay"
)

//go:build !failpoints

// Package failpoint names the places where a crash test kills the process. In an ordinary build a place costs nothing
// and does nothing; built with -tags failpoints, the process that reaches the named place kills itself with SIGKILL.
package failpoint

// The places, in the order in which a pull passes them.
const (
	PageFetched     = "pull/page-fetched"
	PageCommitted   = "pull/page-committed"
	WindowNarrowed  = "pull/window-narrowed"
	PoisonPassed    = "pull/poison-passed"
	PatientFinished = "pull/patient-finished"
	PageCompared    = "reconcile/page-compared"
	PilotPatient    = "pilot/patient-stored"
)

// Reach marks a named place.
func Reach(string) {}

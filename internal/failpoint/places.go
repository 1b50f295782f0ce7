// Package failpoint names the places where a crash test ends or stops the process, and the safeguards that a test of such a
// test takes out. In an ordinary build a place costs nothing and does nothing, and no safeguard can be taken out; only with
// -tags failpoints do the variables CURA_FAILPOINT, CURA_FAILPOINT_SIGNAL, CURA_FAILPOINT_REACHED and CURA_FAILPOINT_OFF count.
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
	PageRetaken     = "remap/page-committed"
)

// The places that a sender passes, then those of a revoker (internal/store/halt.go).
const (
	IntentWritten     = "push/intent-written"
	SendPrepared      = "push/prepared"
	SentMarked        = "push/sent-marked"
	HaltAskedOnce     = "push/halt-asked"
	HeadLocked        = "push/head-locked"
	HeadHeld          = "push/head-held"
	WriteAnswered     = "push/answered"
	SettlementWritten = "push/settlement-written"
	Settled           = "push/settled"

	ConsentHalted = "consent/halted"
	RevokerLocked = "consent/head-locked"
	RevokerWaited = "consent/waited"
	EpochMoved    = "consent/epoch-moved"
)

// HeadKept is between the moment when a signed head of the audit log is in its file and the commit of its transaction.
const HeadKept = "audit/head-kept"

// The safeguards of a send (internal/store/halt.go) that CURA_FAILPOINT_OFF can name: each of them alone keeps disclosures
// from arriving after a revocation in a case that the others don't cover.
const (
	// Lock is the sender's lock on the consent head.
	Lock = "lock"
	// Check is the sender's look at halts and epoch.
	Check = "check"
	// DeadlineWait is the revoker's wait for sends that may still begin.
	DeadlineWait = "deadline-wait"
)

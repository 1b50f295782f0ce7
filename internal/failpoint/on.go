//go:build failpoints

// Package failpoint names the places where a crash test kills the process. In an ordinary build a place costs nothing
// and does nothing; built with -tags failpoints, the process that reaches the named place kills itself with SIGKILL.
package failpoint

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

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

var (
	mu   sync.Mutex
	seen = map[string]int{}
)

// Reach kills the process when CURA_FAILPOINT is "place:n" and this is the nth time that the place is reached. The file
// named by CURA_FAILPOINT_REACHED is made first, so that a test can tell a kill from a place that never came.
func Reach(place string) {
	wanted, count, ok := strings.Cut(os.Getenv("CURA_FAILPOINT"), ":")
	if !ok || wanted != place {
		return
	}
	n, err := strconv.Atoi(count)
	if err != nil {
		panic("CURA_FAILPOINT isn't place:n")
	}
	mu.Lock()
	defer mu.Unlock()
	seen[place]++
	if seen[place] != n {
		return
	}
	if err := os.WriteFile(os.Getenv("CURA_FAILPOINT_REACHED"), []byte(place), 0o600); err != nil {
		panic(err)
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

package activities

import (
	"runtime"

	"golang.org/x/sync/semaphore"
)

// handful is how many bytes of resources are validated and mapped at a time, where there are that many.
const handful = 256 << 10

// processors shares the processors between all that is validated and mapped in the process, in the order of asking. It is
// weighed by bytes, not by resources: google/fhir builds some dozen times a resource's bytes, so the largest go alone.
type processors struct {
	*semaphore.Weighted

	count int64
}

func newProcessors() processors {
	count := int64(runtime.GOMAXPROCS(0))
	return processors{semaphore.NewWeighted(count * handful), count}
}

// weight is what so many bytes take of the processors: one of them, or more, or all.
func (p processors) weight(bytes int64) int64 { return min(max(bytes, handful), p.count*handful) }

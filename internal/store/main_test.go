package store_test

import (
	"os"
	"testing"

	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// cluster is the PostgreSQL of this package's tests.
var cluster *storetest.Cluster

func TestMain(m *testing.M) {
	os.Exit(storetest.Main(m, func(c *storetest.Cluster) { cluster = c }))
}

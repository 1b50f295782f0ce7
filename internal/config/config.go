// Package config reads the settings of the processes from the environment, once. Temporal's own settings are the
// standard TEMPORAL_* variables and are read by its SDK.
package config

import (
	"errors"
	"fmt"
	"time"

	"github.com/caarlos0/env/v11"
)

// Config is what worker and starter need to know.
type Config struct {
	// DatabaseURL is a PostgreSQL URL that logs in as cura_worker.
	DatabaseURL string `env:"CURA_DATABASE_URL"`
	// KeyFile is the Tink keyset that seals credentials; made by `starter keygen`.
	KeyFile string `env:"CURA_KEY_FILE"`
	// AlertWebhook is a URL that gets a JSON POST for each alert; empty: none.
	AlertWebhook string `env:"CURA_ALERT_WEBHOOK"`
	// AlertWebhookSecretFile holds the secret that alerts are signed with; empty: they go out unsigned. It is read for
	// each alert, so that it can be changed without a restart.
	AlertWebhookSecretFile string `env:"CURA_ALERT_WEBHOOK_SECRET_FILE"`
	// AuditKeyFile is the key that signs the heads of the audit log, made by `starter audit keygen`; AuditHeadsDir is the folder, out of
	// reach of the database's administrators, in which they are kept. Empty: the log isn't sealed.
	AuditKeyFile  string `env:"CURA_AUDIT_KEY_FILE"`
	AuditHeadsDir string `env:"CURA_AUDIT_HEADS_DIR"`
	// LogLevel is debug, info, warn or error.
	LogLevel string `env:"CURA_LOG_LEVEL" envDefault:"info"`
	// HealthAddr is where the worker answers GET /healthz and GET /metrics; empty: nowhere.
	HealthAddr string `env:"CURA_HEALTH_ADDR" envDefault:"127.0.0.1:0"`

	// PageSize is the _count asked for. 500 is the knee of the cost curve.
	PageSize int `env:"CURA_PAGE_SIZE" envDefault:"500"`
	// MaxResourceBytes is the size above which a resource is counted and quarantined, not read.
	MaxResourceBytes int64 `env:"CURA_MAX_RESOURCE_BYTES" envDefault:"16777216"`
	// Overlap is how far before the watermark an incremental read begins.
	Overlap time.Duration `env:"CURA_OVERLAP" envDefault:"10m"`
	// RetryAttempts is how often one request is tried before its work becomes a dead letter. Throttling doesn't count.
	RetryAttempts int `env:"CURA_RETRY_ATTEMPTS" envDefault:"8"`
	// RetryInitial and RetryMax bound the exponential backoff between attempts, before jitter.
	RetryInitial time.Duration `env:"CURA_RETRY_INITIAL" envDefault:"1s"`
	RetryMax     time.Duration `env:"CURA_RETRY_MAX" envDefault:"1m"`
	// ChunkResources and ChunkTime bound one Pull activity: it ends at whichever comes first, and the workflow goes on.
	ChunkResources int           `env:"CURA_CHUNK_RESOURCES" envDefault:"20000"`
	ChunkTime      time.Duration `env:"CURA_CHUNK_TIME" envDefault:"5m"`
	// ProbeInitial and ProbeMax bound the time between two probes of an EHR that is down.
	ProbeInitial time.Duration `env:"CURA_PROBE_INITIAL" envDefault:"5s"`
	ProbeMax     time.Duration `env:"CURA_PROBE_MAX" envDefault:"5m"`

	// SendSlots is how many writes to EHRs a worker has under way at once: each holds a database session of its own.
	SendSlots int `env:"CURA_SEND_SLOTS" envDefault:"16"`
	// SendGrace is how long a write may take from when it is promised until its first byte must have left. A revocation that
	// meets a worker that has died waits for it.
	SendGrace time.Duration `env:"CURA_SEND_GRACE" envDefault:"5s"`
	// BulkSlots is how many Pull activities a worker runs at once, OrgSlots how many of them for one org: fewer, so that
	// one hospital's backfill leaves room for the others.
	BulkSlots int `env:"CURA_BULK_SLOTS" envDefault:"4"`
	OrgSlots  int `env:"CURA_ORG_SLOTS" envDefault:"2"`
	// MemoryLimit is the size of its memory from which on the worker collects garbage eagerly, where GOMEMLIMIT doesn't
	// say; 0: none.
	MemoryLimit Bytes `env:"CURA_MEMORY_LIMIT" envDefault:"160MiB"`
	// GoMemoryLimit is what Go's runtime reads by itself.
	GoMemoryLimit string `env:"GOMEMLIMIT"`
}

// Read reads and checks the environment. Its errors name the variable and the bound.
func Read() (Config, error) {
	var c Config
	if err := env.Parse(&c); err != nil {
		return Config{}, fmt.Errorf("reading the environment: %w", err)
	}
	return c, c.validate()
}

func (c Config) validate() error {
	switch {
	case c.PageSize < 1 || c.PageSize > 1000:
		return fmt.Errorf("CURA_PAGE_SIZE is %d; it must be 1 to 1000", c.PageSize)
	case c.MaxResourceBytes < 1<<10:
		return fmt.Errorf("CURA_MAX_RESOURCE_BYTES is %d; it must be at least 1024", c.MaxResourceBytes)
	case c.Overlap < 0:
		return fmt.Errorf("CURA_OVERLAP is %s; it must not be negative", c.Overlap)
	case c.RetryAttempts < 1:
		return fmt.Errorf("CURA_RETRY_ATTEMPTS is %d; it must be at least 1", c.RetryAttempts)
	case c.RetryInitial <= 0 || c.RetryMax < c.RetryInitial:
		return fmt.Errorf("CURA_RETRY_INITIAL is %s and CURA_RETRY_MAX %s; they must be positive and in that order", c.RetryInitial, c.RetryMax)
	case c.ChunkResources < 1 || c.ChunkTime <= 0:
		return errors.New("CURA_CHUNK_RESOURCES and CURA_CHUNK_TIME must be positive")
	case c.ProbeInitial <= 0 || c.ProbeMax < c.ProbeInitial:
		return fmt.Errorf("CURA_PROBE_INITIAL is %s and CURA_PROBE_MAX %s; they must be positive and in that order", c.ProbeInitial, c.ProbeMax)
	case c.SendSlots < 1 || c.SendSlots > 1000:
		return fmt.Errorf("CURA_SEND_SLOTS is %d; it must be 1 to 1000", c.SendSlots)
	case c.SendGrace < time.Second || c.SendGrace > time.Minute:
		return fmt.Errorf("CURA_SEND_GRACE is %s; it must be 1s to 1m", c.SendGrace)
	case c.OrgSlots < 1 || c.OrgSlots >= c.BulkSlots:
		return fmt.Errorf("CURA_ORG_SLOTS is %d and CURA_BULK_SLOTS %d; an org must get at least one slot and leave at least one to the others",
			c.OrgSlots, c.BulkSlots)
	}
	return c.validateAlerts()
}

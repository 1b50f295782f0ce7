package config

import "errors"

// SealsAudit reports whether the worker seals the audit log; it fails where only one of the two settings is there that it takes.
func (c Config) SealsAudit() (bool, error) {
	if (c.AuditKeyFile == "") != (c.AuditHeadsDir == "") {
		return false, errors.New("CURA_AUDIT_KEY_FILE and CURA_AUDIT_HEADS_DIR go together: set both to have the audit log sealed, or neither")
	}
	return c.AuditKeyFile != "", nil
}

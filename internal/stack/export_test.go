package stack

import "os"

// PostgresProcess gives tests the server's process.
func PostgresProcess(p *Postgres) *Process { return p.process }

// OutsideDir gives tests the folder for a cluster that can't lie in dir.
func OutsideDir(dir string) string { return outsideDir(dir) }

// WithInherited lets tests see by an open file when a child and all its children have ended.
func (c ProcessConfig) WithInherited(f *os.File) ProcessConfig {
	c.inherit = append(c.inherit, f)
	return c
}

// Ports gives tests the ports that the server has got.
func (t *Temporal) Ports() (frontend, ui int) { return t.port, t.uiPort }

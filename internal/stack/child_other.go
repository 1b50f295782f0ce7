//go:build unix && !linux

package stack

import "syscall"

// lcCtype makes upper, lower and regular expressions know all of Unicode; macOS and the BSDs call it so.
const lcCtype = "UTF-8"

// Only Linux can signal a child when its parent dies; elsewhere the next start stops what was left.
func childAttr(as *syscall.Credential, _ syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: as}
}

package stack

import "syscall"

// lcCtype makes upper, lower and regular expressions know all of Unicode; Debian's C library always has it.
const lcCtype = "C.UTF-8"

func childAttr(as *syscall.Credential, onParentDeath syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: onParentDeath, Credential: as}
}

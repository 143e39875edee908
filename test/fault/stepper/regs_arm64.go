package stepper

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// legacy is empty: this architecture has no second call for one thing.
var legacy map[uint64]string

// Register sets of elf.h.
const (
	ntPRStatus      = 1
	ntARMSystemCall = 0x404
)

// skip has the kernel not make the call that the task enters.
func skip(tid int) error {
	nr := int32(-1)
	v := unix.Iovec{Base: (*byte)(unsafe.Pointer(&nr)), Len: 4}
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SETREGSET, uintptr(tid), ntARMSystemCall, uintptr(unsafe.Pointer(&v)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// answer gives the call that the task leaves an error for a result.
func answer(tid int, errno unix.Errno) error {
	var regs unix.PtraceRegsArm64
	if err := unix.PtraceGetRegSetArm64(tid, ntPRStatus, &regs); err != nil {
		return err
	}
	regs.Regs[0] = -uint64(errno)
	return unix.PtraceSetRegSetArm64(tid, ntPRStatus, &regs)
}

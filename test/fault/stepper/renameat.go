//go:build !riscv64

package stepper

import "golang.org/x/sys/unix"

const renameat = unix.SYS_RENAMEAT

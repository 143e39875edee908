//go:build !riscv64

package hostlocal_test

import "golang.org/x/sys/unix"

const renameat = unix.SYS_RENAMEAT

package hostlocal_test

import "golang.org/x/sys/unix"

const renameat = unix.SYS_RENAMEAT2 // riscv64 has no other

package stepper

// renameat is no call of riscv64, which has renameat2 alone.
const renameat = 1 << 63

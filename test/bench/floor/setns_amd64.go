package main

// sysSetns is setns(2), which package syscall does not know.
const sysSetns = 308

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"github.com/netcleat/netcleat/test/vm/internal/job"
)

// emulate is how a processor is emulated. There is one: of two with a thread each, one can execute what the other has just
// patched away, which is an oops (int3) of a kernel that is right; two that share a thread wait for each other.
const emulate = "tcg,thread=single"

// machine is one boot.
type machine struct {
	Kernel    *kernel
	Tests     int // how many binaries it runs
	Initramfs string
	Append    string // to the kernel's command line
	Console   string // the file that receives the kernel's messages
	Accel     string
}

// commandLine is what the kernel is told. Modules that make a device when they are loaded are told not to; a panic ends the
// machine. Stall detectors and the check of the timer are off: on a busy host the machine's processor stands still without a
// fault of the kernel. What waits for an RCU grace period, as the deletion of a link does, asks for a short one.
const commandLine = "console=ttyS0 loglevel=5 panic=-1 oops=panic mitigations=off nokaslr nowatchdog no_timer_check rcupdate.rcu_cpu_stall_suppress=1 rcupdate.rcu_expedited=1 " +
	"apparmor=0 dummy.numdummies=0 ifb.numifbs=0 bonding.max_bonds=0"

func (m *machine) args() []string {
	return []string{
		"-accel", m.Accel, "-cpu", "max,la57=off", "-smp", "1", "-m", "1536M",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", m.Kernel.Image, "-initrd", m.Initramfs, "-append", strings.TrimSpace(commandLine + " " + m.Append),
		"-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap",
		"-device", "virtio-9p-pci,fsdev=root,mount_tag=root",
		"-device", "virtio-serial-pci",
		"-device", "virtio-net-pci,romfile=,mac=" + job.NIC, // without a driver until a test loads it
	}
}

// run boots the machine and hands each event of the guest to handle. It returns when the machine is off; when ctx ends first,
// the machine does too.
func (m *machine) run(ctx context.Context, handle func(job.Event)) error {
	cmd := m.command(ctx,
		"-chardev", "file,id=events,path=/dev/stdout", "-device", "virtserialport,chardev=events,name=events",
		"-chardev", "file,id=console,path="+m.Console, "-serial", "chardev:console")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var said strings.Builder
	cmd.Stderr = &said
	// The machine dies with the thread that started it, which must not be one that Go ends early.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("qemu: %w", err)
	}
	readErr := readEvents(out, handle)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("qemu: %w: %s", err, strings.TrimSpace(said.String()))
	}
	return readErr
}

// shell boots the machine with its serial console on this terminal.
func (m *machine) shell(ctx context.Context) error {
	cmd := m.command(ctx,
		"-chardev", "file,id=events,path=/dev/null", "-device", "virtserialport,chardev=events,name=events",
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return cmd.Run()
}

func (m *machine) command(ctx context.Context, devices ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", append(m.args(), devices...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// readEvents hands each event to handle until the stream ends. It drains the stream after an event that it cannot read, so
// that the machine does not wait for a reader.
func readEvents(r io.Reader, handle func(job.Event)) error {
	events := json.NewDecoder(r)
	for {
		var e job.Event
		err := events.Decode(&e)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			_, drainErr := io.Copy(io.Discard, r)
			return errors.Join(fmt.Errorf("event: %w", err), drainErr)
		}
		handle(e)
	}
}

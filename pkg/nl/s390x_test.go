package nl

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestByteOrder holds on s390x, which has the network's order of bytes.
func TestS390x(t *testing.T) {
	const emulator = "qemu-s390x-static"
	qemu, err := exec.LookPath(emulator)
	if err != nil {
		t.Skipf("no %s (make install-deps)", emulator)
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("no go, which builds for s390x")
	}
	if os.Geteuid() != 0 {
		t.Skip("runs as root: as another user it would build the standard library once more, and say the same")
	}
	program := filepath.Join(t.TempDir(), "test")
	build := exec.CommandContext(t.Context(), goTool, "test", "-c", "-vet=off", "-o", program, ".")
	build.Env = append(os.Environ(), "GOOS=linux", "GOARCH=s390x", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), qemu, program, "-test.run", "^TestByteOrder$", "-test.v").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

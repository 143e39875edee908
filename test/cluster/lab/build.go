package lab

import (
	"fmt"
	"os"
	"os/exec"
)

// Build builds the plugins' program, the command, and more packages into a directory, which
// the caller removes. It is called in a package two levels below the repository's root.
func Build(more ...string) (dir string, err error) {
	if dir, err = os.MkdirTemp("", "lab-programs"); err != nil {
		return "", err
	}
	args := append([]string{"build", "-o", dir, "../../cmd/cni", "../../cmd/netcleat"}, more...)
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return dir, fmt.Errorf("%w: %s", err, out)
	}
	return dir, nil
}

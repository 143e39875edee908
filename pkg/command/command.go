// Package command finds the operator's command, which is also the daemons that
// plugins talk to.
package command

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Name is the command's.
const Name = "netcleat"

// Path returns where the command is: next to the plugins, or on PATH.
func Path() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return "", err
	}
	next := filepath.Join(filepath.Dir(self), Name)
	if st, err := os.Stat(next); err == nil && st.Mode().IsRegular() {
		return next, nil
	}
	path, err := exec.LookPath(Name)
	if err != nil {
		return "", errors.Join(fmt.Errorf("no %s next to %s", Name, self), err)
	}
	return path, nil
}

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

// Path returns where the command is: next to the plugins, on PATH, or where it is usually
// installed.
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
	if err == nil {
		return path, nil
	}
	if path := Usual(); path != "" {
		return path, nil
	}
	return "", errors.Join(fmt.Errorf("no %s next to %s, in %s or in %s", Name, self, usual[0], usual[1]), err)
}

// usual are where the command is installed, also where a runtime has no PATH.
var usual = [...]string{"/usr/local/bin", "/usr/bin"}

// Usual returns where the command is installed for all runtimes to find; "" is nowhere.
func Usual() string {
	for _, dir := range usual {
		path := filepath.Join(dir, Name)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
			return path
		}
	}
	return ""
}

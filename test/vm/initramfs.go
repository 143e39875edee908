package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"github.com/netcleat/netcleat/test/vm/internal/job"
)

// packInitramfs writes what the guest starts from: its init, the modules that lead to the host's files, and the job.
func packInitramfs(file, init string, j *job.Job) error {
	var a archive
	a.dir("dev")
	a.console("dev/console")
	if err := a.file("init", init); err != nil {
		return err
	}
	packed := *j
	packed.Early = nil
	for _, module := range j.Early {
		name := filepath.Base(module)
		if err := a.file(name, module); err != nil {
			return err
		}
		packed.Early = append(packed.Early, "/"+name)
	}
	text, err := json.Marshal(packed)
	if err != nil {
		return err
	}
	a.entry(path.Base(job.Path), 0o100644, text)
	a.end()
	return os.WriteFile(file, a.Bytes(), 0o644)
}

// archive is a cpio archive in the form that the kernel reads ("newc", Documentation/driver-api/early-userspace).
type archive struct {
	bytes.Buffer
	inode int
}

// Numbers of the console's device.
const ttyMajor, consoleMinor = 5, 1

func (a *archive) dir(name string)     { a.header(name, 0o040755, 0, [2]int{}) }
func (a *archive) console(name string) { a.header(name, 0o020600, 0, [2]int{ttyMajor, consoleMinor}) }

// end closes the archive.
func (a *archive) end() { a.header("TRAILER!!!", 0, 0, [2]int{}) }

func (a *archive) file(name, source string) error {
	content, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	a.entry(name, 0o100755, content)
	return nil
}

func (a *archive) entry(name string, mode int, content []byte) {
	a.header(name, mode, len(content), [2]int{})
	a.Write(content)
	a.pad()
}

func (a *archive) header(name string, mode, size int, device [2]int) {
	a.inode++
	const owner, group, links, mtime = 0, 0, 1, 0
	fmt.Fprintf(a, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		a.inode, mode, owner, group, links, mtime, size, 0, 0, device[0], device[1], len(name)+1, 0, name)
	a.pad()
}

// pad fills up to a multiple of four.
func (a *archive) pad() {
	a.Write(make([]byte, -a.Len()&3))
}
